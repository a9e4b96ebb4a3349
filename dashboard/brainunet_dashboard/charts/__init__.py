"""Tables in, figures out, a file for each kind. Names go through ``in_chart``, for plotly reads HTML in them."""
