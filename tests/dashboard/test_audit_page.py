"""The page of the audit trail: searched, verified and exported, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from brainunet.chain import append
from brainunet_dashboard.source import Source
from tests.support.drawn import rows, words

Show = Callable[..., AppTest]


def test_the_audit_page_searches_verifies_and_exports(show: Show, tmp_path: Path, database: Path) -> None:
    for k in range(3):
        head = append(tmp_path / "audit.jsonl", "site-enrolled", {"site": f"S{k}", "note": "=1+1"})
    test = show("audit", Source(database, tmp_path))
    assert len(rows(test)) == 3

    test.text_input(key="audit words").set_value("s1").run()
    assert [row["site"] for row in rows(test)] == ["S1"]
    test.text_input(key="audit head").set_value(head.digest)
    test.button(key="audit verify").click().run()
    assert "3 entries, each as it was written" in words(test)
    assert "among them" in words(test)


def test_exports_are_offered_when_there_is_something_to_export(show: Show, tmp_path: Path, database: Path) -> None:
    test = show("audit", Source(database, tmp_path))
    assert not test.get("download_button")

    append(tmp_path / "audit.jsonl", "site-enrolled", {"site": "S1"})
    test.run()

    assert [button.proto.label for button in test.get("download_button")] == ["Export as CSV", "Export as JSON"]


def test_the_audit_page_says_where_a_chain_is_broken(show: Show, tmp_path: Path, database: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    for k in range(3):
        append(audit, "site-enrolled", {"site": f"S{k}"})
    audit.write_text(audit.read_text().replace("S1", "S9"))
    test = show("audit", Source(database, tmp_path))

    assert "line 2" in test.error[0].value
    assert [row["site"] for row in rows(test)] == ["S0"]
    test.button(key="audit verify").click().run()
    assert len(test.error) == 2
    assert not test.success


def test_the_audit_page_of_a_simulation_says_that_it_has_none(show: Show, database: Path, tmp_path: Path) -> None:
    assert "No audit trail here" in words(show("audit", Source(database, tmp_path)))
    assert "brainunet-dashboard DIR" in words(show("audit", Source(database)))
