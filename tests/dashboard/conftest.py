"""A store to look at, and pages that look at it without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from brainunet_dashboard import frame, opened
from brainunet_dashboard.feed import Feed
from brainunet_dashboard.source import Source


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def show(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Draw a page once, of the store or of another source; each drawing looks at the store anew, and waits for no lock."""
    feeds: list[Feed] = []

    def feed(database: str) -> Feed:
        feeds.append(Feed(database, fresh_s=0, wait_s=0.05))
        return feeds[-1]

    monkeypatch.setattr(frame, "Feed", feed)

    def drawn(page: str, source: Source | None = None, *, chosen: str | None = None) -> AppTest:
        monkeypatch.setattr(opened, "source", source or Source(database))
        test = AppTest.from_string(f"from brainunet_dashboard.pages import {page}\n{page}.show()", default_timeout=60)
        if chosen is not None:
            test.session_state["chosen run"] = chosen
        return test.run()

    yield drawn
    for one in feeds:
        one.close()
    st.cache_resource.clear()
    st.cache_data.clear()
