"""What the audit log and the screen say of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.records import CaseCounts, ScoreRow, SiteScore
from brainunet_server.record import Record, say, sentence
from brainunet_server.round_results import RoundResult, SiteResult
from tests.support.replies import START, site_score


def answered(site: str, score: SiteScore | None) -> SiteResult:
    return SiteResult(site, "answered", cases=CaseCounts(train=10, validation=4), score=score)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "audit.jsonl", "glioma-1")


def entries(record: Record) -> list[tuple[str, dict[str, object]]]:
    return [(entry.kind, dict(entry.data)) for entry in chain.entries(record.file)]


WITHHELD = SiteScore(cases=2, rows=(), withheld=True)
NO_FIGURE = site_score(None)
OTHER = SiteScore(cases=4, rows=(ScoreRow(structure="ET", metric="dice", mean=0.9, median=0.9, n=4, missing=0),))


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (
            [answered("CRV", site_score(0.5)), answered("NKDC", site_score(0.75, cases=12))],
            "2 of 2 answered; the model they were sent: mean whole-tumour Dice 0.688",  # (4 * 0.5 + 12 * 0.75) / 16
        ),
        ([answered("CRV", site_score(0.0))], "1 of 1 answered; the model they were sent: mean whole-tumour Dice 0.000"),
        (
            [answered("CRV", site_score(0.5)), answered("LASUTH", WITHHELD), answered("NKDC", WITHHELD)],
            "3 of 3 answered; the model they were sent: mean whole-tumour Dice 0.500 (figures of 2 withheld)",
        ),
        (
            [answered("CRV", WITHHELD), answered("NKDC", WITHHELD)],
            "2 of 2 answered; the model they were sent: figures withheld, too few validation cases",
        ),
        ([answered("CRV", NO_FIGURE)], "1 of 1 answered; the model they were sent: no figure"),
        ([answered("CRV", OTHER)], "1 of 1 answered; the model they were sent: no figure"),
        ([answered("CRV", None)], "1 of 1 answered; the model they were sent: no figure"),
        (
            [
                answered("CRV", site_score(0.5)),
                SiteResult("LASUTH", "fault", "disk_full"),
                SiteResult("NKDC", "absent", "no reply in time"),
                SiteResult("SJH", "refused", "trained on no case"),
            ],
            "1 of 4 answered; the model they were sent: mean whole-tumour Dice 0.500; "
            "LASUTH fault: disk_full, NKDC absent: no reply in time, SJH refused: trained on no case",
        ),
        (
            [SiteResult("NKDC", "absent", "not connected")],
            "0 of 1 answered; the model they were sent: no figure; NKDC absent: not connected",
        ),
        ([], "0 of 0 answered; the model they were sent: no figure"),
    ],
)
def test_an_exchange_in_one_sentence(sites: list[SiteResult], words: str) -> None:
    assert sentence(RoundResult(3, tuple(sites), None)) == f"round 3: {words}"


def test_an_exchange_leaves_an_entry_of_each_site_and_of_the_model(record: Record) -> None:
    sites = (
        SiteResult("CRV", "answered", bytes_up=500, update_norm=1.5, update_digest="ab" * 32),
        SiteResult("LASUTH", "fault", "disk_full", bytes_up=90),
        SiteResult("NKDC", "refused", "trained on no case", bytes_up=480),
        SiteResult("SJH", "absent", "no reply in time"),
    )

    record.exchange(RoundResult(2, sites, START))

    about = {"run": "glioma-1", "round": 2}
    assert entries(record) == [
        ("reply-accepted", about | {"site": "CRV", "bytes": 500, "norm": 1.5, "sha256": "ab" * 32}),
        ("reply-refused", about | {"site": "LASUTH", "reason": "disk_full", "bytes": 90}),
        ("reply-refused", about | {"site": "NKDC", "reason": "trained on no case", "bytes": 480}),
        ("reply-missing", about | {"site": "SJH", "reason": "no reply in time", "bytes": 0}),
        ("model-saved", about | {"sha256": START.digest}),
    ]
    assert chain.verify(record.file).entries == 5


def test_an_exchange_that_only_scores_leaves_no_entry_of_a_model(record: Record) -> None:
    record.exchange(RoundResult(3, (answered("CRV", site_score()),), None))

    assert [kind for kind, _ in entries(record)] == ["reply-accepted"]


def test_a_run_starts_once_and_is_then_resumed(record: Record) -> None:
    for _ in range(3):
        record.begins()

    assert entries(record) == [(kind, {"run": "glioma-1"}) for kind in ("run-started", "run-resumed", "run-resumed")]


def test_each_run_of_a_federation_starts_once(record: Record) -> None:
    record.begins()
    Record(record.file, "glioma-2").begins()

    assert entries(record) == [("run-started", {"run": "glioma-1"}), ("run-started", {"run": "glioma-2"})]


def test_what_is_unknown_is_left_out(record: Record) -> None:
    record.note("reply-late", round=2, site="CRV", reason=None)

    assert entries(record) == [("reply-late", {"run": "glioma-1", "round": 2, "site": "CRV"})]


def test_what_is_said_on_the_screen_has_the_hour_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    say("CRV is connected")

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d CRV is connected\n", capsys.readouterr().out)
