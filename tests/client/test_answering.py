"""A task is kept before its work is begun, and nothing leaves that the ledger does not tell of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError, ChainBroken, ConfigError
from brainunet.records import TrainReply, TrainTask
from brainunet.spool import read_packed
from brainunet.wire import Packed, pack
from brainunet_client.home import Home
from brainunet_client.ledger import figures_of
from tests.support import messages
from tests.support.desks import OpenDesk, home, is_the, open_desk, replying, said, sent
from tests.support.homes import set_to

__all__ = ["home", "open_desk", "said"]

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()


def test_a_task_is_kept_before_its_work_and_the_ledger_is_written_after_it(home: Home, open_desk: OpenDesk) -> None:
    def looks_around(reply_file: Path) -> int:
        kept = read_packed(home.received)
        assert kept is not None
        assert (kept.header, kept.n_bytes) == (pack(TASK).header, pack(TASK).n_bytes)
        assert sent(home) == []
        return replying(REPLY)(reply_file)

    desk, workers = open_desk(looks_around)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert workers.count == 1
    assert len(sent(home)) == 1


def test_the_ledger_tells_what_leaves_for_whom_and_by_what_right(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, 'purpose = "research"\nlegal_basis = "approval no. 7"\n')
    desk, _ = open_desk(replying(REPLY))

    reply = desk.answer(pack(TASK))

    assert reply.values is not None
    assert sent(home) == [
        {
            "server": desk.kit.server,
            "federation": "glioma",
            "run": "run-1",
            "round": 3,
            "message": "train_reply",
            "bytes": reply.n_bytes,
            "sha256": hashlib.sha256(reply.values.tobytes()).hexdigest(),
            "figures": json.loads(json.dumps(figures_of(REPLY))),
            "purpose": "research",
            "legal_basis": "approval no. 7",
        }
    ]


def test_a_reply_without_weights_has_the_digest_of_its_header(home: Home, open_desk: OpenDesk) -> None:
    desk, _ = open_desk(replying(messages.evaluate_reply()))

    reply = desk.answer(pack(messages.evaluate_task()))

    assert sent(home)[0]["sha256"] == hashlib.sha256(reply.header.encode()).hexdigest()


def spoil(home: Home) -> None:
    home.ledger.rename(home.ledger.with_suffix(".away"))
    home.ledger.mkdir()


def mend(home: Home) -> None:
    home.ledger.rmdir()
    home.ledger.with_suffix(".away").rename(home.ledger)


def test_without_a_ledger_nothing_leaves_and_no_work_is_lost(home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk(replying(REPLY))
    spoil(home)

    for _ in range(2):
        with pytest.raises(BrainUNetError, match="ledger"):
            desk.answer(pack(TASK))
    with pytest.raises(BrainUNetError, match="ledger"):  # not even a fault
        desk.answer(Packed("{"))
    mend(home)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert (workers.count, len(sent(home))) == (1, 1)


def test_a_ledger_whose_end_was_changed_is_not_continued(home: Home, open_desk: OpenDesk) -> None:
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b"lagos", b"abuja"))

    with pytest.raises(ChainBroken):
        open_desk(replying(REPLY))[0].answer(pack(TASK))


def test_without_settings_nobody_knows_by_what_right_and_nothing_leaves(home: Home, open_desk: OpenDesk) -> None:
    home.settings.unlink()

    with pytest.raises(ConfigError):
        open_desk()[0].answer(pack(TASK))
