"""What the client and both ends use inside Flower: a claim for each name, so that an upgrade fails here first."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Message, MessageType, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import ISOLATION_MODE_PROCESS, SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supercore.retry import http_retry
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from brainunet import flower_bundle
from brainunet.flower_environment import CHUNK_BYTES, SETTINGS
from brainunet.signing import new_signing_key

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


@pytest.fixture(autouse=True)
def _in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def state() -> NodeState:
    made: NodeState = NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()
    made.set_node_id(5)
    return made


def a_message() -> Message:
    message = Message(RecordDict(), dst_node_id=5, message_type=MessageType.TRAIN)
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
    return message


def test_a_node_is_started_with_the_settings_that_we_give_by_name() -> None:
    known = inspect.signature(start_client_internal.start_client_internal).parameters

    ours = {
        "state_factory",
        "server_address",
        "node_config",
        "root_certificates",
        "insecure",
        "authentication_keys",
        "isolation",
        "trusted_entities",
    }
    assert ours <= set(known), "Flower's node takes other settings now: see client/brainunet_client/flower/node.py"
    assert {parameter.kind for parameter in known.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert known["health_server_address"].default is None
    assert ISOLATION_MODE_PROCESS == "process"


def test_in_process_isolation_a_node_starts_no_other_process() -> None:
    source = inspect.getsource(start_client_internal.start_client_internal)

    before, after = source.split("subprocess.Popen")
    assert before.rstrip().rsplit("if isolation ==", 1)[1].lstrip().startswith("ISOLATION_MODE_SUBPROCESS")
    assert "Popen" not in after


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (start_client_internal._pull_and_store_message, "_verify_fab"),
        (start_client_internal._pull_and_store_message, "_insert_message"),
        (fleet_http_connection.http_request_response, "HEARTBEAT_DEFAULT_INTERVAL"),
        (fleet_http_connection.http_request_response, "FleetHttpClient"),
        (start_client_internal.start_client_internal, "_pull_and_store_message"),
        (start_client_internal.start_client_internal, "_push_messages"),
    ],
)
def test_a_name_that_we_replace_is_looked_up_in_its_module_when_it_is_used(caller: Callable[..., object], name: str) -> None:
    function = inspect.unwrap(caller)
    inner = [const for const in function.__code__.co_consts if inspect.iscode(const)]
    used = {found for code in (function.__code__, *inner) for found in code.co_names}

    assert name in used, f"{caller.__name__} no longer uses {name}: what we put in its place would have no effect"
    assert hasattr(inspect.getmodule(function), name)


def test_a_bundle_that_no_trusted_key_has_signed_is_refused_and_an_unsigned_one_too() -> None:
    key, other = new_signing_key(), new_signing_key()
    fab = flower_bundle.signed_bundle(key)

    assert start_client_internal._verify_fab(fab, flower_bundle.trusted_entities(key.public))
    assert not start_client_internal._verify_fab(fab, flower_bundle.trusted_entities(other.public))
    unsigned = Fab(fab.hash_str, fab.content, {"valid_license": "Valid"})
    assert not start_client_internal._verify_fab(unsigned, flower_bundle.trusted_entities(key.public))
    changed = Fab(fab.hash_str, fab.content + b"x", fab.verifications)
    assert not start_client_internal._verify_fab(changed, flower_bundle.trusted_entities(key.public))


def test_a_bundle_is_asked_for_its_licence_and_signature_where_there_are_trusted_keys() -> None:
    source = inspect.getsource(start_client_internal._pull_and_store_message)

    assert "if trusted_entities:" in source
    assert 'verifications.get("valid_license"' in source


def test_a_bundle_is_built_of_files_as_bytes_and_is_the_same_each_time() -> None:
    files = {"pyproject.toml": flower_bundle._MANIFEST}

    first, second = build_fab_from_files(dict(files)), build_fab_from_files(dict(files))

    assert isinstance(first[0], bytes)
    assert first[0] == second[0] == flower_bundle.bundle()


def test_what_is_signed_of_a_bundle_is_its_digest_and_the_hour() -> None:
    digest = hashlib.sha256(b"x").digest()

    assert create_message_to_sign(digest, 1) != create_message_to_sign(digest, 2)
    assert create_message_to_sign(digest, 1) != create_message_to_sign(hashlib.sha256(b"y").digest(), 1)


def test_trusted_keys_are_lines_of_openssh() -> None:
    key = new_signing_key()

    (line,) = flower_bundle.trusted_entities(key.public).values()

    assert load_ssh_public_key(line.encode()) == key.private.public_key()


def test_the_connection_s_client_takes_its_patience_by_name() -> None:
    parameters = inspect.signature(FleetHttpClient.__init__).parameters

    assert "timeout" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    made = FleetHttpClient.from_server_address.__func__.__code__  # type: ignore[attr-defined]
    assert "cls" in made.co_varnames, "a subclass of the client must be made by its own constructor"


def test_a_node_s_state_gives_one_message_at_a_time_and_none_twice(state: NodeState) -> None:
    message = a_message()
    state.store_message(message)

    (given,) = state.get_messages_legacy(is_reply=False, limit=1)

    assert given.metadata.message_id == message.metadata.message_id
    assert list(state.get_messages_legacy(is_reply=False, limit=1)) == []


def test_a_reply_that_was_put_in_is_given_to_be_sent_with_its_objects_and_its_hours(state: NodeState) -> None:
    message = a_message()
    state.store_message(message)
    state.get_messages_legacy(is_reply=False, limit=1)
    state.record_message_processing_start(message.metadata.message_id)
    TaskIdentity.node_id = state.get_node_id()
    reply = Message(RecordDict(), reply_to=message)
    state.record_message_processing_end(message.metadata.message_id)

    start_client_internal._insert_message(reply, state, state.object_store)

    (given,) = state.get_messages_legacy(is_reply=True)
    assert given.metadata.reply_to_message_id == message.metadata.message_id
    assert given.metadata.message_id in state.object_store
    assert state.get_message_processing_duration(message.metadata.message_id) >= 0


def test_a_node_s_tasks_can_be_ended_before_a_process_takes_them_up(state: NodeState) -> None:
    task = state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash="ab" * 32)
    assert [known.task_id for known in state.get_tasks()] == [task]

    assert task is not None
    assert state.finish_task(task, SubStatus.STOPPED, "")


def test_the_state_and_its_objects_are_one_for_all_who_ask_their_factory() -> None:
    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())

    assert factory.state() is factory.state()
    assert factory.state().object_store is factory.objectstore_factory.store()


def test_the_words_by_which_we_know_that_the_link_is_down_or_up() -> None:
    source = inspect.getsource(http_retry)

    assert '"Connection attempt failed' in source
    assert '"Connection successful' in source


def test_a_node_that_may_not_come_in_is_told_by_a_number_and_ends() -> None:
    source = inspect.getsource(fleet_http_connection)

    assert int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED) > 0
    assert 'f"[code: {flower_error.code}]' in source
    assert "ExitCode.SUPERNODE_CONNECTION_ERROR" in source


def test_our_settings_are_read_from_the_environment_when_flower_is_imported(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _READ, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()

    assert told == [str(CHUNK_BYTES), "1", "False", "True"]
    assert SETTINGS["FLWR_TELEMETRY_ENABLED"] == "0"


_READ = """
import sys
from pathlib import Path
from brainunet.flower_environment import prepare_flower
prepare_flower(Path(sys.argv[1]))
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as chunk
from flwr.supercore.constant import FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES as pushes
from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED as telemetry
from flwr.supercore.utils import get_flwr_home
print(chunk, pushes, telemetry != "0", get_flwr_home() == Path(sys.argv[1]))
"""
