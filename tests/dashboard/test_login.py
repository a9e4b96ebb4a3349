"""Who sees the pages of a dashboard with a login of its own; `tests/e2e/test_dashboard_login.py` logs in for real."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from brainunet_dashboard import opened
from brainunet_dashboard.source import Source
from tests.support.watched import eventful


@pytest.fixture
def federation(database: Path) -> str:
    return eventful(database)


def test_with_a_login_nothing_is_shown_to_somebody_unknown(
    database: Path, monkeypatch: pytest.MonkeyPatch, federation: str
) -> None:
    monkeypatch.setattr(opened, "source", Source(database, needs_login=True, allowed=("ann@example.org",)))

    test = AppTest.from_string("from brainunet_dashboard.app import main\nmain()", default_timeout=60).run()

    assert [button.label for button in test.button] == ["Log in"]
    assert not test.dataframe
    assert not test.metric


def test_a_login_is_not_enough_for_somebody_who_is_not_allowed(
    database: Path, monkeypatch: pytest.MonkeyPatch, federation: str
) -> None:
    monkeypatch.setattr(opened, "source", Source(database, needs_login=True, allowed=("ann@example.org",)))
    for who, may in (("ann@example.org", True), ("bob@example.org", False)):
        told = {"is_logged_in": True, "email": who, "email_verified": True}
        monkeypatch.setattr(type(st.user), "to_dict", lambda self, told=told: told)
        test = AppTest.from_string("from brainunet_dashboard.app import main\nmain()", default_timeout=60).run()

        assert bool(test.metric) is may
        assert [button.label for button in test.button] == ["Log out"]
