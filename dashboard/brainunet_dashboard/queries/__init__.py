"""Rows of the store in, tables out: plain dicts and frozen dataclasses, a file for each subject. None knows Streamlit."""
