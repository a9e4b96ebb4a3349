"""The folder of a simulation: gone on with, begun anew when asked, and never in the place of a person's own files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainunet_sim.cli import main as simulate
from tests.support.simulation import TINY, digests, figures, read_summary, run, summary_of


def test_resumed_when_it_is_finished_it_ends_with_the_same_figures(finished: Path, copied: Path) -> None:
    ended = run(simulate, "--resume", "--out", copied, "--quiet")

    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert figures(read_summary(copied)) == figures(read_summary(finished))
    assert digests(copied) == digests(finished)


@pytest.mark.parametrize(
    ("extra", "named"), [(["--rounds", "9"], "--rounds"), (["--set", "train.steps=1", "--seed", "1"], "--set, --seed")]
)
def test_a_resume_with_other_settings_is_refused_and_names_them(copied: Path, extra: list[str], named: str) -> None:
    before = read_summary(copied)

    ended = run(simulate, "--resume", "--out", copied, *extra)

    assert ended.code == 2
    assert f"it came with {named}, but expected only --out" in ended.err
    assert read_summary(copied) == before


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"run": "x"}', '{"run": "x", "config": {"rounds": 0}}'])
def test_a_resume_where_nothing_was_begun_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    ended = run(simulate, "--resume", "--out", tmp_path)

    assert ended.code == 4
    assert "Start it first" in ended.err


def test_a_simulation_begun_earlier_is_not_overwritten_unless_asked(copied: Path, cases: Path) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    ended = run(simulate, *TINY, "--data", cases, "--out", copied)

    assert ended.code == 2
    assert "--resume" in ended.err
    assert "--overwrite" in ended.err
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_overwriting_leaves_nothing_of_the_earlier_one_and_everything_of_the_person(copied: Path, cases: Path) -> None:
    (copied / "notes.txt").write_text("mine")
    (copied / "store.sqlite-wal").write_bytes(b"of the earlier store")
    elsewhere = copied.parent / "elsewhere"
    shutil.move(copied / "cache", elsewhere)
    (copied / "cache").symlink_to(elsewhere)

    summary = summary_of(copied, "--data", cases, "--overwrite", "--rounds", "1", "--sites", "1", "--seed", "6")

    assert summary["seed"] == 6
    assert [entry["round"] for entry in summary["rounds"]] == [0, 1]
    assert sorted(path.name for path in (copied / "models").iterdir()) == [
        "best-worst-site.safetensors", "best.safetensors", "round-000.safetensors", "round-001.safetensors",
    ]  # fmt: skip
    assert (copied / "notes.txt").read_text() == "mine"
    assert any(elsewhere.iterdir())  # a link is removed, not what it points to


@pytest.mark.parametrize("config", [None, '{"compilerOptions": {}}', "[1, 2]", "not json"])
def test_a_folder_that_is_no_simulations_is_never_touched(tmp_path: Path, cases: Path, config: str | None) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "thesis.safetensors").write_text("years of work")
    if config is not None:
        (tmp_path / "config.json").write_text(config)

    ended = run(simulate, *TINY, "--data", cases, "--out", tmp_path, "--overwrite")

    assert ended.code == 2
    assert "a folder with other files in it" in ended.err
    assert (tmp_path / "models" / "thesis.safetensors").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path: Path, cases: Path) -> None:
    (tmp_path / "out").write_text("mine")

    ended = run(simulate, *TINY, "--data", cases, "--out", tmp_path / "out", "--overwrite")

    assert ended.code == 2
    assert "out: a file, but expected a folder" in ended.err


def test_overwriting_the_model_that_it_is_to_start_from_is_refused(copied: Path, cases: Path) -> None:
    best = copied / "models" / "best.safetensors"

    ended = run(simulate, "--init", best, "--data", cases, "--out", copied, "--overwrite")

    assert ended.code == 2
    assert "it holds best.safetensors, which is needed" in ended.err
    assert best.exists()


@pytest.mark.slow
def test_after_a_partition_that_cannot_be_made_the_folder_is_free_for_the_next_try(tmp_path: Path, cases: Path) -> None:
    ended = run(simulate, *TINY, "--data", cases, "--out", tmp_path / "out", "--sites", "4")
    assert ended.code == 4
    assert "expected at least 2, one to train on and one to score" in ended.err

    summary_of(tmp_path / "out", "--data", cases, "--sites", "1", "--rounds", "1")
