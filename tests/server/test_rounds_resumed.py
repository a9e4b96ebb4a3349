"""A server that was killed in the middle of a round asks only the sites whose replies it did not have yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError
from brainunet.records import AnyTask, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.round_results import RoundResult, TooFewReplies
from brainunet_server.rounds import Plan, Strategy, rounds
from tests.support.replies import PLAN, START, evaluate_reply, train_reply
from tests.support.rights import largest_file
from tests.support.steps import strategy

DURABLE = replace(PLAN, rounds=1, durable=True)
CHANGES = {"CRV": 1.0, "LASUTH": -0.3, "NKDC": 0.7}
CASES = {"CRV": 30, "LASUTH": 7, "NKDC": 12}


@dataclass
class Sites:
    """They answer in order until ``killed_after`` of them have, counted over both kinds of exchange."""

    killed_after: int | None = None
    instead: dict[str, Reply] = field(default_factory=dict)
    names: Sequence[str] = tuple(CHANGES)
    asked: list[list[str]] = field(default_factory=list)

    def is_member(self, site: str) -> bool:
        return True

    def sites(self) -> Sequence[str]:
        return self.names

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        self.asked.append(list(sites))
        for number, site in enumerate(sites):
            if number == self.killed_after:
                raise KeyboardInterrupt
            yield Answer(site, self.instead.get(site) or answer(task, site), bytes_down=100, bytes_up=50)
        if self.killed_after == len(sites):
            raise KeyboardInterrupt


def answer(task: AnyTask, site: str) -> Reply:
    if not isinstance(task, TrainTask):
        return evaluate_reply(round=task.round)
    return train_reply(CHANGES[site], cases=CASES[site], round=task.round)


def run(
    folder: Path, sites: Sites, plan: Plan = DURABLE, *, start: Weights = START, taken: Strategy | None = None
) -> list[RoundResult]:
    return list(rounds(plan, start, 0, sites, taken or strategy("fedavg"), folder))


def killed(folder: Path, after: int, plan: Plan = DURABLE, *, instead: dict[str, Reply] | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, Sites(after, instead or {}), plan)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["fedavg", "fedmedian"])
def test_only_who_had_not_answered_is_asked_and_the_model_is_the_same(tmp_path: Path, name: str, after: int) -> None:
    (whole, _) = run(tmp_path / "whole", Sites(), taken=strategy(name))
    killed(tmp_path / "cut", after)
    again = Sites()

    (first, _) = run(tmp_path / "cut", again, taken=strategy(name))

    assert again.asked == [list(CHANGES)[after:], list(CHANGES)]
    assert whole.weights is not None
    assert first.weights is not None
    assert first.weights.digest == whole.weights.digest
    assert [(site.site, site.outcome, site.cases, site.score, site.loss, site.update_norm) for site in first.sites] == [
        (site.site, site.outcome, site.cases, site.score, site.loss, site.update_norm) for site in whole.sites
    ]


def test_killed_again_and_again_each_reply_is_asked_for_once(tmp_path: Path) -> None:
    for after in (1, 1, 1):
        killed(tmp_path, after)
    again = Sites()

    run(tmp_path, again)

    assert again.asked[0] == []


def test_a_site_that_answered_counts_also_when_it_is_no_longer_connected(tmp_path: Path) -> None:
    killed(tmp_path, 2)
    again = Sites(names=("NKDC",))

    first, last = run(tmp_path, again)

    assert again.asked == [["NKDC"], ["NKDC"]]
    assert [site.outcome for site in first.sites] == ["answered"] * 3
    assert [site.site for site in last.sites] == ["NKDC"]


@pytest.mark.parametrize(
    "instead",
    [Fault(run=PLAN.run, round=1, code=FaultCode.DISK_FULL), train_reply(1.0, cases=0), train_reply(1.0, round=7)],
    ids=["a fault", "refused", "of another round"],
)
def test_a_site_whose_reply_was_no_use_is_asked_again(tmp_path: Path, instead: Reply) -> None:
    killed(tmp_path, 2, instead={"CRV": instead})
    again = Sites()

    first, _ = run(tmp_path, again)

    assert again.asked[0] == ["CRV", "NKDC"]
    assert [site.outcome for site in first.sites] == ["answered"] * 3


def test_a_damaged_reply_is_asked_for_again(tmp_path: Path) -> None:
    killed(tmp_path, 2)
    damaged = sorted(tmp_path.rglob("*.reply"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = Sites()

    run(tmp_path, again)

    assert again.asked[0] == ["CRV", "NKDC"]


@pytest.mark.parametrize(
    ("plan", "start"),
    [
        (replace(DURABLE, seed=8), START),
        (replace(DURABLE, run="glioma-2"), START),
        (replace(DURABLE, local="norm"), START),
        (DURABLE, START.plus(START)),
    ],
    ids=["seed", "run", "local", "weights"],
)
def test_replies_to_another_task_are_not_taken(tmp_path: Path, plan: Plan, start: Weights) -> None:
    killed(tmp_path, 2)
    again = Sites(killed_after=0)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, again, plan, start=start)

    assert again.asked == [list(CHANGES)]


def test_where_replies_need_not_last_every_site_is_asked_again(tmp_path: Path) -> None:
    plan = replace(DURABLE, durable=False)
    killed(tmp_path, 2, plan)
    again = Sites()

    run(tmp_path, again, plan)

    assert again.asked[0] == list(CHANGES)


def test_with_too_few_replies_those_that_came_are_kept_for_the_next_try(tmp_path: Path) -> None:
    plan = replace(DURABLE, min_sites=3)
    with pytest.raises(TooFewReplies):
        run(tmp_path, Sites(names=("CRV", "NKDC")), plan)
    again = Sites()

    run(tmp_path, again, plan)

    assert again.asked[0] == ["LASUTH"]


def test_a_site_whose_update_was_too_long_beside_the_others_is_asked_again(tmp_path: Path) -> None:
    """Else the same three replies would be compared for ever, and nobody could mend it."""
    plan = replace(DURABLE, min_sites=3)
    with pytest.raises(TooFewReplies, match="LASUTH: an update of length"):
        run(tmp_path, Sites(instead={"LASUTH": train_reply(25.0)}), plan)
    mended = Sites()

    first, _ = run(tmp_path, mended, plan)

    assert mended.asked[0] == ["LASUTH"]
    assert [site.outcome for site in first.sites] == ["answered"] * 3


def test_replies_lie_on_the_disk_until_the_model_made_of_them_is_kept(tmp_path: Path) -> None:
    steps = rounds(replace(DURABLE, rounds=2), START, 0, Sites(), strategy("fedavg"), tmp_path / "replies")

    next(steps)
    first = {path.parent.name for path in tmp_path.rglob("*.reply")}
    assert len(first) == 1  # whoever keeps the model does so now
    next(steps)
    second = {path.parent.name for path in tmp_path.rglob("*.reply")}
    assert len(second) == 1
    assert not first & second
    next(steps)
    assert not (tmp_path / "replies").exists()


def test_a_full_disk_ends_the_round_and_with_room_again_what_was_kept_is_used(tmp_path: Path) -> None:
    killed(tmp_path, 2)

    with pytest.raises(BrainUNetError, match="it can't be written"), largest_file(0):
        run(tmp_path, Sites())
    again = Sites()
    run(tmp_path, again)

    assert again.asked[0] == ["NKDC"]


def test_memory_holds_no_update_that_lies_on_the_disk(tmp_path: Path) -> None:
    """The rounds let go of each reply before they ask for the next one."""
    import weakref

    alive = list[weakref.ref[TrainReply]]()

    class Watched(Sites):
        def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
            for site in sites:
                reply = answer(task, site)
                if isinstance(reply, TrainReply):
                    assert sum(one() is not None for one in alive) <= 1  # the last one given, at most
                    alive.append(weakref.ref(reply))
                given = Answer(site, reply)
                del reply
                yield given
                del given

    run(tmp_path, Watched())

    assert len(alive) == 3
