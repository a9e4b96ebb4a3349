"""One round of the full network with two real clients over TLS: seconds by phase, and the clients' memory.

    python -m benchmarks.real_size [--preset brainunet] [--steps 4] [--patch 64]

Everything runs on this machine: ``flower-server`` and two ``brainunet-client``, with made-up brains and random weights. The
phases are read from what the programs say: the task's way to the site, scoring and training there, the reply's way back.
Printed too: how the way there and back compares with the training, and the most memory of a client and all below it (PSS).
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.models import random_model
from benchmarks.processes import family_mb, watching
from brainunet.data.phantom import write_phantoms
from brainunet.flower_environment import prepare_flower

SITES = ("CRV", "NKDC")
PHASES = (  # name, what is said at its end, by whom
    ("task to the site, torch loaded, cases found", r"cases to train on", "client"),
    ("scoring and training", r"sending train reply", "client"),
    ("reply to the coordinator, average", r"round 1: \d of 2 answered", "server"),
)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="brainunet")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--patch", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare_flower(Path(folder) / "flower")  # before Flower is imported
        measure(Path(folder), asked.preset, asked.steps, asked.patch)


def measure(root: Path, preset: str, steps: int, patch: int) -> None:
    from tests.support.programs import Program
    from tests.support.running import Federation

    n_bytes = random_model(root / "random.safetensors", preset)
    settings = {
        "rounds__count": "1",
        "rounds__deadline_s": "3000",
        "train__steps": str(steps),
        "train__patch": f"[{patch},{patch},{patch}]",
        "validation__window": "[64,64,64]",
    }
    made = Federation(root / "federation", model=root / "random.safetensors", **settings)
    try:
        for seed, site in enumerate(SITES):
            write_phantoms(root / site, cases=2, style="ssa", seed=seed, shape=(64, 64, 64))
            made.enrol(site)
        server = made.serve()
        idle = family_mb(server.process.pid)
        clients: list[Program] = [made.join(site, root / site) for site in SITES]
        with ExitStack() as stack:
            peaks = [stack.enter_context(watching(client.process.pid)) for client in clients]
            made.wait(lambda: "round 1: asking" in server.said, 300, "the round begins")
            before = time.perf_counter()
            seconds: dict[str, float] = {}
            for name, words, who in PHASES:
                programs = clients if who == "client" else [server]
                made.wait(lambda words=words, programs=programs: all(re.search(words, p.said) for p in programs), 3000, name)  # type: ignore[misc]
                seconds[name] = time.perf_counter() - before - sum(seconds.values())
            made.wait_completed(server, 3000)
        time.sleep(10)
        waiting = [family_mb(client.process.pid) for client in clients]
    finally:
        made.close()
    say(f"{preset}, {n_bytes / 1e6:.1f} MB, two clients, {steps} steps at {patch}^3 in batches of one, two cases each")
    for name, took in seconds.items():
        say(f"  {name}: {took:.1f} s")
    ways = seconds[PHASES[0][0]] + seconds[PHASES[2][0]]
    say(f"  the ways there and back take {ways / seconds[PHASES[1][0]]:.2f} of the time of the work")
    say(f"  a client: {max(peak.mb for peak in peaks):.0f} MB at most, {max(waiting):.0f} MB while it waits for the server")
    say(f"  the server before the round: {idle:.0f} MB")


if __name__ == "__main__":
    main()
