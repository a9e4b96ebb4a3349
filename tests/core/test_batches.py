"""Who makes a batch changes nothing but the time: workers may be many, late, failing or dead."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from brainunet.config import AugmentConfig, TrainConfig
from brainunet.data.patches import PatchSource
from brainunet.errors import ConfigError, GeometryMismatch
from brainunet.model import weights_of
from brainunet.training import batches as module
from brainunet.training.batches import Recipe, batches, slow_changes, workers_for
from brainunet.training.loop import train
from tests.support.nets import network
from tests.support.prepared import prepared_case

ROOT = Path(__file__).resolve().parents[2]
CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]
SOURCES = [PatchSource(case) for case in CASES]
SSA = TrainConfig(steps=6, patch=(16, 16, 16), precision="fp32", augment=AugmentConfig(preset="ssa"))


def bits(made: Any) -> list[tuple[bytes, bytes]]:
    return [(images.numpy().tobytes(), labels.numpy().tobytes()) for images, labels in made]


def children() -> set[int]:
    """Batch workers of this process that are still there."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"batch_worker" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


@pytest.fixture
def begun(caplog: pytest.LogCaptureFixture) -> Callable[[int], None]:
    """Waits until so many workers have begun."""
    caplog.set_level(logging.DEBUG, "brainunet.training.batches")
    return lambda workers: until(lambda: len(said(caplog, "has begun")) >= workers)


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc for processes")


def test_a_batch_depends_on_its_step_alone() -> None:
    whole = bits(batches(SOURCES, SSA, seed=1, workers=0))

    assert len(whole) == 6
    assert bits(batches(SOURCES, SSA, seed=1, start=2, stop=5, workers=0)) == whole[2:5]
    assert bits(batches(SOURCES, SSA, seed=2, workers=0)) != whole
    assert bits(batches(SOURCES, SSA, seed=1, start=6, workers=2)) == []


@pytest.mark.slow
@linux
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches_to_the_bit_and_are_gone_afterwards(
    workers: int, begun: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = SSA.model_copy(update={"steps": 12})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        ahead = batches(SOURCES, config, seed=1, workers=workers)
        made = [next(ahead)]
        begun(workers)
        made += ahead
    finally:
        torch.set_num_threads(threads)

    assert len(said(caplog, "made")) == workers
    assert not said(caplog, "made 0 batches")
    assert bits(made) == bits(batches(SOURCES, config, seed=1, workers=0))
    assert children() == set()


@pytest.mark.slow
def test_training_with_a_worker_ends_at_the_same_weights(begun: Callable[[int], None]) -> None:
    def trained(workers: int) -> str:
        made = network()
        train(made, CASES, SSA, seed=1, workers=workers, on_step=lambda step, loss: begun(workers))
        return weights_of(made).digest

    assert trained(1) == trained(0)


@pytest.mark.slow
@linux
def test_an_error_in_the_training_leaves_no_worker_behind_even_while_the_error_is_kept() -> None:
    def fail(step: int, loss: float) -> None:
        until(children)
        raise ConfigError("training", found="an error of a test")

    with pytest.raises(ConfigError) as kept:
        train(network(), CASES, SSA, seed=1, workers=2, on_step=fail)

    assert kept.value.found == "an error of a test"
    assert children() == set()


@pytest.mark.slow
def test_an_iterator_that_is_dropped_or_closed_at_once_ends_its_workers() -> None:
    for end in (lambda made: made.close(), lambda made: None):
        made = batches(SOURCES, SSA, seed=1, workers=2)
        next(made)
        end(made)
        del made
        gc.collect()
        assert children() == set()


@dataclass(frozen=True)
class FailingRecipe(Recipe):
    """Goes wrong at one step, in a worker and at home alike."""

    at: int = 3

    def make(self, step: int) -> Any:
        if step == self.at:
            raise GeometryMismatch("scan 7", found="a hole", expected="a head", remedy="look for it")
        return super().make(step)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_a_worker_is_the_same_error_at_the_same_step(
    workers: int, begun: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Recipe", FailingRecipe)
    made = batches(SOURCES, SSA, seed=1, workers=workers)
    next(made)
    begun(workers)
    next(made)
    next(made)

    with pytest.raises(GeometryMismatch, match=r"^scan 7: a hole, but expected a head\. Look for it\.$") as raised:
        next(made)

    assert (raised.value.exit_code, raised.value.remedy) == (3, "look for it")


@pytest.mark.slow
@linux
def test_a_worker_that_is_killed_is_told_and_made_up_for(
    begun: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = SSA.model_copy(update={"steps": 10})
    made = batches(SOURCES, config, seed=1, workers=1)
    got = [next(made)]
    begun(1)
    got.append(next(made))  # asks the worker for more
    for worker in children():
        os.kill(worker, signal.SIGKILL)

    got += made

    assert bits(got) == bits(batches(SOURCES, config, seed=1, workers=0))
    assert said(caplog, "killed") == [
        "worker 1 for training patches was killed, most likely because memory ran out; the training makes its patches itself "
        "from here on"
    ]


@dataclass(frozen=True)
class UnsendableRecipe(Recipe):
    """Holds what can't be pickled."""

    hook: Callable[[], int] = lambda: 0


@pytest.mark.slow
def test_a_worker_that_cannot_be_told_what_to_do_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "Recipe", UnsendableRecipe)
    ahead = batches(SOURCES, SSA, seed=1, workers=1)
    made = [next(ahead)]
    time.sleep(0.5)
    made += ahead

    assert bits(made) == bits(batches(SOURCES, SSA, seed=1, workers=0))
    assert said(caplog, "can't be talked to; the training makes its patches itself")


def test_a_worker_that_cannot_start_is_told_and_made_up_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    made = bits(batches(SOURCES, SSA, seed=1, workers=2))

    assert made == bits(batches(SOURCES, SSA, seed=1, workers=0))
    assert [record.getMessage() for record in caplog.records] == ["no worker 1 for training patches: No such file or directory"]


INTERRUPTED = """
import sys
from tests.core.test_batches import CASES, SSA
from brainunet.training.loop import train
from tests.support.nets import network

config = SSA.model_copy(update={"steps": 100000})
train(network(), CASES, config, seed=1, workers=2, on_step=lambda step, loss: print(step, flush=True))
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_is_interrupted_or_killed_leaves_no_orphans(how: signal.Signals) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert training.stdout is not None
    assert training.stderr is not None

    def workers() -> list[str]:
        found = subprocess.run(["pgrep", "-P", str(training.pid)], capture_output=True, text=True, check=False)
        return found.stdout.split()

    try:
        training.stdout.readline()
        until(lambda: len(workers()) == 2)
        ids = workers()
        training.send_signal(how)
        said = training.communicate(timeout=30)[1]
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in ids), seconds=20)
    finally:
        training.kill()
        training.wait()
    assert said.count("Traceback") == (how is signal.SIGINT)  # the training's own, and none of a worker


def test_a_worker_helps_where_there_is_much_to_do_and_nobody_has_set_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    much = SSA.model_copy(update={"patch": (64, 64, 64)})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "_memory_is_limited", lambda: False)
    monkeypatch.setattr(module, "_cores", lambda: 2)

    assert workers_for(much, 200) == 1
    assert workers_for(much, 20) == 0  # its start would cost more than it saves
    assert workers_for(SSA, 200) == 0
    assert workers_for(much.model_copy(update={"augment": AugmentConfig()}), 200) == 0
    monkeypatch.setattr(module, "_cores", lambda: 1)
    assert workers_for(much, 200) == 0
    monkeypatch.setattr(module, "_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # what a site's own setting sets
    assert workers_for(much, 200) == 0
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(module, "_memory_is_limited", lambda: True)
    assert workers_for(much, 200) == 0


def test_slow_changes_are_counted_by_their_probabilities() -> None:
    assert slow_changes(AugmentConfig(preset="none")) == 0
    assert slow_changes(AugmentConfig(preset="light")) == pytest.approx(0.3)
    assert slow_changes(AugmentConfig(motion_probability=1, affine_probability=0.5)) == pytest.approx(1.5)
