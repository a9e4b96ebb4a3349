"""A file has its name only when it is whole, and errors keep to one shape."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.written_volumes import write_volume
from brainunet.errors import (
    BrainUNetError,
    ConfigError,
    DataError,
    FederationError,
    MissingModality,
    PrivacyError,
    UsageError,
)
from brainunet.files import writing_aside
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.modelfile import ModelCard, write_model
from brainunet.weights import Weights
from tests.support.cases import only_case, write_case
from tests.support.rights import full_disk, largest_file, open_folder, ordinary_rights

NOISE = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)  # 128 kB that don't compress


def write_bytes(path: Path) -> None:
    with writing_aside(path) as aside:
        aside.write_bytes(NOISE.tobytes())


def write_noise(path: Path) -> None:
    write_volume(path, NOISE, np.eye(4))


def write_weights(path: Path) -> None:
    card = ModelCard(
        title="noise", model=ModelConfig(), preprocess=PreprocessConfig(), provenance="a test", trained_on="nothing"
    )
    write_model(path, Weights.of({"noise": NOISE}), card)


WRITERS = {"writing_aside": write_bytes, "write_volume": write_noise, "write_model": write_weights}
DISKS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "a full disk": partial(full_disk, 64),
    "a disk that fills in the middle": partial(largest_file, 64),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_whole_file_stands_alone_under_its_name_in_a_folder_made_for_it(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.nii.gz"

    WRITERS[writer](path)
    WRITERS[writer](path)

    assert [p.name for p in path.parent.iterdir()] == ["file.nii.gz"]
    assert path.stat().st_size > 64 * 1024


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was waited for: a file or folder by its name, and what was in the folder then."""
    seen, fsync = list[tuple[str, list[str]]](), os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((path.name, sorted(p.name for p in (path if path.is_dir() else path.parent).iterdir())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return seen


def test_the_name_of_a_file_is_on_the_disk_too_when_the_block_has_ended(
    tmp_path: Path, flushed: list[tuple[str, list[str]]]
) -> None:
    write_bytes(tmp_path / "file")

    (aside, _), (folder, held) = flushed
    assert aside.endswith(".part")
    assert (folder, held) == (tmp_path.name, ["file"])


def test_where_nothing_is_to_be_durable_nothing_is_waited_for(tmp_path: Path, flushed: list[tuple[str, list[str]]]) -> None:
    with writing_aside(tmp_path / "file", durable=False) as aside:
        aside.touch()

    assert flushed == []


def test_a_system_that_can_not_wait_for_a_folder_still_gets_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def no_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)

    write_bytes(tmp_path / "file")

    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("before", [None, b"the earlier file"])
def test_a_disk_without_room_leaves_the_earlier_file_and_nothing_half_written(
    writer: str, disk: str, before: bytes | None, tmp_path: Path
) -> None:
    with DISKS[disk]() as mounted:
        path = (mounted if isinstance(mounted, Path) else tmp_path) / "file"
        if before is not None:
            path.write_bytes(before)

        with pytest.raises(BrainUNetError) as raised:
            WRITERS[writer](path)

        assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == ({} if before is None else {"file": before})
    assert raised.value.exit_code == 1
    reason = "No space left on device" if disk == "a full disk" else "File too large"
    assert str(raised.value) == (
        f"file: it can't be written: {reason}. Free space on the disk, or choose a folder you may write to."
    )


@pytest.mark.parametrize("disk", DISKS)
def test_a_cache_without_room_holds_no_half_entry(disk: str, tmp_path: Path) -> None:
    brain = np.pad(NOISE, 2)  # a background of 0 around it, as a stripped skull leaves
    write_case(tmp_path, images={m.value: brain for m in DEFAULT_MODALITIES}, label=(brain > 0).astype(np.uint8))
    case = only_case(tmp_path)
    with DISKS[disk]() as mounted:
        folder = (mounted if isinstance(mounted, Path) else tmp_path) / "cache"

        with pytest.raises(BrainUNetError) as raised:
            CaseCache(folder).get(case, DEFAULT_MODALITIES, PreprocessConfig())

        assert [p for p in folder.rglob("*") if not (p.is_dir() and len(p.name) == 2)] == []
    assert raised.value.exit_code == 1
    sentence = str(raised.value)
    assert sentence.startswith("cache: the cache can't be written: ")
    assert sentence.endswith(". Free space on the disk, or choose another folder for the cache.")
    assert "None" not in sentence


def test_a_folder_that_may_not_be_written_is_said_to_be_so() -> None:
    with open_folder() as folder, ordinary_rights():
        closed = folder if folder.stat().st_uid == 0 else folder / "closed"
        if closed != folder:
            closed.mkdir(mode=0o500)

        with pytest.raises(BrainUNetError) as raised:
            write_bytes(closed / "model.safetensors")

    assert str(raised.value).startswith("model.safetensors: it can't be written: Permission denied. Free space on the disk, or")


def test_an_error_inside_the_block_leaves_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("earlier")

    def interrupted() -> None:
        with writing_aside(tmp_path / "file") as aside:
            aside.write_text("half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "earlier")]


def test_a_process_killed_in_the_middle_leaves_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("earlier")
    code = (
        "import os, signal, sys; from pathlib import Path; from brainunet.files import writing_aside\n"
        "with writing_aside(Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half of the new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )

    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], check=False)

    assert killed.returncode == -9
    assert (tmp_path / "file").read_text() == "earlier"
    assert [p.suffix for p in tmp_path.iterdir() if p.name != "file"] == [".part"]


def test_two_writers_at_once_never_mix(tmp_path: Path) -> None:
    both_inside = threading.Barrier(2, timeout=10)

    def write(text: str) -> None:
        with writing_aside(tmp_path / "file") as aside:
            both_inside.wait()
            aside.write_text(text)
            both_inside.wait()

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (tmp_path / "file").read_text() in ("a" * 1000, "b" * 1000)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (BrainUNetError, 1), (UsageError, 2), (DataError, 3), (MissingModality, 3), (ConfigError, 4), (PrivacyError, 5),
        (FederationError, 6),
    ],
)  # fmt: skip
def test_each_kind_of_error_ends_a_command_with_its_own_code(kind: type[BrainUNetError], code: int) -> None:
    assert kind("x", found="y").exit_code == code


def test_a_sentence_names_the_file_and_never_its_folder() -> None:
    error = DataError(Path("/data/Jane Doe/x.nii.gz"), found="0 bytes", expected="a volume", remedy="copy it again.")

    assert str(error) == "x.nii.gz: 0 bytes, but expected a volume. Copy it again."
