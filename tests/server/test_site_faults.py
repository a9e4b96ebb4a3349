"""Faults that no waiting mends end a run with what to change; all others are tried again, and one site ends nothing alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from brainunet.errors import ConfigError
from brainunet.records import FaultCode
from brainunet_server.round_results import LastingFaults, TooFewReplies
from brainunet_server.site_faults import FAULTS, lasting_only
from brainunet_server.store.reader import StoreReader
from tests.support.replies import PLAN
from tests.support.runs import RUN, Sites, keeping, model_files, run_in

LASTING = [code for code in FaultCode if FAULTS[code].lasting]
PASSING = [code for code in FaultCode if not FAULTS[code].lasting]
TWO = replace(PLAN, min_sites=2)


def both(code: FaultCode) -> Sites:
    return Sites(faults={(1, "boston"): code, (1, "lagos"): code})


def test_every_fault_is_in_the_table_with_a_hint_and_a_remedy() -> None:
    assert set(FAULTS) == set(FaultCode)
    assert all(meaning.hint and meaning.remedy for meaning in FAULTS.values())
    assert LASTING == [
        FaultCode.TASK_NOT_UNDERSTOOD,
        FaultCode.MODEL_DOES_NOT_FIT,
        FaultCode.TRAINING_DIVERGED,
        FaultCode.PRIVACY_REFUSED,
        FaultCode.BUDGET_SPENT,
    ]


@pytest.mark.parametrize("code", LASTING)
def test_a_lasting_fault_of_every_site_ends_the_run_and_says_what_to_change(tmp_path: Path, code: FaultCode) -> None:
    with pytest.raises(LastingFaults) as raised:
        run_in(tmp_path, both(code), plan=TWO)

    error = raised.value
    assert isinstance(error, ConfigError)
    assert error.exit_code == 4
    assert f"{FAULTS[code].hint} ({code}: boston, lagos)" in error.found
    assert error.remedy == FAULTS[code].remedy
    with StoreReader(tmp_path / "store.sqlite") as store:
        assert store.run(RUN.id).status == "failed"
        assert [(row.outcome, row.reason) for row in store.site_rounds(RUN.id)] == [("fault", code)] * 2
    assert [path.name for path in model_files(tmp_path)] == ["round-000.safetensors"]


@pytest.mark.parametrize("code", PASSING)
def test_what_time_or_the_site_can_mend_is_tried_again(tmp_path: Path, code: FaultCode) -> None:
    with pytest.raises(TooFewReplies):
        run_in(tmp_path, both(code), plan=TWO)


def test_once_the_sites_were_mended_the_same_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(LastingFaults):
        run_in(tmp_path, both(FaultCode.MODEL_DOES_NOT_FIT), plan=TWO)

    run_in(tmp_path, plan=TWO)

    assert keeping(tmp_path).model_file(2).exists()


@pytest.mark.parametrize(
    ("outcomes", "needed", "ends"),
    [
        (["fit"], 1, True),
        (["fit", "absent"], 1, True),
        (["fit", "absent"], 2, False),  # one site can not end what needs two
        (["fit", "disk"], 1, False),
        (["fit", "refused"], 1, False),
        (["fit", "answered"], 2, False),
        (["absent"], 1, False),
        ([], 1, False),
    ],
)
def test_all_that_answered_and_as_many_as_a_round_needs_must_say_so(outcomes: list[str], needed: int, ends: bool) -> None:
    told = {
        "fit": ("fault", FaultCode.MODEL_DOES_NOT_FIT.value),
        "disk": ("fault", FaultCode.DISK_FULL.value),
        "absent": ("absent", "no reply in time"),
        "refused": ("refused", "sent evaluate_reply, asked was train_reply"),
        "answered": ("answered", None),
    }

    assert (lasting_only([told[one] for one in outcomes], needed) is not None) == ends


@pytest.mark.parametrize(
    ("members", "needed", "hope"),
    [(2, 2, False), (3, 2, False), (4, 2, True), (2, 1, False), (3, 1, True), (2, 0, False), (1, 1, False)],
)
def test_sites_that_are_away_and_could_do_the_round_are_waited_for(
    tmp_path: Path, members: int, needed: int, hope: bool
) -> None:
    """Two sites of an old program come first: they must not end the run of those that come later."""
    with pytest.raises(LastingFaults) as raised:
        run_in(tmp_path, both(FaultCode.TASK_NOT_UNDERSTOOD), plan=TWO)

    assert raised.value.others_suffice(members, needed) == hope


def test_nobody_is_waited_for_where_trainings_diverge(tmp_path: Path) -> None:
    with pytest.raises(LastingFaults) as raised:
        run_in(tmp_path, both(FaultCode.TRAINING_DIVERGED), plan=TWO)

    assert not raised.value.others_suffice(members=9, needed=2)


def test_of_several_the_most_frequent_fault_is_named() -> None:
    codes = (FaultCode.TRAINING_DIVERGED, FaultCode.MODEL_DOES_NOT_FIT, FaultCode.TRAINING_DIVERGED)

    assert lasting_only([("fault", code.value) for code in codes], 2) is FaultCode.TRAINING_DIVERGED
    for one, other in product(LASTING, LASTING):
        assert lasting_only([("fault", one.value), ("fault", other.value)], 2) in (one, other)
