"""What somebody who is no site may try at the server, and a stranger's server at a site: nothing comes of it."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_files
from flwr.proto import control_pb2, runtime_pb2
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from brainunet import chain, flower_bundle
from brainunet.certificates import new_site_key, read_site_key
from brainunet.flower_environment import prepare_flower
from brainunet.signing import new_signing_key
from brainunet_server.flower.fleet import FleetExchange
from brainunet_server.flower.superlink import SuperLink, listening
from tests.support.fake_site import FakeSite, honest
from tests.support.known import assert_model, known
from tests.support.messages import train_task
from tests.support.running import FLOWER_WARNINGS, Federation

pytestmark = [pytest.mark.slow, *FLOWER_WARNINGS]

NewFederation = Callable[..., Federation]
HONEST = {"CRV": 10, "NKDC": 30}


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
    bodies: dict[str, Any] = {
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
    (tmp_path / "cases" / "BraTS-SSA-00002-000-t1c.nii.gz").touch()  # something to take part with
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
    assert answer.problem.startswith("it refused the app bundle")
    log = home.log.read_text()
    assert ("app bundle with something in it" if what == WITH_CODE else "not signed with this kit's key") in log
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
