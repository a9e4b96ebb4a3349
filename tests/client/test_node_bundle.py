"""No code comes from the server: its bundle is the one without any, or it is refused, and the ledger tells so."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from brainunet import chain
from brainunet.errors import BrainUNetError
from brainunet.flower_bundle import bundle, signed_bundle, trusted_entities
from brainunet.signing import SigningKey, new_signing_key
from brainunet_client.answering import Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.flower.node import _only_the_bundle_without_code as passes
from brainunet_client.flower.node import noting_errors
from brainunet_client.ledger import sentence
from tests.support.homes import joined_home

KEY = new_signing_key()
TRUSTED = trusted_entities(KEY.public)

# Flower's own way to make a bundle
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def with_code() -> bytes:
    """Our own bundle, and a program in it."""
    with zipfile.ZipFile(io.BytesIO(bundle())) as files:
        manifest = files.read("pyproject.toml")
    content: bytes = build_fab_from_files({"pyproject.toml": manifest, "brainunet_client/flower.py": b"import os\n"})[0]
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        assert "brainunet_client/flower.py" in files.namelist()
    return content


def signed(content: bytes, key: SigningKey = KEY) -> Fab:
    """Any bundle with a signature that Flower's own check accepts."""
    digest = hashlib.sha256(content)
    signature = base64.urlsafe_b64encode(key.private.sign(create_message_to_sign(digest.digest(), 1))).decode().rstrip("=")
    told = {key.public.id: json.dumps({"signed_at": 1, "signature": signature}), "valid_license": "Valid"}
    return Fab(digest.hexdigest(), content, told)


def test_the_federation_s_own_bundle_passes() -> None:
    assert passes(signed_bundle(KEY), TRUSTED)
    assert passes(signed(bundle()), TRUSTED)


REFUSED: dict[str, Callable[[], Fab]] = {
    "code in it, signed by the federation": lambda: signed(with_code()),
    "a byte more": lambda: signed(bundle() + b"\0"),
    "nothing in it": lambda: signed(b""),
    "signed by somebody else": lambda: signed_bundle(new_signing_key()),
    "signed by somebody else in the federation's name": lambda: replace(
        signed_bundle(KEY), verifications={KEY.public.id: next(iter(signed_bundle(new_signing_key()).verifications.values()))}
    ),
    "not signed": lambda: replace(signed_bundle(KEY), verifications={}),
    "only said to be valid": lambda: replace(signed_bundle(KEY), verifications={"valid_license": "Valid"}),
    "signed at another time": lambda: replace(
        signed_bundle(KEY),
        verifications={
            KEY.public.id: json.dumps(json.loads(signed_bundle(KEY).verifications[KEY.public.id]) | {"signed_at": 5})
        },
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_every_other_bundle_is_refused_and_the_log_says_so(what: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not passes(REFUSED[what](), TRUSTED)
    assert "refused: the server" in caplog.text


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> NodeState:
    """Of a node that is about to answer a message."""
    for name, value in {"_task_id": 1, "_run_id": 11, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    made = NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()
    made.set_node_id(5)
    return made


def a_refusal() -> Message:
    """What Flower tells the server of a bundle that it has refused."""
    asked = Message(RecordDict(), dst_node_id=5, message_type=MessageType.TRAIN)
    asked.metadata.__dict__["_message_id"] = asked.object_id
    return Message(start_client_internal.FAB_VERIFICATION_ERROR, reply_to=asked)


def leaving(state: NodeState) -> list[Message]:
    return list(state.get_messages_legacy(is_reply=True))


def test_a_refused_bundle_is_in_the_ledger_before_the_server_is_told(state: NodeState, tmp_path: Path) -> None:
    home = joined_home(tmp_path)
    desk = Desk(home, tmp_path, load_identity(home).kit)

    noting_errors(desk.note_refused_bundle)(a_refusal(), state, state.object_store)

    entry = chain.head(home.ledger)
    assert entry is not None
    assert entry.kind == "bundle-refused"
    assert f"refused the app bundle of {desk.kit.server}" in sentence(entry)
    (left,) = leaving(state)
    assert left.error.reason == "The FAB could not be verified."  # whatever the bundle was


def test_where_the_ledger_cant_be_written_the_server_is_not_told(state: NodeState, tmp_path: Path) -> None:
    home = joined_home(tmp_path)
    desk = Desk(home, tmp_path, load_identity(home).kit)
    home.ledger.unlink()
    home.ledger.mkdir()

    with pytest.raises(BrainUNetError):
        noting_errors(desk.note_refused_bundle)(a_refusal(), state, state.object_store)

    assert leaving(state) == []


def test_a_reply_that_is_no_error_is_not_taken_for_one(state: NodeState) -> None:
    def never() -> None:
        raise AssertionError("the reply has its own line in the ledger")

    asked = a_refusal()
    reply = Message(RecordDict({"x": ConfigRecord({"y": 1})}), reply_to=asked)

    noting_errors(never)(reply, state, state.object_store)

    assert reply.metadata.message_id in state.object_store
