"""Run for every open page: who may come in, and which pages there are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from brainunet_dashboard import opened
from brainunet_dashboard.access import may_enter
from brainunet_dashboard.pages import PAGES
from brainunet_dashboard.source import Source

ICON: Final = Path(__file__).with_name("icon.png")  # a named icon would be fetched from the Internet by the browser
# Room for the tables: Streamlit leaves 80 px on either side of a page.
STYLE: Final = """<style>
.stMainBlockContainer { padding-top: 2.5rem; padding-bottom: 3rem }
@media (min-width: 800px) { .stMainBlockContainer { padding-left: 2rem; padding-right: 2rem } }
</style>"""
SIDEBAR_PX: Final = 230


def main() -> None:
    st.set_page_config(page_title="BrainUNet-FL", page_icon=str(ICON), layout="wide", initial_sidebar_state=SIDEBAR_PX)
    st.html(STYLE)
    source = opened.source
    if source is None:
        st.error("Nothing to show: these pages are opened by `brainunet-dashboard DIR`.")
        return
    if source.needs_login and not _is_known(source):
        return
    st.navigation([st.Page(page.show, title=page.title, icon=page.icon, url_path=page.path) for page in PAGES]).run()
    st.sidebar.caption("Research only. Not a medical device: not for diagnosis or treatment.")


def _is_known(source: Source) -> bool:
    """Whether somebody who is allowed has logged in; asks for it otherwise."""
    told = st.user.to_dict()
    if told.get("is_logged_in") is not True:
        st.title("BrainUNet-FL")
        st.write("Log in to see the federation.")
        st.button("Log in", type="primary", on_click=st.login)
        return False
    if may_enter(told, source.allowed, takes_unverified=source.takes_unverified):
        st.sidebar.button("Log out", on_click=st.logout)
        return True
    st.error("This account is not among those that the coordinator has allowed in, or its address is not verified.")
    st.button("Log out", on_click=st.logout)
    return False
