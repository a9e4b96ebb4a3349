"""A registry and pullers as people start them: real processes, keys and TLS on 127.0.0.1, and lines that break."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from brainunet import chain, home_folder
from brainunet.errors import ConfigError, FederationError
from brainunet.registry.access import Access
from brainunet.registry.client import Registry
from brainunet.registry.pulled import last_pulled
from brainunet.registry.records import Release
from brainunet_server.store.reader import StoreReader
from tests.support.federation import done
from tests.support.proxy import tunnel
from tests.support.raw_line import RawLine
from tests.support.registries import Publisher, Served
from tests.support.registry_process import RegistryProcess as Running
from tests.support.running import BIN
from tests.support.simulation import Ended

pytestmark = pytest.mark.slow

MEGABYTES = 8


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.publish("v1", MEGABYTES)
    made.publish("v2", MEGABYTES)
    return made


@pytest.fixture(scope="module")
def registry(publisher: Publisher) -> Iterator[Running]:
    running = Running(publisher)
    try:
        yield running
    finally:
        running.program.close()


def command(*words: str | Path) -> list[str]:
    return [str(BIN / "brainunet"), "pull", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return clean | {"COLUMNS": "200"} | more


def pull(*words: str | Path, **env: str) -> Ended:
    ended = subprocess.run(command(*words), env=environment(**env), capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def good(*words: str | Path, **env: str) -> Ended:
    ended = pull(*words, **env)
    assert ended.code == 0, ended.err
    return ended


@contextmanager
def pulling(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A pull under way, which ends with the block at the latest."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*words), env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait(what: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not what():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_a_site_pulls_the_newest_and_it_is_the_one_that_a_prediction_will_use(publisher: Publisher, registry: Running) -> None:
    home = publisher.site("lagos")
    server = f"127.0.0.1:{registry.sites}"

    ended = good("--home", home, "--server", server)

    file = home / "models" / "v2.safetensors"
    assert file.read_bytes() == publisher.file_of("v2").read_bytes()
    assert ended.out.startswith(f"v2 of Glioma Africa: {file} (8.0 MB came)\nsigned by the federation's key ")
    assert ended.err == ""
    remembered = last_pulled(home)
    assert remembered is not None
    assert (remembered.path, remembered.name, remembered.round) == (file, "v2", 2)
    assert remembered.verified() == file
    key = (publisher.folder.path / "keys" / "signing.pub").read_text().strip()
    checked = subprocess.run(
        [BIN / "brainunet", "model", "verify", file, "--key", key], capture_output=True, text=True, check=False
    )
    assert "the one you named" in checked.stdout

    again = json.loads(good("--home", home, "--server", server, "--json").out)
    assert (again["was_there"], again["bytes_fetched"], again["file"]) == (True, 0, str(file))
    older = good("--home", home, "--server", server, "--name", "v1")
    assert "v1 of Glioma Africa" in older.out
    assert sorted(path.name for path in file.parent.iterdir()) == [
        *("pulled.json", "v1.safetensors", "v1.safetensors.sig", "v2.safetensors", "v2.safetensors.sig"),
    ]
    remembered = last_pulled(home)
    assert remembered is not None
    assert remembered.name == "v1"


def test_a_reader_needs_nothing_but_its_pass_and_keeps_what_had_the_name(
    publisher: Publisher, registry: Running, tmp_path: Path
) -> None:
    reader_pass = publisher.reader("jane", port=registry.readers)
    mine, home = tmp_path / "mine.safetensors", tmp_path / "home"

    listed = good("--kit", reader_pass, "--home", home, "--list")
    assert [line.split()[1] for line in listed.out.splitlines() if "glioma-1" in line][-2:] == ["v2", "v1"]
    assert not home.exists()
    told = json.loads(good("--kit", reader_pass, "--home", home, "--list", "--json").out)
    assert [Release.model_validate(one).name for one in told["releases"]][-2:] == ["v2", "v1"]
    assert good("--kit", reader_pass, "--home", home, "--name", "v1", "-o", mine).err == ""
    ended = good("--kit", reader_pass, "--home", home, "-o", mine)

    first = publisher.file_of("v1").read_bytes()
    (aside,) = tmp_path.glob("mine.????????.safetensors")
    assert f"the file that had this name before is kept as {aside}" in ended.out
    assert (aside.read_bytes(), mine.read_bytes()) == (first, publisher.file_of("v2").read_bytes())
    assert aside.with_name(f"{aside.name}.sig").exists()
    assert not list(tmp_path.glob("*.part*"))


def test_a_puller_that_was_killed_goes_on_at_the_next_byte(publisher: Publisher, registry: Running, tmp_path: Path) -> None:
    reader_pass, mine = publisher.reader("unlucky"), tmp_path / "mine.safetensors"
    part = tmp_path / "mine.safetensors.part"
    with RawLine(registry.readers, rate=3e6) as line:
        words = ("--kit", reader_pass, "--home", tmp_path, "--server", f"127.0.0.1:{line.port}", "-o", mine)
        with pulling(*words) as killed:
            wait(lambda: part.exists() and part.stat().st_size > 3_000_000)
            killed.kill()
            killed.wait()
        had = part.stat().st_size
        assert not mine.exists()
        line.down = 0
        told = json.loads(good(*words, "--json").out)

        assert told["bytes_fetched"] == publisher.file_of("v2").stat().st_size - had
        assert line.down < told["bytes_fetched"] + 100_000
    assert mine.read_bytes() == publisher.file_of("v2").read_bytes()


def test_lines_that_break_and_a_registry_that_is_started_anew_cost_one_command(publisher: Publisher, tmp_path: Path) -> None:
    reader_pass, mine = publisher.reader("patient"), tmp_path / "mine.safetensors"
    first = Running(publisher)
    with closing(first.program), RawLine(first.readers, rate=6e6) as line:
        line.cut_at(1_000_000, 2_000_000, 2_500_000)
        words = ("--kit", reader_pass, "--home", tmp_path, "--server", f"127.0.0.1:{line.port}", "-o", mine)
        with pulling(*words, "--json") as patient:
            wait(lambda: line.down > 4_000_000)
            assert first.program.end() == 0  # SIGTERM, in the middle of a download
            second = Running(publisher)
            with closing(second.program):
                line.target = second.readers
                out, err = patient.communicate(timeout=60)
        assert patient.returncode == 0, err
    assert "the line was cut; trying again in 1 s" in err
    assert json.loads(out)["bytes_fetched"] == publisher.file_of("v2").stat().st_size
    assert mine.read_bytes() == publisher.file_of("v2").read_bytes()


def test_no_patience_says_what_is_kept_and_that_the_same_command_goes_on(
    publisher: Publisher, registry: Running, tmp_path: Path
) -> None:
    reader_pass, mine = publisher.reader("hurried"), tmp_path / "mine.safetensors"
    with RawLine(registry.readers, rate=20e6) as line:
        line.cut_at(3_000_000)
        words = ("--kit", reader_pass, "--home", tmp_path / "home", "--server", f"127.0.0.1:{line.port}", "-o", mine)
        ended = pull(*words, "--patience", "0")
        assert ended.code == FederationError.exit_code
        assert re.search(r"the line was cut\. Try again; [23]\.\d of 8\.0 MB are kept: the same command goes on", ended.err)
        good(*words)


def test_who_may_not_is_told_so_with_the_right_exit_code(publisher: Publisher, registry: Running, tmp_path: Path) -> None:
    home, site = publisher.site("leaving"), f"127.0.0.1:{registry.sites}"
    done("revoke", publisher.folder.path, "leaving", "--reason", "left")
    revoked = pull("--home", home, "--server", site)
    assert (revoked.code, revoked.out) == (6, "")
    assert "the registry does not let site leaving in: it was put out of the federation on" in revoked.err
    stranger = pull("--home", tmp_path)
    assert (stranger.code, stranger.out) == (ConfigError.exit_code, "")
    expired = pull("--kit", publisher.reader("late", days=-1), "--home", tmp_path)
    assert expired.code == 4
    unknown = pull(
        "--kit", publisher.reader("asking"), "--home", tmp_path, "--server", f"127.0.0.1:{registry.readers}", "--name", "v9"
    )
    assert unknown.code == 6
    assert "no release 'v9'" in unknown.err
    wrong = pull("--kit", publisher.reader("astray"), "--home", tmp_path, "--server", "nowhere")
    assert wrong.code == 2


def test_a_withdrawn_model_that_is_held_is_named_by_every_pull(publisher: Publisher, registry: Running, tmp_path: Path) -> None:
    publisher.publish("v3", 1)
    reader_pass, home = publisher.reader("holder", port=registry.readers), tmp_path / "home"
    good("--kit", reader_pass, "--home", home)
    publisher.withdraw("v3", "left and right were swapped")

    listed = good("--kit", reader_pass, "--home", home, "--list")
    warning = f"withdrawn: v3, which was pulled to {home}/models/v3.safetensors: left and right were swapped. Don't use it."
    assert warning in listed.err
    assert "WITHDRAWN: left and right were swapped" in listed.out
    ended = good("--kit", reader_pass, "--home", home)
    assert warning in ended.err
    assert "v2 of Glioma Africa" in ended.out
    refused = pull("--kit", reader_pass, "--home", home, "--name", "v3")
    assert refused.code == 6
    assert "v3: the federation has withdrawn it: left and right were swapped. The newest is v2" in refused.err


def test_a_proxy_in_capital_letters_is_gone_through(publisher: Publisher, registry: Running, tmp_path: Path) -> None:
    reader_pass = publisher.reader("behind", port=registry.readers)
    with tunnel() as proxy:
        good("--kit", reader_pass, "--home", tmp_path, HTTPS_PROXY=f"http://127.0.0.1:{proxy}")
    with tunnel(refuses=403) as proxy:
        ended = pull("--kit", reader_pass, "--home", tmp_path, "--list", HTTPS_PROXY=f"http://127.0.0.1:{proxy}")
    assert ended.code == 6
    assert f"the proxy 127.0.0.1:{proxy} does not let through to 127.0.0.1:{registry.readers} (403" in ended.err


def test_ctrl_c_ends_a_pull_and_a_registry_with_130(publisher: Publisher, tmp_path: Path) -> None:
    running = Running(publisher)
    with closing(running.program):
        with RawLine(running.readers, rate=1e6) as line:
            words = ("--kit", publisher.reader("stopping"), "--home", tmp_path, "--server", f"127.0.0.1:{line.port}")
            with pulling(*words) as stopped:
                wait(lambda: line.down > 500_000)
                stopped.send_signal(signal.SIGINT)
                _, err = stopped.communicate(timeout=20)
        assert (stopped.returncode, err) == (130, "interrupted\n")
        running.program.process.send_signal(signal.SIGINT)
        assert running.program.process.wait(20) == 130
        assert "Traceback" not in running.program.said


def test_the_registry_writes_nothing_but_downloads_and_the_audit_trail(publisher: Publisher, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        written = ("audit.jsonl", "store.sqlite", "store.sqlite-shm", "store.sqlite-wal")
        files = (path for path in publisher.folder.path.rglob("*") if path.is_file() and path.name not in written)
        return {str(path): path.read_bytes() for path in files}

    running = Running(publisher)
    try:
        before, audited = content(), len(list(chain.entries(publisher.folder.audit)))
        good("--kit", publisher.reader("neat", port=running.readers), "--home", tmp_path, "--name", "v1")
    finally:
        assert running.program.end() == 0
        running.program.close()
    assert content() == before
    entries = list(chain.entries(publisher.folder.audit))[audited:]
    assert [(entry.kind, entry.data["reader"], entry.data["release"]) for entry in entries] == [
        ("model-downloaded", "neat", "v1")
    ]
    with StoreReader(publisher.folder.store) as store:
        assert [row.whole for row in store.downloads("v1") if row.who == "neat"] == [True]
    assert "reader neat has fetched v1 (8.0 MB)" in running.program.said
    assert "the registry is stopped" in running.program.said


def test_many_downloads_at_once_take_no_model_s_memory_each(publisher: Publisher, registry: Running) -> None:
    publisher.publish("v-large", 30)
    served = Served(publisher, registry.sites, registry.readers)
    accesses = [served.by_pass(publisher.reader(f"many-{number}")) for number in range(10)]

    def take(access: Access) -> int:
        with Registry(access) as asked:
            return sum(len(data) for data in asked.chunks(asked.describe("v-large").release, 0))

    def most_memory_mb() -> float:
        status = Path(f"/proc/{registry.program.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    size = take(accesses[0])
    before = most_memory_mb()
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(take, accesses)) == [size] * 10
    assert most_memory_mb() - before < 10 * size / 2**20 / 3
    publisher.withdraw("v-large", "made for a test")


def test_no_secret_is_in_what_either_side_says(publisher: Publisher, registry: Running, tmp_path: Path) -> None:
    reader_pass = publisher.reader("discreet", port=registry.readers)
    token = json.loads(reader_pass.read_text())["token"]

    ended = good("--kit", reader_pass, "--home", tmp_path, "--json")
    refused = pull("--kit", reader_pass, "--home", tmp_path, "--name", "v9")

    kept = (tmp_path / home_folder.MODELS / home_folder.PULLED).read_text()
    said = (*(ended.out, ended.err, refused.err, registry.program.said, kept), publisher.folder.audit.read_text())
    assert not [text for text in said if token in text]
