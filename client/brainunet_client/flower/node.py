"""Flower's SuperNode in this process: messages in and out of the hospital, with only the installed code to do them.

Flower would start two more processes and a local port without authentication, unpack the server's bundle and run it. Here a
thread takes each message out of the node's state, has it answered, and puts the answer back (docs/adr/0012).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.common.constant import ISOLATION_MODE_PROCESS, SubStatus
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStore, ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from brainunet import flower_bundle
from brainunet.errors import FederationError
from brainunet.flower_records import inflated
from brainunet.kit import Kit
from brainunet.signing import PublicKey
from brainunet.wire import MAX_HEADER_BYTES, MAX_WEIGHTS_BYTES
from brainunet_client.flower.limited_objects import LimitedObjectStore, Refused, limit_responses, pull_limited

log = logging.getLogger(__name__)

# The server takes a node for gone after twice this: a link that was cut for a minute must not cost a round.
HEARTBEAT_S: Final = 600
# At 64 KB/s a chunk takes 16 s; the rest is for links that stall. Flower's own 30 s gives up too soon.
HTTP_TIMEOUT_S: Final = 300.0
POLL_S: Final = 0.2

REFUSED: Final = "refused: "

Answer = Callable[[RecordDict], RecordDict]


def run_node(
    kit: Kit, private_key: ec.EllipticCurvePrivateKey, answer: Answer, before_error: Callable[[], object] = lambda: None
) -> None:
    """Serve until the process is told to end (SIGTERM, SIGINT), or the server refuses this site. Needs the main thread.

    Args:
        answer: from a message's content to the content of the reply; called in another thread, one message at a time.
        before_error: called before Flower itself tells the server that a bundle was refused; where it raises, nothing leaves.
    """
    _mend_connection()
    # bound to our name as the node looks it up; the original knows whose signature, ours also which bytes
    start_client_internal._verify_fab = _only_the_bundle_without_code
    setattr(start_client_internal, "_insert_message", noting_errors(before_error))  # noqa: B010 - with other words, as below
    setattr(start_client_internal, "pull_objects", pull_limited)  # noqa: B010 - the module does not export it
    setattr(start_client_internal, "_pull_and_store_message", pull_or_drop)  # noqa: B010 - with other words for its arguments
    objects = ObjectStoreFactory()
    objects.store_instance = LimitedObjectStore()
    factory = NodeStateFactory(objectstore_factory=objects)
    threading.Thread(target=_answer_messages, args=(factory.state(), answer), daemon=True).start()
    start_client_internal.start_client_internal(
        state_factory=factory,
        server_address=kit.server,
        node_config={},
        root_certificates=kit.ca_certificate.encode(),
        insecure=False,
        authentication_keys=(private_key, private_key.public_key()),
        isolation=ISOLATION_MODE_PROCESS,
        trusted_entities=flower_bundle.trusted_entities(PublicKey.from_text(kit.signing_key)),
    )


_signed_by_trusted = start_client_internal._verify_fab


def _only_the_bundle_without_code(fab: Fab, trusted_entities: dict[str, str]) -> bool:
    if fab.content != flower_bundle.bundle():
        log.error("refused: the server sent an app bundle with something in it; nothing of it was unpacked")
        return False
    if not _signed_by_trusted(fab, trusted_entities):
        log.error(
            "refused: the server's app bundle is not signed with this kit's key. If the coordinator has changed it, ask for "
            "a new kit: brainunet-client --kit KIT --replace"
        )
        return False
    return True


_insert_message = start_client_internal._insert_message


def noting_errors(before: Callable[[], object]) -> Callable[[Message, NodeState, ObjectStore], None]:
    """Flower's own way out for replies, which every reply takes; ``before`` is called for an error that Flower has made."""

    def insert(message: Message, state: NodeState, store: ObjectStore) -> None:
        if message.has_error():
            before()
        _insert_message(message, state, store)

    return insert


_pull_and_store = start_client_internal._pull_and_store_message


def pull_or_drop(**named: Any) -> int | None:
    """Flower's pulling of one message, which gives its run, None without a message to answer.

    One that is too large is dropped with all that lies in the store, where Flower would end the node.
    """
    state: NodeState = named["state"]
    try:
        run_id: int | None = _pull_and_store(**named)
    except Refused as refused:
        log.error("refused: the server sent %s; the message was dropped", refused)
        _finish_tasks(state)
        state.object_store.clear()
        return None
    return run_id


def _mend_connection() -> None:
    """Two settings that Flower does not offer."""
    setattr(fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_S)  # noqa: B010 - the module does not export it
    setattr(fleet_http_connection, "FleetHttpClient", _PatientClient)  # noqa: B010


class _PatientClient(FleetHttpClient):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **(named | {"timeout": HTTP_TIMEOUT_S}))
        limit_responses(self._client)

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802 - Flower's name
        try:
            return super().ActivateNode(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                log.error(
                    "refused: the server does not let this site in. It was revoked, never enrolled there, or its certificate "
                    "has ended: ask the coordinator"
                )
            raise


def _answer_messages(state: NodeState, answer: Answer) -> None:
    try:
        while True:
            answer_next(state, answer)
            time.sleep(POLL_S)
    except BaseException:
        # a node without this thread would be connected and never answer: its supervisor starts another
        log.exception("no reply was sent; the node ends")
        os.kill(os.getpid(), signal.SIGTERM)


def answer_next(state: NodeState, answer: Answer) -> None:
    """Take the next message out of the node's state, if there is one, and put the answer to it back."""
    for message in state.get_messages_legacy(is_reply=False, limit=1):
        content = _content(state, message)
        if content is not None:  # else its objects did not all arrive, and Flower has dropped it
            _reply(state, message, answer(content))


def _content(state: NodeState, message: Message) -> RecordDict | None:
    """The message's content once all its objects are here: Flower stores the message before it fetches them."""
    message_id, store = message.metadata.message_id, state.object_store
    while message_id in store:
        try:
            ids = [node.object_id for node in iterate_object_tree(store.get_object_tree(message_id))]
        except NoObjectInStoreError:  # dropped between two looks
            return None
        contents = {object_id: store.get(object_id) or b"" for object_id in ids}
        if all(contents.values()):
            state.record_message_processing_start(message_id)
            store.delete(message_id)
            try:
                whole = inflated(message_id, contents, MAX_WEIGHTS_BYTES + MAX_HEADER_BYTES)
                return whole.content if whole.has_content() else RecordDict()
            except FederationError as error:
                log.error("refused: %s", error)
                return RecordDict()  # which no task looks like: the answer is a fault
        time.sleep(POLL_S)
    return None


def _finish_tasks(state: NodeState) -> None:
    for task in state.get_tasks():
        state.finish_task(task.task_id, SubStatus.STOPPED, "")  # no process of Flower's will take it up


def _reply(state: NodeState, message: Message, content: RecordDict) -> None:
    _finish_tasks(state)
    # Flower reads from here in whose name a message is made
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = message.metadata.run_id, state.get_node_id(), 0
    reply = Message(content, reply_to=message)
    state.record_message_processing_end(message.metadata.message_id)
    start_client_internal._insert_message(reply, state, state.object_store)


class LinkWords(logging.Handler):
    """Says once that the link is down and once that it is up again, out of what Flower logs at each of its attempts."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say, self._is_down, self._refused = say, False, ""

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if words.startswith(REFUSED):
            if words != self._refused:
                self._refused = words
                self._say(words)
        elif words.startswith("Connection attempt failed") and not self._is_down:
            self._is_down = True
            self._say(
                "waiting: the server can't be reached; trying again. Perhaps the run is over: the coordinator tells, or "
                "brainunet-client --data DIR --check"
            )
        elif words.startswith("Connection successful") and self._is_down:
            self._is_down = False
            self._say("connected again")


def hear_flower(say: Callable[[str], None]) -> None:
    """Flower's own log, which speaks of nodes and fabs, goes to the client's file; the screen is told only of the link."""
    flower = logging.getLogger("flwr")
    words = LinkWords(say)
    flower.handlers[:] = [words]
    flower.propagate = True
    log.addHandler(words)  # and of what this file refuses
