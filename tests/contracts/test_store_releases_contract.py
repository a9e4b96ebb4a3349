"""What the store promises about published models, readers and downloads, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from brainunet.errors import ConfigError
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import DownloadRow, ReaderRow, ReleaseRow
from brainunet_server.store.writer import StoreWriter
from tests.support.store import NOON, RUN

HOUR = timedelta(hours=1)
FIRST = ReleaseRow(
    name="africa-1",
    run_id=RUN.id,
    round=7,
    file="published/africa-1.safetensors",
    sha256="ab" * 32,
    n_bytes=5_000_000_000,  # more than 32 bits hold
    weights_sha256="cd" * 32,
    notes="Ünïcode",
    published_at=NOON,
)
SECOND = replace(FIRST, name="africa-2", published_at=NOON + HOUR)
ANN = ReaderRow(name="ann", token_sha256="ef" * 32, added_at=NOON, expires_at=NOON + 24 * HOUR)
WHOLE = DownloadRow(release="africa-1", who="lagos", kind="site", at=NOON, n_bytes=5_000_000_000, whole=True)


def test_releases_come_back_newest_first_as_they_were_written(writer: StoreWriter, reader: StoreReader) -> None:
    assert reader.releases() == []
    writer.start_run(RUN)

    for release in (FIRST, SECOND, FIRST):  # said twice is said once
        writer.add_release(release)

    assert reader.releases() == [SECOND, FIRST]


def test_a_release_of_a_run_that_is_not_there_is_refused(writer: StoreWriter, reader: StoreReader) -> None:
    with pytest.raises(ConfigError, match="run"):
        writer.add_release(FIRST)

    assert reader.releases() == []


def test_another_release_of_a_name_is_refused_also_after_the_first_was_withdrawn(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.start_run(RUN)
    writer.add_release(FIRST)
    writer.withdraw_release("africa-1", "worse", NOON + HOUR)

    with pytest.raises(ConfigError, match="a release never changes"):
        writer.add_release(replace(FIRST, round=8))

    assert reader.releases() == [replace(FIRST, withdrawn_at=NOON + HOUR, withdrawn_reason="worse")]


def test_a_withdrawal_stays_as_it_was_said_first(writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)
    writer.add_release(FIRST)
    writer.withdraw_release("africa-1", "worse", NOON)
    writer.withdraw_release("africa-1", "worse", NOON)

    with pytest.raises(ConfigError, match="withdrawn on 2026-03-01"):
        writer.withdraw_release("africa-1", "another reason", NOON + HOUR)
    with pytest.raises(ConfigError, match="no release"):
        writer.withdraw_release("africa-9", "worse")

    assert [row.withdrawn_reason for row in reader.releases()] == ["worse"]


def test_only_a_reader_who_is_out_may_come_back_under_the_same_name(writer: StoreWriter, reader: StoreReader) -> None:
    again = replace(ANN, token_sha256="01" * 32, added_at=NOON + HOUR)
    writer.add_reader(ANN)
    writer.add_reader(ANN)
    with pytest.raises(ConfigError, match="revoke it first"):
        writer.add_reader(again)

    writer.revoke_reader("ann", NOON + HOUR)

    assert reader.readers() == [replace(ANN, revoked_at=NOON + HOUR)]
    with pytest.raises(ConfigError, match="revoked on"):
        writer.revoke_reader("ann", NOON + 2 * HOUR)
    writer.add_reader(again)
    late = replace(ANN, token_sha256="02" * 32, added_at=ANN.expires_at)
    writer.add_reader(late)  # the earlier one has expired by then
    assert reader.readers() == [late]


def test_downloads_are_counted_when_they_came_to_their_end(writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)
    writer.add_release(FIRST)
    writer.add_release(SECOND)
    part = replace(WHOLE, at=NOON - HOUR, n_bytes=9, whole=False)

    for row in (WHOLE, WHOLE, part, replace(WHOLE, kind="reader", who="ann")):
        writer.add_download(row)

    assert reader.download_counts() == {"africa-1": 2, "africa-2": 0}
    assert reader.downloads("africa-1") == [part, replace(WHOLE, kind="reader", who="ann"), WHOLE]
    assert reader.downloads("africa-2") == []
    assert len(reader.downloads()) == 3
    with pytest.raises(ConfigError, match="no release"):
        writer.add_download(replace(WHOLE, release="africa-9"))


def test_of_many_who_add_one_name_at_once_one_comes_in(where: str, writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)

    def add(number: int) -> bool:
        with StoreWriter(where, wait_s=5) as store:
            try:
                store.add_release(replace(FIRST, round=number))
            except ConfigError:
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        came = list(threads.map(add, range(1, 5)))

    assert came.count(True) == 1
    assert len(reader.releases()) == 1
