"""The register of excluded cases: when in doubt, it takes out more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.errors import PrivacyError
from brainunet.labels import Convention
from brainunet.records import Case
from brainunet_client.consent import TEMPLATE, allowed, read_register, without_effect
from tests.support.rights import open_folder, ordinary_rights

IDS = (
    "BraTS-SSA-00002-000",
    "BraTS-SSA-00002-001",
    "BraTS-SSA-00020-000",
    "BraTS2021_00626",
    "BraTS2021_00758",  # the same patient
    "patient#7",
    "Müller",
)


def cases(ids: Iterable[str] = IDS) -> list[Case]:
    return [Case(case_id, {}, None, Convention.BRATS2023) for case_id in ids]


def register(tmp_path: Path, content: str | bytes) -> frozenset[str]:
    path = tmp_path / "excluded-cases.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_register(path)


def left(*entries: str) -> list[str]:
    return [case.case_id for case in allowed(cases(), frozenset(entries))[0]]


def without(*taken: str) -> list[str]:
    return [case_id for case_id in IDS if case_id not in taken]


def test_a_register_is_one_id_a_line_with_comments(tmp_path: Path) -> None:
    text = "# withdrawn\n\n  BraTS-SSA-00002-000  # on 3 March\nBraTS-SSA-00020\t# all visits\n patient#7\n#Müller\n   \n"

    assert register(tmp_path, text) == {"BraTS-SSA-00002-000", "BraTS-SSA-00020", "patient#7"}


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpatient7\r\nBraTS-SSA-00020\r\n",
        "patient7\rBraTS-SSA-00020",
        "patient7\n\n\nBraTS-SSA-00020\n\n\x1a".replace("\x1a", ""),
        "patient7\r\nBraTS-SSA-00020\r\n".encode("utf-16"),
    ],
)
def test_it_may_come_from_any_editor(tmp_path: Path, content: str | bytes) -> None:
    assert register(tmp_path, content) == {"patient7", "BraTS-SSA-00020"}


def test_no_register_and_the_template_exclude_nobody(tmp_path: Path) -> None:
    assert read_register(tmp_path / "excluded-cases.txt") == frozenset()
    assert register(tmp_path, TEMPLATE) == frozenset()
    assert allowed(cases(), frozenset()) == (tuple(cases()), 0)


@pytest.mark.parametrize("content", [b"\xff\x00\xff", b"Z\xfcrich", "patient7".encode("utf-16-le"), b"\xff\xfea"])
def test_bytes_that_are_no_text_are_refused_because_they_may_name_somebody(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PrivacyError, match=r"excluded-cases.txt: bytes that are no text.*no case is used until then"):
        register(tmp_path, content)


def test_a_register_that_can_not_be_read_is_refused_and_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    with open_folder() as folder:
        path = folder / "excluded-cases.txt"
        path.touch(mode=0o600)
        (folder / "other").mkdir()
        if path.owner() == "root":
            with ordinary_rights(), pytest.raises(PrivacyError, match=r"Permission denied.*no case is used until then"):
                read_register(path)
        with pytest.raises(PrivacyError, match="Is a directory"):
            read_register(folder / "other")


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        ("BraTS-SSA-00002-000", ["BraTS-SSA-00002-000"]),
        ("BraTS-SSA-00002", ["BraTS-SSA-00002-000", "BraTS-SSA-00002-001"]),
        ("brats-ssa-00002", ["BraTS-SSA-00002-000", "BraTS-SSA-00002-001"]),
        ("BRATS-SSA-00002-001", ["BraTS-SSA-00002-001"]),
        ("BraTS2021_00626", ["BraTS2021_00626", "BraTS2021_00758"]),
        ("brats2021_00758", ["BraTS2021_00626", "BraTS2021_00758"]),
        ("Mu\u0308ller", ["Müller"]),
        ("MÜLLER", ["Müller"]),
        ("patient#7", ["patient#7"]),
        ("BraTS-SSA-0000", []),
        ("BraTS-SSA-00002-00", []),
    ],
)
def test_an_id_takes_out_its_case_or_all_visits_of_its_patient(entry: str, taken: list[str]) -> None:
    assert left(entry) == without(*taken)
    assert allowed(cases(), frozenset({entry}))[1] == len(taken)


def test_entries_that_take_out_nothing_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        allowed(cases(), frozenset({"patient#7"}))
        assert caplog.records == []
        allowed(cases(), frozenset({"patient#7", "BraTS-SSA-0002-000"}))

    assert "names 1 that are not in the data: BraTS-SSA-0002-000; check the spelling" in caplog.text


def test_a_register_of_another_data_set_is_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    allowed(cases(), frozenset(f"other{number}" for number in range(1000)))

    assert len(caplog.records) == 1
    assert "names 1000" in caplog.text
    assert "other104, ..." not in caplog.text.splitlines()[0][:40]


@given(st.frozensets(st.sampled_from([*IDS, "BraTS-SSA-00002", "BraTS-SSA-00020", "nobody"])))
def test_whatever_is_listed_no_listed_case_is_used_and_a_longer_register_never_lets_more_through(
    entries: frozenset[str],
) -> None:
    kept, excluded = allowed(cases(), entries)
    ids = {case.case_id for case in kept}

    assert not ids & entries
    assert len(kept) + excluded == len(IDS)
    for entry in entries:
        assert {case.case_id for case in allowed(cases(), entries - {entry})[0]} >= ids
    assert ("nobody" in without_effect(IDS, entries)) == ("nobody" in entries)
