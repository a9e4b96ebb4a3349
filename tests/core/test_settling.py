"""A ledger that stopped a site: a person goes on with it, and what it would forget is counted or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.purse import settle
from brainunet.privacy.spending import read_spending
from tests.support.spending import NOON, another_log, changed, path, spend, trusted

__all__ = ["path"]  # a fixture


def test_a_person_can_go_on_with_a_rolled_back_ledger_and_what_was_lost_is_added(path: Path) -> None:
    spend(path, steps=3)
    earlier = path.read_bytes()
    head = spend(path, round=2, steps=4).head
    path.write_bytes(earlier)

    spent, aside = settle(path, site="lagos", cases=20, carried={"": [Charge(1.5, 0.2, 4)]}, accepted_head=head, at=NOON)

    assert aside is None
    assert spent.epsilon(1e-3) == epsilon_of([Charge(1.5, 0.2, 7)], 1e-3)
    trusted(path, expected_head=head)
    assert spend(path, round=3, steps=1).epsilon(1e-3) == epsilon_of([Charge(1.5, 0.2, 8)], 1e-3)


@pytest.mark.parametrize("damage", [changed, another_log])
def test_a_ledger_that_can_not_be_read_is_set_aside_and_kept(path: Path, damage: Callable[[Path], None]) -> None:
    spend(path)
    damage(path)
    broken = path.read_bytes()

    spent, aside = settle(path, site="lagos", cases=25, carried={"": [Charge(2.0, 0.1, 9)]}, at=NOON)

    assert aside is not None
    assert aside.read_bytes() == broken
    assert (spent.cases, spent.charges) == (25, {"": (Charge(2.0, 0.1, 9),)})
    trusted(path, cases=25)


@pytest.mark.parametrize("damage", [changed, another_log])
def test_a_ledger_that_can_not_be_read_is_not_forgotten_for_nothing(path: Path, damage: Callable[[Path], None]) -> None:
    spend(path)
    damage(path)
    before = path.read_bytes()

    with pytest.raises(PrivacyError, match="it would forget a ledger that can't be read"):
        settle(path, site="lagos", cases=20, carried={}, at=NOON)
    assert path.read_bytes() == before


def test_a_site_that_changed_its_name_does_not_begin_with_a_new_budget(path: Path) -> None:
    spend(path)

    with pytest.raises(PrivacyError, match=r"it would forget all of the ledger of another site \(lagos\)"):
        settle(path, site="ikeja", cases=20, carried={}, at=NOON)
    spent, aside = settle(path, site="ikeja", cases=20, carried={"": [Charge(1.5, 0.2, 3)]}, at=NOON)

    assert aside is not None
    assert spent.epsilon(1e-3) == epsilon_of([Charge(1.5, 0.2, 3)], 1e-3)


@pytest.mark.parametrize("gone", [True, False])
def test_entries_that_this_site_has_told_of_are_not_forgotten_for_nothing(path: Path, gone: bool) -> None:
    spend(path)
    if gone:
        path.unlink()

    with pytest.raises(PrivacyError, match=f"it would forget {9 if gone else 4} of 9 entries"):
        settle(path, site="lagos", cases=20, carried={}, least_entries=9, at=NOON)
    settle(path, site="lagos", cases=20, carried={"": [Charge(1.5, 0.2, 4)]}, least_entries=9, at=NOON)


def test_a_head_that_a_coordinator_made_up_costs_a_person_a_word(path: Path) -> None:
    spent, _ = settle(path, site="lagos", cases=20, carried={}, accepted_head="a" * 64, at=NOON)

    assert spent.epsilon(1e-3) == 0
    trusted(path, expected_head="a" * 64)


def test_a_person_can_put_a_clock_that_was_wrong_behind_them(path: Path) -> None:
    spend(path, at=NOON + timedelta(days=3000))
    with pytest.raises(PrivacyError):
        trusted(path)

    settle(path, site="lagos", cases=20, carried={}, at=NOON)

    trusted(path)


def test_what_is_carried_counts_for_the_run_it_was_spent_for(path: Path) -> None:
    """Else the run would go on with more than was agreed on, and its models would say less than they cost."""
    spend(path)

    spent, _ = settle(
        path, site="lagos", cases=20, carried={"glioma-1": [Charge(1.5, 0.2, 4)], "": [Charge(9.0, 0.2, 1)]}, at=NOON
    )

    assert spent.epsilon_of_run("glioma-1", 1e-3) == epsilon_of([Charge(1.5, 0.2, 7)], 1e-3)
    assert spent.epsilon(1e-3) == epsilon_of([Charge(1.5, 0.2, 7), Charge(9.0, 0.2)], 1e-3)
    assert spent == read_spending(path)


def test_changing_the_cases_never_makes_what_is_spent_less(path: Path) -> None:
    before = spend(path).epsilon(1e-3)
    after, _ = settle(path, site="lagos", cases=2000, carried={}, at=NOON)

    assert after.epsilon(1e-3) == before
