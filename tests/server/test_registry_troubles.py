"""A disk or a database that fails costs the registry no more than it must: a count, an answer, never a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from brainunet import chain
from brainunet.errors import BrainUNetError
from brainunet_server.registry import entrance
from brainunet_server.registry.book import Book
from brainunet_server.registry.door import ReaderDoor
from brainunet_server.registry.entrance import told
from brainunet_server.registry.limits import Counts
from brainunet_server.registry.refusing import Refused
from brainunet_server.registry.shelf import Shelf
from brainunet_server.store.rows import DownloadRow, ReaderRow, ReleaseRow
from tests.support.registries import Publisher
from tests.support.store import NOON

DOWNLOAD = DownloadRow(release="v1", who="lagos", kind="site", at=NOON, n_bytes=5, whole=True)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.publish("v1", 1)
    return made


def test_a_download_that_can_t_be_written_down_is_said(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with publisher.store() as store:
        Book(store, tmp_path / "away" / "audit.jsonl").note(DOWNLOAD, "ab" * 32)
        assert "a download by site lagos is not in the audit trail" in capsys.readouterr().out

        unknown = DownloadRow(release="v9", who="lagos", kind="site", at=NOON, n_bytes=5, whole=True)
        Book(store, tmp_path / "audit.jsonl").note(unknown, "ab" * 32)
    assert "a download by site lagos could not be counted" in capsys.readouterr().out
    assert [entry.kind for entry in chain.entries(tmp_path / "audit.jsonl")] == ["model-downloaded"]


def test_a_part_is_counted_and_not_audited(publisher: Publisher, tmp_path: Path) -> None:
    with publisher.store() as store:
        part = DownloadRow(release="v1", who="kano", kind="site", at=NOON, n_bytes=5, whole=False)
        Book(store, tmp_path / "audit.jsonl").note(part, "ab" * 32)
    assert not (tmp_path / "audit.jsonl").exists()


def away() -> list[ReleaseRow]:
    raise BrainUNetError("store", found="the server ended the session")


def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    def no_readers() -> list[ReaderRow]:
        raise BrainUNetError("store", found="the server ended the session")

    @dataclass
    class Context:
        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return (("authorization", "Bearer x"),)

    with pytest.raises(Refused, match="its store can't be read at present; try again in a minute") as refused:
        Shelf(tmp_path, tmp_path, away).releases()
    assert (refused.value.status, refused.value.wait_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 60)
    with pytest.raises(Refused, match="its store can't be read at present"):
        asyncio.run(ReaderDoor(no_readers, Counts()).caller(Context()))


def test_a_file_outside_of_what_was_published_is_not_given_out(publisher: Publisher) -> None:
    folder = publisher.folder
    key = ReleaseRow(
        name="v9",
        run_id="glioma-1",
        round=1,
        file="keys/signing.key",
        sha256="ab" * 32,
        n_bytes=1,
        weights_sha256="ab" * 32,
        published_at=NOON,
    )
    for file in ("keys/signing.key", "published/../keys/signing.key", "/etc/passwd", str(folder.signing_key)):
        shelf = Shelf(folder.path, folder.published, list)
        with pytest.raises(Refused) as refused:
            shelf.opened(replace(key, file=file))
        assert refused.value.status is grpc.StatusCode.DATA_LOSS


def test_a_caller_who_takes_no_refusal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "GOODBYE_S", 0.05)

    class Deaf:
        async def abort(self, *_: object) -> None:
            await asyncio.sleep(10)

    async def refuse() -> None:
        raise Refused(grpc.StatusCode.NOT_FOUND, "no")

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await told(refuse, Deaf())

    asyncio.run(run())
