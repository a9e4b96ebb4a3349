"""Replies on disk between their coming and their mean: found again for the same task, and for no other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.errors import BrainUNetError, FederationError
from brainunet.records import TrainReply, TrainTask
from brainunet.wire import pack
from brainunet_server.answers import Answer
from brainunet_server.replies import Replies
from tests.support.replies import PLAN, START, delta, train_reply
from tests.support.rights import largest_file


def task(**changes: Any) -> TrainTask:
    fields: dict[str, Any] = {
        "run": PLAN.run,
        "round": 1,
        "model": PLAN.model,
        "preprocess": PLAN.preprocess,
        "train": PLAN.train,
        "seed": PLAN.seed,
        "weights": START,
    }
    return TrainTask(**fields | changes)


def keep(replies: Replies, site: str, change: float = 1.0) -> TrainReply:
    reply = train_reply(change)
    replies.keep(Answer(site, reply), reply)
    return reply


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def names(replies: Replies) -> list[str]:
    return [answer.site for answer in replies.kept()]


def test_what_was_kept_is_found_by_another_process_with_the_same_task(tmp_path: Path) -> None:
    before = Replies(tmp_path, task())
    sent = {site: keep(before, site, change) for site, change in (("NKDC", 1.0), ("CRV", -2.5))}

    found = list(Replies(tmp_path, task()).kept())

    assert [answer.site for answer in found] == ["CRV", "NKDC"]
    for answer in found:
        assert isinstance(answer.reply, TrainReply)
        reply = sent[answer.site]
        assert answer.reply.delta.digest == reply.delta.digest
        assert answer.reply.model_dump(exclude={"delta"}) == reply.model_dump(exclude={"delta"})
        assert (answer.bytes_down, answer.bytes_up) == (0, pack(reply).n_bytes)  # nothing was sent again
        assert answer.digest == hashlib.sha256(reply.delta.flat().tobytes()).hexdigest()
        assert (answer.problem, answer.unreadable) == (None, False)


def test_a_sites_update_is_mapped_and_not_held_in_memory(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task())
    keep(replies, "CRV", 0.25)

    update = replies.delta("CRV")

    assert update.digest == delta(0.25).digest
    bases = set()
    for array in update.arrays:
        base: Any = array
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        bases.add(type(base))
    assert bases == {np.memmap}


OTHERS: dict[str, Any] = {
    "run": {"run": "glioma-2"},
    "round": {"round": 2},
    "weights": {"weights": delta(1.0)},
    "seed": {"seed": 8},
    "training": {"train": PLAN.train.model_copy(update={"steps": 21})},
    "proximal term": {"proximal_mu": 0.5},
    "local parameters": {"local": "norm"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_what_answers_another_task_is_not_found_and_goes(tmp_path: Path, other: dict[str, Any]) -> None:
    keep(Replies(tmp_path, task()), "CRV")

    assert names(Replies(tmp_path, task(**other))) == []

    assert files(tmp_path) == []
    assert names(Replies(tmp_path, task())) == []


def test_another_patience_is_no_other_task(tmp_path: Path) -> None:
    keep(Replies(tmp_path, task(answer_within_s=100)), "CRV")

    assert names(Replies(tmp_path, task(answer_within_s=43_200))) == ["CRV"]


def test_a_second_reply_of_a_site_takes_the_place_of_its_first(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task())
    keep(replies, "CRV", 1.0)
    keep(replies, "CRV", 2.0)

    assert replies.delta("CRV").digest == delta(2.0).digest
    assert len(files(tmp_path)) == 1


def test_nothing_is_found_where_nothing_was_kept(tmp_path: Path) -> None:
    assert names(Replies(tmp_path / "new", task())) == []


HARMS = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "last byte": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "another file": lambda content: b"PK\x03\x04" + content,
    "no reply": lambda content: content.replace(b"train_reply", b"train_refly"),
    "another protocol": lambda content: content.replace(b'\\"protocol\\": ', b'\\"protocol\\":9'),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_damaged_reply_is_left_out_and_the_others_are_found(tmp_path: Path, harm: Any) -> None:
    before = Replies(tmp_path, task())
    for site in ("CRV", "LASUTH", "NKDC"):
        keep(before, site)
    damaged = files(tmp_path)[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(harm(whole))
    assert damaged.read_bytes() != whole

    after = Replies(tmp_path, task())

    assert names(after) == ["CRV", "NKDC"]
    with pytest.raises(FederationError, match=r"LASUTH|message"):
        after.delta("LASUTH")


def test_an_update_that_went_from_the_disk_says_whose_it_was_and_what_to_do(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task())

    with pytest.raises(FederationError, match=r"the reply of CRV: it is gone.*Run the round again"):
        replies.delta("CRV")


NAMES = ["../../outside", "/etc/passwd", ".", "..", "a/b\\c", ".reply", "x.reply", "x", "ä ö", "%2e%2e", "a\nb", "*", "~"]


@pytest.mark.parametrize("site", NAMES)
def test_whatever_a_site_is_called_its_reply_stays_in_the_folder_and_keeps_its_name(tmp_path: Path, site: str) -> None:
    folder = tmp_path / "deep" / "replies"
    keep(Replies(folder, task()), site)

    again = Replies(folder, task())

    assert names(again) == [site]
    assert again.delta(site).digest == delta(1.0).digest
    assert [path.parent.parent for path in files(tmp_path)] == [folder]


def test_two_sites_never_share_a_file(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task())
    for number, site in enumerate(NAMES):
        keep(replies, site, float(number))

    assert sorted(names(replies)) == sorted(NAMES)
    assert [replies.delta(site).digest for site in NAMES] == [delta(float(number)).digest for number in range(len(NAMES))]


def test_a_parts_file_that_a_killed_process_left_is_no_reply(tmp_path: Path) -> None:
    keep(Replies(tmp_path, task()), "CRV")
    (reply,) = files(tmp_path)
    reply.rename(reply.with_name(f".{reply.name}.0123abcd.part"))

    assert names(Replies(tmp_path, task())) == []


def test_what_earlier_rounds_left_is_removed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        keep(Replies(tmp_path, task(round=number)), "CRV")

    assert len(files(tmp_path)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task())

    with pytest.raises(BrainUNetError, match="it can't be written"), largest_file(0):
        keep(replies, "CRV")

    assert files(tmp_path) == []


def test_what_need_not_outlive_the_process_is_kept_without_the_cost(tmp_path: Path) -> None:
    replies = Replies(tmp_path, task(), durable=False)
    keep(replies, "CRV", 0.5)

    assert replies.delta("CRV").digest == delta(0.5).digest
