"""What each augmentation and each preset costs: milliseconds per patch, and the share of a training step that they come to.

    python benchmarks/augmentation.py [--sides 64 96] [--runs 5] [--presets brainunet-nano brainunet-lite]

Each is timed on one thread, as it runs in a worker, on a made-up head of three modalities. A step is forward, backward and
update on a batch of two of the same patches, on all threads, timed in the same run. Figures are the quickest of some runs,
which other programs disturb least. An augmentation alone is always on; of a preset, where each has its own probability, the
mean over many seeds is given, of the quickest run of each.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from brainunet.config import AugmentConfig, ModelConfig, TrainConfig
from brainunet.data.augment import AUGMENTATIONS, alone, augment_from
from brainunet.data.phantom import make_phantom
from brainunet.data.preprocess import PreparedCase
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.model import build
from brainunet.presets import AUGMENT_PRESETS
from brainunet.training.loop import train

BATCH = 2


def phantom_case(seed: int, side: int) -> PreparedCase:
    """A made-up head, normalised in the brain, without a detour over files."""
    phantom = make_phantom(np.random.default_rng(seed), (side, side, side), "gli", "CRV")
    raw = np.stack([phantom.images[m] for m in DEFAULT_MODALITIES]).astype(np.float32)
    brain = (raw != 0).any(axis=0)
    image = np.zeros(raw.shape, np.float16)
    for channel, values in enumerate(raw[:, brain]):
        image[channel][brain] = (values - values.mean()) / values.std()
    sides = (side, side, side)
    return PreparedCase(image, phantom.label, ((0, side),) * 3, np.eye(4), sides, (1.0, 1.0, 1.0))


def augment_ms(config: AugmentConfig, images: torch.Tensor, labels: torch.Tensor, *, seeds: int, runs: int) -> float:
    """Of one patch: the mean over seeds of the quickest run of each."""
    augment, quickest = augment_from(config), []
    for seed in range(seeds):
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            augment(images, labels, seed)
            times.append(time.perf_counter() - started)
        quickest.append(min(times))
    return 1e3 * float(np.mean(quickest))


def step_ms(preset: str, side: int, steps: int) -> float:
    ends: list[float] = []
    still = TrainConfig(steps=steps + 2, batch_size=BATCH, patch=(side,) * 3, augment=AugmentConfig(preset="none"))
    network = build(ModelConfig(preset=preset))
    train(network, [phantom_case(0, 96)], still, seed=0, workers=0, on_step=lambda *_: ends.append(time.perf_counter()))
    return 1e3 * float(np.diff(ends[1:]).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=["brainunet-nano", "brainunet-lite"])
    asked = parser.parse_args()
    strong = AugmentConfig(preset="ssa")
    for side in asked.sides:
        case = phantom_case(0, side)
        images = torch.from_numpy(case.image.astype(np.float32))[None]
        assert case.label is not None
        labels = torch.from_numpy(case.label)[None]

        steps = {name: step_ms(name, side, asked.runs) for name in asked.presets}
        print(f"{side}^3: " + ", ".join(f"a step of {name} on {BATCH} patches {ms:.0f} ms" for name, ms in steps.items()))
        costs = {name: augment_ms(alone(name, strong), images, labels, seeds=3, runs=asked.runs) for name in AUGMENTATIONS}
        for preset in AUGMENT_PRESETS:
            made = augment_ms(AugmentConfig(preset=preset), images, labels, seeds=60, runs=2)
            costs[f"preset {preset}"] = made
        for name, ms in costs.items():
            shares = ", ".join(f"{BATCH * ms / step:5.2f} of a step of {preset}" for preset, step in steps.items())
            print(f"{name:>14}: {ms:7.1f} ms a patch; {BATCH} of them {shares}")


if __name__ == "__main__":
    main()
