"""``flower-server`` while a server runs or does not, its audit trail, and how light its help is."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from brainunet_server.federation import Folder, ServeOptions
from brainunet_server.status import hold_lock, wanted, write_status
from tests.support.federation import (
    NAME,
    STATUS,
    done,
    refused,
    serve,
    told,
)


def test_every_command_says_how_to_begin_where_there_is_no_federation(tmp_path: Path, requests: dict[str, Path]) -> None:
    commands: list[tuple[str | Path, ...]] = [
        *((name,) for name in ("sites", "status", "pause", "resume", "stop", "audit")),
        ("enrol", requests["north"]),
        ("revoke", "north", "--reason", "x"),
        *(("rotate", *what) for what in (("server",), ("site", "north"), ("signing",))),
    ]
    for command, *rest in commands:
        assert "flower-server init" in refused(4, command, tmp_path / "nowhere", *rest)
    assert not (tmp_path / "nowhere").exists()


def test_the_list_of_sites_shows_what_a_running_server_sees(fed: Path, requests: dict[str, Path], kit: Path) -> None:
    assert "no site is enrolled" in done("sites", fed)
    done("enrol", fed, requests["north"], "-o", kit)
    write_status(Folder(fed), STATUS)

    assert told("sites", fed)[0]["state"] is None
    with hold_lock(Folder(fed)):
        assert told("sites", fed)[0]["state"] == "working"
        assert "working" in done("sites", fed)


@pytest.mark.usefixtures("_at_greenwich")
def test_status_tells_a_running_server_from_one_that_has_ended(fed: Path) -> None:
    folder = Folder(fed)
    assert told("status", fed) == {"served": False, "pid": None, "status": None}
    write_status(folder, STATUS)

    assert "no server runs" in done("status", fed)
    assert "it was last heard of on 2026-03-01 11:59:55+00:00" in done("status", fed)
    assert told("status", fed)["served"] is False
    with hold_lock(folder):
        running = done("status", fed)
        assert told("status", fed)["status"]["round"] == 3
    assert "round 3 of 30: running" in running
    assert all(word in running for word in ("north", "working", "answered", "south", "never seen"))


def test_a_running_server_is_paused_and_resumed(fed: Path) -> None:
    folder = Folder(fed)
    assert "no server runs" in refused(6, "pause", fed)
    assert wanted(folder) == "run"
    with hold_lock(folder):
        done("pause", fed)
        assert wanted(folder) == "pause"
        assert "goes on" in done("resume", fed)
        assert wanted(folder) == "run"


def test_a_pause_outlives_its_server_until_it_is_ended(fed: Path) -> None:
    folder = Folder(fed)
    with hold_lock(folder):
        done("pause", fed)
    with hold_lock(folder):
        assert wanted(folder) == "pause"

    assert "no server runs; start it: flower-server run" in done("resume", fed)
    with hold_lock(folder):
        assert wanted(folder) == "run"


def test_stop_waits_for_the_end_of_the_server(fed: Path) -> None:
    folder, begun = Folder(fed), threading.Event()
    assert "no server runs" in done("stop", fed)
    assert wanted(folder) == "run"

    def until_stopped() -> None:
        with hold_lock(folder):
            begun.set()
            while wanted(folder) != "stop" and begun.is_set():
                pass

    server = threading.Thread(target=until_stopped)
    server.start()
    begun.wait(10)
    try:
        ended = serve("stop", fed)
    finally:
        begun.clear()
        server.join()

    assert (ended.code, ended.out) == (0, f"stopped; go on with: flower-server run {fed}\n")


def test_a_server_that_does_not_end_is_named(fed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainunet_server.cli.STOP_PATIENCE_S", 0.1)
    with hold_lock(Folder(fed)):
        ended = serve("stop", fed)

    assert ended.code == 6
    assert "still runs after 0 s" in ended.err
    assert "complete rounds are kept" in ended.err


def test_the_audit_trail_can_be_read_filtered_and_checked(fed: Path, requests: dict[str, Path], kit: Path) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    done("enrol", fed, requests["south"], "-o", kit)

    assert len(done("audit", fed).splitlines()) == 4
    assert len(done("audit", fed, "--kind", "site-enrolled").splitlines()) == 2
    assert len(done("audit", fed, "--site", "south").splitlines()) == 1
    last = told("audit", fed, "--last", "1")
    assert (last["n"], last["kind"], last["data"]["site"]) == (4, "site-enrolled", "south")
    assert told("audit", fed, "--verify") == {"entries": 4, "head": last["hash"], "torn": False}
    assert "4 entries, each as it was written" in done("audit", fed, "--verify")


def test_a_changed_or_removed_audit_trail_is_noticed(fed: Path) -> None:
    path = fed / "audit.jsonl"
    path.write_text(path.read_text().replace(NAME, "Glioma Afrika"))
    assert "audit.jsonl line 1" in refused(1, "audit", fed, "--verify")

    path.unlink()
    assert "it is missing" in refused(1, "audit", fed, "--verify")
    assert "it is missing" in refused(1, "audit", fed)


def test_run_hands_over_what_was_typed(fed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    stand_in = ModuleType("brainunet_server.serve")
    stand_in.serve = lambda *given: seen.extend(given)  # type: ignore[attr-defined] # serving itself has tests of its own
    monkeypatch.setitem(sys.modules, "brainunet_server.serve", stand_in)

    done("run", fed)
    done(
        "run",
        fed,
        "--port",
        "9000",
        "--listen",
        "127.0.0.1",
        "--database",
        "x.sqlite",
        "--demo",
        "--new-run",
        "--set",
        "seed=1",
    )

    assert seen == [
        *(Folder(fed), ServeOptions()),
        *(Folder(fed), ServeOptions("x.sqlite", 9000, "127.0.0.1", demo=True, new_run=True, overrides=("seed=1",))),
    ]


def test_the_help_loads_nothing_heavy() -> None:
    report = (
        "import sys, brainunet_server.cli;"
        "print(*sorted({'torch', 'flwr', 'sqlalchemy', 'matplotlib', 'cryptography', 'numpy'} & set(sys.modules)))"
    )

    ended = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60)

    assert ended.stdout.split() == []
