"""The ledger tells what left, in figures that name nobody, and can't be changed unseen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from brainunet import chain
from brainunet.errors import ChainBroken, PrivacyError
from brainunet.records import FaultCode, Reply
from brainunet_client.home import Home, open_home
from brainunet_client.ledger import figures_of, last_of, record_consent, record_sent, sentence, totals
from tests.support import messages


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def sent(home: Home, **changes: Any) -> chain.Entry:
    facts: dict[str, Any] = {
        "server": "fl.example.org:8443",
        "federation": "glioma",
        "run": "run-1",
        "round": 3,
        "kind": "train_reply",
        "n_bytes": 2_000_000,
        "digest": "ab" * 32,
        "figures": {"loss": 0.5, "cases": {"train": 9}, "score.ET.dice.mean": None, "withheld": True},
        "purpose": "research",
        "legal_basis": "approval no. 7",
    }
    return record_sent(home, **facts | changes)


def test_a_transfer_is_written_down_with_what_left_and_by_what_right(home: Home) -> None:
    entry = sent(home)

    (read,) = chain.entries(home.ledger)
    assert read == entry
    assert read.kind == "sent"
    assert read.data == {
        "server": "fl.example.org:8443",
        "federation": "glioma",
        "run": "run-1",
        "round": 3,
        "message": "train_reply",
        "bytes": 2_000_000,
        "sha256": "ab" * 32,
        "figures": {"loss": 0.5, "cases": {"train": 9}, "score.ET.dice.mean": None, "withheld": True},
        "purpose": "research",
        "legal_basis": "approval no. 7",
    }


@pytest.mark.parametrize(
    "value", ["BraTS-SSA-00002-000", Path("/data/jane"), ["jane"], b"jane", {"deep": "jane"}, float("nan")]
)
def test_a_figure_that_could_name_a_patient_is_refused_and_not_said_again(home: Home, value: object) -> None:
    with pytest.raises(PrivacyError) as refused:
        sent(home, figures={"cases": 3, "which": value})

    assert not home.ledger.exists()
    assert "jane" not in str(refused.value)
    assert "SSA" not in str(refused.value)


@pytest.mark.parametrize("name", ["train_reply", "evaluate_reply", "fault"])
def test_the_figures_of_every_reply_may_be_written_down(home: Home, name: str) -> None:
    reply: Reply = messages.MESSAGES[name]()  # type: ignore[assignment]

    entry = sent(home, figures=figures_of(reply))

    assert entry.data["figures"] == json.loads(json.dumps(figures_of(reply)))


def test_every_number_of_a_reply_is_among_its_figures() -> None:
    figures = figures_of(messages.train_reply())

    assert figures["cases.train"] == 9
    assert figures["loss"] == 0.7
    assert figures["score.ET.dice.mean"] == 0.5
    assert figures["score.NETC.dice.mean"] is None
    assert figures["score.NETC.dice.missing"] == 3
    assert figures_of(messages.private_reply())["spend.epsilon"] == 3.5
    assert figures_of(messages.fault()) == {"code": FaultCode.DISK_FULL}


def test_a_line_for_people_says_what_left_when_and_where(home: Home) -> None:
    line = sentence(sent(home))

    assert line.startswith("    1  2")
    assert all(
        word in line
        for word in ("sent train reply of round 3 (run run-1)", "fl.example.org:8443", "glioma", "2000000 bytes", "abab",
                     "purpose: research", "legal basis: approval no. 7")
    )  # fmt: skip


def test_what_was_typed_into_settings_can_not_command_the_terminal(home: Home) -> None:
    line = sentence(sent(home, purpose="re\x1b[2Jsearch\n    9  2026-01-01 nothing left"))

    assert line.isprintable()
    assert "re?[2Jsearch?" in line


def test_an_entry_of_another_version_is_told_too(home: Home) -> None:
    assert "spent: epsilon 3" in sentence(chain.append(home.ledger, "spent", {"epsilon": 3}))
    assert "sent: new 1" in sentence(chain.append(home.ledger, "sent", {"new": 1}))


def test_totals_count_transfers_alone(home: Home) -> None:
    assert totals([]).transfers == 0
    sent(home)
    sent(home, run="run-2", kind="fault", n_bytes=50)
    sent(home, run="run-2")
    chain.append(home.ledger, "kit-installed", {})

    found = totals(chain.entries(home.ledger))

    assert (found.transfers, found.n_bytes) == (3, 4_000_050)
    assert (found.kinds, found.runs) == ({"train_reply": 2, "fault": 1}, {"run-1": 1, "run-2": 2})


def test_a_change_of_the_register_is_written_down_once(home: Home) -> None:
    assert record_consent(home, listed=0, excluded=0) is None  # nobody has ever been excluded
    home.consent.write_text("jane-doe\n")
    os.utime(home.consent, (1e9, 1e9))

    entry = record_consent(home, listed=1, excluded=2)

    assert entry is not None
    assert entry.data == {"listed": 1, "excluded": 2, "file_changed_at": "2001-09-09T01:46:40+00:00"}
    assert "1 ids in the register, 2 cases taken out" in sentence(entry)
    sent(home)
    assert record_consent(home, listed=1, excluded=2) is None

    home.consent.write_text("john-doe\n")  # one for another: the numbers stay
    os.utime(home.consent, (1e9 + 60, 1e9 + 60))
    assert record_consent(home, listed=1, excluded=2) is not None
    home.consent.unlink()
    gone = record_consent(home, listed=0, excluded=0)
    assert gone is not None
    assert "the register is gone" in sentence(gone)
    assert b"doe" not in home.ledger.read_bytes()


def test_the_last_entry_of_a_kind_is_found_in_a_ledger_that_was_not_changed(home: Home) -> None:
    assert last_of(home, "sent") is None
    first, second = sent(home), sent(home, round=4)
    chain.append(home.ledger, "kit-installed", {})
    assert last_of(home, "sent") == second

    home.ledger.write_text(home.ledger.read_text().replace('"round":3', '"round":2'))
    assert first.data["round"] == 3
    with pytest.raises(ChainBroken, match="line 1"):
        last_of(home, "sent")
