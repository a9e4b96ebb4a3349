"""The wait before a round: for enough sites, a while for the rest, and for a person who has paused the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.records import AnyTask
from brainunet_server import patience
from brainunet_server.answers import Answer
from brainunet_server.federation import Folder, RoundsConfig
from brainunet_server.patience import Patient, Stop, obey
from brainunet_server.presence import Board
from brainunet_server.record import Record
from brainunet_server.status import want, wanted
from tests.support.messages import evaluate_task, train_task
from tests.support.replies import train_reply

Happens = Callable[[], object]


@dataclass
class Clock:
    """Time that passes only while somebody sleeps; ``at`` says what happens when."""

    now: float = 100.0
    at: dict[float, Happens] = field(default_factory=dict)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 0.01)
        assert self.now < 10_000, "it waits for ever"
        for hour in sorted(hour for hour in self.at if 100 + hour <= self.now):
            self.at.pop(hour)()


@dataclass
class Connected:
    """Stands for the membership: who is connected, of how many."""

    sites: list[str]
    size: int = 3

    def connected(self) -> list[str]:
        return sorted(self.sites)


@dataclass
class Inner:
    answers: list[Answer] = field(default_factory=list)
    asked: list[Sequence[str]] = field(default_factory=list)

    def is_member(self, site: str) -> bool:
        return True

    def sites(self) -> Sequence[str]:
        raise AssertionError("the membership says who is connected")

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        self.asked.append(sites)
        yield from self.answers


@dataclass
class Waiting:
    folder: Folder
    clock: Clock
    membership: Connected
    inner: Inner
    patient: Patient

    @property
    def board(self) -> Board:
        return self.patient.board

    def messages(self) -> list[tuple[str, str]]:
        """All that the board says on the way, told at each half second."""
        said = [(str(self.board.state), self.board.message)]
        before = self.clock.sleep

        def sleep(seconds: float) -> None:
            if said[-1] != (self.board.state, self.board.message):
                said.append((str(self.board.state), self.board.message))
            before(seconds)

        self.clock.sleep = sleep  # type: ignore[method-assign]
        return said


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    clock, folder = Clock(), Folder(tmp_path)
    monkeypatch.setattr(patience, "time", clock)
    rounds = RoundsConfig(min_sites=2, gather_s=60, deadline_s=3600)
    board = Board(folder, "glioma-1", 30, rounds.min_sites, "fl.example.org:8443")
    membership, inner = Connected([]), Inner()
    patient = Patient(inner, folder, rounds, membership, board, Record(folder.audit, "glioma-1"))  # type: ignore[arg-type]
    return Waiting(folder, clock, membership, inner, patient)


def kinds(folder: Folder) -> list[str]:
    return [entry.kind for entry in chain.entries(folder.audit)]


def test_with_all_sites_connected_a_round_begins_at_once(waiting: Waiting) -> None:
    waiting.membership.sites = ["NKDC", "CRV", "LASUTH"]

    assert waiting.patient.sites() == ["CRV", "LASUTH", "NKDC"]
    assert waiting.clock.now == 100


def test_once_enough_are_connected_the_others_get_a_while(waiting: Waiting) -> None:
    waiting.membership.sites = ["NKDC", "CRV"]

    assert waiting.patient.sites() == ["CRV", "NKDC"]
    assert waiting.clock.now == pytest.approx(160, abs=0.6)


def test_the_last_site_to_come_ends_the_wait(waiting: Waiting) -> None:
    waiting.membership.sites = ["NKDC", "CRV"]
    waiting.clock.at[20] = lambda: waiting.membership.sites.append("LASUTH")

    assert waiting.patient.sites() == ["CRV", "LASUTH", "NKDC"]
    assert waiting.clock.now == pytest.approx(120, abs=0.6)


def test_too_few_sites_are_waited_for_as_long_as_it_takes(waiting: Waiting) -> None:
    said = waiting.messages()
    waiting.clock.at = {
        500: lambda: waiting.membership.sites.append("CRV"),
        800: lambda: waiting.membership.sites.append("NKDC"),
    }

    assert waiting.patient.sites() == ["CRV", "NKDC"]
    assert waiting.clock.now == pytest.approx(960, abs=1)
    assert said == [
        ("starting", "starting"),
        ("waiting for sites", "2 sites are needed, connected: none"),
        ("waiting for sites", "2 sites are needed, connected: CRV"),
        ("waiting for sites", "2 of 3 sites are connected"),
    ]


def test_the_while_begins_anew_when_a_site_has_gone_in_between(waiting: Waiting) -> None:
    waiting.membership.sites = ["NKDC", "CRV"]
    waiting.clock.at = {
        50: lambda: waiting.membership.sites.remove("CRV"),
        70: lambda: waiting.membership.sites.append("CRV"),
    }

    waiting.patient.sites()

    assert waiting.clock.now == pytest.approx(100 + 70 + 60, abs=1)


def test_another_site_in_the_place_of_one_that_went_does_not_begin_it_anew(waiting: Waiting) -> None:
    waiting.membership.sites = ["NKDC", "CRV"]
    waiting.clock.at[50] = lambda: waiting.membership.sites.__setitem__(0, "LASUTH")

    assert waiting.patient.sites() == ["CRV", "LASUTH"]
    assert waiting.clock.now == pytest.approx(160, abs=0.6)


def test_a_paused_run_begins_no_round_until_it_is_resumed(waiting: Waiting) -> None:
    waiting.membership.sites = ["CRV", "LASUTH", "NKDC"]
    want(waiting.folder, "pause")
    waiting.clock.at[500] = lambda: want(waiting.folder, "run")
    said = waiting.messages()

    assert waiting.patient.sites() == ["CRV", "LASUTH", "NKDC"]
    assert waiting.clock.now == pytest.approx(600, abs=0.6)
    assert ("paused", "paused: no round begins until flower-server resume") in said
    assert kinds(waiting.folder) == ["run-paused", "run-resumed"]


def test_a_run_can_be_paused_while_it_waits_for_sites(waiting: Waiting) -> None:
    waiting.membership.sites = ["CRV", "NKDC"]
    waiting.clock.at = {10: lambda: want(waiting.folder, "pause"), 500: lambda: want(waiting.folder, "run")}

    assert waiting.patient.sites() == ["CRV", "NKDC"]
    assert waiting.clock.now == pytest.approx(600, abs=1)
    assert kinds(waiting.folder) == ["run-paused", "run-resumed"]


@pytest.mark.parametrize("sites", [[], ["CRV", "NKDC"]], ids=["too few", "enough"])
def test_a_stop_is_obeyed_while_it_waits(waiting: Waiting, sites: list[str]) -> None:
    waiting.membership.sites = sites
    waiting.clock.at[10] = lambda: want(waiting.folder, "stop")

    with pytest.raises(Stop):
        waiting.patient.sites()

    assert waiting.clock.now == pytest.approx(110, abs=0.6)


def test_a_stop_is_obeyed_before_a_round_that_could_begin(waiting: Waiting) -> None:
    waiting.membership.sites = ["CRV", "LASUTH", "NKDC"]
    want(waiting.folder, "stop")

    with pytest.raises(Stop):
        waiting.patient.sites()


def test_a_paused_run_can_be_stopped(waiting: Waiting) -> None:
    want(waiting.folder, "pause")
    waiting.clock.at[10] = lambda: want(waiting.folder, "stop")

    with pytest.raises(Stop):
        waiting.patient.sites()


def test_a_rest_is_as_long_as_it_should_be_and_a_stop_ends_it(waiting: Waiting) -> None:
    waiting.patient.rest(60)
    assert waiting.clock.now == pytest.approx(160, abs=0.6)
    waiting.patient.rest(0)
    assert waiting.clock.now == pytest.approx(160, abs=0.6)

    waiting.clock.at[70] = lambda: want(waiting.folder, "stop")
    with pytest.raises(Stop):
        waiting.patient.rest(60)
    assert waiting.clock.now == pytest.approx(170, abs=0.6)


def test_only_a_stop_is_obeyed_at_once(waiting: Waiting) -> None:
    for what in ("run", "pause"):
        want(waiting.folder, what)
        obey(waiting.folder)
    want(waiting.folder, "stop")
    with pytest.raises(Stop):
        obey(waiting.folder)
    assert wanted(waiting.folder) == "stop"


def test_an_exchange_is_told_on_the_board_on_the_screen_and_in_the_audit_log(
    waiting: Waiting, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.inner.answers = [Answer("NKDC", train_reply()), Answer("CRV", None, problem="no reply in time")]
    answers = waiting.patient.ask(train_task(), ["CRV", "NKDC"])

    first = next(answers)
    assert first is waiting.inner.answers[0]
    assert (waiting.board.state, waiting.board.message) == ("running", "round 3: waiting for CRV")
    assert list(answers) == [waiting.inner.answers[1]]

    assert waiting.inner.asked == [["CRV", "NKDC"]]
    assert "round 3: asking CRV, NKDC\n" in capsys.readouterr().out
    (entry,) = chain.entries(waiting.folder.audit)
    assert (entry.kind, dict(entry.data)) == (
        "task-sent",
        {"run": "glioma-1", "round": 3, "task": "train_task", "sites": ["CRV", "NKDC"]},
    )


def test_an_exchange_with_nobody_left_to_ask_leaves_no_word_of_it(waiting: Waiting, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(waiting.patient.ask(evaluate_task(), [])) == []

    assert capsys.readouterr().out == ""
    assert kinds(waiting.folder) == []
