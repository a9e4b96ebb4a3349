"""Keeps a site connected: starts the node, starts it again when it ends, and says in one line what it is waiting for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from brainunet import chain
from brainunet_client.enrolment import Identity, load_identity
from brainunet_client.home import Home, hold_lock
from brainunet_client.ledger import require_kept
from brainunet_client.preflight import diagnose
from brainunet_client.site_settings import read_site_settings
from brainunet_client.telling import tell

NODE: Final = (sys.executable, "-m", "brainunet_client.node")
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
STEADY_S = 60.0  # a node that lived so long was well: the next wait is short again
CONNECTED: Final = "connected; waiting for a task"


Look = Callable[[Identity], str | None]  # what keeps this site from its server, in words; None if nothing does


def supervise(home: Home, data: Path, *, node: Sequence[str] = NODE, look: Look = diagnose) -> None:
    """Run until SIGTERM or Ctrl-C.

    Args:
        home: the client's folder; one client at a time works in it.
        data: the folder of cases.
        node: the command of the process to keep running; the two folders and ``--parent PID`` are added.
        look: finds out whether it is worth starting.

    Raises:
        BrainUNetError: another client works in this home, or the kit, the key, site.toml or the ledger is not good.
        KeyboardInterrupt: Ctrl-C, after everything was ended in order.
    """
    os.umask(0o077)  # whatever this and its children write is not for others
    with hold_lock(home):
        identity = load_identity(home)
        read_site_settings(home)
        require_kept(home)
        chain.verify(home.ledger)
        process = NodeProcess([*node, str(home.path), str(data.absolute()), "--parent", str(os.getpid())])
        signal.signal(signal.SIGTERM, process.stop)
        signal.signal(signal.SIGINT, process.stop)
        kit = identity.kit
        tell(f"{kit.site} in {kit.federation}; server {kit.server}. Ctrl-C ends it; tasks resume later.")
        keep_connected(process, lambda: look(identity), tell, home.log)
        tell("stopped")
    if process.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


class Node(Protocol):
    """What is kept running, until it is ``stopping``."""

    @property
    def stopping(self) -> bool: ...

    def run(self, when_steady: Callable[[], None]) -> int:
        """Start it and wait for its end; ``when_steady`` is called once it has lived for ``STEADY_S``."""

    def sleep(self, seconds: float) -> None: ...


def keep_connected(node: Node, look: Callable[[], str | None], say: Callable[[str], None], log: Path) -> None:
    """Run the node whenever ``look`` finds no trouble, with growing pauses; each state is said once, when it begins."""
    wait_s, said, ended = FIRST_WAIT_S, "", False

    def say_once(words: str) -> None:
        nonlocal said
        if words != said:
            said = words
            say(words)

    def steady() -> None:
        nonlocal wait_s, ended
        wait_s, ended = FIRST_WAIT_S, False
        say_once(CONNECTED)

    while not node.stopping:
        trouble = look()
        if trouble is None:
            if not ended:  # else it may end at once again: not said before it has lived for a while
                say_once(CONNECTED)
            code = node.run(steady)
            if node.stopping:
                break
            trouble = look()
            ended = trouble is None
            say_once(f"waiting: {trouble or _ended(code, log)}")
        else:
            ended = False
            say_once(f"waiting: {trouble}")
        node.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _ended(code: int, log: Path) -> str:
    return (
        f"the connection ended (exit {code}). If this goes on: the server may not know this site "
        f"(revoked, or not enrolled there); ask the coordinator. Details: {log}"
    )


class NodeProcess:
    """The child process, and the wish to stop it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.stopping, self.stopped_by = False, 0

    def run(self, when_steady: Callable[[], None]) -> int:
        # a session of its own: Ctrl-C reaches this process alone, which then stops the node in order
        self._process = subprocess.Popen(self._command, start_new_session=True)
        if self.stopping:
            self._process.terminate()
        try:
            return self._process.wait(STEADY_S)
        except subprocess.TimeoutExpired:
            when_steady()
        return self._process.wait()

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        self.stopping, self.stopped_by = True, number
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def sleep(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < ends_at:
            time.sleep(0.2)
