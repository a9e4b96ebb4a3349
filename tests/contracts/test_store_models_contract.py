"""What every database promises of a run's models: one row a round, also of those whose files were removed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from brainunet.errors import ConfigError
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter
from tests.support.store import NOON, RUN, newest_model, run_rounds, saved


def test_recording_a_model_again_replaces_it(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)

    writer.record_model(saved(1, digest="ef"))

    assert reader.models(RUN.id) == [saved(0), saved(1, digest="ef")]


def test_rewinding_keeps_the_model_and_what_led_to_it_but_not_its_scores(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=3)

    writer.rewind(RUN.id, last_model_round=1)

    assert newest_model(reader, RUN.id) == 1
    assert {row.round for row in reader.site_rounds(RUN.id)} == {1}
    assert {row.round for row in reader.scores(RUN.id)} == {0}


def test_rewinding_one_run_leaves_the_others_alone(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    writer.start_run(replace(RUN, id="other"))
    writer.record_model(replace(saved(1), run_id="other"))

    writer.rewind("other", last_model_round=0)

    assert (newest_model(reader, "other"), newest_model(reader, RUN.id)) == (None, 1)


def test_a_removed_model_keeps_its_row_and_its_digest(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=2)

    for _ in range(2):
        writer.mark_removed(RUN.id, [0, 1], NOON)

    assert reader.models(RUN.id) == [replace(saved(0), removed_at=NOON), replace(saved(1), removed_at=NOON), saved(2)]
    assert newest_model(reader, RUN.id) == 2


def test_a_removed_model_that_is_made_again_is_there_again(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    writer.mark_removed(RUN.id, [1], NOON)

    writer.record_model(saved(1))

    assert reader.models(RUN.id) == [saved(0), saved(1)]


def test_to_remove_nothing_is_nothing_and_another_run_keeps_its_models(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    writer.start_run(replace(RUN, id="glioma-2", started_at=NOON + timedelta(days=1)))
    writer.record_model(replace(saved(1), run_id="glioma-2"))

    writer.mark_removed(RUN.id, [], NOON)
    writer.mark_removed(RUN.id, [1], NOON)

    assert [model.removed_at for model in reader.models(RUN.id)] == [None, NOON]
    assert [model.removed_at for model in reader.models("glioma-2")] == [None]
    with pytest.raises(ConfigError, match="no run glioma-3"):
        writer.mark_removed("glioma-3", [1], NOON)
