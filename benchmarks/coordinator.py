"""What the coordinator costs: its memory without a run, in a run of the small model, and with many sites and a large one.

    python -m benchmarks.coordinator [--sites 20] [--preset brainunet]

``flower-server run`` is a process of its own; the sites are threads of this one that answer at once with random updates over
the real protocol (TLS, keys, chunks). Printed: the most memory of the server and all below it (PSS, sampled), and seconds per
round against the time that the same bytes take through one plain TLS connection on this machine, in the same run.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.models import random_model
from benchmarks.processes import family_mb, watching
from brainunet.flower_environment import prepare_flower
from brainunet.records import TrainTask
from brainunet.weights import Weights

CHUNK = 256 * 1024


def say(text: str) -> None:
    print(text, flush=True)


def updates(number: int) -> Callable[[TrainTask], Weights]:
    """A site's own random updates: equal chunks of two sites would travel only once."""
    rng = np.random.default_rng(number)

    def update(task: TrainTask) -> Weights:
        flat = rng.standard_normal(sum(array.size for array in task.weights.arrays), dtype=np.float32)
        return Weights.from_flat(task.weights.layout, flat * np.float32(1e-4))

    return update


def wire_seconds(folder: Path, n_bytes: int) -> float:
    """The time that ``n_bytes`` take through one TLS connection on loopback, chunk by chunk, each one acknowledged."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / "keys" / "server.crt", folder / "keys" / "server.key")
    client_side = ssl.create_default_context(cafile=str(folder / "keys" / "ca.crt"))
    listener = socket.create_server(("127.0.0.1", 0))
    chunk = os.urandom(CHUNK)

    def receive() -> None:
        connection = server_side.wrap_socket(listener.accept()[0], server_side=True)
        left = n_bytes
        while left > 0:
            got = 0
            while got < min(CHUNK, left):
                got += len(connection.recv(CHUNK - got))
            left -= got
            connection.sendall(b"k")

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    with (
        socket.create_connection(listener.getsockname()) as plain,
        client_side.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        started = time.perf_counter()
        left = n_bytes
        while left > 0:
            secure.sendall(chunk[: min(CHUNK, left)])
            secure.recv(1)
            left -= CHUNK
        thread.join()
        return time.perf_counter() - started


def small(root: Path) -> None:
    from tests.support.fake_site import FakeSite, honest
    from tests.support.running import Federation

    made = Federation(root, rounds__count="3", rounds__min_sites="2")
    try:
        homes = [made.enrol(f"S{number}") for number in range(2)]
        server = made.serve()
        time.sleep(5)
        say(f"no run begun, two sites enrolled: {family_mb(server.process.pid):.0f} MB")
        with watching(server.process.pid) as peak, ExitStack() as stack:
            for number, home in enumerate(homes):
                stack.enter_context(FakeSite(home, honest(updates(number))))
            made.wait_completed(server, 300)
        say(f"a run of brainunet-nano, two sites: {peak.mb:.0f} MB at most")
    finally:
        made.close()


def large(root: Path, count: int, preset: str) -> None:
    from tests.support.fake_site import FakeSite, honest
    from tests.support.running import Federation

    root.mkdir()
    n_bytes = random_model(root / "random.safetensors", preset)
    patience = {"rounds__count": "1", "rounds__min_sites": str(count), "rounds__deadline_s": "3000"}
    made = Federation(root, model=root / "random.safetensors", **patience)
    try:
        homes = [made.enrol(f"S{number:02}") for number in range(count)]
        wire = wire_seconds(made.folder.path, 2 * count * n_bytes)
        server = made.serve()
        with watching(server.process.pid) as peak, ExitStack() as stack:
            for number, home in enumerate(homes):
                behaviour = honest(updates(number))
                stack.enter_context(FakeSite(home, behaviour, timeout_s=300))
            made.wait(lambda: "round 1: asking" in server.said, 300, "the round begins")
            started = time.perf_counter()
            made.wait(lambda: f"{count} of {count} answered" in server.said, 3000, "the round is over")
            seconds = time.perf_counter() - started
        five_models = 5 * n_bytes / 2**20
        say(
            f"{count} sites x {n_bytes / 1e6:.1f} MB: {seconds:.1f} s for a round, {seconds / wire:.1f} x the {wire:.1f} s that"
            f" the same bytes take through one TLS connection; {peak.mb:.0f} MB at most, 5 models + {peak.mb - five_models:.0f}"
        )
    finally:
        made.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--preset", default="brainunet")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare_flower(Path(folder) / "flower")  # before Flower is imported
        small(Path(folder) / "small")
        large(Path(folder) / "large", asked.sites, asked.preset)


if __name__ == "__main__":
    main()
