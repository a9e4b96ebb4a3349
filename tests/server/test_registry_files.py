"""What the registry gives to those who are let in: the bytes that were signed, as long as they may be had, and in turn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.errors import FederationError
from brainunet.modelfile import read_model
from brainunet.registry.agreed import CHUNK_BYTES
from brainunet.registry.client import Registry
from brainunet.registry.registry_pb2 import DescribeRequest
from brainunet.registry.troubles import Passing
from brainunet_server.registry import entrance, servicer, serving
from brainunet_server.registry.limits import Limits
from tests.support.asking import bearer, downloads, names, pulled, stub
from tests.support.registries import Publisher, Served, no_slowing, served
from tests.support.store import NOON

__all__ = ["no_slowing", "served"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_slowing")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.publish("v1")
    made.publish("v2")
    made.publish("large", 40)
    return made


@pytest.mark.parametrize("kind", ["site", "reader"])
def test_a_site_and_a_reader_get_the_very_bytes_that_were_signed(
    publisher: Publisher, served: Served, tmp_path: Path, kind: str
) -> None:
    who = f"good-{kind}"
    access = served.by_site(publisher.site(who)) if kind == "site" else served.by_pass(publisher.reader(who))

    assert names(access)[-3:] == ["large", "v2", "v1"]  # the newest first
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
    with Registry(access) as registry:
        chunks = registry.chunks(registry.describe("large").release, 0)
        assert len(next(chunks)) == CHUNK_BYTES
        chunks.close()  # type: ignore[attr-defined] # a generator
    ((name, _, n_bytes, whole),) = downloads(publisher, "leaving")
    assert (name, whole) == ("large", False)
    assert CHUNK_BYTES <= n_bytes < publisher.file_of("large").stat().st_size


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


def test_calls_over_what_the_port_takes_at_once_are_asked_to_wait(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "CALLS_AT_ONCE", 1)
    with publisher.served() as served:
        access = served.by_pass(publisher.reader("one-too-many"))
        with Registry(access) as registry:
            first = registry.chunks(registry.describe("large").release, 0)
            next(first)
            with pytest.raises(Passing, match="the registry asks reader one-too-many to wait"):
                registry.listing()
            first.close()  # type: ignore[attr-defined]


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
