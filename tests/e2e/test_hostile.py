"""What strangers and dishonest sites may try: each is refused with a reason, and the honest sites' mean stays exact."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.proto import control_pb2, runtime_pb2
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from brainunet import chain, flower_bundle
from brainunet.certificates import new_site_key, read_site_key
from brainunet.flower_environment import prepare_flower
from brainunet.flower_records import HEADER, VALUES, to_records
from brainunet.records import TrainTask
from brainunet.signing import new_signing_key
from brainunet.weights import Weights
from brainunet.wire import pack
from brainunet_server.flower.fleet import FleetExchange
from brainunet_server.flower.linkstate import MAX_OBJECTS_A_REPLY
from brainunet_server.flower.superlink import SuperLink, listening
from tests.e2e.test_federation import assert_model, known
from tests.support.fake_site import Behaviour, FakeSite, Parcel, Received, good_reply, honest
from tests.support.messages import train_task
from tests.support.replies import evaluate_reply, train_reply
from tests.support.running import Federation, new_federation

__all__ = ["new_federation"]

# of Flower's own database and build of bundles, and of what uvicorn loads
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning"),
]

NewFederation = Callable[..., Federation]
HONEST = {"CRV": 10, "NKDC": 30}


def trained(received: Received, **fields: Any) -> Any:
    """An honest reply but for these fields."""
    task = received.task
    given = {"run": task.run, "round": task.round} | fields
    return train_reply(given.pop("delta", known("evil")(task)), cases=given.pop("cases_", 10), **given)


def with_header(received: Received, **fields: Any) -> RecordDict:
    """The records of an honest reply, with other things in its header."""
    records = to_records(pack(trained(received)))
    header = json.loads(str(records.config_records[HEADER][HEADER])) | fields
    records[HEADER] = ConfigRecord({HEADER: json.dumps(header)})
    return records


def with_values(received: Received, values: Any) -> RecordDict:
    records = to_records(pack(trained(received)))
    records[VALUES] = ArrayRecord({VALUES: values if isinstance(values, Array) else Array(values)})
    return records


def filled(received: Received, value: float) -> Weights:
    return Weights.of({name: np.full(shape, value, np.float32) for name, shape in received.task.weights.layout})


def renamed(received: Received) -> Weights:
    delta = known("evil")(received.task)  # type: ignore[arg-type]
    return Weights(("another", *delta.names[1:]), delta.arrays)


def extra_metrics(received: Received) -> RecordDict:
    return RecordDict({**to_records(pack(trained(received))), "metrics": MetricRecord({"num-examples": 1e9})})


def other_shapes(received: Received) -> Weights:
    return Weights.of({"one": np.zeros(5, np.float32)})


# A site's name, the content of its reply to a training, and a part of the reason with which it is refused.
CONTENTS: dict[str, tuple[Callable[[Received], Any], str]] = {
    "NAN": (lambda r: trained(r, delta=filled(r, np.nan)), "NaN or infinite"),
    "INF": (lambda r: trained(r, delta=filled(r, np.inf)), "NaN or infinite"),
    "HUGE": (lambda r: trained(r, delta=filled(r, 1e20)), "an update of length"),
    "LONG": (lambda r: trained(r, delta=filled(r, 2e-2)), "the median is"),
    "NAMES": (lambda r: trained(r, delta=renamed(r)), "names or shapes"),
    "SHAPES": (lambda r: trained(r, delta=other_shapes(r)), "names or shapes"),
    "HALF": (lambda r: with_values(r, np.zeros(r.task.weights.flat().size, np.float16)), "weights as float16"),
    "PICKLE": (
        lambda r: with_values(r, Array("float32", (1,), "numpy.ndarray", b"\x80\x04cos\nsystem\n")),
        "values that can't be read",
    ),
    "METRICS": (extra_metrics, "other records than"),
    "EMPTY": (lambda r: RecordDict(), "other records than"),
    "PROTOCOL": (lambda r: with_header(r, protocol=99), "protocol 99"),
    "FIELD": (lambda r: with_header(r, patient="Jane Doe"), "patient"),
    "REPLAY": (lambda r: trained(r, round=r.task.round - 1), "replies to round"),
    "OTHERRUN": (lambda r: trained(r, run="another-run"), "another-run"),
    "KIND": (lambda r: evaluate_reply(run=r.task.run, round=r.task.round), "asked was train_reply"),
    "CASES": (lambda r: trained(r, cases_=9_999_999), "are not believed"),
}


def sends(content_of: Callable[[Received], Any]) -> Behaviour:
    return lambda r: r.answer(content_of(r) if isinstance(r.task, TrainTask) else good_reply(r.task, known("evil")))


def with_dishonest(
    federation: Federation, behaviours: dict[str, Behaviour], seconds: float = 90
) -> tuple[dict[str, FakeSite], dict[str, Any]]:
    """A whole run of the honest sites and these; gives the dishonest sites and what the store says of round 1."""
    homes = {site: federation.enrol(site) for site in (*HONEST, *behaviours)}
    with ExitStack() as stack:
        evil = {site: stack.enter_context(FakeSite(homes[site], does)) for site, does in behaviours.items()}
        for site, cases in HONEST.items():
            stack.enter_context(FakeSite(homes[site], honest(known(site), cases)))
        federation.wait_completed(federation.serve(), seconds)
    return evil, {site: (row.outcome, row.reason) for site, row in federation.outcomes(1).items()}


def test_whatever_dishonest_sites_put_into_a_reply_is_refused_and_the_mean_is_that_of_the_honest(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="30", rounds__deadline_s="60")

    _, outcomes = with_dishonest(federation, {site: sends(content) for site, (content, _) in CONTENTS.items()})

    for site, (_, reason) in CONTENTS.items():
        outcome, told = outcomes[site]
        assert outcome == "refused", (site, outcome, told)
        assert told is not None
        assert reason in told, (site, told)
        assert [entry.data["reason"] for entry in federation.audit("reply-refused", round=1, site=site)] == [told]
        assert "Jane Doe" not in told
    assert {entry.data["site"] for entry in federation.audit("reply-accepted", round=1)} == set(HONEST)
    assert_model(federation, 1, [HONEST])


def raw(received: Received, root: bytes, *others: bytes) -> Parcel:
    """A reply whose objects are these very bytes."""
    honest_one = received.parcel(trained(received))
    objects = {get_object_id(content): content for content in (root, *others)}
    ids = list(objects)
    tree = ObjectTree(object_id=ids[0], children=[ObjectTree(object_id=id_) for id_ in ids[1:]])
    honest_one.message.metadata.__dict__["_message_id"] = ids[0]
    return Parcel(honest_one.message, tree, objects)


def is_no_message(received: Received) -> None:
    """What stands where the message should be is a record."""
    received.site.push(raw(received, b"ConfigRecord  0\x00"))


def refers_to_nothing(received: Received) -> None:
    """A message whose content is not among the objects that it announced."""
    parcel = received.parcel(trained(received))
    body = b""
    received.site.push(raw(received, b"Message %s 0\x00" % parcel.root.encode() + body))


def is_garbage_inside(received: Received) -> None:
    """A message whose body is no message."""
    received.site.push(raw(received, b"Message  8\x00\xff\xff\xff\xff\xff\xff\xff\xff"))


def is_half_here(received: Received) -> None:
    """Announces a reply and sends half of it."""
    parcel = received.parcel(trained(received))
    received.site.push(parcel, only=lambda object_id: object_id != parcel.root)


def replies_twice(received: Received) -> None:
    """A second, different reply to the same task."""
    received.answer(good_reply(received.task, known("evil")))
    received.answer(good_reply(received.task, known("worse")))


def speaks_for_another(received: Received) -> None:
    received.answer(good_reply(received.task, known("evil")), src_node_id=4711)


def leaves_at_once(received: Received) -> None:
    """Has said goodbye when the last of its reply arrives."""
    parcel = received.parcel(good_reply(received.task, known("leaves")))
    received.site.push(parcel, before_last=received.site.deactivate)


def has_no_time(received: Received) -> None:
    """Its reply is no longer good when the last of it arrives."""
    parcel = received.parcel(good_reply(received.task, known("evil")), ttl=1.0, created_at=time.time())
    received.site.push(parcel, before_last=lambda: time.sleep(1.5))


def claims_too_much(received: Received) -> None:
    """Announces more objects than any reply has."""
    parcel = received.parcel(trained(received))
    for number in range(MAX_OBJECTS_A_REPLY):
        parcel.tree.children.append(ObjectTree(object_id=f"{number:064x}"))
    received.site.push(parcel)


def claims_itself_over_and_over(received: Received) -> None:
    """A few objects that refer to each other so often that following each way would take for ever."""
    parcel = received.parcel(trained(received))
    ids = [f"{number:064x}" for number in range(1, 31)]
    for below, above in pairwise(ids):
        parcel.tree.children.append(ObjectTree(object_id=above, children=[ObjectTree(object_id=below)] * 20))
    received.site.push(parcel)


def is_late_of_an_odd_round(group: str) -> Behaviour:
    def behave(received: Received) -> None:
        received.answer(good_reply(received.task, known("evil")), reply_to_message_id="ab" * 32, group_id=group)

    return behave


OBJECTS: dict[str, Behaviour] = {
    "NOMESSAGE": is_no_message,
    "NOTHING": refers_to_nothing,
    "GARBAGE": is_garbage_inside,
    "HALF": is_half_here,
    "FORGED": speaks_for_another,
    "CLAIMS": claims_too_much,
    "AGAIN": claims_itself_over_and_over,
    "SQUARED": is_late_of_an_odd_round("²"),
    "FAROFF": is_late_of_an_odd_round("9" * 30),
    "NEGATIVE": is_late_of_an_odd_round("-1"),
}


def test_replies_that_break_the_transport_s_rules_cost_their_sites_the_round_and_nobody_else(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="13", rounds__deadline_s="14")

    evil, outcomes = with_dishonest(federation, OBJECTS, 90)

    for site in OBJECTS:
        assert outcomes[site][0] in ("refused", "absent", "late"), (site, outcomes[site])
        assert outcomes[site][1], site
    assert 403 in evil["FORGED"].refusals
    assert {entry.data["site"] for entry in federation.audit("reply-accepted", round=1)} == set(HONEST)
    assert_model(federation, 1, [HONEST])


def test_the_first_of_two_replies_counts_and_one_that_is_here_counts_whatever_its_site_does_next(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="7", rounds__deadline_s="8")
    odd = {"TWICE": replies_twice, "LEAVES": leaves_at_once, "EXPIRES": has_no_time}

    _, outcomes = with_dishonest(federation, odd, 60)

    assert outcomes == dict.fromkeys((*HONEST, *odd), ("answered", None))
    task = train_task(federation.start()).model_copy(update={"round": 1})
    changes = [(known(site), cases) for site, cases in HONEST.items()] + [
        (known(name), 10) for name in ("evil", "leaves", "evil")
    ]
    total = sum(cases for _, cases in changes)
    mean = sum(change(task).flat().astype(np.float64) * (cases / total) for change, cases in changes)
    np.testing.assert_allclose(federation.model(1).flat(), federation.start().flat() + mean, rtol=0, atol=1e-6)


def stranger(federation: Federation, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
    return FleetHttpClient.from_server_address(
        federation.address,
        False,
        federation.folder.ca_certificate.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )


def test_a_stranger_with_the_ca_s_certificate_alone_can_do_nothing(new_federation: NewFederation) -> None:
    federation = new_federation()
    federation.enrol("CRV")
    key = new_site_key()
    public = public_key_to_bytes(key.public_key())
    server = federation.serve()
    before = [entry.digest for entry in federation.audit()]

    with stranger(federation, key) as client:
        for ask, status in (
            (lambda: client.RegisterNode(RegisterNodeFleetRequest(public_key=public)), 404),
            (lambda: client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=60)), 400),
            (lambda: client.PullMessages(PullMessagesRequest(node=Node(node_id=1))), 401),
        ):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                ask()
            assert 400 <= refused.value.response.status_code < 500, (status, refused.value.response.status_code)
            assert "Traceback" not in refused.value.response.text
    trusted = ssl.create_default_context(cafile=str(federation.folder.ca_certificate))
    protobuf = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    bodies = {
        "/v1/control/start-run": control_pb2.StartRunRequest(),
        "/v1/control/list-runs": control_pb2.ListRunsRequest(),
        "/v1/control/list-nodes": control_pb2.ListNodesRequest(),
        "/v1/control/register-node": control_pb2.RegisterNodeRequest(public_key=public),
        "/v1/runtime/acquire-task": runtime_pb2.AcquireTaskRequest(),
        "/v1/runtime/create-task": runtime_pb2.CreateTaskRequest(),
        "/v1/runtime/get-nodes": runtime_pb2.GetNodesRequest(),
        "/v1/runtime/pull-app-messages": runtime_pb2.PullAppMessagesRequest(),
        "/v1/fleet/register-node": RegisterNodeFleetRequest(public_key=public),
        "/v1/fleet/unregister-node": RegisterNodeFleetRequest(public_key=public),
    }
    with httpx.Client(base_url=f"https://{federation.address}", verify=trusted, timeout=20) as http:
        for path, message in bodies.items():
            assert http.post(path, content=message.SerializeToString(), headers=protobuf).status_code == 404, path
        for path in ("/", "/docs", "/redoc", "/openapi.json", "/v1", "/v1/fleet", "/v1/fleet/", "/v1/fleet/pull-messages/"):
            assert http.get(path).status_code == 404, path
        for path in (
            "/v1/fleet/../control/list-runs",
            "//v1/fleet/pull-messages",
            "/v1/fleet/pull-messages%2f..%2fregister-node",
        ):
            assert http.post(path, content=b"x").status_code == 404, path
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
            assert http.request(method, "/v1/fleet/pull-messages").status_code == 404, method
        assert http.post("/v1/fleet/pull-messages", content=b"", headers=protobuf).status_code == 401
        assert http.post("/v1/fleet/pull-messages", content=b"\xff" * 100, headers=protobuf).status_code in (400, 401, 422)
        assert http.post("/v1/fleet/push-object", content=iter([b"a" * 1000] * 3)).status_code == 411
        assert set(http.get("/health").json()) == {"brainunet", "protocol", "federation"}
    assert huge_body(federation, 100_000_000) == 413
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{federation.address}/health")  # without encryption

    assert server.is_alive
    assert [entry.digest for entry in federation.audit()] == before
    federation.wait(lambda: federation.site_state("CRV") == "never seen", 5, "no site was seen")
    assert [site["name"] for site in federation.status()["status"]["sites"]] == ["CRV"]
    assert "Traceback" not in server.said


def huge_body(federation: Federation, n_bytes: int) -> int:
    """The status with which the server answers the head of a request with so large a body, before any of it came."""
    trusted = ssl.create_default_context(cafile=str(federation.folder.ca_certificate))
    with (
        socket.create_connection(("127.0.0.1", federation.port), timeout=10) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {n_bytes}\r\n\r\n".encode())
        return int(line.recv(64).split()[1])


SIGNED_BY_ANOTHER, WITH_CODE = "signed by another", "with code inside"


@pytest.mark.parametrize("what", [SIGNED_BY_ANOTHER, WITH_CODE])
def test_a_bundle_that_is_not_the_federation_s_own_is_refused_at_the_site_and_never_unpacked(
    what: str, tmp_path: Path, new_federation: NewFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = new_federation()
    home = federation.enrol("CRV")
    (tmp_path / "cases").mkdir()
    key = federation.signing_key if what == WITH_CODE else new_signing_key()
    marker = tmp_path / "the code was run"
    code = f"from pathlib import Path; Path({str(marker)!r}).touch()".encode()
    if what == WITH_CODE:
        monkeypatch.setattr(flower_bundle, "bundle", lambda: with_code(code))
    monkeypatch.setattr("os.environ", dict(os.environ))  # what Flower's settings change there ends with the test
    prepare_flower(tmp_path / "flower")
    superlink = SuperLink(tmp_path / "flower" / "superlink.sqlite", "Glioma Africa")
    superlink.admit("CRV", read_site_key(home.key).public_key())
    run = superlink.start_run(key)
    exchange = FleetExchange(superlink, run, deadline_s=60, silence_s=60)
    task = train_task(federation.start())

    with listening(superlink, "127.0.0.1", federation.port, federation.folder.server_certificate, federation.folder.server_key):
        client = federation.join("CRV", tmp_path / "cases")
        federation.wait(exchange.sites, 30, "the site is connected")
        (answer,) = exchange.ask(task, ["CRV"])
        client.end()

    assert answer.reply is None
    assert answer.problem is not None
    assert answer.problem.startswith("Flower error")
    log = home.log.read_text()
    assert ("app bundle with something in it" if what == WITH_CODE else "not signed by this federation") in log
    assert not marker.exists()
    assert not home.received.exists()  # the task was not even begun
    assert not [entry for entry in chain.entries(home.ledger) if entry.kind == "sent"]
    assert [path for path in home.path.rglob("*") if path.suffix in (".py", ".fab")] == []


def with_code(code: bytes) -> bytes:
    """The bundle, and a module that runs when it is imported."""
    content: bytes = build_fab_from_files({"pyproject.toml": flower_bundle._MANIFEST, "brainunet_client/__init__.py": code})[0]
    return content


def test_a_stranger_who_opens_many_connections_and_says_nothing_keeps_no_site_out(new_federation: NewFederation) -> None:
    federation = new_federation(rounds__count="1")
    homes = {site: federation.enrol(site) for site in HONEST}
    server = federation.serve()
    trusted = ssl.create_default_context(cafile=str(federation.folder.ca_certificate))

    with ExitStack() as stack:
        for _ in range(100):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", federation.port), timeout=10))
            stack.enter_context(trusted.wrap_socket(plain, server_hostname="127.0.0.1"))
        for site, cases in HONEST.items():
            stack.enter_context(FakeSite(homes[site], honest(known(site), cases)))
        federation.wait_completed(server, 60)
    assert_model(federation, 1, [HONEST])
