"""What a person sees while a simulation runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet.data.cache import CaseCache
from brainunet.labels import Convention
from brainunet.records import Case
from brainunet_client.site import Site
from brainunet_server.round_results import RoundResult, SiteResult
from brainunet_sim.display import Display
from tests.support.replies import START, site_score

CASE = Case("BraTS-SSA-00002-000", {}, None, Convention.BRATS2023)


def exchange(number: int, **dice: float | None) -> RoundResult:
    results = (SiteResult(site, "answered", score=site_score(value)) for site, value in dice.items())
    return RoundResult(number, tuple(results), START)


def site(name: str) -> Site:
    return Site(name, (CASE, CASE), (CASE,), CaseCache(Path("cache")), Path("work"))


def test_without_a_terminal_there_is_one_plain_line_for_each_model_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", 2, quiet=False) as display:
        display.sites([site("CRV"), site("NKDC")])
        display.progress("round 1, CRV", 1, 2)
        display.round("run", exchange(1, CRV=0.25, NKDC=0.5))
        display.round("run", exchange(3, CRV=0.75, NKDC=None))

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "CRV: 2 cases to train, 1 to score; NKDC: 2 cases to train, 1 to score",
        "model of round 0 of 2: WT Dice CRV 0.250, NKDC 0.500",
        "model of round 2 of 2: WT Dice CRV 0.750, NKDC -",
    ]


def test_a_site_that_trains_alone_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", 2, quiet=False) as display:
        display.round("run-CRV", exchange(1, CRV=0.25))

    assert capsys.readouterr().err == "CRV alone, model of round 0 of 2: WT Dice CRV 0.250\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", 2, quiet=True) as display:
        display.sites([site("CRV")])
        display.round("run", exchange(1, CRV=0.25))

    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_table_of_sites_and_rounds_fills_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "80")

    with Display("run", 30, quiet=False) as display:
        for number in range(1, 21):
            display.progress(f"round {number}, CRV", 1, 2)
            display.round("run", exchange(number, CRV=number / 100, NKDC=None))
        display.round("run-CRV", exchange(20, CRV=0.33))

    shown = capsys.readouterr().err
    last = shown[shown.rindex("WT Dice on each site's validation cases") :]
    assert all(word in last for word in ("CRV", "NKDC", "CRV alone", "all cases", "0.200", "19"))
    assert "0.050" not in last  # the columns of the first rounds make room
    assert "…" not in last


def test_a_ctrl_c_leaves_the_terminal_as_it_was(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def interrupted() -> None:
        with Display("run", 2, quiet=False) as display:
            display.round("run", exchange(1, CRV=0.25))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert capsys.readouterr().err.rstrip().endswith("\x1b[?25h")  # the cursor is shown again
