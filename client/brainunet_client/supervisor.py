"""Keeps a site connected: starts the node, starts it again when it ends, and says in one line what it is waiting for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home, hold_lock
from brainunet_client.preflight import diagnose
from brainunet_client.site_settings import read_site_settings
from brainunet_client.telling import tell

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
STEADY_S = 60.0  # a node that lived so long was well: the next wait is short again


def supervise(home: Home, data: Path) -> None:
    """Run until SIGTERM or Ctrl-C.

    Raises:
        BrainUNetError: another client works in this home, or the kit, the key or site.toml is not good.
    """
    with hold_lock(home):
        identity = load_identity(home)
        read_site_settings(home)
        node = _Node(home, data)
        signal.signal(signal.SIGTERM, node.stop)
        signal.signal(signal.SIGINT, node.stop)
        kit = identity.kit
        tell(f"{kit.site} of {kit.federation}, server {kit.server}; Ctrl-C ends it, and an unfinished task is taken up later")
        wait_s, said = FIRST_WAIT_S, ""
        while not node.stopping:
            trouble = diagnose(identity)
            if trouble is None:
                tell("connected; waiting for a task")
                said = ""
                started = time.monotonic()
                code = node.run()
                if node.stopping:
                    break
                wait_s = FIRST_WAIT_S if time.monotonic() - started >= STEADY_S else min(2 * wait_s, LONGEST_WAIT_S)
                trouble = diagnose(identity) or (
                    f"the connection ended (exit {code}). If this goes on: the server may not know this site "
                    f"(revoked, or not enrolled there); ask the coordinator. Details: {home.log}"
                )
            else:
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            if trouble != said:
                tell(f"waiting: {trouble}")
                said = trouble
            node.sleep(wait_s)
        tell("stopped")


class _Node:
    """The child process, and the wish to stop it."""

    def __init__(self, home: Home, data: Path) -> None:
        self._command = (sys.executable, "-m", "brainunet_client.node", str(home.path), str(data.absolute()))
        self._process: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def run(self) -> int:
        # a session of its own: Ctrl-C reaches this process alone, which then stops the node in order
        self._process = subprocess.Popen(self._command, start_new_session=True)
        if self.stopping:
            self._process.terminate()
        return self._process.wait()

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        self.stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def sleep(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < ends_at:
            time.sleep(0.2)
