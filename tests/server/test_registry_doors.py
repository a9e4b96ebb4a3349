"""Who is let in to the registry, over real TLS: sites of the roster and readers of the store, and no one else."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from brainunet import home_folder
from brainunet.certificates import make_request, new_site_key
from brainunet.reader_pass import read_reader_pass
from brainunet.registry.registry_pb2 import DownloadRequest, ListRequest
from brainunet.registry.troubles import Passing
from brainunet_server.federation import Folder
from brainunet_server.registry import door as door_module
from brainunet_server.registry import entrance, servicer
from brainunet_server.registry.door import address_of
from brainunet_server.registry.limits import Limits
from tests.support.asking import bearer, names, refusal, stub
from tests.support.federation import done, refused
from tests.support.registries import Publisher, Served, no_slowing, served
from tests.support.running import BIN

__all__ = ["no_slowing", "served"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_slowing")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.publish("v1")
    made.publish("v2")
    return made


def test_a_revoked_site_is_out_with_its_next_question(publisher: Publisher, served: Served) -> None:
    home = publisher.site("leaving-site")
    access = served.by_site(home)
    assert names(access)
    done("revoke", publisher.folder.path, "leaving-site", "--reason", "left the federation")

    said = refusal(access)

    assert said.startswith(
        f"127.0.0.1:{served.site_port}: the registry does not let site leaving-site in: it was put out of the"
    )
    assert "left the federation" not in said  # the reason is the coordinator's own


def test_a_site_whose_key_was_replaced_is_told_so(publisher: Publisher, served: Served, tmp_path: Path) -> None:
    access = served.by_site(publisher.site("renewed"))
    (tmp_path / "again.request").write_bytes(make_request(new_site_key(), "renewed"))
    done("enrol", publisher.folder.path, tmp_path / "again.request", "-o", tmp_path / "kit.json", "--replace")

    assert "its key was replaced by a newer one of renewed; use the newer kit" in refusal(access)


def test_a_site_that_the_roster_never_knew_is_refused_though_its_certificate_is_of_the_authority(
    publisher: Publisher, served: Served
) -> None:
    access = served.by_site(publisher.site("forgotten"))
    before = publisher.folder.roster.read_text()
    roster = json.loads(before)
    del roster["sites"]["forgotten"]
    publisher.folder.roster.write_text(json.dumps(roster))
    try:
        assert "its key is not on the list of sites" in refusal(access)
        publisher.folder.roster.write_text("{")  # nobody is let in by a list that can't be read
        assert "its list of sites can't be read; tell the coordinator" in refusal(access)
    finally:
        publisher.folder.roster.write_text(before)
    assert names(access)


def test_a_stranger_without_a_certificate_gets_no_word_out_of_the_sites_port(publisher: Publisher, served: Served) -> None:
    trusted = ssl.create_default_context(cafile=str(publisher.folder.ca_certificate))
    trusted.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", served.site_port), 5) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        heard = b""
        with suppress(ssl.SSLError, ConnectionError):  # "certificate required", or already the end
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            heard = secure.recv(100)
    assert heard == b""

    reader = served.by_pass(publisher.reader("at-the-wrong-port"), served.site_port)
    with pytest.raises(Passing, match=r"the server hangs up on reader at-the-wrong-port\. Ask .* its port for readers"):
        names(reader)


def test_a_site_at_the_readers_port_is_told_which_port_it_is(publisher: Publisher, served: Served) -> None:
    access = served.by_site(publisher.site("astray"), served.readers_port)

    assert "no pass; this port is for readers" in refusal(access)


def test_a_wrong_an_expired_and_a_revoked_pass_are_told_apart(publisher: Publisher, served: Served) -> None:
    good = served.by_pass(publisher.reader("true"))
    assert names(good)
    assert "its pass is not known here" in refusal(replace(good, token="A" * 43))
    assert "its pass is not known here" in refusal(replace(good, token=good.token[:-1] + "-"))

    with publisher.store() as store:
        store.revoke_reader("true")
    assert "the pass of true was revoked on 20" in refusal(good)

    expired = read_reader_pass(publisher.reader("late", days=-1))
    access = replace(good, token=expired.token, who="reader late")
    assert "the registry does not let reader late in: the pass of late has expired on 20" in refusal(access)


@pytest.mark.parametrize(
    "said",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic eDp5"),),
        (("authorization", "bearer x"),),
        (("authorization", "Bearer " + "x" * 3000),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    ],
)
def test_no_way_of_saying_nothing_is_a_pass(publisher: Publisher, served: Served, said: Any) -> None:
    channel, raw = stub(served.by_pass(publisher.reader(f"silent-{abs(hash(said)) % 10**9}")))
    with channel, pytest.raises(grpc.RpcError) as refused:
        raw.List(ListRequest(), metadata=said, timeout=10)
    assert refused.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_wrong_passes_from_one_address_are_slowed_and_then_refused_while_a_good_one_passes(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "SLOWED_S", 0.2)
    with publisher.served(Limits(wrong_tokens_per_minute=3)) as served:
        good = served.by_pass(publisher.reader("neighbour"))
        wrong = replace(good, token="B" * 43)
        began = time.monotonic()
        for _ in range(3):
            assert "is not known here" in refusal(wrong)
        assert time.monotonic() - began >= 0.6
        assert "more than 3 calls with a wrong pass in a minute from this address" in refusal(wrong)
        assert names(good)


def test_strangers_who_connect_and_say_nothing_keep_nobody_out(publisher: Publisher, served: Served) -> None:
    trusted = ssl.create_default_context(cafile=str(publisher.folder.ca_certificate))
    trusted.set_alpn_protocols(["h2"])
    with ExitStack() as stack:
        for number in range(100):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", served.readers_port), 10))
            if number % 2:
                stack.enter_context(trusted.wrap_socket(plain, server_hostname="127.0.0.1"))

        assert names(served.by_pass(publisher.reader("undisturbed")))


def test_health_is_told_to_anybody_and_watched_by_nobody_unknown(publisher: Publisher, served: Served) -> None:
    channel, _ = stub(served.by_pass(publisher.reader("nurse")))
    with channel:
        health = health_pb2_grpc.HealthStub(channel)
        told = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert told.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refused:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_questions_that_make_no_sense_are_refused(
    publisher: Publisher, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "QUESTION_S", 0.3)
    access = served.by_pass(publisher.reader("confused"))
    size = publisher.file_of("v1").stat().st_size
    codes = grpc.StatusCode
    channel, raw = stub(access)
    with channel:
        for request, code in (
            (DownloadRequest(name="v9"), codes.NOT_FOUND),
            (DownloadRequest(name="../v1"), codes.NOT_FOUND),
            (DownloadRequest(name="v1", offset=size + 1), codes.OUT_OF_RANGE),
            (DownloadRequest(name="v1", offset=2**64 - 1), codes.OUT_OF_RANGE),
            (DownloadRequest(name="v1", sha256="00"), codes.FAILED_PRECONDITION),
            (DownloadRequest(name="x" * 10_000), codes.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                list(raw.Download(request, metadata=bearer(access), timeout=10))
            assert refused.value.code() is code, request
        assert list(raw.Download(DownloadRequest(name="v1", offset=size), metadata=bearer(access), timeout=10)) == []
        ask_nothing = channel.stream_unary("/brainunet.registry.v1.Registry/List")
        never = _never()
        with pytest.raises(grpc.RpcError) as refused:
            ask_nothing(never, metadata=bearer(access), timeout=10)
        assert refused.value.code() is codes.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/brainunet.registry.v1.Registry/Delete")(b"", metadata=bearer(access), timeout=10)
        assert refused.value.code() is codes.UNIMPLEMENTED


def test_an_error_of_ours_says_nothing_of_itself_to_the_caller(
    publisher: Publisher, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("secret path /home/fed/keys")

    monkeypatch.setattr(servicer, "_message", fails)
    access = served.by_pass(publisher.reader("curious"))
    channel, raw = stub(access)
    with channel, pytest.raises(grpc.RpcError) as refused:
        raw.List(ListRequest(), metadata=bearer(access), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert refused.value.details() == "an error of the registry itself; tell the coordinator"


@pytest.mark.slow
def test_a_second_registry_on_the_same_port_is_refused(publisher: Publisher, served: Served) -> None:
    command = [str(BIN / "flower-server"), "registry", str(publisher.folder.path), "--listen", "127.0.0.1"]
    command += ["--port", str(served.site_port), "--readers-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # it might serve for ever

    assert ended.returncode == 6
    assert f"127.0.0.1 port {served.site_port}: it can't be listened on" in ended.stderr


def test_a_folder_that_is_no_federation_is_refused(tmp_path: Path) -> None:
    assert "no federation.toml in it" in refused(4, "registry", Folder(tmp_path).path)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:1", "192.0.2.7"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "192.0.2.7"),
        ("ipv6:[2001:db8::1]:443", "2001:db8::/64"),
        ("unix:/tmp/socket", "elsewhere"),
        ("", "elsewhere"),
    ],
)
def test_addresses_are_read_from_grpc_s_words(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_the_home_of_a_site_holds_what_access_needs(publisher: Publisher) -> None:
    home = publisher.site("homely")
    assert {path.name for path in home.iterdir()} == {home_folder.KEY, home_folder.KIT}


def _never() -> Iterator[bytes]:
    time.sleep(3)
    yield b""
