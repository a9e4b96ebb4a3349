"""The one door of the server: what passes it, and what hospitals must prove."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from brainunet import __version__
from brainunet.certificates import new_site_key
from brainunet.records import PROTOCOL, TrainTask
from brainunet_server.flower.gate import FLEET_PATHS, MAX_BODY_BYTES, Gate
from tests.support.fleet import FakeNode, Fleet, Work, fleet, superlink
from tests.support.replies import PLAN, START, train_reply

__all__ = ["fleet", "superlink"]  # fixtures

TASK = TrainTask(run=PLAN.run, round=1, model=PLAN.model, preprocess=PLAN.preprocess, train=PLAN.train, seed=7, weights=START)


@dataclass
class Inside:
    """What stands behind the gate, and what came through."""

    passed: list[str] = field(default_factory=list)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


def request(
    app: Any,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    **scope: Any,
) -> tuple[int, bytes]:
    """Status and body, as a web server would ask; -1 where nothing was answered."""
    given = {"content-length": str(len(body))} if headers is None else headers
    pairs = given.items() if isinstance(given, Mapping) else given
    told: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "https",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
        "client": ("10.0.0.1", 40000),
        "server": ("10.0.0.5", 8443),
    }
    sent: list[MutableMapping[str, Any]] = []
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(told | scope, receive, send))
    if not sent:
        return -1, b""
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def gate() -> tuple[Gate, Inside]:
    inside = Inside()
    return Gate(inside, "Glioma Africa", lambda key: True), inside  # type: ignore[arg-type]


def test_a_body_is_read_only_for_a_key_that_is_enrolled() -> None:
    inside = Inside()
    gate = Gate(inside, "Glioma Africa", lambda key: key == b"enrolled")  # type: ignore[arg-type]

    def status(*keys: str) -> int:
        headers = [("content-length", "1"), *((FLEET_HTTP_PUBLIC_KEY_HEADER.lower(), key) for key in keys)]
        return request(gate, "POST", "/v1/fleet/pull-messages", b"x", headers)[0]

    enrolled, stranger = b64encode(b"enrolled").decode(), b64encode(b"stranger").decode()
    assert [status(), status(stranger), status("?"), status(enrolled, stranger)] == [401] * 4
    assert inside.passed == []
    assert status(enrolled) == 200


@pytest.mark.parametrize("path", sorted(FLEET_PATHS))
def test_each_path_that_a_hospital_needs_passes(gate: tuple[Gate, Inside], path: str) -> None:
    assert request(gate[0], "POST", path, b"x") == (200, b"inside")
    assert gate[1].passed == [path]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/pull-messages/",
        "/v1/fleet//pull-messages",
        "/v1/fleet/../fleet/pull-messages",
        "/V1/fleet/pull-messages",
        "/v1/fleet/pull-messages?x",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/healthy",
        "/health/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_other_path_is_known(gate: tuple[Gate, Inside], path: str, method: str) -> None:
    assert request(gate[0], method, path) == (404, b"")
    assert gate[1].passed == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "post", "CONNECT", ""])
def test_only_posting_passes(gate: tuple[Gate, Inside], method: str) -> None:
    assert request(gate[0], method, "/v1/fleet/pull-messages")[0] == 404
    assert gate[1].passed == []


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_is_no_request_is_not_answered(gate: tuple[Gate, Inside], kind: str) -> None:
    assert request(gate[0], "POST", "/v1/fleet/pull-messages", type=kind) == (-1, b"")
    assert gate[1].passed == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 411),
        ({"transfer-encoding": "chunked"}, 411),
        ({"content-length": ""}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": "+1"}, 411),
        ({"content-length": "1.0"}, 411),
        ({"content-length": "0x10"}, 411),
        ({"content-length": "1, 1"}, 411),
        ({"content-length": " 1"}, 411),
        ({"content-length": "²"}, 411),
        ({"content-length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content-length": "9" * 100}, 413),
        ({"content-length": str(MAX_BODY_BYTES)}, 200),
        ({"content-length": "0"}, 200),
    ],
)
def test_a_body_must_say_its_length_and_stay_below_the_limit(
    gate: tuple[Gate, Inside], headers: dict[str, str], status: int
) -> None:
    assert request(gate[0], "POST", "/v1/fleet/push-object", headers=headers)[0] == status
    assert gate[1].passed == (["/v1/fleet/push-object"] if status == 200 else [])


def test_two_lengths_are_none(gate: tuple[Gate, Inside]) -> None:
    twice = [("content-length", "1"), ("content-length", "1")]

    assert request(gate[0], "POST", "/v1/fleet/push-object", headers=twice)[0] == 411


def test_health_tells_version_protocol_and_federation_and_no_more(gate: tuple[Gate, Inside]) -> None:
    status, body = request(gate[0], "GET", "/health", headers={})

    assert status == 200
    assert json.loads(body) == {"brainunet": __version__, "protocol": PROTOCOL, "federation": "Glioma Africa"}
    assert gate[1].passed == []


def signed(key: ec.EllipticCurvePrivateKey, *, at: datetime | None = None) -> dict[str, str]:
    """The headers with which a node proves who it is."""
    timestamp = (at or now()).isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
        TIMESTAMP_HEADER: timestamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, timestamp.encode())).decode(),
        "content-type": PROTOBUF_MEDIA_TYPE,
    }


def post(fleet: Fleet, name: str, message: Any, headers: dict[str, str]) -> tuple[int, bytes]:
    body = message.SerializeToString()
    lower = {key.lower(): value for key, value in headers.items()} | {"content-length": str(len(body))}
    return request(fleet.superlink.app, "POST", f"/v1/fleet/{name}", body, lower)


@pytest.fixture
def crv(fleet: Fleet) -> FakeNode:
    return fleet.node("CRV")


def heartbeat(node: FakeNode) -> heartbeat_pb2.SendNodeHeartbeatRequest:
    return heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=60)


def test_a_node_that_proves_who_it_is_is_heard(fleet: Fleet, crv: FakeNode) -> None:
    fleet.state.heard.clear()

    status, body = post(fleet, "send-node-heartbeat", heartbeat(crv), signed(crv.key))

    assert status == 200
    assert heartbeat_pb2.SendNodeHeartbeatResponse.FromString(body).success
    assert list(fleet.state.heard) == [crv.id]


def test_a_stranger_is_refused(fleet: Fleet, crv: FakeNode) -> None:
    stranger = new_site_key()

    assert post(fleet, "send-node-heartbeat", heartbeat(crv), signed(stranger))[0] == 401
    asked = fleet_pb2.ActivateNodeRequest(public_key=public_key_to_bytes(stranger.public_key()), heartbeat_interval=60)
    assert post(fleet, "activate-node", asked, signed(stranger))[0] >= 400
    assert len(fleet.superlink.nodes()) == 1


def test_one_site_can_not_speak_for_another(fleet: Fleet, crv: FakeNode) -> None:
    nkdc = fleet.node("NKDC")

    assert post(fleet, "send-node-heartbeat", heartbeat(crv), signed(nkdc.key))[0] == 401
    assert post(fleet, "pull-messages", fleet_pb2.PullMessagesRequest(node=crv.node), signed(nkdc.key))[0] == 401
    assert post(fleet, "deactivate-node", fleet_pb2.DeactivateNodeRequest(node_id=crv.id), signed(nkdc.key))[0] == 401


@pytest.mark.parametrize("drop", [FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER])
def test_without_a_proof_nothing_is_done(fleet: Fleet, crv: FakeNode, drop: str) -> None:
    headers = signed(crv.key)
    del headers[drop]

    assert post(fleet, "send-node-heartbeat", heartbeat(crv), headers)[0] == 401


@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_proof_of_another_hour_is_refused(fleet: Fleet, crv: FakeNode, age: timedelta) -> None:
    assert post(fleet, "send-node-heartbeat", heartbeat(crv), signed(crv.key, at=now() - age))[0] == 401


def test_a_site_that_was_shut_out_is_refused_from_its_next_request_on(fleet: Fleet, crv: FakeNode) -> None:
    fleet.superlink.expel("CRV")

    assert post(fleet, "send-node-heartbeat", heartbeat(crv), signed(crv.key))[0] == 401


def test_a_reply_in_the_name_of_another_node_is_refused(fleet: Fleet, crv: FakeNode) -> None:
    """The sender proves to be NKDC, and the reply in the envelope says that CRV sent it."""
    nkdc, work, seen = fleet.node("NKDC"), Work(crv), list[int]()

    def push(source: FakeNode, sender: FakeNode) -> None:
        assert work.delivered is not None
        parcel = source.parcel(work.delivered, train_reply(9.0), src_node_id=source.id)
        pushed = fleet_pb2.PushMessagesRequest(
            node=sender.node,
            messages_list=[message_to_proto(parcel.message)],
            message_object_trees=[parcel.tree],
            clientapp_runtime_list=[1.0],
        )
        seen.append(post(fleet, "push-messages", pushed, signed(sender.key))[0])

    (answer,) = fleet.ask(TASK, ["CRV"], work.takes, lambda: push(crv, nkdc), lambda: push(crv, crv), deadline_s=3)

    assert seen == [403, 200]
    assert (answer.reply, answer.problem) == (None, "no reply in time")  # announced by CRV, and no object of it sent


def test_bytes_that_are_no_message_are_refused(fleet: Fleet, crv: FakeNode) -> None:
    headers = {key.lower(): value for key, value in signed(crv.key).items()} | {"content-length": "5"}

    assert 400 <= request(fleet.superlink.app, "POST", "/v1/fleet/pull-messages", b"\xff\xff\xff\xff\xff", headers)[0] < 500
