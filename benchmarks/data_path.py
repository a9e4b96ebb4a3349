"""How much of a training's time is spent waiting for data, and what workers change about it.

    python -m benchmarks.data_path [--augment ssa] [--presets brainunet-nano brainunet-lite] [--workers 0 1 2] [--seconds 40]

For each network and each number of workers: the share of wall time that steps on patches of 64^3, two at a time, wait for their
batch, over the second half of --seconds (in the first the workers start; on a busy machine give them longer), and the steps per
second against those without workers, in the same run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks.augmentation import phantom_case
from brainunet.config import AugmentConfig, ModelConfig, TrainConfig
from brainunet.data.patches import PatchSource
from brainunet.losses import loss_from
from brainunet.model import build, default_device
from brainunet.training.batches import batches
from brainunet.training.optimizer import optimizer_for
from brainunet.training.precision import uses_bf16


def shares(preset: str, config: TrainConfig, sources: list[PatchSource], workers: int, seconds: float) -> tuple[float, float]:
    """Share of the time spent waiting, and steps per second, over the second half of ``seconds``."""
    device = default_device()
    network = build(ModelConfig(preset=preset)).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer, loss_of = optimizer_for(list(network.parameters()), config), loss_from(config.loss)
    half = uses_bf16(config.precision, device, network, (config.batch_size, 3, *config.patch))
    begun, waited, ends = time.perf_counter(), list[float](), list[float]()
    drawn = batches(sources, config, seed=0, workers=workers)
    while True:
        asked = time.perf_counter()
        images, labels = next(drawn)
        waited.append(time.perf_counter() - asked)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = network(images.to(device, memory_format=torch.channels_last_3d))
        loss = loss_of(logits, labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
        optimizer.step()
        ends.append(time.perf_counter() - begun)
        if ends[-1] > seconds and len(ends) > 2:
            break
    drawn.close()
    first = min(max(1, int(np.searchsorted(ends, seconds / 2))), len(ends) - 1)
    spent = ends[-1] - ends[first - 1]
    return sum(waited[first:]) / spent, (len(ends) - first) / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--augment", default="ssa")
    parser.add_argument("--presets", nargs="+", default=["brainunet-nano", "brainunet-lite"])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=40, help="for each measurement")
    asked = parser.parse_args()
    sources = [PatchSource(phantom_case(seed, 96)) for seed in range(3)]
    config = TrainConfig(steps=100_000, patch=(64, 64, 64), augment=AugmentConfig(preset=asked.augment))
    for preset in asked.presets:
        base = None
        for workers in asked.workers:
            share, rate = shares(preset, config, sources, workers, asked.seconds)
            base = base or rate
            print(
                f"{preset}, {asked.augment}, {workers} workers: {share:6.1%} of the time waiting for data, "
                f"{rate:.2f} steps/s, {rate / base:.2f} times those of {asked.workers[0]} workers",
                flush=True,
            )


if __name__ == "__main__":
    main()
