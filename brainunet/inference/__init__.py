"""From a prepared case to a label map."""
