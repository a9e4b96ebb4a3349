"""What privacy costs a training step: seconds and memory of one step over four cases, each way in a process of its own.

    python -m benchmarks.dp_step [--preset brainunet-fast] [--side 64] [--cases 4] [--steps 3] [--precision auto] [--no-hooks]

The ways: not private, one case after the other, and all cases as one batch; private as this project trains, with ordinary and
with secure noise; and private with Opacus' own hooks. Every private step draws all cases, so that each way does the same work,
and adds its noise. The ways take their steps in turn, so that a busy machine slows them alike. Printed: the median seconds of a
step and the most resident memory of the process, and their ratios to the faster of the two ways without privacy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any, cast

PLAIN = ("one by one", "as a batch")
PRIVATE = ("private", "private, secure noise")
HOOKS = "private, Opacus' hooks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="brainunet-fast")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--no-hooks", action="store_true", help="leave the slow way out")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a way, in this process
    asked = parser.parse_args()
    if asked.one:
        serve(asked.one, asked)
        return
    ways = [*PLAIN, *PRIVATE, *([] if asked.no_hooks else [HOOKS])]
    told = in_turn(ways, asked.steps)
    fastest = min(PLAIN, key=lambda way: told[way][0])
    print(f"{asked.preset}, {asked.cases} cases of one patch of {asked.side}^3, precision {asked.precision}:")
    for way, (seconds, peak_mb) in told.items():
        ratios = f"{seconds / told[fastest][0]:5.2f} x the seconds, {peak_mb / told[fastest][1]:4.2f} x the memory"
        print(f"  {way:24} {seconds:6.2f} s  {peak_mb:6.0f} MB  {ratios} of {fastest}")


def in_turn(ways: list[str], steps: int) -> dict[str, tuple[float, float]]:
    """Median seconds of a step and peak MB of each way; the first step of each, which compiles kernels, is left out."""
    workers = {}
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.dp_step", *sys.argv[1:], "--one", way]
        workers[way] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float] = {}
    for number in range(steps + 1):
        for way, worker in workers.items():
            stdin, stdout = cast("IO[str]", worker.stdin), cast("IO[str]", worker.stdout)
            stdin.write("step\n")
            stdin.flush()
            answer: dict[str, float] = json.loads(stdout.readline())
            peaks[way] = answer["peak_mb"]
            if number:
                seconds[way].append(answer["seconds"])
    for worker in workers.values():
        worker.communicate()
    return {way: (statistics.median(seconds[way]), peaks[way]) for way in ways}


def serve(way: str, asked: argparse.Namespace) -> None:
    step = stepper(way, asked)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}), flush=True)


def stepper(way: str, asked: argparse.Namespace) -> Callable[[], None]:
    """One step of a way, from patches that lie ready to changed weights."""
    import torch

    from brainunet.allocation import return_memory_at_once
    from brainunet.config import LossConfig, ModelConfig, TrainConfig
    from brainunet.losses import loss_from
    from brainunet.model import build, default_device
    from brainunet.model.forward import memory_order
    from brainunet.training.optimizer import optimizer_for
    from brainunet.training.precision import uses_bf16

    return_memory_at_once()
    device = default_device()
    network = build(ModelConfig(preset=asked.preset), seed=0).to(device).train()
    order = memory_order(network, device)
    network.to(memory_format=order)  # type: ignore[call-overload] # true of modules, missing in torch's stubs
    generator = torch.Generator().manual_seed(0)
    shape = (asked.cases, 3, *[asked.side] * 3)
    images = torch.randn(shape, generator=generator).to(device, memory_format=order)
    labels = torch.randint(0, 4, (asked.cases, *[asked.side] * 3), generator=generator, dtype=torch.uint8).to(device)
    half = uses_bf16(asked.precision, device, network, (1, *shape[1:]))
    loss_of, optimizer = loss_from(LossConfig()), optimizer_for(list(network.parameters()), TrainConfig())

    def backward(made: Any, some: slice, share: float = 1.0) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = made(images[some])
        (share * loss_of(logits, labels[some])).backward()  # type: ignore[no-untyped-call]

    def plain() -> None:
        optimizer.zero_grad(set_to_none=True)
        if way == "as a batch":
            backward(network, slice(None))
        else:
            for case in range(asked.cases):
                backward(network, slice(case, case + 1), 1 / asked.cases)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    if way in PLAIN:
        return plain

    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    from brainunet.training.case_by_case import CaseOptimizer, add_case, finish_step
    from brainunet.training.chance import Chance

    kind = DPOptimizer if way == HOOKS else CaseOptimizer
    private = kind(optimizer, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=asked.cases)
    if way == HOOKS:
        relu = torch.nn.functional.relu
        torch.nn.functional.relu = lambda input, inplace=False: relu(input)  # hooks forbid changes in place
        hooked = GradSampleModule(network, loss_reduction="mean")
        images.requires_grad_()

        def with_hooks() -> None:
            private.zero_grad(set_to_none=True)
            backward(hooked, slice(None))
            private.step()

        return with_hooks

    private.chance = Chance(system=way != "private")

    def by_case() -> None:
        private.zero_grad(set_to_none=True)
        for case in range(asked.cases):
            backward(network, slice(case, case + 1))
            add_case(private)
        finish_step(private)

    return by_case


if __name__ == "__main__":
    main()
