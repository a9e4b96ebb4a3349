"""A site stays connected by itself, says what it waits for, and ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError, ConfigError
from brainunet_client.home import Home, hold_lock, open_home
from brainunet_client.supervisor import CONNECTED, FIRST_WAIT_S, LONGEST_WAIT_S, NodeProcess, keep_connected, supervise
from brainunet_client.telling import tell
from tests.support.homes import joined_home
from tests.support.pace import first_fast

LOG = Path("/home/lagos/client.log")
DOWN = "the server can't be reached: wait"


@pytest.fixture(autouse=True)
def _umask_as_before() -> Iterator[None]:
    """A site closes what it writes to others, which must not last for the tests that come after it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@dataclass
class ScriptedNode:
    """Lives as long as the next word of its script says: "short" or "steady"; the last one is stopped."""

    lives: list[str]
    pauses: list[float] = field(default_factory=list)
    most_pauses: int = 100

    @property
    def stopping(self) -> bool:
        return not self.lives or len(self.pauses) >= self.most_pauses

    def run(self, when_steady: Callable[[], None]) -> int:
        if self.lives.pop(0) == "steady":
            when_steady()
        return 1

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def kept_connected(lives: Sequence[str], *troubles: str | None, most_pauses: int = 100) -> tuple[list[float], list[str]]:
    """The pauses and the words, when so many looks find trouble and all later ones none."""
    node, found, said = ScriptedNode(list(lives), most_pauses=most_pauses), list(troubles), list[str]()
    keep_connected(node, lambda: found.pop(0) if found else None, said.append, LOG)
    return node.pauses, said


def test_a_site_whose_server_is_there_says_that_it_is_connected() -> None:
    assert kept_connected(["steady"]) == ([], [CONNECTED])


def test_what_it_waits_for_is_said_once_and_the_pauses_grow() -> None:
    pauses, said = kept_connected(["steady"], *[DOWN] * 7)

    assert said == [f"waiting: {DOWN}", CONNECTED]
    assert pauses == [FIRST_WAIT_S, 4, 8, 16, 32, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_another_trouble_is_said_when_it_begins() -> None:
    _, said = kept_connected(["steady"], DOWN, DOWN, "the certificate has expired: renew it", DOWN)

    assert said == [f"waiting: {DOWN}", "waiting: the certificate has expired: renew it", f"waiting: {DOWN}", CONNECTED]


def test_a_node_that_ends_is_started_again_with_growing_pauses_and_that_is_said_once() -> None:
    pauses, said = kept_connected(["short"] * 8)

    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert said[0] == CONNECTED
    assert len(said) == 2
    assert said[1].startswith("waiting: the connection ended (exit 1). If this goes on: the server may not know this site")
    assert said[1].endswith(f"Details: {LOG}")


def test_a_node_that_lived_for_a_while_was_well_and_the_next_pause_is_short_again() -> None:
    pauses, said = kept_connected(["short", "short", "short", "steady", "short", "short"])

    assert pauses == [2, 4, 8, 2, 4]
    assert [words.split(" (")[0] for words in said] == [
        CONNECTED,
        "waiting: the connection ended",
        CONNECTED,  # only once it is certain
        "waiting: the connection ended",
    ]


def test_a_server_that_went_away_is_named_in_the_place_of_the_node_s_end() -> None:
    assert kept_connected(["short", "steady"], None, DOWN, DOWN)[1] == [CONNECTED, f"waiting: {DOWN}", CONNECTED]


def test_a_server_that_is_back_is_said_to_be_after_a_node_s_end_too() -> None:
    _, said = kept_connected(["short", "short"], None, None, DOWN)

    assert [words.split(" (")[0] for words in said] == [
        CONNECTED,
        "waiting: the connection ended",
        f"waiting: {DOWN}",
        CONNECTED,
    ]


def test_a_site_that_is_stopped_while_it_waits_starts_nothing_more() -> None:
    pauses, said = kept_connected(["steady"], *[DOWN] * 9, most_pauses=1)

    assert (len(pauses), said) == (1, [f"waiting: {DOWN}"])


def test_what_is_said_is_one_line_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    tell("connected again")

    line = capsys.readouterr().out
    assert line.endswith(" connected again\n")
    assert len(line) == len("2026-03-01 12:00:00+00:00 connected again\n")


# --- with processes ---------------------------------------------------------------------------------------------------------


def test_a_process_is_run_to_its_end_and_one_that_was_stopped_before_it_began_ends_at_once() -> None:
    node = NodeProcess([sys.executable, "-c", "import sys; sys.exit(7)"])
    assert node.run(lambda: None) == 7

    node = NodeProcess([sys.executable, "-c", "import time; time.sleep(60)"])
    node.stop()
    assert node.run(lambda: None) == -signal.SIGTERM
    node.sleep(60)  # not at all, for it is stopping


def test_a_pause_ends_when_the_site_is_stopped() -> None:
    node = NodeProcess([])
    threading.Timer(0.1, node.stop).start()

    node.sleep(60)

    assert node.stopping


# A node that says when it begins, and when it ends in order.
NODE = """
import signal, sys, time
def end(*_):
    time.sleep(0.1)
    print("node ended", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, lambda *_: print("node was interrupted", flush=True))
print("node began for", *sys.argv[1:], flush=True)
time.sleep(60)
"""
SUPERVISOR = """
import sys
from pathlib import Path
from brainunet_client.home import Home
from brainunet_client.supervisor import supervise
home, data, node = sys.argv[1:]
supervise(Home(Path(home)), Path(data), node=(sys.executable, "-c", node), look=lambda identity: None)
"""


@contextmanager
def supervisor(home: Home, data: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SUPERVISOR, str(home.path), str(data), NODE]
    # in a session of its own, as in a terminal: Ctrl-C goes to all of its processes
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Its lines up to the one with these words, which is the last if it never comes."""
    assert process.stdout is not None
    lines = list[str]()
    for line in process.stdout:
        lines.append(line.strip())
        if words in line:
            break
    return lines


@pytest.mark.parametrize("number", first_fast(signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_the_node_first_and_then_the_site(number: signal.Signals, tmp_path: Path) -> None:
    home = joined_home(tmp_path / "home")
    with supervisor(home, tmp_path) as process:
        first, second, third = said_until(process, "node began")
        assert first.endswith("lagos in glioma; server fl.example.org:8443. Ctrl-C ends it; tasks resume later.")
        assert second.endswith(CONNECTED)
        assert third == f"node began for {home.path} {tmp_path} --parent {process.pid}"

        os.killpg(process.pid, number)

        ended, stopped = said_until(process, "nothing more")
        assert ended == "node ended"
        assert stopped.endswith(" stopped")
        # SIGTERM is an end in order; Ctrl-C ends a command line with 130, and plain Python with the signal
        assert process.wait(10) == (0 if number is signal.SIGTERM else -signal.SIGINT)
    with hold_lock(home):
        pass


def test_a_second_client_in_one_home_is_refused_and_says_who_the_first_is(tmp_path: Path) -> None:
    home = joined_home(tmp_path / "home")
    before = signal.getsignal(signal.SIGTERM)

    with hold_lock(home), pytest.raises(BrainUNetError, match=f"another client works in it .process {os.getpid()}."):
        supervise(home, tmp_path)

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_site_that_has_not_joined_or_lost_its_settings_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Join in two steps"):
        supervise(open_home(tmp_path / "new"), tmp_path)

    home = joined_home(tmp_path / "home")
    home.settings.write_text("ours = 1\n")
    with pytest.raises(ConfigError, match="ours"):
        supervise(home, tmp_path)
