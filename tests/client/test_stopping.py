"""A site that must stop in the middle of a task loses nothing, and says which of two reasons it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError
from brainunet.records import FaultCode
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.optimizer import optimizer_for
from brainunet_client.faults import Stopped, fault_code
from brainunet_client.site import Site
from brainunet_client.stopping import WatchedCheckpoint, watched
from brainunet_client.tasks import checkpoint_of, do, train
from tests.support.nets import network, weights
from tests.support.pace import first_fast
from tests.support.rights import largest_file
from tests.support.sites import evaluate_task, train_task


class Watch:
    """Counts steps, and says no from step ``until`` on."""

    def __init__(self, until: int, error: Stopped | None = None) -> None:
        self.steps = list[int]()
        self.until, self.error = until, error

    def on_step(self, step: int, loss: float) -> None:
        self.steps.append(step)

    def keep_going(self) -> bool:
        if self.until in self.steps and self.error:
            raise self.error
        return self.until not in self.steps


@pytest.mark.parametrize("at", first_fast(2, 1, 3))
def test_a_training_that_is_stopped_goes_on_after_the_step_it_stopped_at_and_gives_the_same_delta(
    at: int, site: Site, tmp_path: Path
) -> None:
    task = train_task(weights(seed=5), steps=4, proximal_mu=0.5)
    expected = train(task, replace(site, work=tmp_path / "elsewhere"))
    watch = Watch(until=at)

    with pytest.raises(Stopped):
        train(task, site, watch.on_step, watch.keep_going)
    assert watch.steps[-1] == at
    reply = train(task, site, watch.on_step)

    assert watch.steps == [1, 2, 3, 4]
    assert reply.delta.digest == expected.delta.digest
    assert reply.loss == expected.loss
    assert list(site.work.iterdir()) == []


def test_the_reason_is_told_as_a_code_and_both_are_saved(site: Site) -> None:
    task = train_task(weights(), steps=3)
    for error, code in ((None, FaultCode.OUTSIDE_HOURS), (Stopped(FaultCode.TOO_LATE), FaultCode.TOO_LATE)):
        watch = Watch(until=1, error=error)
        with pytest.raises(Stopped) as raised:
            train(task, site, watch.on_step, watch.keep_going)
        assert fault_code(raised.value) is code
        made = network()
        kept = checkpoint_of(task, site).restore(made, optimizer_for(list(made.parameters()), task.train))
        assert kept is not None
        assert kept.step == 1
        checkpoint_of(task, site).remove()


def test_a_training_whose_last_step_is_done_is_not_stopped(site: Site) -> None:
    watch = Watch(until=2)

    reply = train(train_task(weights(), steps=2), site, watch.on_step, watch.keep_going)

    assert reply.delta.norm > 0


def test_a_site_that_must_stop_before_it_begins_takes_no_step_and_leaves_nothing(site: Site) -> None:
    watch = Watch(until=0)
    watch.steps.append(0)

    for task in (train_task(weights()), evaluate_task(weights())):
        with pytest.raises(Stopped):
            do(task, site, watch.on_step, watch.keep_going)
    assert watch.steps == [0]
    assert not site.work.exists()


def test_a_site_is_asked_before_every_case_of_an_evaluation(site: Site) -> None:
    everyone = replace(site, validation=site.train + site.validation)
    asked = list[bool]()

    def twice() -> bool:
        asked.append(len(asked) < 2)
        return asked[-1]

    with pytest.raises(Stopped):
        do(evaluate_task(weights()), everyone, keep_going=twice)
    assert asked == [True, True, False]


def saved_at(checkpoint: WatchedCheckpoint, steps: int) -> list[int]:
    """The steps at which something was written."""
    made = network()
    optimizer = optimizer_for(list(made.parameters()), train_task(weights()).train)
    written = []
    for step in range(1, steps + 1):
        checkpoint.kept.remove()
        checkpoint.save(step, [0.5] * step, made, optimizer)
        written += [step] if checkpoint.path.exists() else []
    return written


def test_a_checkpoint_is_saved_by_the_step_and_by_the_clock(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "training.ckpt", "this", every_steps=3)
    by_step = watched(kept, last_step=8, keep_going=lambda: True)

    assert saved_at(by_step, 8) == [3, 6]
    assert saved_at(replace(by_step, every_s=0.0), 4) == [1, 2, 3, 4]


def test_a_disk_that_is_full_when_the_site_stops_is_what_the_coordinator_hears_of(site: Site) -> None:
    train(train_task(weights(), steps=1), site)  # its cases are in the cache now, and need no room
    watch = Watch(until=1)

    with largest_file(10), pytest.raises(BrainUNetError, match=r"training\.ckpt: it can't be written") as raised:
        train(train_task(weights(), steps=3), site, watch.on_step, watch.keep_going)

    assert not isinstance(raised.value, Stopped)
