"""``brainunet-client --privacy``: what is spent, what the next round costs, what is left; and a person's decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from brainunet.config import PrivacyConfig
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.purse import open_purse
from brainunet.spool import write_packed
from brainunet.wire import pack
from brainunet_client.cli import main as brainunet_client
from brainunet_client.home import Home
from brainunet_client.ledger import entries_told, record_sent
from brainunet_client.preflight import Check, Context
from brainunet_client.preflight.privacy_checks import privacy
from tests.support.coordinator import SERVER
from tests.support.homes import joined_home, set_to
from tests.support.nets import weights
from tests.support.simulation import Ended, run
from tests.support.sites import evaluate_task, train_task

OWN = "[privacy]\npublic_cases = 40\nepsilon = 8.0\ndelta = 1e-3\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("BRAINUNET_HOME", str(tmp_path / "home"))
    return joined_home(tmp_path / "home", OWN)


def typed(*arguments: str) -> Ended:
    return run(brainunet_client, "--privacy", *arguments)


def spend(home: Home, steps: int = 20) -> str:
    with open_purse(home.privacy, site="lagos", cases=40, run="glioma-1", round=1) as purse:
        purse.pay(Charge(2.0, 0.1, steps))
        return purse.spent.head


def receives_a_task(home: Home, head: str = "", delta: float = 1e-3) -> None:
    asked = PrivacyConfig(epsilon=8.0, delta=delta, rounds=10)
    write_packed(home.received, pack(train_task(weights(), steps=20, round=1, privacy=asked, ledger_head=head)))


def test_a_site_without_privacy_is_told_how_to_have_it(home: Home) -> None:
    set_to(home, "")

    ended = typed()

    assert ended.code == 4
    assert "no part [privacy], but expected privacy.public_cases and privacy.epsilon" in ended.err


def test_before_the_first_task_nothing_is_spent_and_everything_left(home: Home) -> None:
    ended = typed()

    assert ended.code == 0, ended.err
    assert "nothing yet" in ended.out
    assert "no task has come yet" in ended.out
    assert "8.000" in ended.out


def test_after_a_run_its_last_task_is_no_next_round(home: Home) -> None:
    spend(home)
    write_packed(home.received, pack(evaluate_task(weights())))

    ended = typed()

    assert ended.code == 0, ended.err
    assert "the last task that came only scores" in ended.out


def test_a_table_tells_what_is_spent_what_the_next_round_costs_and_what_is_left(home: Home) -> None:
    receives_a_task(home)
    spend(home)

    ended = typed()
    facts = json.loads(typed("--json").out)

    spent = epsilon_of([Charge(2.0, 0.1, 20)], 1e-3)
    assert facts["spent"]["epsilon"] == pytest.approx(spent)
    assert facts["spent"]["runs"] == {"glioma-1": {"epsilon": pytest.approx(spent), "steps": 20}}
    assert facts["left"]["epsilon"] == pytest.approx(8 - spent)
    assert facts["left"]["rounds"] > 0
    noise = facts["next"]["noise_multiplier"]
    after = epsilon_of([Charge(2.0, 0.1, 20), Charge(noise, 0.1, 20)], 1e-3)
    assert facts["next"]["epsilon_after"] == pytest.approx(after)
    assert (facts["problem"], facts["no_next"]) == (None, None)
    for figure in (spent, after - spent, 8 - spent):
        assert f"{figure:.3f}" in ended.out
    assert "Validation cases are not covered" in ended.out


def test_a_rolled_back_ledger_ends_with_5_says_why_and_is_settled_by_a_person(home: Home) -> None:
    spend(home)
    earlier = home.privacy.read_bytes()
    receives_a_task(home, head=spend(home))
    assert typed().code == 0
    home.privacy.write_bytes(earlier)

    ended = typed()
    assert ended.code == 5
    assert "rolled back or replaced" in ended.err
    assert "--settle" in ended.err
    assert json.loads(typed("--json").out)["problem"] is not None

    settled = typed("--settle", "2.0,0.1,20,glioma-1")
    assert settled.code == 0, settled.err
    facts = json.loads(typed("--json").out)
    assert facts["spent"]["epsilon"] == pytest.approx(epsilon_of([Charge(2.0, 0.1, 40)], 1e-3))
    assert facts["spent"]["runs"]["glioma-1"]["steps"] == 40
    assert "20 steps were added by hand" in run(brainunet_client, "--ledger").out


def test_a_lost_ledger_is_missed_by_what_this_site_has_told(home: Home) -> None:
    spend(home)
    record_sent(
        home, server=SERVER, federation="glioma", run="glioma-1", round=1, kind="train_reply", n_bytes=9,
        digest="ab" * 32, figures={"spend.ledger_entries": 3}, purpose="research", legal_basis="approval no. 7",
    )  # fmt: skip
    assert entries_told(home) == 3
    home.privacy.unlink()

    assert "it was lost" in typed().err

    assert typed("--settle", "2,0.1,20").code == 0
    assert typed().code == 0
    assert entries_told(home) == 0


def rewritten(home: Home) -> None:
    home.privacy.write_text(home.privacy.read_text().replace('"steps":20', '"steps":2'))


def of_another_site(home: Home) -> None:
    home.privacy.unlink()
    with open_purse(home.privacy, site="accra", cases=40, run="glioma-1", round=1) as purse:
        purse.pay(Charge(2.0, 0.1, 1))


def lost(home: Home) -> None:
    home.privacy.unlink()


@pytest.mark.parametrize("damage", [rewritten, of_another_site, lost])
def test_of_a_ledger_that_is_not_there_to_be_read_nothing_is_said_to_be_spent_or_left(
    home: Home, damage: Callable[[Home], None]
) -> None:
    receives_a_task(home, head=spend(home))
    damage(home)

    ended = typed()
    facts = json.loads(typed("--json").out)

    assert ended.code == 5
    assert "unknown" in ended.out
    assert not any(figure in ended.out for figure in ("0.000", "8.000", "nothing yet"))
    assert (facts["spent"], facts["next"], facts["ledger"]) == ({"epsilon": None, "runs": None}, None, None)
    assert facts["left"] == {"epsilon": None, "of": 8.0, "rounds": None}
    assert facts["no_next"] == "private training is stopped until a person decides"


def test_a_rolled_back_ledger_says_what_was_spent_at_least_and_not_what_is_left(home: Home) -> None:
    spend(home)
    receives_a_task(home, head="a" * 64)

    ended = typed()

    assert "at least: 20 noisy steps of 1 run in the ledger" in ended.out
    assert json.loads(typed("--json").out)["left"]["epsilon"] is None


def test_a_stopped_ledger_is_not_settled_by_saying_that_nothing_was_lost(home: Home) -> None:
    receives_a_task(home, head=spend(home))
    rewritten(home)

    ended = typed("--settle", "none")
    assert ended.code == 5
    assert "it would forget a ledger that can't be read" in ended.err
    assert "flower-server privacy DIR --site NAME" in ended.err

    assert typed("--settle", "2,0.1,20").code == 0
    assert json.loads(typed("--json").out)["spent"]["epsilon"] == epsilon_of([Charge(2.0, 0.1, 20)], 1e-3)


@pytest.mark.parametrize(
    "words",
    [
        "yes",
        "1,2",
        "1,0.1,-3",
        "nan,0.1,3",
        "1,1.5,3",
        "1,0.1,3.5",
        "0,0.1,3",
        "1,0,3",
        "1,0.1,0",
        "1,0.1,3,a b",
        "1,0.1,3,a,b",
    ],
)
def test_words_that_are_no_steps_settle_nothing(home: Home, words: str) -> None:
    ended = typed("--settle", words)

    assert ended.code == 2
    assert "noise, rate and steps of what was lost (and its run)" in ended.err
    assert not home.privacy.exists()


def checked(home: Home) -> list[Check]:
    found = privacy(Context(home, None))
    return [found] if isinstance(found, Check) else list(found)


def test_preflight_says_how_the_budget_stands_or_why_it_is_stopped(home: Home) -> None:
    receives_a_task(home)
    (check,) = checked(home)
    assert check.outcome == "PASS"
    assert "epsilon 0.00 of 8 is spent" in check.said

    spend(home, steps=4000)
    (check,) = checked(home)
    assert (check.outcome, "only evaluates" in check.said) == ("WARN", True)

    receives_a_task(home, delta=0.5)
    (check,) = checked(home)
    assert check.outcome == "WARN"
    assert "what the last task proposed is refused: privacy.delta: 0.5" in check.said

    receives_a_task(home, head="a" * 64)
    (check,) = checked(home)
    assert check.outcome == "FAIL"
    set_to(home, "")
    (check,) = checked(home)
    assert (check.outcome, "has no part [privacy] any more" in check.said) == ("WARN", True)
    home.privacy.unlink()
    assert checked(home) == []
