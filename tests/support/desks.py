"""A desk whose workers are not processes, and whose time passes when it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet import chain
from brainunet.records import EvaluateReply, Fault, FaultCode, Reply, TrainReply
from brainunet.spool import write_packed
from brainunet.wire import Packed, pack, unpack
from brainunet_client.answering import WORKER, Clock, Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home
from brainunet_client.ledger import SENT
from tests.support.homes import joined_home

Work = Callable[[Path], int]  # what a worker does with the file for its reply, and the code that it ends with


def replying(reply: Reply) -> Work:
    def work(reply_file: Path) -> int:
        write_packed(reply_file, pack(reply))
        return 0

    return work


def ending(code: int) -> Work:
    return lambda reply_file: code


@dataclass
class Workers:
    """In the place of processes: each does the next thing of the list."""

    work: list[Work]
    commands: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(command)
        return self.work.pop(0)(Path(command[len(WORKER) + 2]))

    @property
    def count(self) -> int:
        return len(self.commands)


@dataclass
class Time:
    """Passes when somebody waits, or a test says so."""

    start: datetime
    passed_s: float = 0.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.passed_s += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.start + timedelta(seconds=self.passed_s), lambda: self.passed_s, self.wait)


def at(clock: str) -> Time:
    return Time(datetime.fromisoformat(f"2026-03-01T{clock}").astimezone())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return joined_home(tmp_path / "home")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_desk(home: Home, tmp_path: Path, said: list[str]) -> Callable[..., tuple[Desk, Workers]]:
    def open_desk(*work: Work, time: Time | None = None) -> tuple[Desk, Workers]:
        workers = Workers(list(work))
        clock = (time or at("12:00")).clock
        return Desk(home, tmp_path / "cases of Jane Doe", load_identity(home).kit, said.append, workers, clock), workers

    return open_desk


OpenDesk = Callable[..., tuple[Desk, Workers]]


def read(packed: Packed) -> Reply:
    reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    return reply


def code_of(packed: Packed) -> FaultCode:
    """The code of a fault in which there is nothing else."""
    reply = read(packed)
    assert isinstance(reply, Fault), reply
    assert json.loads(packed.header).keys() == {"protocol", "run", "round", "kind", "code"}
    assert packed.values is None
    return reply.code


def sent(home: Home) -> list[Mapping[str, Any]]:
    return [entry.data for entry in chain.entries(home.ledger) if entry.kind == SENT]


def is_the(reply: Reply, packed: Packed) -> bool:
    expected = pack(reply)
    return packed.header == expected.header and (
        np.array_equal(packed.values, expected.values)
        if packed.values is not None and expected.values is not None
        else packed.values is expected.values
    )
