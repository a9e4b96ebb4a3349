"""A site that trains nothing: a real key and kit, Flower's real fleet protocol, and replies that a test makes up.

It speaks with the server through Flower's own client; what it sends may be anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message import array as flower_array
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from brainunet.certificates import read_site_key
from brainunet.flower_environment import CHUNK_BYTES
from brainunet.flower_records import from_records, to_records
from brainunet.kit import open_kit
from brainunet.records import AnyTask, Reply, TrainTask
from brainunet.wire import pack, unpack
from brainunet_client.home import Home
from tests.support.replies import evaluate_reply, train_reply

POLL_S: Final = 0.2
HEARTBEAT_S: Final = 30
NOT_STORED: Final = 1  # of a good answer (HTTP 200) that an object was not taken

_CHUNK_SIZE: Final = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
_FLOWER = threading.Lock()  # its numbers for a whole process are changed here and put back

R = TypeVar("R")


class Refused(Exception):
    """The server said no; ``status`` is HTTP's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


@dataclass
class Parcel:
    """A reply as it travels: the message without content, the tree of its objects, and their bytes by id."""

    message: Message
    tree: ObjectTree
    objects: dict[str, bytes]

    @property
    def root(self) -> str:
        return str(self.tree.object_id)


@dataclass
class Received:
    """A task that has come."""

    site: FakeSite
    message: Message
    task: AnyTask

    def parcel(self, content: Reply | RecordDict, **metadata: Any) -> Parcel:
        """A reply with this content; ``metadata`` in place of what Flower would say, such as ``src_node_id``."""
        records = content if isinstance(content, RecordDict) else to_records(pack(content))
        with _FLOWER, no_object_id_recompute():
            before = getattr(flower_array, _CHUNK_SIZE)
            setattr(flower_array, _CHUNK_SIZE, CHUNK_BYTES)
            try:
                message = Message(records, reply_to=self.message)
                message.metadata.__dict__.update({f"_{name}": value for name, value in metadata.items()})
                message.metadata.__dict__["_message_id"] = message.object_id
                objects = {id_: obj.deflate() for id_, obj in get_all_nested_objects(message).items()}
                tree = get_object_tree(message)
            finally:
                setattr(flower_array, _CHUNK_SIZE, before)
        return Parcel(remove_content_from_message(message), tree, objects)

    def answer(self, content: Reply | RecordDict, **metadata: Any) -> None:
        self.site.push(self.parcel(content, **metadata))


Behaviour: TypeAlias = Callable[[Received], None]


def never(received: Received) -> None:
    """Take every task and answer none."""


def answering(reply_of: Callable[[AnyTask], Reply | RecordDict]) -> Behaviour:
    return lambda received: received.answer(reply_of(received.task))


def honest(delta_of: Callable[[TrainTask], Any], cases: int = 10) -> Behaviour:
    """Answer every training with the change that ``delta_of`` gives, and every evaluation with figures."""
    return answering(lambda task: good_reply(task, delta_of, cases))


def good_reply(task: AnyTask, delta_of: Callable[[TrainTask], Any], cases: int = 10) -> Reply:
    if isinstance(task, TrainTask):
        return train_reply(delta_of(task), cases=cases, run=task.run, round=task.round)
    return evaluate_reply(run=task.run, round=task.round)


@dataclass(eq=False)
class FakeSite:
    """A site that asks for tasks while the block runs, and hands each to ``behaviour``.

    Attributes:
        tasks: what has come, in order (kind and round).
        refused: the HTTP status with which the server shut it out; refusals: those of its replies.
        failed: what went wrong with a behaviour; a test looks at it.
    """

    home: Home
    behaviour: Behaviour
    timeout_s: float = 30.0
    tasks: list[tuple[str, int]] = field(default_factory=list)
    refused: int | None = None
    refusals: list[int] = field(default_factory=list)
    failed: Exception | None = None

    def __post_init__(self) -> None:
        kit, key = open_kit(self.home.kit), read_site_key(self.home.key)
        self.name, self._public = kit.site, public_key_to_bytes(key.public_key())
        self.node = Node(node_id=0)
        self._client = FleetHttpClient.from_server_address(
            kit.server,
            False,
            kit.ca_certificate.encode(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )
        self._client._client.timeout = httpx.Timeout(self.timeout_s)
        self._is_known = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join(self.timeout_s + 5)
        self._client.close()
        if kind is None and self.failed is not None:
            raise self.failed

    def push(
        self,
        parcel: Parcel,
        *,
        only: Callable[[str], bool] = lambda object_id: True,
        before_last: Callable[[], None] = lambda: None,
    ) -> None:
        """Announce a reply, then send the objects that the server lacks, those of ``only``."""
        run = parcel.message.metadata.run_id
        told = self.call(
            self._client.PushMessages,
            PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(parcel.message)],
                message_object_trees=[parcel.tree],
                clientapp_runtime_list=[1.0],
            ),
        )
        wanted = set(told.objects_to_push)
        ids = dict.fromkeys(node.object_id for node in iterate_object_tree(parcel.tree))
        left = [id_ for id_ in ids if id_ in wanted and id_ in parcel.objects and only(id_)]
        for number, object_id in enumerate(left, start=1):
            if number == len(left):
                before_last()
            told_of_it = self.call(
                self._client.PushObject,
                PushObjectRequest(
                    node=self.node,
                    run_id=run,
                    session_id=told.session_id,
                    object_id=object_id,
                    object_content=parcel.objects[object_id],
                ),
            )
            if not told_of_it.stored:  # as Flower's node does, it gives up this sending
                raise Refused(NOT_STORED)

    def wait(self, until: threading.Event) -> None:
        """Hold an answer back, until the event or the end of the block."""
        while not self._end.is_set() and not until.wait(0.05):
            pass

    def activate(self) -> None:
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_S)
        self.node = Node(node_id=self.call(self._client.ActivateNode, request).node_id)

    def deactivate(self) -> None:
        self.call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=self.node.node_id))

    def call(self, method: Callable[[Any], R], request: Any) -> R:
        """A request, sent again as long as the line is bad.

        Raises:
            Refused: the server answered with an error.
        """
        while True:
            try:
                return method(request)
            except httpx.HTTPStatusError as error:
                raise Refused(error.response.status_code) from None
            except httpx.TransportError:
                self._is_known = False  # the server may be another process now
                if self._end.wait(POLL_S):
                    raise Refused(0) from None

    def _run(self) -> None:
        try:
            beat = time.monotonic()
            while not self._end.wait(POLL_S):
                if not self._is_known:
                    self._is_known = True
                    self.activate()
                if time.monotonic() - beat > HEARTBEAT_S / 3:
                    beat = time.monotonic()
                    request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_S)
                    self.call(self._client.SendNodeHeartbeat, request)
                self._once()
        except Refused as error:
            self.refused = error.status or self.refused
        except Exception as error:  # noqa: BLE001 - of a behaviour; the block raises it at its end
            self.failed = error

    def _once(self) -> None:
        try:
            told = self.call(self._client.PullMessages, PullMessagesRequest(node=self.node))
        except Refused as error:
            if error.status < 500:
                raise
            self._is_known = False  # the server is on its way out: as a hospital's supervisor does, begin anew
            return
        for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True):
            message = message_from_proto(proto)
            run_id = message.metadata.run_id
            ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
            try:
                objects = {id_: self._pull(run_id, id_) for id_ in ids}
            except Refused:
                continue  # the round is over: as Flower's node does, it goes on asking
            whole: Any = inflate_object_from_contents(tree.object_id, objects)
            request = ConfirmMessageReceivedRequest(
                node=self.node, run_id=run_id, message_object_id=message.metadata.message_id
            )
            self.call(self._client.ConfirmMessageReceived, request)
            task: AnyTask = unpack(from_records(whole.content), AnyTask)
            self.tasks.append((task.kind, task.round))
            try:
                self.behaviour(Received(self, message, task))
            except Refused as error:
                if self._end.is_set():
                    raise
                self.refusals.append(error.status)

    def _pull(self, run_id: int, object_id: str) -> bytes:
        told = self.call(self._client.PullObject, PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id))
        if not told.object_available:
            raise Refused(404)
        return bytes(told.object_content)
