"""The ledger of spending: it only grows, and whoever loses, changes or shares it is found out."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.purse import Purse, open_purse
from brainunet.privacy.spending import read_spending
from tests.support.spending import NOON, STEP, another_log, changed, path, spend, trusted

__all__ = ["path"]  # a fixture


def test_a_site_that_never_trained_privately_has_spent_nothing(path: Path) -> None:
    assert read_spending(path) is None
    trusted(path)


def test_every_step_counts_by_run_and_all_runs_count_together(path: Path) -> None:
    spend(path, steps=3)
    spend(path, steps=4, round=2)
    spend(path, steps=5, run="pretrained-on-something-else")

    spent = read_spending(path)

    assert spent is not None
    assert spent.charges == {"glioma-1": (Charge(1.5, 0.2, 7),), "pretrained-on-something-else": (Charge(1.5, 0.2, 5),)}
    assert spent.epsilon(1e-3) == epsilon_of([Charge(1.5, 0.2, 12)], 1e-3)
    assert spent.epsilon_of_run("glioma-1", 1e-3) == epsilon_of([Charge(1.5, 0.2, 7)], 1e-3) < spent.epsilon(1e-3)
    assert spent.epsilon_of_run("no such run", 1e-3) == 0
    assert (spent.last, spent.last_steps) == (("pretrained-on-something-else", 1), 5)
    trusted(path)


def test_the_spending_of_a_round_is_also_that_of_its_interrupted_part(path: Path) -> None:
    spend(path, steps=2)
    spent = spend(path, steps=3)

    assert (spent.last, spent.last_steps) == (("glioma-1", 1), 5)


def test_what_the_purse_says_is_what_the_file_says(path: Path) -> None:
    assert spend(path) == read_spending(path)


def die_in_the_third_step(path: Path) -> None:
    with open_purse(path, site="lagos", cases=20, run="glioma-1", round=1) as purse:
        for _ in range(3):
            purse.pay(STEP)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_step_is_on_the_disk_before_it_is_taken_and_a_killed_client_holds_nobody_up(path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_in_the_third_step, args=(path,))
    process.start()
    process.join(30)

    spent = read_spending(path)
    assert process.exitcode == -signal.SIGKILL
    assert spent is not None
    assert spent.charges == {"glioma-1": (Charge(1.5, 0.2, 3),)}
    spend(path, steps=1, at=datetime.now(UTC))


def test_a_line_that_a_power_cut_left_is_set_aside_and_costs_nothing(path: Path) -> None:
    spend(path)
    with path.open("ab") as file:
        file.write(b'{"n":6,"at":"2026')

    spent = spend(path, round=2, steps=1)

    assert spent.charges == {"glioma-1": (Charge(1.5, 0.2, 4),)}


def without_a_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))


def with_a_strange_entry(path: Path) -> None:
    chain.append(path, "spent-nothing", {})


def with_impossible_steps(path: Path) -> None:
    chain.append(path, "step", {"run": "glioma-1", "round": 1, "noise": 1.5, "rate": 0.2, "steps": -3})


@pytest.mark.parametrize("damage", [changed, without_a_line, with_a_strange_entry, with_impossible_steps, another_log])
def test_a_ledger_that_was_tampered_with_stops_everything(path: Path, damage: Callable[[Path], None]) -> None:
    spend(path)
    damage(path)

    with pytest.raises(PrivacyError, match="until a person decides"):
        read_spending(path)


def test_an_earlier_copy_of_the_ledger_is_noticed_by_the_head_that_the_coordinator_returns(path: Path) -> None:
    spend(path)
    earlier = path.read_bytes()
    head = spend(path, round=2).head
    trusted(path, expected_head=head)
    spend(path, round=3)
    trusted(path, expected_head=head)  # an older one is in it too

    path.write_bytes(earlier)

    with pytest.raises(PrivacyError, match="rolled back or replaced"):
        trusted(path, expected_head=head)


def test_an_earlier_copy_is_noticed_by_what_this_site_has_told_too(path: Path) -> None:
    entries = spend(path).entries
    trusted(path, least_entries=entries)

    with pytest.raises(PrivacyError, match="rolled back"):
        trusted(path, least_entries=entries + 1)


@pytest.mark.parametrize("known", [{"expected_head": "a" * 64}, {"least_entries": 4}])
def test_a_ledger_that_is_gone_is_noticed(path: Path, known: dict[str, object]) -> None:
    with pytest.raises(PrivacyError, match="it was lost"):
        trusted(path, **known)


def test_the_ledger_of_another_site_is_refused_by_name(path: Path) -> None:
    spend(path)

    with pytest.raises(PrivacyError, match=r"ledger of another site \(lagos\)"):
        trusted(path, site="accra")


def test_a_clock_that_was_set_back_is_refused_and_a_few_minutes_are_not(path: Path) -> None:
    spend(path, at=NOON)
    trusted(path, now=NOON - timedelta(minutes=4))

    with pytest.raises(PrivacyError, match="a clock that only goes forward"):
        trusted(path, now=NOON - timedelta(hours=1))


def test_the_number_of_cases_that_was_declared_stays(path: Path) -> None:
    spend(path)

    with pytest.raises(PrivacyError, match=r"public_cases.*expected 20"):
        trusted(path, cases=21)


def test_two_clients_can_not_spend_from_one_ledger_at_a_time(path: Path) -> None:
    with (
        open_purse(path, site="lagos", cases=20, run="a", round=1),
        pytest.raises(PrivacyError, match="another client is training with it now"),
        open_purse(path, site="lagos", cases=20, run="b", round=1),
    ):
        pass


def test_whoever_writes_between_two_steps_is_noticed(path: Path) -> None:
    with open_purse(path, site="lagos", cases=20, run="a", round=1) as purse:
        other = Purse(path, "b", 1, purse.spent)
        purse.pay(STEP)
        with pytest.raises(PrivacyError, match="another client has written into it"):
            other.pay(STEP)


def test_who_opens_the_ledger_looks_at_the_one_that_is_there_now(path: Path) -> None:
    head = spend(path).head
    path.unlink()

    with pytest.raises(PrivacyError, match="it was lost"), open_purse(
        path, site="lagos", cases=20, run="glioma-1", round=2, at=NOON, expected_head=head
    ):  # fmt: skip
        pass
    assert not path.exists()


def test_the_ledger_holds_no_case_and_no_path(path: Path) -> None:
    spend(path)

    kinds = {entry["kind"]: set(entry["data"]) for entry in map(json.loads, path.read_text().splitlines())}
    assert kinds == {
        "begun": {"site", "cases"},
        "round": {"run", "round"},
        "step": {"run", "round", "noise", "rate", "steps"},
    }
