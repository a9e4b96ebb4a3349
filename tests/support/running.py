"""A federation in real processes: ``flower-server run`` and ``brainunet-client`` as people start them, and what they left.

Everything that was started is killed at the end of the block, with all that it has started itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from brainunet import chain
from brainunet.certificates import read_site_key
from brainunet.chain import Entry
from brainunet.data.phantom import write_phantoms
from brainunet.kit import Kit, open_kit
from brainunet.modelfile import read_model
from brainunet.signing import SigningKey, read_signing_key, verify_file
from brainunet.starter import STARTER
from brainunet.weights import Weights
from brainunet_client.enrolment import install_kit, make_request
from brainunet_client.home import Home, open_home
from brainunet_server.federation import Folder
from brainunet_server.start_model import PURPOSE
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import SiteRound
from tests.support.federation import NAME, done, told
from tests.support.programs import Program

BIN: Final = Path(sys.executable).parent
# Two rounds of a few steps on small patches, and no patience where a test would wait for it.
QUICK: Final = {
    "rounds.count": "2",
    "rounds.gather_s": "2",
    "rounds.retry_s": "1",
    "rounds.deadline_s": "120",
    "rounds.keep_every": "1",
    "validation.min_cases": "1",
    "strategy.max_site_share": "1.0",
    "train.steps": "2",
    "train.patch": "[32,32,32]",
    "train.batch_size": "1",
    "train.precision": "fp32",
}
LOG_END: Final = 6000
# For tests with a SuperLink in their own process: of Flower's database and build of bundles, and of what uvicorn loads.
FLOWER_WARNINGS: Final = (
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning"),
)

T = TypeVar("T")


class Federation:
    """Below ``root``: the coordinator's folder ``fed``, a folder ``home-NAME`` for each site, and what each process said."""

    def __init__(self, root: Path, *, model: Path = STARTER, **settings: str) -> None:
        """``settings`` with ``__`` for the dot: ``rounds__count="3"``; beside those of QUICK."""
        self.root, self.folder, self.port = root, Folder(root / "fed"), free_port()
        self.settings = QUICK | {name.replace("__", "."): value for name, value in settings.items()}
        self.programs: list[Program] = []
        root.mkdir(parents=True, exist_ok=True)
        done("init", self.folder.path, "--name", NAME, "--host", "127.0.0.1", "--port", str(self.port), "--model", model)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def signing_key(self) -> SigningKey:
        return read_signing_key(self.folder.signing_key)

    def enrol(self, name: str, server: str | None = None) -> Home:
        """A site with its kit installed; ``server`` is where its kit says that the server is (a link's end)."""
        home = open_home(self.root / f"home-{name}")
        make_request(home, name, server or self.address)
        kit = self.root / f"{name}.kit"
        done("enrol", self.folder.path, home.request_of(name), "-o", kit, *(("--server", server) if server else ()))
        install_kit(home, kit, lambda kit, numbers: True)
        with home.settings.open("a") as settings:  # figures of so few cases are told only to tests
            settings.write("\nmin_cases = 1\n")
        return home

    def serve(self, *options: str, env: Mapping[str, str] | None = None, waits: bool = True) -> Program:
        """``flower-server run``, and wait until it listens."""
        sets = [word for name, value in self.settings.items() for word in ("--set", f"{name}={value}")]
        command = [str(BIN / "flower-server"), "run", str(self.folder.path), "--demo", *sets, *options]
        before = (self.root / "server.out").read_text().count(" is served at ") if (self.root / "server.out").exists() else 0
        program = self._start("server", command, env or {})
        if waits:
            self.wait(lambda: program.said.count(" is served at ") > before, 30, "the server listens")
        return program

    def join(self, name: str, data: Path, env: Mapping[str, str] | None = None) -> Program:
        """``brainunet-client --data``."""
        command = [str(BIN / "brainunet-client"), "--home", str(self.home(name).path), "--data", str(data)]
        return self._start(name, command, env or {})

    def check(self, home: Home, data: Path, env: Mapping[str, str]) -> str:
        """What ``brainunet-client --check`` says, also where it finds something."""
        command = [str(BIN / "brainunet-client"), "--home", str(home.path), "--data", str(data), "--check"]
        made = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400", **env}
        return subprocess.run(command, cwd=self.root, env=made, capture_output=True, text=True, check=False).stdout

    def run_command(self, *words: str | Path, env: Mapping[str, str] | None = None) -> str:
        """A command to its end, which must be a good one; what it said."""
        command = [str(BIN / words[0]), *map(str, words[1:])]
        made = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(env or {})}
        ended = subprocess.run(command, cwd=self.root, env=made, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def home(self, name: str) -> Home:
        return Home(self.root / f"home-{name}")

    def identity(self, name: str) -> tuple[Kit, EllipticCurvePrivateKey]:
        return open_kit(self.home(name).kit), read_site_key(self.home(name).key)

    def status(self) -> Any:
        """What ``flower-server status --json`` says."""
        return told("status", self.folder.path)

    def site_state(self, name: str) -> str:
        said = self.status()["status"]
        return next((str(site["state"]) for site in said["sites"] if site["name"] == name), "unknown") if said else "unknown"

    def audit(self, kind: str | None = None, **data: Any) -> list[Entry]:
        """The entries of a kind with these data; reading checks the chain."""
        entries = [entry for entry in chain.entries(self.folder.audit) if kind in (None, entry.kind)]
        return [entry for entry in entries if data.items() <= entry.data.items()]

    @property
    def run_id(self) -> str:
        return str(self.audit("run-started")[-1].data["run"])

    @contextmanager
    def store(self) -> Iterator[StoreReader]:
        with StoreReader(self.folder.store) as store:
            yield store

    def outcomes(self, number: int) -> dict[str, SiteRound]:
        """What each site did in an exchange, as the store tells it."""
        with self.store() as store:
            return {row.site: row for row in store.site_rounds(self.run_id) if row.round == number}

    def model_file(self, number: int) -> Path:
        return self.folder.models / self.run_id / f"round-{number:03d}.safetensors"

    def model(self, number: int) -> Weights:
        """The model after a round, its signature checked."""
        verify_file(self.model_file(number), self.signing_key.public, PURPOSE)
        return read_model(self.model_file(number))[0]

    def start(self) -> Weights:
        return read_model(self.folder.start_model)[0]

    def wait(self, what: Callable[[], T], seconds: float, why: str) -> T:
        """Wait until ``what`` gives something; else, or when a server ends badly, the test fails with what all have said."""
        ends_at = time.monotonic() + seconds
        while not (found := what()):
            if broken := [one for one in self.programs if one.name == "server" and (one.process.poll() or 0) > 0]:
                pytest.fail(f"the server ended with {broken[-1].process.returncode}; waited for: {why}\n{self.logs()}")
            if time.monotonic() > ends_at:
                pytest.fail(f"not within {seconds:g} s: {why}\n{self.logs()}")
            time.sleep(0.1)
        return found

    def wait_completed(self, server: Program, seconds: float) -> None:
        self.wait(lambda: not server.is_alive, seconds, "the run is completed")
        assert server.process.returncode == 0, self.logs()
        told = self.status()
        assert not told["served"]
        assert told["status"]["state"] == "completed", self.logs()
        assert self.audit("run-completed", run=self.run_id)

    def logs(self) -> str:
        logs = [program.log for program in self.programs] + sorted(self.root.glob("home-*/client.log"))
        return "\n".join(f"=== {log.name}\n{log.read_text(errors='replace')[-LOG_END:]}" for log in dict.fromkeys(logs))

    def close(self) -> None:
        for program in self.programs:
            program.close()

    def _start(self, name: str, command: list[str], env: Mapping[str, str]) -> Program:
        self.programs.append(Program(name, command, self.root, env))
        return self.programs[-1]


@pytest.fixture
def new_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Federations of one test, which end with it."""
    made: list[Federation] = []

    def make(**arguments: Any) -> Federation:
        made.append(Federation(tmp_path / f"federation-{len(made)}", **arguments))
        return made[-1]

    try:
        yield make
    finally:
        for federation in made:
            federation.close()
            sys.stdout.write(federation.logs())  # pytest shows it of a test that failed


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A folder of six made-up cases for each number."""
    root = tmp_path_factory.mktemp("phantoms")

    def folder(seed: int) -> Path:
        if not (root / str(seed)).exists():
            write_phantoms(root / str(seed), cases=6, style="ssa", seed=seed, shape=(48, 48, 48))
        return root / str(seed)

    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
