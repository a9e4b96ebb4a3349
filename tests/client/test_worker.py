"""One task in a process of its own: by the stricter of two wills, within the site's limits, with every reason kept at home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from brainunet import chain
from brainunet.config import ValidationConfig
from brainunet.data.phantom import write_phantoms
from brainunet.records import AnyTask, EvaluateReply, Fault, FaultCode, Reply, TrainReply
from brainunet.spool import read_packed, write_packed
from brainunet.wire import Packed, pack, unpack
from brainunet_client.answering import OUTSIDE_HOURS_EXIT, Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home
from brainunet_client.ledger import CONSENT_CHANGED, SENT
from brainunet_client.worker import work
from tests.support import messages, nets
from tests.support.homes import joined_home, set_to
from tests.support.sites import evaluate_task, train_task

WEIGHTS = nets.weights()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of two patients or more, in a folder that nobody may hear of."""
    folder = tmp_path_factory.mktemp("cases") / "Jane Doe"
    write_phantoms(folder, cases=3, style="gli", seed=0, shape=(32, 36, 32), centres=("CRV",))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return joined_home(tmp_path / "home")


def ended(home: Home, data: Path, task: AnyTask | None, seconds: int | None = None) -> tuple[int, Packed | None]:
    """The exit code of a worker, and the reply that it left."""
    if task is not None:
        write_packed(home.received, pack(task))
    reply_file = home.work / "reply-0"
    return work(home, data, reply_file, seconds), read_packed(reply_file)


def done(home: Home, data: Path, task: AnyTask | None, seconds: int | None = None) -> Reply:
    code, packed = ended(home, data, task, seconds)
    assert code == 0
    assert packed is not None
    reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    return reply


def code_of(reply: Reply) -> FaultCode:
    assert isinstance(reply, Fault), reply
    return reply.code


def hours(*, begin_in: int) -> str:
    """An hour in which training may run, so many hours from now."""
    begin = datetime.now() + timedelta(hours=begin_in)
    return f'hours = ["{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}"]\n'


@pytest.mark.slow
def test_a_site_trains_for_no_more_steps_than_it_allows(home: Home, data: Path) -> None:
    asked_one = done(home, data, train_task(WEIGHTS, steps=1))
    set_to(home, "max_steps = 1\n")

    asked_three = done(home, data, train_task(WEIGHTS, steps=3))

    assert isinstance(asked_one, TrainReply)
    assert isinstance(asked_three, TrainReply)
    assert asked_three.delta.digest == asked_one.delta.digest
    assert asked_three.delta.norm > 0


@pytest.mark.parametrize(("site", "federation", "withheld"), [(1, 1, False), (3, 1, True), (1, 3, True)])
def test_figures_of_fewer_cases_than_either_asks_for_stay_here(
    site: int, federation: int, withheld: bool, home: Home, data: Path
) -> None:
    set_to(home, f"min_cases = {site}\n")

    reply = done(home, data, evaluate_task(WEIGHTS, validation=ValidationConfig(min_cases=federation)))

    assert isinstance(reply, EvaluateReply)
    assert reply.score.withheld is withheld


def test_outside_its_hours_a_site_trains_nothing_and_leaves_no_reply(home: Home, data: Path) -> None:
    set_to(home, hours(begin_in=3))

    assert ended(home, data, train_task(WEIGHTS)) == (OUTSIDE_HOURS_EXIT, None)
    assert isinstance(done(home, data, evaluate_task(WEIGHTS)), EvaluateReply)


def test_a_worker_whose_time_is_up_says_so(home: Home, data: Path) -> None:
    assert code_of(done(home, data, evaluate_task(WEIGHTS), seconds=0)) is FaultCode.TOO_LATE


def test_without_a_task_there_is_none_to_understand(home: Home, data: Path) -> None:
    reply = done(home, data, None)

    assert isinstance(reply, Fault)
    assert (reply.run, reply.round, reply.code) == ("unknown", 0, FaultCode.TASK_NOT_UNDERSTOOD)


def test_a_reason_is_told_on_the_screen_and_a_code_to_the_coordinator(
    home: Home, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, packed = ended(home, data / "nothing here", evaluate_task(WEIGHTS))

    assert code == 0
    assert packed is not None
    assert json.loads(packed.header) | {"protocol": 0} == {
        "kind": "fault", "run": "glioma-1", "round": 4, "code": "no_usable_cases", "protocol": 0
    }  # fmt: skip
    assert "round 4 could not be done: " in capsys.readouterr().out


def test_weights_of_another_network_do_not_fit(home: Home, data: Path) -> None:
    task = messages.evaluate_task().model_copy(update={"demo": True})

    assert code_of(done(home, data, task)) is FaultCode.MODEL_DOES_NOT_FIT


def test_made_up_cases_take_part_in_demonstrations_alone(home: Home, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_earnest = done(home, data, evaluate_task(WEIGHTS, demo=False))

    assert code_of(in_earnest) is FaultCode.NO_USABLE_CASES
    assert "3 of 3 cases are made up, as their files say" in capsys.readouterr().out
    assert isinstance(done(home, data, evaluate_task(WEIGHTS, demo=True)), EvaluateReply)


def test_the_register_is_written_down_when_it_has_changed_and_its_patients_leave_the_cache(home: Home, data: Path) -> None:
    task = evaluate_task(WEIGHTS)
    first = done(home, data, task)
    assert isinstance(first, EvaluateReply)
    scored = {entry.parent.name for entry in home.cache.rglob("facts.json")}
    assert len(scored) == 1

    held_out = [case for case, side in json.loads(home.sides.read_text()).items() if side == "validation"]
    home.consent.write_text("\n".join(held_out))
    for _ in range(2):
        done(home, data, task)

    (changed,) = (entry for entry in chain.entries(home.ledger) if entry.kind == CONSENT_CHANGED)
    assert (changed.data["listed"], changed.data["excluded"]) == (1, 1)
    assert list(home.cache.rglob("*.npy")) == []


# --- limits, which hold for good: in processes of their own -----------------------------------------------------------------

LIMITED = """
import json, os, resource, sys
from brainunet.spool import read_packed
from brainunet_client.faults import fault_code
from brainunet_client.site_settings import SiteSettings
from brainunet_client.worker import limit_to

before = os.nice(0)
limit_to(SiteSettings(**json.loads(sys.argv[1])))
try:
    filled = bytes(int(sys.argv[2])).count(1)
except MemoryError as error:
    filled = fault_code(error)
threads = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
print(json.dumps([os.nice(0) - before, resource.getrlimit(resource.RLIMIT_DATA)[0], threads, filled]))
"""


def limited(settings: dict[str, Any], allocate: int = 0) -> Any:
    """What a process under these settings finds: how nice it is, the memory it may have, its threads, and 0 or a fault."""
    command = [sys.executable, "-c", LIMITED, json.dumps(settings), str(allocate)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_site_s_limits_hold_for_the_whole_process() -> None:
    settings = {"nice": 7, "threads": 3, "memory_gb": 0.5}

    gives_way = min(7, 19 - os.nice(0))  # 19 gives way to all, and the tests may give way themselves
    assert limited(settings, 400_000_000) == [gives_way, 500_000_000, ["3", "3"], 0]
    assert limited(settings, 600_000_000)[3] == FaultCode.OUT_OF_MEMORY


@pytest.mark.slow
def test_without_limits_the_machine_s_own_hold() -> None:
    nice, _, _, filled = limited({"nice": 0}, 600_000_000)

    assert (nice, filled) == (0, 0)


# --- the real thing ---------------------------------------------------------------------------------------------------------


def answers(desk: Desk, tasks: Sequence[AnyTask]) -> list[Reply]:
    return [unpack(desk.answer(pack(task)), TrainReply | EvaluateReply | Fault) for task in tasks]


@pytest.mark.slow
def test_a_desk_with_real_workers_answers_a_task_a_second_time_without_one(home: Home, data: Path) -> None:
    said = list[str]()
    desk = Desk(home, data, load_identity(home).kit, said.append)
    task = train_task(WEIGHTS, answer_within_s=600)

    first, again = answers(desk, [task, task])

    assert isinstance(first, TrainReply)
    assert isinstance(again, TrainReply)
    assert again.delta.digest == first.delta.digest
    assert first.delta.norm > 0
    assert said[1] == "round 3: asked again, sending the reply that is ready"
    sent = [entry.data for entry in chain.entries(home.ledger) if entry.kind == SENT]
    assert len(sent) == 2
    assert sent[0] == sent[1]


@pytest.mark.slow
def test_a_worker_that_may_not_have_the_memory_it_needs_is_told_as_that(home: Home, data: Path) -> None:
    set_to(home, "memory_gb = 1.0\nthreads = 1\n")
    desk = Desk(home, data, load_identity(home).kit, lambda words: None)

    (reply,) = answers(desk, [train_task(WEIGHTS, patch=(128, 128, 128), batch_size=2)])

    assert code_of(reply) is FaultCode.OUT_OF_MEMORY
