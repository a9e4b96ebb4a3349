"""The memory of one training step, with and without activation checkpointing, each in a process of its own.

    python -m benchmarks.training_memory [--preset brainunet] [--side 128] [--norm group] [--precisions fp32 bf16]

Printed: the most resident memory of the process (Python, torch, weights and Adam's moments with it), how many times as long the
step takes with checkpointing, and what the estimate said that ``auto`` goes by. bf16 is left out where the processor has no
instructions for it. At side 128 the paper's network takes minutes on two cores, and 12 GB in fp32 without
checkpointing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

HALF = {"fp32": False, "bf16": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="brainunet")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--norm", default="group")
    parser.add_argument("--precisions", nargs="+", choices=HALF, default=list(HALF))
    parser.add_argument("--one", choices=("on", "off"), help=argparse.SUPPRESS)  # one step, in this process
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one_step(asked.preset, asked.side, asked.norm, HALF[asked.precisions[0]], asked.one == "on")))
        return
    print(f"{asked.preset}, {asked.norm} norm, one patch of {asked.side}^3, one step of AdamW")
    for precision in asked.precisions:
        if precision == "bf16" and not has_bf16():
            print("  bf16: left out, this processor has no instructions for it")
            continue
        common = ["--preset", asked.preset, "--side", str(asked.side), "--norm", asked.norm, "--precisions", precision]
        without, with_it = (in_a_process([*common, "--one", switch]) for switch in ("off", "on"))
        print(
            f"  {precision}: {without['peak_mb']:.0f} MB without (estimated {without['estimate_mb']:.0f} + program), "
            f"{with_it['peak_mb']:.0f} MB with checkpointing, {with_it['peak_mb'] / without['peak_mb']:.2f} of it; "
            f"{with_it['seconds'] / without['seconds']:.2f} times the seconds ({without['seconds']:.1f} s without)"
        )


def in_a_process(arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training_memory", *arguments]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return told


def has_bf16() -> bool:
    import torch

    has = torch.cpu.get_capabilities()
    return any(bool(has.get(feature)) for feature in ("avx512_bf16", "amx_bf16", "bf16"))


def one_step(preset: str, side: int, norm: str, half: bool, on: bool) -> dict[str, float]:
    import torch
    from torch.nn import functional as F

    from brainunet.allocation import return_memory_at_once
    from brainunet.config import ModelConfig
    from brainunet.model import build, set_activation_checkpointing
    from brainunet.model.activations import step_bytes
    from brainunet.settings import load

    return_memory_at_once()
    network = build(load(ModelConfig, base={"preset": preset, "norm": norm}), seed=0).train()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # as the training does
    estimate = step_bytes(network, (1, 3, side, side, side), half=half)
    set_activation_checkpointing(network, on)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.randn(1, 3, side, side, side).to(memory_format=torch.channels_last_3d)
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = network(image)
    F.cross_entropy(logits.float(), torch.zeros(1, side, side, side, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak_mb": peak_mb, "seconds": seconds, "estimate_mb": estimate / 1e6}


if __name__ == "__main__":
    main()
