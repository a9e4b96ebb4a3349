"""Rows of the store in, tables out: plain dicts and frozen dataclasses, one file for each subject. Nothing here knows Streamlit."""
