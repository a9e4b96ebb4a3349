"""Where the run stands, and how good its model is at each site."""

from __future__ import annotations

import streamlit as st


def show() -> None:
    st.title("Federation")
