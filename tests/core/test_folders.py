"""One training at a time in a folder, and what a killed one left there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

from brainunet.cli import main as brainunet
from brainunet.errors import UsageError
from brainunet.files import clear_unfinished, writing_aside
from brainunet.folders import FolderKind, hold_folder
from tests.support.pace import first_fast
from tests.support.rights import open_folder, ordinary_rights
from tests.support.simulation import run
from tests.support.trainings import TINY, write_cases

Done: TypeAlias = Callable[[str], Path]  # command -> a folder in which it has run

KIND = FolderKind(what="training", marks=frozenset(), begun="a", made_here=("a", "b"))
BEGIN: dict[str, tuple[str, ...]] = {"train": ("--validation", "none"), "crossval": ("--folds", "2")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Read, never written."""

    @cache
    def folder(command: str) -> Path:
        out = tmp_path_factory.mktemp(command) / "out"
        assert run(brainunet, command, "--out", out, "--data", data, *TINY, *BEGIN[command]).code == 0
        return out

    return folder


@contextmanager
def held_by_another(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds the folder, until it is killed."""
    out.mkdir(parents=True, exist_ok=True)
    code = (
        f"import fcntl, os; fcntl.flock(os.open({str(out)!r}, os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


@pytest.mark.parametrize("command", first_fast("train", "crossval"))
@pytest.mark.parametrize("how", [("--overwrite",), ("--resume",)])
def test_a_second_training_in_one_folder_is_refused_and_changes_nothing(
    command: str, how: tuple[str, ...], data: Path, done: Done
) -> None:
    out = done(command)
    begin: tuple[str | Path, ...] = ("--data", data, *TINY, *BEGIN[command])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    with held_by_another(out):
        ended = run(brainunet, command, "--out", out, *(begin if how == ("--overwrite",) else ()), *how)

    assert ended.code == 2
    assert "out: another process works in it: a " in ended.err
    assert "wait until it has ended or stop it, or choose another --out" in ended.err.lower()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_fold_that_is_trained_elsewhere_is_not_trained_by_crossval(done: Done, tmp_path: Path) -> None:
    out = shutil.copytree(done("crossval"), tmp_path / "out")

    with held_by_another(out / "folds" / "fold-2"):
        ended = run(brainunet, "crossval", "--out", out, "--resume")

    assert (ended.code, "works in it" in ended.err) == (2, True), ended.err


def test_the_lock_ends_with_the_process_however_that_ends(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as other:
        with pytest.raises(UsageError, match="another process works in it"), hold_folder(tmp_path, KIND):
            pass
        other.kill()
        other.wait()
        with hold_folder(tmp_path, KIND) as alone:
            assert alone
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


def test_on_a_disk_without_locks_it_goes_on_with_a_warning_and_clears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".a.01234567.part").touch()

    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with hold_folder(tmp_path, KIND) as alone:
        assert not alone

    assert "can't be locked (No locks available): do not start a second training in it" in caplog.text
    assert (tmp_path / ".a.01234567.part").exists()


def test_what_a_killed_process_was_writing_goes_and_nothing_else(tmp_path: Path) -> None:
    left = [".a.01234567.part", ".b.89abcdef.part", ".config.json.00000000.part"]
    others = [
        "a",
        ".c.01234567.part",
        ".a.0123456.part",
        ".a.0123456g.part",
        "a.01234567.part",
        ".a.01234567.part.txt",
        ".part",
    ]
    for name in (*left, *others):
        (tmp_path / name).touch()
    (tmp_path / ".b.01234567.part").mkdir()  # no file of ours
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    (tmp_path / ".a.11111111.part").symlink_to(elsewhere)

    with hold_folder(tmp_path, KIND):
        there = {path.name for path in tmp_path.iterdir()}

    assert there == {*others, ".b.01234567.part", "elsewhere"}


def test_the_name_that_a_writer_gives_is_one_that_is_cleared(tmp_path: Path) -> None:
    with writing_aside(tmp_path / "best.safetensors") as aside:
        aside.write_bytes(b"half")
        assert clear_unfinished(tmp_path, {"last.safetensors"}) == []
        assert clear_unfinished(tmp_path, {"best.safetensors"}) == [aside.name]
        aside.write_bytes(b"whole")


def test_a_training_clears_what_a_killed_one_left_of_files_and_prepared_cases(done: Done, tmp_path: Path) -> None:
    out = shutil.copytree(done("train"), tmp_path / "out")
    (out / ".training.ckpt.01234567.part").write_bytes(b"half")
    entry = next((out / "cache").glob("??/*"))
    half = entry.with_name(f".{entry.name}.abcd1234.part")
    half.mkdir()
    (half / "image.npy").write_bytes(b"half of a patient's image")
    gone = entry.parent.parent / "ff" / f".{'f' * 64}.abcd1234.part"  # of a case that never comes again
    gone.mkdir(parents=True)

    assert run(brainunet, "train", "--out", out, "--resume").code == 0

    assert list(out.rglob("*.part")) == []


def test_a_folder_that_may_not_be_written_is_refused_in_words() -> None:
    with (
        open_folder() as folder,
        ordinary_rights(),
        pytest.raises(UsageError, match="Permission denied"),
        hold_folder(folder / "out", KIND),
    ):
        pass


def test_a_file_in_the_place_of_a_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(UsageError, match="a file, but expected a folder"), hold_folder(tmp_path / "out", KIND):
        pass

    assert (tmp_path / "out").read_text() == "mine"
