"""A checkpoint is taken up by the training that left it, whole or not at all."""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainunet.errors import BrainUNetError
from brainunet.model import weights_of
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import train
from brainunet.training.optimizer import optimizer_for
from tests.support.nets import network
from tests.support.rights import largest_file
from tests.support.short_trainings import CASES, PowerCutError, config


def saved(path: Path, *, seed: int = 0, purpose: str = "this") -> Checkpoint:
    """A checkpoint after step 2 of a network whose weights moved."""
    checkpoint = Checkpoint(path, purpose, every_steps=2)
    train(network(seed=seed), CASES, config(steps=2), seed=1, checkpoint=checkpoint)
    return checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a good one holds."""
    checkpoint = saved(tmp_path_factory.mktemp("whole") / "training.ckpt")
    assert not refused(checkpoint, network())
    return checkpoint.path.read_bytes()


def refused(checkpoint: Checkpoint, made: nn.Module) -> bool:
    """Whether a restore says so and leaves the network alone."""
    before = weights_of(made).digest
    kept = checkpoint.restore(made, optimizer_for(list(made.parameters()), config()))
    return kept is None and weights_of(made).digest == before


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "training.ckpt")

    assert not refused(checkpoint, network())
    assert refused(replace(checkpoint, purpose="that"), network())
    assert refused(checkpoint, network(norm="batch"))
    assert refused(replace(checkpoint, path=tmp_path / "nothing.ckpt"), network())


@pytest.mark.parametrize("at", [0.0, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short"])
def test_a_damaged_checkpoint_is_not_taken_up(at: float, damage: str, whole: bytes, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "this", every_steps=2)
    content = bytearray(whole)
    place = int(at * len(content))
    if damage == "cut short":
        del content[place:]
    else:
        content[place] ^= 0x40
    checkpoint.path.write_bytes(content)

    assert refused(checkpoint, network())


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"purpose": "this"}, {"purpose": sha256(b"this").hexdigest(), "network": [1]}, 7]
)
def test_a_file_of_something_else_is_not_taken_up(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "training.ckpt")

    assert refused(Checkpoint(tmp_path / "training.ckpt", "this"), network())


def test_a_checkpoint_holds_no_words_of_its_purpose_and_runs_no_code(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "training.ckpt", purpose="glioma Jane Doe")
    assert b"Jane Doe" not in checkpoint.path.read_bytes()

    stream = io.BytesIO()
    torch.save(PowerCutError, stream)  # a class of ours, which unpickling would look up
    checkpoint.path.write_bytes(stream.getvalue())
    assert refused(checkpoint, network())


def test_a_save_that_fails_leaves_the_earlier_checkpoint_and_no_litter(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "training.ckpt")
    before = checkpoint.path.read_bytes()
    made = network()

    with largest_file(100), pytest.raises(BrainUNetError, match=r"training\.ckpt: it can't be written.*Free space on"):
        checkpoint.save(3, [0.5] * 3, made, optimizer_for(list(made.parameters()), config()))

    assert checkpoint.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint.path]


def test_removing_a_checkpoint_twice_is_no_error(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "training.ckpt")
    checkpoint.remove()
    checkpoint.remove()

    assert list(tmp_path.iterdir()) == []
