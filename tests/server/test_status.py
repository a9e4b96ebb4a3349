"""What a server says and is asked through files: never a crash over a damaged one, never two servers of one folder."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainunet.errors import BrainUNetError, FederationError
from brainunet.moments import duration
from brainunet_server.federation import Folder
from brainunet_server.screens import ago, shown, status_lines
from brainunet_server.status import (
    Status,
    Wanted,
    hold_lock,
    is_served,
    read_status,
    serving_pid,
    wait_for_end,
    want,
    wanted,
    write_status,
)
from tests.support.federation import NOW, STATUS
from tests.support.rights import open_folder, ordinary_rights


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_status_comes_back_as_it_was_said(folder: Folder) -> None:
    assert read_status(folder) is None

    write_status(folder, STATUS)

    assert read_status(folder) == STATUS


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"pid": 1}', b"[" * 100_000])
def test_a_damaged_status_is_none_with_a_note(folder: Folder, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    folder.status_file.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        assert read_status(folder) is None

    assert "status.json is damaged" in caplog.text


def test_a_status_that_may_not_be_read_is_none_with_a_note(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.status_file.mkdir()

    assert read_status(folder) is None
    assert "can't be read" in caplog.text


def test_a_folder_is_served_while_its_lock_is_held_and_not_longer(folder: Folder) -> None:
    assert not is_served(folder)
    with hold_lock(folder):
        assert is_served(folder)
        assert serving_pid(folder) == str(os.getpid())
    assert not is_served(folder)
    assert serving_pid(folder) is None


def test_a_second_server_is_refused_and_told_of_the_first(folder: Folder) -> None:
    refused = pytest.raises(FederationError, match=rf"process {os.getpid()} serves this folder")
    with hold_lock(folder), refused as error, hold_lock(folder):
        pytest.fail("two servers of one folder")
    assert f"flower-server stop {folder.path}" in error.value.remedy
    with hold_lock(folder):
        pass


def test_the_lock_goes_with_a_process_that_is_killed(folder: Folder) -> None:
    holds = f"""
import sys, time
from pathlib import Path
from brainunet_server.federation import Folder
from brainunet_server.status import hold_lock
with hold_lock(Folder(Path({str(folder.path)!r}))):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert serving_pid(folder) == str(process.pid)
        process.kill()
        process.wait()
    assert not is_served(folder)


def test_looking_whether_a_server_runs_does_not_keep_one_from_starting(folder: Folder) -> None:
    end = threading.Event()
    with hold_lock(folder):
        pass

    def look() -> None:
        while not end.is_set():
            is_served(folder)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(20):
            with hold_lock(folder):
                pass
    finally:
        end.set()
        for watcher in watchers:
            watcher.join()


def test_the_lock_of_a_folder_that_may_not_be_written_is_said() -> None:
    with open_folder() as path:
        path.chmod(0o555)
        with ordinary_rights(), pytest.raises(BrainUNetError, match="it can't be written"), hold_lock(Folder(path)):
            pass
        path.chmod(0o755)


def test_waiting_ends_with_the_server(folder: Folder) -> None:
    begun, asked = threading.Event(), threading.Event()

    def serve() -> None:
        with hold_lock(folder):
            begun.set()
            asked.wait(10)

    server = threading.Thread(target=serve)
    server.start()
    begun.wait(10)
    assert not wait_for_end(folder, 0)
    asked.set()
    assert wait_for_end(folder, 10)
    server.join()


@pytest.mark.parametrize("what", get_args(Wanted))
def test_what_is_wanted_comes_back(folder: Folder, what: Wanted) -> None:
    want(folder, what)

    assert wanted(folder) == what


def test_a_wish_to_stop_is_not_for_the_next_server(folder: Folder) -> None:
    with hold_lock(folder):
        want(folder, "stop")
        assert wanted(folder) == "stop"

    with hold_lock(folder):
        assert wanted(folder) == "run"


def test_nothing_wanted_is_to_run(folder: Folder) -> None:
    assert wanted(folder) == "run"
    folder.wanted_file.mkdir()
    assert wanted(folder) == "run"


@given(st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_never_a_wish_to_stop(folder: Folder, content: bytes) -> None:
    folder.wanted_file.write_bytes(content)

    assert wanted(folder) == ("run" if content.strip() not in (b"pause", b"stop") else content.strip().decode())


def said(pid: str | None, status: Status | None = STATUS) -> str:
    return "\n".join(status_lines(Folder(Path("fed")), status, pid, NOW))


@pytest.mark.usefixtures("_at_greenwich")
def test_a_running_round_is_told_in_words() -> None:
    assert said("4242") == (
        "run 20260301-aaaa, round 3 of 30: running\n"
        "1 of 2 sites has replied.\n"
        "replies until 2026-03-01 23:00+00:00, in 11 h\n"
        "at fl.example.org:8443, process 4242, last heard of on 2026-03-01 11:59:55+00:00, 5 s ago; a round takes 2 sites"
    )


@pytest.mark.usefixtures("_at_greenwich")
def test_what_a_dead_server_said_last_is_not_told_as_if_it_ran() -> None:
    assert said(None) == (
        "no server runs for fed; it was last heard of on 2026-03-01 11:59:55+00:00, 5 s ago\n"
        "then: run 20260301-aaaa, round 3 of 30: running: 1 of 2 sites has replied."
    )


def test_a_server_that_has_said_nothing_and_none_at_all() -> None:
    assert said("7", None) == "process 7 serves fed; it has said nothing yet"
    assert said(None, None) == "no server runs for fed"
    assert said("7").startswith("process 7 is starting; this was said by an earlier one:\n")


@pytest.mark.usefixtures("_at_greenwich")
def test_a_deadline_that_has_passed_and_a_clock_that_was_set_back() -> None:
    late = STATUS.model_copy(update={"deadline_at": NOW - timedelta(minutes=3), "updated_at": NOW + timedelta(hours=1)})

    assert "2026-03-01 11:57+00:00, 3 min ago" in said("4242", late)
    assert "in the future: a clock was changed" in said("4242", late)


def test_text_of_others_can_not_steer_the_terminal() -> None:
    hostile = STATUS.model_copy(update={"message": "all\x1b[2J\x9b31m well\r\n", "run": "\u202eabc"})

    assert not any(not character.isprintable() for character in said("4242", hostile).replace("\n", ""))
    assert shown("naïve 🧠") == "naïve 🧠"


@given(st.floats(0, 1e9))
def test_every_duration_has_one_or_two_units(seconds: float) -> None:
    words = duration(seconds).split()

    assert len(words) in (2, 4)
    assert ago(NOW - timedelta(seconds=seconds), NOW).endswith(" ago")
