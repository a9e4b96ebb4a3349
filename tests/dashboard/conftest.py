"""A store to look at, and pages that look at it without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from brainunet_dashboard import opened
from brainunet_dashboard.source import Source


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def show(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Draw a page once, of the store or of another source."""

    def drawn(page: str, source: Source | None = None, *, chosen: str | None = None) -> AppTest:
        monkeypatch.setattr(opened, "source", source or Source(database))
        test = AppTest.from_string(f"from brainunet_dashboard.pages import {page}\n{page}.show()", default_timeout=60)
        if chosen is not None:
            test.session_state["chosen run"] = chosen
        return test.run()

    yield drawn
    st.cache_resource.clear()
    st.cache_data.clear()
