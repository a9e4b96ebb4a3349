"""A task that comes again: its training goes on where it was cut off, and that of another task does not."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import PreprocessConfig
from brainunet.errors import BrainUNetError
from brainunet.model import set_weights, weights_of
from brainunet.records import TrainTask
from brainunet.training.loop import train as train_network
from brainunet.training.optimizer import optimizer_for
from brainunet.training.seeds import derive
from brainunet_client.site import Site
from brainunet_client.tasks import checkpoint_of, train
from tests.support.nets import network, weights
from tests.support.pace import first_fast
from tests.support.rights import largest_file
from tests.support.sites import NANO, train_task

ROOT = Path(__file__).resolve().parents[2]

KILLED = """
import os, signal, sys
from pathlib import Path
from brainunet.training import checkpoint
from brainunet_client.site import Site
from brainunet_client.tasks import train
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from tests.support.nets import weights
from tests.support.sites import train_task

class Deadly(checkpoint.Checkpoint):
    def save(self, *state):
        super().save(*state)
        os.kill(os.getpid(), signal.SIGKILL)

import brainunet_client.tasks
brainunet_client.tasks.Checkpoint = Deadly
cases, cache, work = map(Path, sys.argv[1:])
found = find_cases(cases).cases
site = Site("CRV", found[:2], found[2:], CaseCache(cache), work)
train(train_task(weights(seed=5), steps=27), site)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_killed_training_goes_on_when_the_same_task_comes_again_and_gives_the_same_delta(site: Site, tmp_path: Path) -> None:
    task = train_task(weights(seed=5), steps=27)
    expected = train(task, replace(site, work=tmp_path / "elsewhere"))
    folder = site.cache.folder.parent
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder / "cases"), str(site.cache.folder), str(site.work)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (left,) = site.work.iterdir()
    assert not any(case.case_id.encode() in left.read_bytes() for case in site.train)

    reply = train(task, site)

    assert reply.delta.digest == expected.delta.digest
    assert reply.loss == expected.loss


def cut_off(task: TrainTask, site: Site) -> None:
    """Leave the checkpoint of a training that ended before its reply was made."""
    made = network()
    set_weights(made, task.weights)
    cases = [site.cache.get(case, NANO.modalities, task.preprocess) for case in site.train]
    every_step = replace(checkpoint_of(task, site), every_steps=1)
    train_network(made, cases, task.train, seed=derive(task.seed, site.name, task.round), checkpoint=every_step)
    assert [path.name for path in site.work.iterdir()] == ["training.ckpt"]


@pytest.mark.parametrize(
    "change",
    first_fast(
        {"preprocess": PreprocessConfig(clip_percentiles=(5, 95))},
        {"seed": 8},
        {"round": 4},
        {"run": "glioma-2"},
        {"steps": 3},
        {"proximal_mu": 0.5},
        {"local": "norm"},
    ),
)
def test_the_checkpoint_of_another_task_is_not_taken_up(change: dict[str, Any], site: Site) -> None:
    received = weights()
    cut_off(train_task(received), site)
    other, made = train_task(received, **change), network()

    assert checkpoint_of(other, site).restore(made, optimizer_for(list(made.parameters()), other.train)) is None
    assert weights_of(made).digest == weights_of(network()).digest


@pytest.mark.slow
def test_where_another_task_was_cut_off_a_training_ends_as_if_there_had_been_none(site: Site, tmp_path: Path) -> None:
    received = weights()
    other = train_task(received, round=4)
    expected = train(other, replace(site, work=tmp_path / "elsewhere")).delta.digest
    cut_off(train_task(received), site)

    assert train(other, site).delta.digest == expected


def test_the_checkpoint_of_the_same_task_is_taken_up_and_gone_once_there_is_a_reply(site: Site, tmp_path: Path) -> None:
    task = train_task(weights())
    cut_off(task, site)
    kept = checkpoint_of(task, site)
    made = network(seed=9)
    found = kept.restore(made, optimizer_for(list(made.parameters()), task.train))
    assert found is not None

    reply = train(task, site)

    assert (found.step, sum(found.losses) / 2) == (2, reply.loss)
    assert reply.delta.digest == weights_of(made).minus(task.weights).digest
    assert list(site.work.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_full_stops_the_work_with_words(site: Site) -> None:
    with largest_file(10), pytest.raises(BrainUNetError, match=r"training\.ckpt: it can't be written"):
        train(train_task(weights(), steps=26), site)
