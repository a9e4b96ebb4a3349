"""The file that Streamlit runs for every open page.

It lies in a folder of its own for two reasons: Streamlit takes a folder ``pages`` beside it for its own kind, and puts the
folder that it lies in at the front of ``sys.path``, where our modules would hide others of the same names.
"""

from __future__ import annotations

from brainunet_dashboard.app import main

if __name__ == "__main__":
    main()
