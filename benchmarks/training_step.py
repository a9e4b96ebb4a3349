"""Seconds of one training step: bfloat16 against float32, and channels-last memory against torch's usual order.

    python -m benchmarks.training_step [--preset brainunet] [--side 64] [--batch 1] [--steps 3]

The ways are taken in turn, several times, so that a busy machine slows them alike; printed are medians and their ratios. On a
CUDA GPU the same by its clock, with the most memory that was allocated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from brainunet.config import LossConfig, ModelConfig
from brainunet.losses import loss_from
from brainunet.model import build, default_device
from brainunet.training.precision import uses_bf16

WAYS = {"fp32, channels last": (False, True), "bf16, channels last": (True, True), "bf16, usual order": (True, False)}


def stepper(preset: str, batch: int, side: int, half: bool, channels_last: bool, device: torch.device) -> Callable[[], float]:
    """A function that takes one step and tells its seconds."""
    order = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = build(ModelConfig(preset=preset), seed=0).to(device).train()
    network.to(memory_format=order)  # type: ignore[call-overload] # true of modules, missing in torch's stubs
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss_of = loss_from(LossConfig())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, side, generator=generator).to(device, memory_format=order)
    labels = torch.randint(0, 4, (batch, side, side, side), generator=generator, dtype=torch.uint8).to(device)

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = network(images)
        loss_of(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="brainunet")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    asked = parser.parse_args()
    device = default_device()
    shape = (asked.batch, 3, asked.side, asked.side, asked.side)
    if not uses_bf16("auto", device, build(ModelConfig(preset=asked.preset)), shape):
        print("this processor has no instructions for bf16, or gets a gradient wrong: training takes fp32 here")
    steps = {name: stepper(asked.preset, asked.batch, asked.side, *way, device) for name, way in WAYS.items()}
    for step in steps.values():
        step()  # the first one compiles kernels
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.steps):
        for name, step in steps.items():
            seconds[name].append(step())
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{asked.preset}, batch {asked.batch} of {asked.side}^3 on {device}:")
    for name, median in medians.items():
        print(f"  {name}: {median:.2f} s a step")
    fp32, bf16, usual = medians.values()
    print(f"  bf16 is {fp32 / bf16:.2f} x as fast as fp32; channels last {usual / bf16:.2f} x as fast as the usual order")
    if device.type == "cuda":
        print(f"  {torch.cuda.max_memory_allocated() / 2**20:.0f} MB at most, of all three together")


if __name__ == "__main__":
    main()
