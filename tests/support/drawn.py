"""What a page that was drawn says."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest


def words(test: AppTest) -> str:
    """All that a person can read outside of tables and charts."""
    parts: list[Any] = [*test.title, *test.subheader, *test.markdown, *test.caption, *test.info, *test.warning, *test.error]
    parts += [*test.success, *test.code]
    return "\n".join([*(str(part.value) for part in parts), *(f"{one.label}: {one.value}" for one in test.metric)])


def rows(test: AppTest, place: int = 0) -> list[dict[str, Any]]:
    """The rows of a table, by its place on the page."""
    found: list[dict[str, Any]] = test.dataframe[place].value.to_dict("records")
    return found


def went_well(test: AppTest) -> bool:
    return not test.exception and not test.error
