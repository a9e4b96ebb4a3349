"""What every database promises of what private training has cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from brainunet.errors import ConfigError
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import SpendRow
from brainunet_server.store.writer import StoreWriter
from tests.support.store import NOON, RUN, run_rounds

SPENT = SpendRow(
    run_id=RUN.id,
    round=1,
    site="lagos",
    epsilon=0.1 + 0.2,
    delta=1e-5,
    noise_multiplier=1.1,
    sample_rate=0.1,
    steps=20,
    accountant="rdp",
    total_epsilon=4.5,
    total_delta=1e-3,
    ledger_head="ab" * 32,
    ledger_entries=43,
    told_at=NOON,
)


def test_what_was_spent_is_read_as_it_was_told(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    bare = replace(SPENT, site="boston", total_epsilon=None, total_delta=None, ledger_head="", ledger_entries=0)

    writer.record_spends([SPENT, bare])
    writer.record_spends([])

    assert reader.spends(RUN.id) == [bare, SPENT]
    assert reader.spends("another") == []
    assert reader.spends() == [bare, SPENT]


def test_a_run_that_goes_back_keeps_what_was_spent(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    writer.record_spends([SPENT])

    writer.rewind(RUN.id, 0)

    assert reader.spends(RUN.id) == [SPENT]


def test_a_round_that_is_trained_again_takes_the_place_and_one_that_is_told_again_does_not(
    writer: StoreWriter, reader: StoreReader
) -> None:
    run_rounds(writer, last=1)
    writer.record_spends([SPENT])
    writer.record_spends([replace(SPENT, told_at=NOON + timedelta(days=1))])
    assert reader.spends(RUN.id) == [SPENT]

    again = replace(SPENT, steps=40, epsilon=0.5, ledger_head="cd" * 32, told_at=NOON + timedelta(days=2))
    writer.record_spends([again])

    assert reader.spends(RUN.id) == [again]


def test_the_head_of_a_site_is_the_one_that_it_told_last_in_any_run(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    writer.start_run(replace(RUN, id="another"))
    later = replace(SPENT, run_id="another", ledger_head="cd" * 32, told_at=NOON + timedelta(hours=1))

    writer.record_spends([later, SPENT, replace(SPENT, site="boston", ledger_head="ef" * 32)])

    assert reader.ledger_heads() == {"lagos": "cd" * 32, "boston": "ef" * 32}


def test_nothing_is_spent_for_a_run_that_nobody_began(writer: StoreWriter) -> None:
    with pytest.raises(ConfigError, match="no run glioma-1"):
        writer.record_spends([SPENT])
