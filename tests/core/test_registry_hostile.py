"""Whatever a registry says or sends, only the federation's own model gets a name, and only clean words reach a screen."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from brainunet.errors import FederationError
from brainunet.modelfile import SIGNED_AS
from brainunet.registry import client as client_module
from brainunet.registry.client import Registry
from brainunet.registry.registry_pb2 import Chunk, Release
from brainunet.signing import new_signing_key, sign_file
from tests.support.false_registry import FalseRegistry, access_to, pull_from, registry, standing
from tests.support.health import Federation, federation, no_proxy_of_this_machine

__all__ = ["federation", "no_proxy_of_this_machine", "registry"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_proxy_of_this_machine")


def refusal(registry: FalseRegistry, federation: Federation, folder: Path) -> str:
    """Why a pull failed; nothing has the name, and nothing is left that a later one would go on with."""
    target = folder / "pulled.safetensors"
    with standing(registry, federation) as port, pytest.raises(FederationError) as refused:
        pull_from(port, federation, target)
    assert not target.exists()
    return str(refused.value).replace(f"127.0.0.1:{port}", "SERVER")


def told_of(registry: FalseRegistry, federation: Federation) -> str:
    """Why its list could not be had."""
    with standing(registry, federation) as port, Registry(access_to(port, federation)) as asked:  # noqa: SIM117
        with pytest.raises(FederationError) as refused:
            asked.listing()
    return str(refused.value)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("pulled*"))


def test_a_good_registry_s_model_is_kept(registry: FalseRegistry, federation: Federation, tmp_path: Path) -> None:
    with standing(registry, federation) as port:
        assert pull_from(port, federation, tmp_path / "pulled.safetensors").read_bytes() == registry.content
    assert leftovers(tmp_path) == ["pulled.safetensors", "pulled.safetensors.sig"]


def test_a_changed_byte_is_found_and_nothing_of_it_is_kept(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    registry.content = registry.content[:-1] + bytes([registry.content[-1] ^ 1])

    said = refusal(registry, federation, tmp_path)

    assert said.startswith("v1: what came has another digest than was announced: it was changed on the way or on the disk.")
    assert "Nothing of it was kept; fetch it again" in said
    assert leftovers(tmp_path) == []


def test_a_changed_model_with_a_digest_to_match_is_found_by_the_signature(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    other = FalseRegistry.of(tmp_path, federation.signing_key)
    registry.content, registry.release = other.content, other.release  # but the signature of the first

    assert "a file that was changed after it was signed" in refusal(registry, federation, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_model_signed_by_another_federation_is_refused(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    stranger = new_signing_key()
    path = tmp_path / "good.safetensors"
    registry.signature = sign_file(path, stranger, SIGNED_AS).read_text()

    said = refusal(registry, federation, tmp_path)

    assert f"a signature by key {stranger.public.id}, but expected one by key {federation.signing_key.public.id}" in said
    assert leftovers(tmp_path) == []


def test_a_signature_for_another_purpose_is_refused(registry: FalseRegistry, federation: Federation, tmp_path: Path) -> None:
    registry.signature = sign_file(tmp_path / "good.safetensors", federation.signing_key, "kit").read_text()

    assert "a signature for 'kit', but expected one for 'model'" in refusal(registry, federation, tmp_path)


def test_a_signed_file_that_is_no_model_is_refused(federation: Federation, tmp_path: Path) -> None:
    registry = FalseRegistry.of(tmp_path, federation.signing_key)
    (tmp_path / "good.safetensors").write_bytes(bytes(5000))
    registry.content = bytes(5000)
    registry.signature = sign_file(tmp_path / "good.safetensors", federation.signing_key, SIGNED_AS).read_text()
    registry.release.size_bytes = 5000
    registry.release.sha256 = hashlib.sha256(registry.content).hexdigest()

    assert "a file that is damaged or no safetensors" in refusal(registry, federation, tmp_path)
    assert leftovers(tmp_path) == []


def test_an_old_model_under_a_new_name_is_refused(registry: FalseRegistry, federation: Federation, tmp_path: Path) -> None:
    registry.release.name = "v1"
    other = FalseRegistry.of(tmp_path, federation.signing_key, name="v0")
    registry.content, registry.signature = other.content, other.signature
    registry.release.sha256, registry.release.size_bytes = other.release.sha256, other.release.size_bytes
    registry.release.weights_sha256 = other.release.weights_sha256

    assert "v1: a model of the federation, but not this release: it is v0" in refusal(registry, federation, tmp_path)
    assert leftovers(tmp_path) == []


def test_other_weights_than_those_of_the_list_are_refused(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    registry.release.weights_sha256 = "00" * 32

    assert "a model of the federation, but not this release" in refusal(registry, federation, tmp_path)


@pytest.mark.parametrize(("field", "value"), [("run", "glioma-2"), ("round", 400), ("published_at", "2031-01-01T00:00:00Z")])
def test_an_old_model_that_is_told_to_be_a_newer_one_is_refused(
    registry: FalseRegistry, federation: Federation, tmp_path: Path, field: str, value: object
) -> None:
    setattr(registry.release, field, value)

    said = refusal(registry, federation, tmp_path)

    assert "another run, round or day in the list than on its signed card: round 3 of run glioma-1, published on 2026-" in said
    assert leftovers(tmp_path) == []


def test_a_list_in_another_order_makes_no_release_the_newest(registry: FalseRegistry, federation: Federation) -> None:
    older, newer = Release(), Release()
    older.CopyFrom(registry.release)
    newer.CopyFrom(registry.release)
    older.name, newer.name, newer.published_at = "v0", "v2", "2031-01-01T00:00:00Z"
    registry.listed = [older, newer, registry.release]
    with standing(registry, federation) as port, Registry(access_to(port, federation)) as asked:
        assert [release.name for release in asked.listing().releases] == ["v2", "v1", "v0"]


def without_end(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """More bytes than were announced."""
    last = Chunk()
    for last in chunks:
        yield last
    while True:
        last = Chunk(offset=last.offset + len(last.data), data=b"more")
        yield last


def skipping(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    next(chunks)
    yield from chunks


def empty(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    yield Chunk(offset=0, data=b"")


def twice(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk
        yield chunk


def late(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    time.sleep(2)
    yield from chunks


@pytest.mark.parametrize("changes", [without_end, skipping, empty, twice])
def test_other_bytes_than_those_asked_for_end_it(
    registry: FalseRegistry, federation: Federation, tmp_path: Path, changes: Callable[[Iterator[Chunk]], Iterator[Chunk]]
) -> None:
    registry.changes = changes

    assert "SERVER: other bytes than those asked for, but expected what a registry says" in refusal(
        registry, federation, tmp_path
    )


def test_a_chunk_over_every_limit_ends_it(registry: FalseRegistry, federation: Federation, tmp_path: Path) -> None:
    registry.changes = lambda chunks: iter([Chunk(offset=0, data=bytes(8_000_000))])

    assert "an answer larger than any of a registry" in refusal(registry, federation, tmp_path)


def test_a_stream_that_ends_early_is_gone_on_with_and_at_last_told(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    registry.changes = lambda chunks: iter([next(chunks)])

    said = refusal(registry, federation, tmp_path)
    assert said.startswith("v1: it ended before its last byte. Try again; 0.3 of 2.0 MB are kept: the same command goes on")

    with standing(registry, federation) as port:
        pull_from(port, federation, tmp_path / "pulled.safetensors", patience_s=100)
    assert registry.asked[:4] == [0, 262144, 2 * 262144, 3 * 262144]


def test_a_registry_that_sends_nothing_is_given_up(
    registry: FalseRegistry, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "STALL_S", 0.3)
    registry.changes = late
    began = time.monotonic()

    assert "nothing came for 0 s" in refusal(registry, federation, tmp_path)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../etc/passwd"),
        ("name", ""),
        ("name", "v1\x1b[2J"),
        ("size_bytes", 0),
        ("size_bytes", 2**63),
        ("sha256", "zz"),
        ("sha256", "AB" * 32),
        ("weights_sha256", ""),
        ("published_at", "yesterday"),
        ("published_at", "2026-03-01T12:00:00"),
    ],
)
def test_a_release_that_can_t_be_is_not_believed(
    registry: FalseRegistry, federation: Federation, field: str, value: object
) -> None:
    setattr(registry.release, field, value)

    said = told_of(registry, federation)

    assert f"a release whose {field} is not valid" in said
    assert said.isprintable()


def test_what_a_registry_says_reaches_a_screen_in_clean_and_few_characters(
    registry: FalseRegistry, federation: Federation
) -> None:
    registry.release.notes = "good\x1b]0;owned\x07\nerror: not\u202e so" + "x" * 10_000
    registry.release.withdrawn = True
    registry.before = lambda context: None
    with standing(registry, federation) as port, Registry(access_to(port, federation)) as asked:
        (release,) = asked.listing().releases
    assert release.notes.startswith("good?]0;owned??error: not? so")
    assert len(release.notes) < 2100
    assert release.withdrawn == "no reason told"

    registry.before = lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "\x1b[31mno\r\nerror: pay \u202e" + "y" * 5000)
    said = told_of(registry, federation)
    assert "the registry does not have it: ?[31mno" in said
    assert said.isprintable()
    assert len(said) < 600


def test_a_list_without_end_is_refused(
    registry: FalseRegistry, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MOST_LISTED", 0)
    assert "more than 0 releases" in told_of(registry, federation)


def test_an_answer_about_another_release_and_one_without_a_signature_are_refused(
    registry: FalseRegistry, federation: Federation
) -> None:
    registry.signature = ""
    with standing(registry, federation) as port, Registry(access_to(port, federation)) as asked:
        with pytest.raises(FederationError, match="a release without a signature"):
            asked.describe("v1")
        with pytest.raises(FederationError, match="an answer about another release"):
            asked.describe("v2")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "a server that does not know this question"),
        (grpc.StatusCode.INTERNAL, "the registry does not answer (internal)"),
        (grpc.StatusCode.UNKNOWN, "the registry does not answer (unknown)"),
    ],
)
def test_statuses_of_others_have_words_of_ours(
    registry: FalseRegistry, federation: Federation, code: grpc.StatusCode, words: str
) -> None:
    registry.before = lambda context: context.abort(code, "Traceback (most recent call last)")
    said = told_of(registry, federation)

    assert words in said
    assert "Traceback" not in said
