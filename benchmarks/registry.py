"""What a pull costs: seconds against one plain TLS connection, the share of a slow line, the server's memory, and cuts.

    python -m benchmarks.registry [--megabytes 91.35] [--only chunks]

``flower-server registry`` is a process of its own, and so is the plain sender that it is compared with; both run in the same
minutes on this machine. Printed: medians of five; for the memory the most that the server held (PSS, sampled).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import pss_mb, watching
from brainunet.registry.agreed import CHUNK_BYTES, prepare_grpc

TIMES: Final = 5
PULLERS: Final = 20
CUTS: Final = 10
LINE: Final = 50e6 / 8  # bytes a second
PIECE: Final = 256 * 1024


def say(text: str) -> None:
    print(text, flush=True)


def send_plainly(file: Path, keys: Path, ready: Any) -> None:
    """Send a file through one TLS connection after the other, as fast as it goes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.put(listener.getsockname()[1])
        while True:
            with context.wrap_socket(listener.accept()[0], server_side=True) as secure, file.open("rb") as opened:
                while piece := opened.read(PIECE):
                    secure.sendall(piece)


def take_plainly(port: int, ca: Path, target: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        target.open("wb") as opened,
    ):
        while piece := secure.recv(PIECE):
            opened.write(piece)


def median_s(work: Callable[[], object], times: int = TIMES) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def fetched(access: Any, name: str, target: Path, *, checked: bool) -> None:
    """A pull without the start of a program: the bytes on the disk, and ``checked`` also digest, signature and model."""
    from brainunet.registry.client import Registry
    from brainunet.registry.fetch import Part, fetch, held
    from brainunet.registry.keep import keep

    part = Part(target)
    with Registry(access) as registry:
        described = registry.describe(name)
    with held(part) as descriptor:
        fetch(partial(Registry, access), described.release, part, descriptor, patience_s=60, sleep=lambda seconds: None)
        if checked:
            keep(part, described, access.signing_key).file.unlink()
        else:
            part.remove()


def speed(publisher: Any, running: Any, root: Path, megabytes: float) -> None:
    from tests.support.registries import Served

    reader_pass = publisher.reader("fast", port=running.readers)
    access = Served(publisher, running.sites, running.readers).by_pass(reader_pass)
    context = multiprocessing.get_context("spawn")
    ready: Any = context.Queue()
    sender = context.Process(target=send_plainly, args=(publisher.file_of("v1"), publisher.folder.keys, ready), daemon=True)
    sender.start()
    try:
        port = ready.get(timeout=30)
        plain = median_s(partial(take_plainly, port, publisher.folder.ca_certificate, root / "plain"))
        alone = median_s(partial(fetched, access, "v1", root / "alone", checked=False))
        whole = median_s(partial(fetched, access, "v1", root / "whole", checked=True))
        command = [
            str(Path(sys.executable).parent / "brainunet"),
            "pull",
            "--kit",
            str(reader_pass),
            "--home",
            str(root / "home"),
        ]
        target = root / "pulled.safetensors"

        def pull() -> None:
            subprocess.run([*command, "--quiet", "-o", str(target)], check=True, stdout=subprocess.DEVNULL)
            target.unlink()

        program = median_s(pull)
    finally:
        sender.terminate()
    say(f"{megabytes:.1f} MB over loopback: one plain TLS connection {plain:.2f} s")
    say(f"  the registry, bytes on the disk {alone:.2f} s, {alone / plain:.1f} x; with every check {whole:.2f} s")
    say(f"  `brainunet pull`, from the command to its end {program:.2f} s, {program / plain:.1f} x")


def slow_line(publisher: Any, running: Any, root: Path) -> None:
    from tests.support.raw_line import RawLine
    from tests.support.registries import Served

    size = publisher.file_of("v1").stat().st_size
    reader_pass = publisher.reader("slow")
    with RawLine(running.readers, rate=LINE) as line:
        access = Served(publisher, running.sites, line.port).by_pass(reader_pass)
        seconds = median_s(partial(fetched, access, "v1", root / "slow", checked=False), 1)
        uncut, connections = line.down, line.connections
    say(f"a line of 50 Mbit/s: {seconds:.1f} s, {size / seconds / LINE:.1%} of it; {uncut / size - 1:.2%} of overhead")
    with RawLine(running.readers, rate=LINE) as line:
        access = Served(publisher, running.sites, line.port).by_pass(reader_pass)
        line.cut_at(*sorted(random.Random(7).sample(range(size // 50, size), CUTS)))
        fetched(access, "v1", root / "cut", checked=True)
        more, made = line.down - uncut, line.connections - connections
    say(
        f"{CUTS} cuts on it: {more / CUTS / 1024:.0f} KiB sent again for each, the beginnings of {made} connections counted in;"
        f" a chunk is {CHUNK_BYTES // 1024} KiB"
    )


def memory(publisher: Any, running: Any) -> None:
    from brainunet.registry.client import Registry
    from tests.support.registries import Served

    served = Served(publisher, running.sites, running.readers)
    accesses = [served.by_pass(publisher.reader(f"one-of-many-{number}")) for number in range(PULLERS)]

    def take(access: Any) -> int:
        with Registry(access) as registry:
            return sum(len(data) for data in registry.chunks(registry.describe("v1").release, 0))

    pid = running.program.process.pid
    take(accesses[0])
    time.sleep(1)
    idle = pss_mb(pid)
    started = time.perf_counter()
    with watching(pid) as peak, ThreadPoolExecutor(PULLERS) as pool:
        total = sum(pool.map(take, accesses))
    seconds = time.perf_counter() - started
    model = total / PULLERS / 2**20
    say(
        f"{PULLERS} at once: the server holds {peak.mb:.0f} MiB at most, {peak.mb - idle:.0f} more than idle"
        f" ({(peak.mb - idle) / PULLERS:.1f} each; a model is {model:.0f}); {total / 1e6 / seconds:.0f} MB/s in all"
    )


def chunks(publisher: Any, root: Path) -> None:
    """Chunks of other sizes than the one that was chosen."""
    from tests.support.registries import Served
    from tests.support.registry_process import RegistryProcess

    for kib in (64, 128, 256, 512, 1024, 2048):
        code = (
            "from brainunet.registry.agreed import prepare_grpc; prepare_grpc();"
            "from brainunet_server.registry import servicer as s;"
            f"s.CHUNK_BYTES = {kib} * 1024; s.BLOCK_BYTES = 4 * s.CHUNK_BYTES;"
            "from brainunet_server.cli import main; main()"
        )
        running = RegistryProcess(publisher, (sys.executable, "-c", code))
        with closing(running.program):
            access = Served(publisher, running.sites, running.readers).by_pass(publisher.reader(f"chunks-{kib}"))
            say(f"chunks of {kib} KiB: {median_s(partial(fetched, access, 'v1', root / 'chunks', checked=False)):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=91.35, help="of the model; that of `brainunet` has 91.35")
    parser.add_argument("--only", choices=["speed", "line", "memory", "chunks"])
    asked = parser.parse_args()
    prepare_grpc()
    os.environ.pop("https_proxy", None)
    from tests.support.registries import Publisher
    from tests.support.registry_process import RegistryProcess

    parts: dict[str, Callable[[Any, Any, Path], None]] = {
        "speed": lambda publisher, running, root: speed(publisher, running, root, asked.megabytes),
        "line": slow_line,
        "memory": lambda publisher, running, root: memory(publisher, running),
        "chunks": lambda publisher, running, root: chunks(publisher, root),
    }
    wanted: Sequence[str] = (asked.only,) if asked.only else tuple(parts)
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(Path(folder) / "publisher")
        publisher.publish("v1", asked.megabytes)
        running = RegistryProcess(publisher)
        with closing(running.program):
            for name in wanted:
                parts[name](publisher, running, Path(folder))


if __name__ == "__main__":
    main()
