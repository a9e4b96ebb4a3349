"""A folder of cases as bad as folders are: each bad file is an error of its case, and the others go on."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainunet.cli import main as brainunet
from tests.support.checked import GOOD, OTHER, found_in, write
from tests.support.nifti import write_nifti
from tests.support.pace import first_fast
from tests.support.rights import open_folder, ordinary_rights
from tests.support.simulation import run

# --- hostile folders --------------------------------------------------------------------------------------------------------


def _four_axes(path: Path) -> None:
    write_nifti(path, np.ones((8, 8, 8, 3), np.int16))


def _nan(path: Path) -> None:
    write_nifti(path, np.full((64, 64, 64), np.nan, np.float32))


def _link(path: Path, to: Path) -> None:
    path.unlink()
    path.symlink_to(to)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "ends early or is damaged"),
    "not NIfTI": (lambda path: path.write_bytes(b"\x89PNG" * 500), "not NIfTI"),
    "0 bytes": (lambda path: path.write_bytes(b""), "0 bytes"),
    "4D": (_four_axes, "4 axes"),
    "NaN": (_nan, "NaN"),
    "a folder": (_folder, "no file for t2w"),
    "a loop of links": (lambda path: _link(path, path), "symbolic links"),
    "a link to nothing": (lambda path: _link(path, Path("/nowhere/x")), "No such file"),
}


@pytest.mark.parametrize("kind", first_fast(*HOSTILE))
def test_a_bad_file_is_an_error_of_its_case_and_the_others_go_on(tmp_path: Path, kind: str) -> None:
    damage, said = HOSTILE[kind]
    damage(write(tmp_path, OTHER) / f"{OTHER}-t2w.nii.gz")
    write(tmp_path, GOOD)

    ended = run(brainunet, "check", tmp_path, "--out", tmp_path / "report")

    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if OTHER in line)
    assert line.startswith("error")
    assert said in line


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    with open_folder() as folder:
        closed = write(folder, GOOD) / f"{GOOD}-t2w.nii.gz"
        closed.chmod(0)
        with ordinary_rights():
            if os.access(closed, os.R_OK, effective_ids=True):
                pytest.skip("this user may read its own files whatever their rights are")
            ended = run(brainunet, "check", folder)

    assert ended.code == 3
    assert "Permission denied" in ended.out


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / GOOD / "again").symlink_to(tmp_path)

    assert found_in(tmp_path) == {GOOD: []}


def test_names_with_markup_are_text_in_the_report_and_one_line_in_the_terminal(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\x1b[2Jx"
    write(tmp_path / "cases", name)

    ended = run(brainunet, "check", tmp_path / "cases", "--convention", "brats2023", "--out", tmp_path / "report")

    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in page
    assert ended.out.splitlines()[0] == "ok       <img src=x onerror=alert(1)>&?[2Jx"


def test_a_name_that_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "cases", "p")
    for path in folder.iterdir():
        path.rename(os.fsdecode(os.fsencode(folder) + b"/p\xff" + os.fsencode(path.name)[1:]))

    ended = run(brainunet, "check", tmp_path / "cases", "--convention", "brats2023", "--out", tmp_path / "report")

    assert ended.code == 0, ended.err
    assert "ok       p?" in ended.out
    assert base64.b64encode(b"\xff\xd8\xff").decode() in (tmp_path / "report" / "report.html").read_text()
