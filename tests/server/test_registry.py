"""What the registry gives to whom, over real TLS: to sites of the roster and readers of the store, and to no one else."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from brainunet.reader_pass import read_reader_pass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from brainunet import chain, home_folder
from brainunet.certificates import make_request, new_site_key
from brainunet.errors import FederationError
from brainunet.modelfile import read_model
from brainunet.registry.access import Access
from brainunet.registry.agreed import CHUNK_BYTES
from brainunet.registry.client import Registry
from brainunet.registry.fetch import Part, fetch, held
from brainunet.registry.keep import keep
from brainunet.registry.registry_pb2 import DescribeRequest, DownloadRequest, ListRequest
from brainunet.registry.registry_pb2_grpc import RegistryStub
from brainunet.registry.troubles import Passing
from brainunet_server.federation import Folder
from brainunet_server.registry import door as door_module
from brainunet_server.registry import entrance, servicer
from brainunet_server.registry.door import address_of
from brainunet_server.registry.limits import Limits
from brainunet_server.store.reader import StoreReader
from tests.support.federation import done, refused, serve
from tests.support.registries import Publisher, Served
from tests.support.store import NOON


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.publish("v1")
    made.publish("v2")
    return made


@pytest.fixture(scope="module")
def served(publisher: Publisher) -> Iterator[Served]:
    with publisher.served() as served:
        yield served


@pytest.fixture(autouse=True)
def _no_slowing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "SLOWED_S", 0.0)
    monkeypatch.setattr(door_module, "FRESH_S", 0.0)


def names(access: Access) -> list[str]:
    with Registry(access) as registry:
        return [release.name for release in registry.listing().releases]


def refusal(access: Access) -> str:
    with pytest.raises(FederationError) as refused:
        names(access)
    return str(refused.value)


def pulled(access: Access, name: str, target: Path) -> Path:
    with Registry(access) as registry:
        described = registry.describe(name)
    with held(Part(target)) as descriptor:
        fetch(lambda: Registry(access), described.release, Part(target), descriptor, patience_s=0)
        return keep(Part(target), described, access.signing_key).file


def downloads(publisher: Publisher, who: str) -> Sequence[tuple[str, str, int, bool]]:
    """What the store says once it says something: a download is written down when its last byte has left."""
    for _ in range(100):
        with StoreReader(publisher.folder.store) as store:
            found = [(row.release, row.kind, row.n_bytes, row.whole) for row in store.downloads() if row.who == who]
        if found:
            return found
        time.sleep(0.05)
    return []


def stub(access: Access) -> tuple[grpc.Channel, RegistryStub]:
    """The bare protocol, for questions that our own client never asks."""
    credentials = grpc.ssl_channel_credentials(
        access.ca_certificate.encode(), access.key or None, access.certificate.encode() or None
    )
    channel = grpc.secure_channel(access.server, credentials)
    return channel, RegistryStub(channel)


def bearer(access: Access) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {access.token}"),)


@pytest.mark.parametrize("kind", ["site", "reader"])
def test_a_site_and_a_reader_get_the_very_bytes_that_were_signed(
    publisher: Publisher, served: Served, tmp_path: Path, kind: str
) -> None:
    who = f"good-{kind}"
    access = served.by_site(publisher.site(who)) if kind == "site" else served.by_pass(publisher.reader(who))

    assert names(access)[-2:] == ["v2", "v1"]  # the newest first
    file = pulled(access, "v1", tmp_path / "mine.safetensors")

    original = publisher.file_of("v1")
    assert file.read_bytes() == original.read_bytes()
    assert file.with_name("mine.safetensors.sig").read_bytes() == original.with_name("v1.safetensors.sig").read_bytes()
    size = original.stat().st_size
    assert downloads(publisher, who) == [("v1", kind, size, True)]
    (entry,) = [
        one for one in chain.entries(publisher.folder.audit) if one.data.get(kind) == who and one.kind == "model-downloaded"
    ]
    assert entry.data["release"] == "v1"
    assert entry.data["bytes"] == size


def test_what_is_told_of_a_release_is_what_was_published(publisher: Publisher, served: Served) -> None:
    with Registry(served.by_site(publisher.site("asking"))) as registry:
        release = registry.describe("v2").release

    _, card = read_model(publisher.file_of("v2"))
    assert (release.run, release.round, release.notes, release.withdrawn) == ("glioma-1", 2, "notes of v2", None)
    assert release.published_at == NOON + timedelta(minutes=2)
    assert release.weights_sha256 == card.weights_sha256
    channel, raw = stub(served.by_pass(access := publisher.reader("raw")))
    with channel:
        told = raw.Describe(DescribeRequest(name="v2"), metadata=bearer(served.by_pass(access)))
    assert json.loads(told.card)["title"] == "model v2"


def test_a_part_of_a_download_is_counted_as_a_part(publisher: Publisher, served: Served) -> None:
    access = served.by_pass(publisher.reader("impatient"))
    size = publisher.file_of("v1").stat().st_size
    with Registry(access) as registry:
        release = registry.describe("v1").release
        chunks = registry.chunks(release, size - 10)
        assert b"".join(chunks) == publisher.file_of("v1").read_bytes()[-10:]
    assert downloads(publisher, "impatient") == [("v1", "reader", 10, True)]  # with these it was sent to its end

    access = served.by_pass(publisher.reader("leaving"))
    publisher.publish("large", 40)
    with Registry(access) as registry:
        chunks = registry.chunks(registry.describe("large").release, 0)
        assert len(next(chunks)) == CHUNK_BYTES
        chunks.close()  # type: ignore[attr-defined] # a generator
    ((name, _, n_bytes, whole),) = downloads(publisher, "leaving")
    assert (name, whole) == ("large", False)
    assert CHUNK_BYTES <= n_bytes < publisher.file_of("large").stat().st_size


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


def test_a_withdrawn_release_is_listed_with_its_reason_and_not_given_out(publisher: Publisher, served: Served) -> None:
    access = served.by_pass(publisher.reader("regretful"))
    publisher.publish("bad")
    with Registry(access) as registry:
        release = registry.describe("bad").release
        publisher.withdraw("bad", "left and right were swapped")

        told = next(one for one in registry.listing().releases if one.name == "bad")
        assert told.withdrawn == "left and right were swapped"
        assert registry.describe("bad").release.withdrawn == told.withdrawn
        with pytest.raises(
            FederationError, match=r"does not give it out: bad was withdrawn on .*: left and right were swapped"
        ):
            next(registry.chunks(release, 0))


def test_a_release_that_is_withdrawn_while_it_is_fetched_ends_there(
    publisher: Publisher, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "RECHECK_S", 0.0)
    publisher.publish("short-lived", 40)
    with Registry(served.by_pass(publisher.reader("slow"))) as registry:
        chunks = registry.chunks(registry.describe("short-lived").release, 0)
        next(chunks)
        publisher.withdraw("short-lived", "a mistake")
        with pytest.raises(FederationError, match="short-lived was withdrawn"):
            list(chunks)


def test_a_reader_who_is_revoked_while_it_fetches_ends_there(
    publisher: Publisher, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "RECHECK_S", 0.0)
    publisher.publish("long", 40)
    with Registry(served.by_pass(publisher.reader("banned"))) as registry:
        chunks = registry.chunks(registry.describe("long").release, 0)
        next(chunks)
        with publisher.store() as store:
            store.revoke_reader("banned")
        with pytest.raises(FederationError, match="the pass of banned was revoked"):
            list(chunks)


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "a link elsewhere", "without its signature"])
def test_a_file_that_is_not_what_was_published_is_given_to_nobody(publisher: Publisher, served: Served, damage: str) -> None:
    name = f"damaged-{damage.replace(' ', '-')}"
    publisher.publish(name)
    path = publisher.file_of(name)
    access = served.by_pass(publisher.reader(f"r-{name}"))
    with Registry(access) as registry:
        release = registry.describe(name).release
        assert next(iter(registry.chunks(release, 0)))
        content = path.read_bytes()
        match damage:
            case "changed":
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            case "shorter":
                path.write_bytes(content[:-1])
            case "gone":
                path.unlink()
            case "a link elsewhere":
                path.unlink()
                (publisher.root / "elsewhere").write_bytes(content)
                path.symlink_to(publisher.root / "elsewhere")
            case _:
                path.with_name(f"{path.name}.sig").unlink()
        ask: Callable[[Registry], object] = lambda one: next(one.chunks(release, 0))  # noqa: E731
        if damage == "without its signature":
            ask = lambda one: one.describe(name)  # noqa: E731
        with pytest.raises(FederationError, match="its file is not as it was published; tell the coordinator"):
            ask(registry)
        if damage == "changed":  # put right, it is given out again
            path.write_bytes(content)
            assert b"".join(registry.chunks(release, 0)) == content


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


def test_too_many_questions_and_downloads_are_asked_to_wait_with_words(publisher: Publisher, tmp_path: Path) -> None:
    with publisher.served(Limits(calls_per_minute=6, downloads_each=1)) as served:
        access = served.by_pass(publisher.reader("hurried"))
        with Registry(access) as registry:
            release = registry.describe("large").release
            first = registry.chunks(release, 0)
            next(first)
            with pytest.raises(Passing, match="the registry asks reader hurried to wait: 1 downloads of yours") as refused:
                next(registry.chunks(release, 0))
            assert refused.value.wait_s == 30
            first.close()  # type: ignore[attr-defined]
            for _ in range(3):  # after one description and two downloads
                registry.listing()
            with pytest.raises(Passing, match="more than 6 questions in a minute; ask again in") as refused:
                registry.listing()
            assert 50 < refused.value.wait_s <= 60


def test_a_caller_who_takes_nothing_is_given_up_and_its_place_is_free(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "STALL_S", 0.3)
    monkeypatch.setattr(entrance, "GOODBYE_S", 0.2)
    publisher.publish("huge", 60)
    with publisher.served(Limits(downloads_each=1)) as served:
        access = served.by_pass(publisher.reader("asleep"))
        with Registry(access) as registry:
            release = registry.describe("huge").release
            chunks = registry.chunks(release, 0)
            next(chunks)
            ends_at = time.monotonic() + 20
            while True:
                try:
                    assert next(registry.chunks(release, 0))
                    break
                except Passing:
                    assert time.monotonic() < ends_at
                    time.sleep(0.1)


def test_many_pull_at_once_and_each_gets_every_byte(publisher: Publisher, served: Served, tmp_path: Path) -> None:
    accesses = [served.by_pass(publisher.reader(f"many-{number}")) for number in range(12)]

    with ThreadPoolExecutor(12) as pool:
        files = list(pool.map(lambda one: pulled(one, "v2", tmp_path / f"{one.who}.safetensors"), accesses))

    original = publisher.file_of("v2").read_bytes()
    assert all(file.read_bytes() == original for file in files)


def test_a_second_registry_on_the_same_port_is_refused(publisher: Publisher, served: Served) -> None:
    ended = serve(
        *("registry", publisher.folder.path, "--listen", "127.0.0.1"),
        *("--port", str(served.site_port), "--readers-port", "0"),
    )

    assert ended.code == 6
    assert f"127.0.0.1 port {served.site_port}: it can't be listened on" in ended.err


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
