"""Ending a training on whole cases: when, on which, and that it is as repeatable as the rest."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainunet.config import AugmentConfig, TrainConfig, ValidationConfig
from brainunet.data.patches import PatchSource, whole_case
from brainunet.errors import ConfigError
from brainunet.model import activations, weights_of
from brainunet.settings import load
from brainunet.study.fit import fit
from brainunet.study.settings import FitConfig
from brainunet.training import loop
from brainunet.training.batches import batches, workers_for
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Training, begin, take_step, train
from brainunet.training.whole_cases import takes_whole
from tests.support.nets import network
from tests.support.prepared import prepared_case

SHAPES = ((24, 18, 20), (17, 24, 24), (20, 20, 28))  # sides that no network divides
CASES = [prepared_case(shape, seed=seed) for seed, shape in enumerate(SHAPES)]
SOURCES = [PatchSource(case) for case in CASES]
STILL = AugmentConfig(preset="none")


def config(**numbers: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 6, "patch": (16, 16, 16), "precision": "fp32", "whole_share": 0.5, **numbers})


def note(seen: list[tuple[int, ...]], images: torch.Tensor) -> None:
    if images.device.type != "meta":  # of a twin that is asked for shapes alone
        seen.append(tuple(images.shape))


def shapes_seen(settings: TrainConfig, **options: Any) -> list[tuple[int, ...]]:
    """The shape of each image that the network was given."""
    seen: list[tuple[int, ...]] = []
    made = network()
    made.register_forward_pre_hook(lambda layer, inputs: note(seen, *inputs))
    train(made, CASES, settings, seed=1, **options)
    return seen


def bits(made: Any) -> list[tuple[bytes, bytes]]:
    return [(images.numpy().tobytes(), labels.numpy().tobytes()) for images, labels in made]


def test_the_last_share_of_the_steps_sees_each_case_whole_and_alone() -> None:
    seen = shapes_seen(config(batch_size=2))

    assert seen[:3] == [(2, 3, 16, 16, 16)] * 3
    assert sorted(seen[3:]) == sorted((1, 3, *shape) for shape in SHAPES)  # a turn of three: each once


def test_a_whole_case_is_the_case_with_nothing_cut_off_or_added() -> None:
    images, labels = whole_case(SOURCES[1])

    assert np.array_equal(images[0].numpy(), CASES[1].image.astype(np.float32))
    assert np.array_equal(labels[0].numpy(), CASES[1].label)  # type: ignore[arg-type]
    assert (images.dtype, labels.dtype) == (torch.float32, torch.uint8)


@pytest.mark.parametrize(
    ("steps", "share", "first"), [(30, 0.0, 30), (30, 0.1, 27), (30, 0.001, 29), (3, 1.0, 0), (1, 0.1, 0), (7, 0.5, 3)]
)
def test_a_share_above_none_is_at_least_one_step(steps: int, share: float, first: int) -> None:
    settings = config(steps=steps, whole_share=share)

    assert [takes_whole(step, settings) for step in range(steps)] == [step >= first for step in range(steps)]


@pytest.mark.parametrize(
    ("share", "done", "whole"), [(0.2, 0.79, False), (0.2, 0.8, True), (0.0, 1.0, False), (1.0, 0.0, True)]
)
def test_by_the_clock_it_is_the_last_share_of_the_time(share: float, done: float, whole: bool) -> None:
    assert takes_whole(0, config(whole_share=share), progress=done) is whole


def test_a_training_by_the_clock_ends_on_whole_cases(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    made = network()
    made.register_forward_pre_hook(lambda layer, inputs: note(seen, *inputs))
    settings = FitConfig(train=config(batch_size=3), validation=ValidationConfig(window=None), minutes=0.01)

    ended = fit(made, CASES, [], settings, checkpoint=Checkpoint(tmp_path / "c.ckpt", "this"))

    assert len(seen) == len(ended.losses)
    in_batch = [shape[0] for shape in seen]
    assert set(in_batch) == {1, 3}
    assert in_batch == sorted(in_batch, reverse=True)  # patches in threes, then whole cases


def test_portions_of_a_step_are_whole_cases_too() -> None:
    seen = shapes_seen(config(steps=2, accumulate=3, batch_size=1))

    assert seen[:3] == [(1, 3, 16, 16, 16)] * 3
    assert sorted(seen[3:]) == sorted((1, 3, *shape) for shape in SHAPES)


def test_augmentation_changes_whole_cases_and_depends_on_the_step_alone() -> None:
    settings = config(steps=4)
    made = bits(batches(SOURCES, settings, seed=1, workers=0, whole=True))
    still = bits(batches(SOURCES, settings.model_copy(update={"augment": STILL}), seed=1, workers=0, whole=True))

    assert bits(batches(SOURCES, settings, seed=1, start=2, workers=0, whole=True)) == made[2:]
    assert sum(one != other for one, other in zip(made, still, strict=True)) >= 3
    whole = bits(map(whole_case, SOURCES))
    assert set(still) == set(whole)


@pytest.mark.slow
def test_a_worker_makes_the_same_whole_cases_to_the_bit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "brainunet.training.batches")
    settings = config(steps=12, augment=AugmentConfig(preset="ssa"))
    ahead = batches(SOURCES, settings, seed=1, workers=1, whole=True)
    made = [next(ahead)]
    while not any("has begun" in record.getMessage() for record in caplog.records):
        time.sleep(0.05)
    made += ahead

    assert bits(made) == bits(batches(SOURCES, settings, seed=1, workers=0, whole=True))
    assert "made 0 batches" not in caplog.text


def test_a_helper_is_worth_it_by_what_whole_cases_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("brainunet.training.batches._cores", lambda: 2)
    settings = config(augment=AugmentConfig(preset="ssa"))

    assert workers_for(settings, 100) == 0  # 100 batches of two patches of 16^3
    assert workers_for(settings, 100, voxels=144 * 176 * 144) == 1


LONG = config(steps=4, batch_size=1, accumulate=2, average_decay=0.9)


@pytest.fixture(scope="module")
def uninterrupted() -> str:
    made = network()
    train(made, CASES, LONG, seed=1)
    return weights_of(made).digest


@pytest.mark.slow
@pytest.mark.parametrize("cut_at", [1, 2, 3])
def test_cut_off_before_at_or_after_the_change_it_ends_at_the_same_weights(
    cut_at: int, uninterrupted: str, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "this", every_steps=1)
    again = network()

    class PowerCutError(Exception):
        pass

    def cut(step: int, loss: float) -> None:
        if step == cut_at + 1:  # the state of the step before is the one that is kept
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(network(), CASES, LONG, seed=1, checkpoint=checkpoint, on_step=cut)
    train(again, CASES, LONG, seed=1, checkpoint=checkpoint)

    assert weights_of(again).digest == uninterrupted


def test_memory_is_saved_where_only_whole_cases_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    large = max(CASES, key=lambda case: case.image.size)
    of_patch = activations.step_bytes(made, (1, 3, 16, 16, 16), half=False)
    of_case = activations.step_bytes(made, (1, *large.image.shape), half=False)
    monkeypatch.setattr(loop, "available_memory", lambda: (of_patch + of_case) // 2)
    training = begin(made, CASES, config(batch_size=1), seed=0)
    assert not made.checkpoint_activations

    take_step(training, 0.01, whole=True)

    assert made.checkpoint_activations
    take_step(training, 0.01)
    assert not made.checkpoint_activations


def test_a_whole_case_on_which_bf16_goes_wrong_is_known_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def wrong(precision: str, device: object, network: object, batch: tuple[int, ...]) -> bool:
        asked.append(batch)
        if batch[0] == 1:
            raise ConfigError("train.precision", found="a gradient that is wrong")
        return True

    monkeypatch.setattr(loop, "uses_bf16", wrong)

    with pytest.raises(ConfigError, match="a gradient that is wrong"):
        begin(network(), CASES, config(batch_size=2), seed=0)
    assert asked[-1] == (1, 3, 17, 18, 20)  # the shortest side on each axis


def test_without_a_share_nothing_is_whole_and_the_weights_are_those_of_patches() -> None:
    def stepped(settings: TrainConfig) -> tuple[Training, str]:
        made = network()
        training = begin(made, CASES, settings, seed=1)
        for _ in range(2):
            take_step(training, 0.01)
        return training, weights_of(made).digest

    (none, digest), (half, same) = stepped(config(whole_share=0)), stepped(config(whole_share=0.5))
    assert digest == same  # until the change the two are one
    assert not none.whole
    assert not half.whole


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "much"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match="whole_share"):
        load(TrainConfig, overrides=[f"whole_share={share}"])


def test_one_pass_can_be_asked_for_in_words() -> None:
    assert load(ValidationConfig, overrides=["window=none"]).window is None
    with pytest.raises(ConfigError, match="window"):
        load(ValidationConfig, overrides=["window=all"])
