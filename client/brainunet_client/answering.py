"""From a task that has arrived to the reply that leaves: kept, checked against the site's rules, done, and written down.

The order is what a power cut needs: the task is kept before it is begun, the reply is kept before it is written down in the
ledger, and the ledger is written before the reply leaves. A task that comes again (its reply was lost, or the server
restarted) is answered with the kept reply, without any work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from brainunet.errors import BrainUNetError, FederationError
from brainunet.kit import Kit
from brainunet.records import AnyTask, EvaluateReply, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.spool import read_packed, write_packed
from brainunet.wire import Packed, pack, unpack
from brainunet_client.consent import read_register
from brainunet_client.faults import fault_code, of_this_site
from brainunet_client.home import Home
from brainunet_client.ledger import figures_of, record_refused_bundle, record_sent
from brainunet_client.site_settings import SiteSettings, read_site_settings, seconds_until_allowed
from brainunet_client.telling import tell

log = logging.getLogger(__name__)

OUTSIDE_HOURS_EXIT = 75  # of the worker: it has saved its work and goes on when it is started again within hours
WORKER = (sys.executable, "-m", "brainunet_client.worker")

Say = Callable[[str], None]
Run = Callable[[Sequence[str]], int]  # a command to its end, and the code it ended with


def run_command(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False).returncode


@dataclass(frozen=True)
class Clock:
    """The time of day, seconds that no setting of the clock changes, and waiting."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    seconds: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Desk:
    """Where tasks are answered: a home, the folder of cases, and who the site is."""

    home: Home
    data: Path
    kit: Kit
    say: Say = tell
    run: Run = run_command
    clock: Clock = Clock()

    def answer(self, packed: Packed) -> Packed:
        """The reply to a task. Whatever goes wrong becomes a fault code; the exception's text goes to the site's log.

        Raises:
            BrainUNetError: the ledger can't be continued: then nothing may leave.
        """
        arrived = self.clock.seconds()
        run, exchange = "unknown", 0
        try:
            task: AnyTask = unpack(packed, AnyTask)
            run, exchange = task.run, task.round
            with of_this_site():
                reply_file = self._reply_file(packed)
            reply = _ready(reply_file)
            if reply is None:
                reply = self._work(task, packed, reply_file, arrived)
            else:
                self.say(f"round {exchange}: asked again, sending the reply that is ready")
        except Exception as error:  # noqa: BLE001 # told in a code, and whole in the log
            return self.refuse(error, run, exchange)
        self._write_down(reply)
        return reply

    def refuse(self, error: Exception, run: str = "unknown", exchange: int = 0) -> Packed:
        """The fault to tell instead of a reply.

        Raises:
            BrainUNetError: the ledger can't be continued: then nothing may leave.
        """
        log.error("round %s could not be done; the coordinator is told a code only", exchange, exc_info=error)
        if isinstance(error, BrainUNetError):
            self.say(f"round {exchange} could not be done: {error}")
        fault = pack(Fault(run=run, round=exchange, code=fault_code(error)))
        self._write_down(fault)
        return fault

    def note_refused_bundle(self) -> None:
        """Write down that the server is told of the refusal of its bundle; call it before that leaves.

        Raises:
            BrainUNetError: the ledger can't be continued: then nothing may leave.
        """
        record_refused_bundle(self.home, server=self.kit.server, federation=self.kit.federation)

    def _work(self, task: AnyTask, packed: Packed, reply_file: Path, arrived: float) -> Packed:
        for other in reply_file.parent.glob(f"{self.home.reply.name}-*"):
            other.unlink()
        write_packed(self.home.received, packed)
        while True:
            left_s = self._left_s(task, arrived)
            if left_s is not None and left_s <= 0:
                return pack(_fault(task, FaultCode.TOO_LATE))
            # anew each time: the worker has read them since, and the two must agree on the hours
            with of_this_site():
                settings = read_site_settings(self.home)
            if isinstance(task, TrainTask) and not self._wait_for_hours(task, settings, left_s):
                return pack(_fault(task, FaultCode.OUTSIDE_HOURS))
            code = self._run_worker(reply_file, self._left_s(task, arrived))
            if code != OUTSIDE_HOURS_EXIT:
                break
        reply = read_packed(reply_file)
        if reply is None:
            killed = code == -signal.SIGKILL  # what the system does to a process that takes too much memory
            self.say(f"round {task.round}: the work ended without a reply (exit {code}); see {self.home.log}")
            if killed:
                self.say("most likely memory ran out: close other programs here, or ask the coordinator for smaller patches")
            return pack(_fault(task, FaultCode.OUT_OF_MEMORY if killed else FaultCode.INTERNAL))
        return reply

    def _left_s(self, task: AnyTask, arrived: float) -> float | None:
        return None if task.answer_within_s is None else task.answer_within_s - (self.clock.seconds() - arrived)

    def _wait_for_hours(self, task: TrainTask, settings: SiteSettings, left_s: float | None) -> bool:
        """Wait until training may run; False if the coordinator will not wait for so long."""
        wait_s = seconds_until_allowed(settings, self.clock.now())
        if left_s is not None and wait_s >= left_s:
            return False
        if wait_s > 0:
            self.say(f"round {task.round}: waiting {wait_s / 3600:.1f} hours, until training may run here (hours in site.toml)")
            self.clock.wait(wait_s)
        return True

    def _run_worker(self, reply_file: Path, left_s: float | None) -> int:
        """Do the task in a process of its own: its memory is free afterwards, and its end is not ours."""
        limit = [] if left_s is None else ["--seconds", str(max(1, int(left_s)))]
        # the worker ends by itself when this process is gone
        parent = ["--parent", str(os.getpid())]
        return self.run([*WORKER, str(self.home.path), str(self.data), str(reply_file), *parent, *limit])

    def _reply_file(self, packed: Packed) -> Path:
        """Where the reply to this task is kept, as long as the register of excluded cases stays as it is, and so do the
        settings that say what may leave: a reply made before may tell too much, or that a budget is spent which was raised.

        Raises:
            ConfigError, PrivacyError: settings or a register that can't be read.
        """
        # the same task, whatever of this site's ledger the coordinator knows by now and however long it waits: a reply is not
        # made twice for that, and under privacy not paid for twice
        header = json.dumps({**json.loads(packed.header), "ledger_head": "", "answer_within_s": None})
        allowed = read_site_settings(self.home).model_dump_json(include={"min_cases", "privacy"})
        sha = hashlib.sha256(self._register_digest() + allowed.encode() + header.encode())
        if packed.values is not None:
            sha.update(packed.values.data)
        return self.home.reply.with_name(f"{self.home.reply.name}-{sha.hexdigest()[:16]}")

    def _register_digest(self) -> bytes:
        """Of the register's bytes, none where it is missing: a reply made before a consent was withdrawn must not leave."""
        read_register(self.home.consent)  # for its words, where it can't be read
        try:
            return hashlib.sha256(self.home.consent.read_bytes()).digest()
        except FileNotFoundError:
            return hashlib.sha256().digest()

    def _write_down(self, packed: Packed) -> None:
        """In the ledger, before anything leaves; without it nothing may leave.

        Raises:
            BrainUNetError: the ledger can't be continued.
        """
        reply, values = _reply(packed), packed.values
        settings = read_site_settings(self.home)
        record_sent(
            self.home,
            server=self.kit.server,
            federation=self.kit.federation,
            run=reply.run,
            round=reply.round,
            kind=reply.kind,
            n_bytes=packed.n_bytes,
            # of the weights where there are any: the coordinator's audit names the same digest
            digest=hashlib.sha256(packed.header.encode() if values is None else values.data).hexdigest(),
            figures=figures_of(reply),
            purpose=settings.purpose,
            legal_basis=settings.legal_basis,
        )
        what = reply.code.value if isinstance(reply, Fault) else f"{packed.n_bytes / 1e3:.0f} kB"
        self.say(f"round {reply.round}: sending {reply.kind.replace('_', ' ')}, {what}")


def _ready(reply_file: Path) -> Packed | None:
    """The reply that is kept; None for a fault, whose reason may have been mended, and for one of another version."""
    packed = read_packed(reply_file)
    try:
        return None if packed is None or isinstance(_reply(packed), Fault) else packed
    except FederationError:
        return None


def _reply(packed: Packed) -> Reply:
    reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    return reply


def _fault(task: AnyTask, code: FaultCode) -> Fault:
    return Fault(run=task.run, round=task.round, code=code)
