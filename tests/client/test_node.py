"""The connected process: every message is answered once, the screen tells of the link."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import http_retry
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from brainunet import chain
from brainunet.errors import BrainUNetError
from brainunet.flower_records import from_records, to_records
from brainunet.records import AnyTask, EvaluateReply, Fault, FaultCode, Reply, TrainReply
from brainunet.spool import write_packed
from brainunet.wire import pack, unpack
from brainunet_client.answering import Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.flower.node import LinkWords, answer_next, hear_flower
from brainunet_client.home import Home
from brainunet_client.node import answer_from
from tests.support import messages
from tests.support.homes import joined_home

RUN, NODE = 11, 5


@pytest.fixture(autouse=True)
def _no_identity_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


# --- messages ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> NodeState:
    made = NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()
    made.set_node_id(NODE)
    return made


def arrives(state: NodeState, content: RecordDict, *, whole: bool = True) -> tuple[Message, dict[str, bytes]]:
    """A message of the server's as Flower stores it: without content, its objects beside it (``whole``) or still to come."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
    message = Message(content, dst_node_id=NODE, message_type=MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    state.object_store.preregister(RUN, get_object_tree(message))
    if whole:
        put(state, objects)
    bare = Message(RecordDict(), dst_node_id=NODE, message_type=MessageType.TRAIN)
    bare.metadata.__dict__.update(message.metadata.__dict__)
    state.store_message(bare)
    return message, objects


def put(state: NodeState, objects: dict[str, bytes]) -> None:
    for name, content in objects.items():
        state.object_store.put(name, content)


def replies(state: NodeState) -> list[Message]:
    return list(state.get_messages_legacy(is_reply=True))


def records(text: str) -> RecordDict:
    return RecordDict({"header": ConfigRecord({"header": text}), "values": ArrayRecord({"values": Array(np.ones(3))})})


def text_of(content: RecordDict) -> str:
    return str(content.config_records["header"]["header"])


def echo(content: RecordDict) -> RecordDict:
    return records(f"{text_of(content)}, answered")


def test_a_message_is_answered_once_and_its_own_content_is_forgotten(state: NodeState) -> None:
    message, objects = arrives(state, records("round 1"))

    answer_next(state, echo)
    answer_next(state, echo)

    (reply,) = replies(state)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert (reply.metadata.run_id, reply.metadata.dst_node_id) == (RUN, message.metadata.src_node_id)
    assert text_of(reply.content) == "round 1, answered"
    assert message.metadata.message_id not in state.object_store
    assert not any(state.object_store.get(name) for name in objects if name == message.metadata.message_id)


def test_without_a_message_nothing_is_answered(state: NodeState) -> None:
    answer_next(state, echo)

    assert replies(state) == []


def test_a_message_is_answered_when_the_last_of_its_objects_is_here(state: NodeState) -> None:
    _, objects = arrives(state, records("round 1"), whole=False)
    first, *rest = objects
    put(state, {first: objects[first]})
    later = threading.Timer(0.3, put, (state, {name: objects[name] for name in rest}))
    later.start()

    answer_next(state, echo)

    later.join()
    assert [text_of(reply.content) for reply in replies(state)] == ["round 1, answered"]


def test_a_message_that_flower_dropped_on_the_way_is_not_answered(state: NodeState) -> None:
    message, _ = arrives(state, records("round 1"), whole=False)
    later = threading.Timer(0.1, state.object_store.delete, (message.metadata.message_id,))
    later.start()

    answer_next(state, echo)

    later.join()
    assert replies(state) == []


# --- between Flower's records and the desk ----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return joined_home(tmp_path / "home")


def desk(home: Home, said: list[str]) -> Desk:
    def work(command: object) -> int:
        assert isinstance(command, list)
        write_packed(Path(command[5]), pack(messages.train_reply()))
        return 0

    return Desk(home, home.path.parent, load_identity(home).kit, said.append, work)


def read(content: RecordDict) -> Reply:
    reply: Reply = unpack(from_records(content), TrainReply | EvaluateReply | Fault)
    return reply


def test_a_task_in_flower_s_records_is_answered_in_flower_s_records(home: Home) -> None:
    task: AnyTask = messages.train_task()

    reply = answer_from(desk(home, []))(to_records(pack(task)))

    assert read(reply).kind == "train_reply"
    assert from_records(reply).header == pack(messages.train_reply()).header


STRANGE: dict[str, RecordDict] = {
    "nothing": RecordDict(),
    "a record of its own": RecordDict({"header": ConfigRecord({"header": "{}"}), "more": MetricRecord({"n": 1})}),
    "a pickle": RecordDict(
        {
            "header": ConfigRecord({"header": "{}"}),
            "values": ArrayRecord({"values": Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=b"\x80\x04\x95")}),
        }
    ),
    "no task": RecordDict({"header": ConfigRecord({"header": "{}"})}),
}


@pytest.mark.parametrize("what", STRANGE)
def test_records_that_are_no_task_get_a_code_and_the_node_goes_on(what: str, home: Home) -> None:
    said = list[str]()

    reply = read(answer_from(desk(home, said))(STRANGE[what]))

    assert isinstance(reply, Fault)
    assert (reply.run, reply.round, reply.code) == ("unknown", 0, FaultCode.TASK_NOT_UNDERSTOOD)
    assert chain.head(home.ledger).data["message"] == "fault"  # type: ignore[union-attr]
    assert not any(words.startswith("nothing is sent") for words in said)


def test_without_a_ledger_there_is_no_reply_and_the_screen_says_why(home: Home) -> None:
    said = list[str]()
    home.ledger.unlink()
    home.ledger.mkdir()

    with pytest.raises(BrainUNetError):
        answer_from(desk(home, said))(to_records(pack(messages.train_task())))

    assert said[-1].startswith("nothing is sent: ledger.jsonl: ")


# --- the link ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flower() -> Iterator[logging.Logger]:
    """Flower's logger, put back as it was."""
    logger = logging.getLogger("flwr")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_the_screen_is_told_once_that_the_link_is_down_and_once_that_it_is_up(
    flower: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    said = list[str]()
    hear_flower(said.append)

    for _ in range(2):
        flower.info("SuperNode ID: %s", 5)
        for attempt in range(3):
            flower.warning("Connection attempt failed, retrying in %.2f seconds", attempt)
        flower.info("Connection successful after %.2f seconds and %s tries.", 12.5, 3)
        flower.info("Connection successful after %.2f seconds and %s tries.", 12.5, 3)

    assert [words.split(";")[0] for words in said] == ["waiting: the server can't be reached", "connected again"] * 2
    assert "SuperNode ID: 5" in caplog.text  # in the client's own log


def test_flower_says_of_its_attempts_what_we_listen_for() -> None:
    source = Path(http_retry.__file__).read_text()

    assert '"Connection attempt failed, retrying' in source
    assert '"Connection successful after' in source


def test_a_link_that_was_never_down_is_not_said_to_be_up_again() -> None:
    said = list[str]()

    LinkWords(said.append).emit(logging.makeLogRecord({"msg": "Connection successful after 0 seconds"}))

    assert said == []


# --- the process ------------------------------------------------------------------------------------------------------------

PARENT = """
import os, subprocess, sys, time
print(subprocess.Popen([sys.executable, "-m", *sys.argv[1:], "--parent", str(os.getpid())]).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ["node", "worker"])
def test_a_node_and_a_worker_end_when_the_process_that_started_them_is_killed(what: str, home: Home) -> None:
    # what each reads first never comes, so that it has begun its work and does not end by itself
    first = {"node": home.key, "worker": home.received}[what]
    first.unlink(missing_ok=True)
    os.mkfifo(first)
    folders = [str(home.path)] * {"node": 2, "worker": 3}[what]
    command = [sys.executable, "-c", PARENT, f"brainunet_client.{what}", *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        pipe = when_read(first)

        parent.kill()

        # at its end when the child, which holds the other end too, is gone
        gone, _, _ = select.select([parent.stdout], [], [], 20)
        os.close(pipe)
    assert gone


@pytest.mark.parametrize("what", ["node", "worker"])
def test_a_node_and_a_worker_end_at_once_when_that_process_was_gone_before_they_began(what: str, home: Home) -> None:
    first = {"node": home.key, "worker": home.received}[what]
    first.unlink(missing_ok=True)
    os.mkfifo(first)  # they would wait for ever
    folders = [str(home.path)] * {"node": 2, "worker": 3}[what]
    command = [sys.executable, "-m", f"brainunet_client.{what}", *folders, "--parent", str(2**22)]

    assert subprocess.run(command, timeout=30, check=False).returncode == 1


def when_read(pipe: Path) -> int:
    """The pipe, open for writing as soon as somebody waits for what comes out of it."""
    ends_at = time.monotonic() + 30
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < ends_at
            time.sleep(0.02)


def test_the_node_waits_without_torch() -> None:
    script = "import sys, brainunet_client.node, brainunet_client.flower.node; sys.exit('torch' in sys.modules)"

    subprocess.run([sys.executable, "-c", script], check=True)
