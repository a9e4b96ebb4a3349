"""``brainunet-client --ledger``: what has left, in lines, as JSON, and verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainunet_client.cli import main as brainunet_client
from brainunet_client.home import Home
from brainunet_client.ledger import record_sent
from tests.support.coordinator import SERVER
from tests.support.simulation import run
from tests.support.typed import home, install, kit

__all__ = ["home", "kit"]  # fixtures


def test_where_there_is_no_home_there_is_no_ledger_and_none_is_made(home: Home) -> None:
    ended = run(brainunet_client, "--ledger")

    assert ended.code == 4
    assert "no such folder" in ended.err
    assert not home.path.exists()


def test_a_ledger_that_was_removed_is_missed(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(kit, "y\n", monkeypatch).code == 0
    home.ledger.unlink()

    for arguments in (["--ledger"], ["--ledger", "--verify"]):
        ended = run(brainunet_client, *arguments)
        assert ended.code == 1
        assert "it is gone or empty, in a home that has a kit" in ended.err


def a_transfer(home: Home, round: int) -> None:
    record_sent(
        home, server=SERVER, federation="glioma", run="run-1", round=round, kind="train_reply", n_bytes=1_500_000,
        digest="ab" * 32, figures={"loss": 0.25}, purpose="research", legal_basis="approval no. 7",
    )  # fmt: skip


def test_a_ledger_tells_each_transfer_in_a_line_and_all_of_them_in_one(home: Home, kit: Path) -> None:
    a_transfer(home, 1)
    a_transfer(home, 2)

    lines = run(brainunet_client, "--ledger").out.splitlines()

    assert "made a request to enrol as lagos" in lines[0]
    assert "sent train reply of round 2" in lines[2]
    assert lines[3] == "2 transfers, 3.0 MB in all; runs: run-1 (2)"
    told = json.loads(run(brainunet_client, "--ledger", "--json").out)
    assert (told["transfers"], told["bytes"], told["runs"]) == (2, 3_000_000, {"run-1": 2})
    assert [entry["kind"] for entry in told["entries"]] == ["request-made", "sent", "sent"]
    assert told["entries"][1]["data"]["figures"] == {"loss": 0.25}


def test_a_ledger_is_verified_and_its_last_digest_told(home: Home, kit: Path) -> None:
    a_transfer(home, 1)

    for_people = run(brainunet_client, "--ledger", "--verify")
    facts = json.loads(run(brainunet_client, "--ledger", "--verify", "--json").out)

    assert for_people.code == 0
    assert f"{home.ledger}: 2 entries, each as it was written." in for_people.out
    assert facts["head"] in for_people.out
    assert facts == {"entries": 2, "head": facts["head"], "torn": False}

    with home.ledger.open("a") as file:
        file.write('{"n":3')
    assert "Its last line was cut short" in run(brainunet_client, "--ledger", "--verify").out


@pytest.mark.parametrize("arguments", [["--ledger"], ["--ledger", "--verify"], ["--ledger", "--json"]])
def test_a_ledger_that_was_changed_is_shown_up_to_there_and_then_refused(home: Home, kit: Path, arguments: list[str]) -> None:
    a_transfer(home, 1)
    a_transfer(home, 2)
    home.ledger.write_text(home.ledger.read_text().replace("1500000", "1", 1))

    ended = run(brainunet_client, *arguments)

    assert ended.code == 1
    assert "ledger.jsonl line 2" in ended.err
    assert ended.out.count("\n") == (1 if arguments == ["--ledger"] else 0)
