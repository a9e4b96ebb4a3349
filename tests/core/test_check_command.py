"""``brainunet check``: a line for each case, JSON, and a report that needs no network."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainunet.cli import main as brainunet
from brainunet.data.cases import find_cases
from brainunet.data.checks import read_facts
from brainunet.data.checks.folder import examine_cases
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.pictures.qc import MOST_BYTES, qc_picture
from tests.support.checked import GOOD, OTHER, found_in, write
from tests.support.simulation import run
from tests.support.studies import sound, write_study


def test_a_line_for_each_case_counts_by_check_and_a_verdict(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, OTHER, "absent labels", "clipped")
    write(tmp_path, "BraTS-SSA-00004-000", "labels")

    ended = run(brainunet, "check", tmp_path)

    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == f"ok       {GOOD}"
    assert re.fullmatch(rf"warning  {OTHER}  t1c: \d+ voxels have the highest .*; seg: no ET: normal", lines[1])
    assert lines[2].startswith(
        "error    BraTS-SSA-00004-000  BraTS-SSA-00004-000-seg.nii.gz: label 4, but expected only 0, 1, 2, 3"
    )
    assert re.search(r"^labels +1 +Check --convention", ended.out, re.MULTILINE)
    assert lines[-1] == "3 cases: 2 usable (1 of them to be looked at), 1 refused."


def test_quiet_leaves_out_what_needs_nobody(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "absent labels")
    write(tmp_path, OTHER, "clipped")

    lines = run(brainunet, "check", tmp_path, "--quiet").out.splitlines()

    assert lines[0].startswith(f"warning  {OTHER}")
    assert not any(GOOD in line for line in lines)


def test_it_ends_with_3_only_if_nothing_is_usable(tmp_path: Path) -> None:
    write(tmp_path, OTHER, "skull")
    assert run(brainunet, "check", tmp_path).code == 3

    write(tmp_path, GOOD)
    assert run(brainunet, "check", tmp_path).code == 0


def test_json_is_all_that_is_printed_and_says_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "labels")

    ended = run(brainunet, "check", tmp_path, "--json", "--modalities", "t1ce, FLAIR")

    told = json.loads(ended.out)
    assert (ended.code, ended.err) == (3, "")
    assert (told["usable"], told["modalities"]) == (0, ["t1c", "t2f"])
    (finding,) = told["cases"][0]["findings"]
    assert (finding["check"], finding["severity"]) == ("labels", "error")
    assert finding["remedy"].startswith("check --convention")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--modalities", "t1x"], 2, "--modalities: 't1x' (did you mean t1n?), but expected t1n, t1c, t2w, t2f"),
        (["--modalities", ","], 2, "--modalities: none"),
        (["--convention", "brats2024"], 3, "resection cavity"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    write(tmp_path)

    ended = run(brainunet, "check", tmp_path, *arguments)

    assert ended.code == code
    assert said in ended.err


def test_a_folder_that_is_not_there_and_one_without_cases_are_refused(tmp_path: Path) -> None:
    assert run(brainunet, "check", tmp_path / "none").code == 3
    ended = run(brainunet, "check", tmp_path)
    assert ended.code == 3
    assert "no file named like a case" in ended.err


def test_a_case_without_segmentation_is_usable_and_one_without_a_modality_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "unsegmented")
    (write(tmp_path, OTHER) / f"{OTHER}-t2w.nii.gz").unlink()

    assert found_in(tmp_path) == {GOOD: ["unsegmented"], OTHER: ["files"]}
    assert found_in(tmp_path, "--modalities", "t1c,t2f") == {GOOD: ["unsegmented"], OTHER: []}


# --- the report -------------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Every tag of a page and every address it would load or lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")
        ]


def test_the_report_says_that_it_stays_and_asks_nothing_of_any_network(tmp_path: Path) -> None:
    write(tmp_path / "cases", GOOD)
    write(tmp_path / "cases", OTHER, "readable")

    ended = run(brainunet, "check", tmp_path / "cases", "--out", tmp_path / "report")

    path = tmp_path / "report" / "report.html"
    page = path.read_text()
    links = Links(page)
    assert ended.out.splitlines()[-1] == f"report: {path} (holds images of patients: does not leave this hospital)"
    assert page.partition("<main>")[0].count("Holds images of patients: does not leave this hospital") == 1
    assert "script" not in links.tags
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in links.addresses)
    assert not re.search(r"https?:|@import|url\(", page)
    assert page.count("data:image/jpeg") == 1
    assert page.index(OTHER) < page.index(GOOD)  # the worst first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]  # no picture left beside it


def test_pictures_are_small_jpegs_with_the_patients_right_on_the_left(tmp_path: Path) -> None:
    study = sound()
    study.label = None
    middle = study.brain.shape[0] // 2
    for image in study.images.values():
        image[:middle][image[:middle] != 0] = 2000  # LPS: the first half is the patient's right
        image[middle:][image[middle:] != 0] = 200
        image += np.random.default_rng(0).integers(0, 9, image.shape).astype(np.int16) * (image != 0)
    write_study(study, tmp_path)
    (examined,) = examine_cases(find_cases(tmp_path, need_label=False), DEFAULT_MODALITIES, qc_picture)

    assert examined.picture is not None
    assert len(examined.picture) < MOST_BYTES
    grey = np.asarray(Image.open(io.BytesIO(examined.picture)).convert("L"))
    axial = grey[grey.shape[0] // 8 : grey.shape[0] // 4, : grey.shape[1] // 3]
    columns = np.flatnonzero(axial.mean(axis=0) > 15)
    left, right = axial[:, columns[0] : columns.mean().astype(int)], axial[:, columns.mean().astype(int) : columns[-1]]
    assert left.mean() > 2 * right.mean()


@pytest.mark.slow
def test_a_drawn_picture_leaves_nothing_in_memory(tmp_path: Path) -> None:
    facts = read_facts(write_study(sound(), tmp_path), DEFAULT_MODALITIES)
    qc_picture(facts)  # what is loaded and kept once
    gc.collect()
    gc.disable()  # which would let go of rings of references, some time
    tracemalloc.start()
    try:
        for _ in range(3):
            qc_picture(facts)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()

    assert held < 3e6  # one left behind holds nearly that


def test_a_report_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cases")
    (tmp_path / "report").write_text("mine")

    ended = run(brainunet, "check", tmp_path / "cases", "--out", tmp_path / "report")

    assert ended.code == 1
    assert "choose a folder you may write to" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4, 1.5])
def test_ctrl_c_ends_it_with_one_word_and_leaves_no_picture(tmp_path: Path, seconds: float) -> None:
    for number in range(12):
        write(tmp_path / "cases", f"BraTS-SSA-{number:05d}-000")
    code = "from brainunet.cli import main; main()"
    command = [sys.executable, "-c", code, "check", str(tmp_path / "cases"), "--out", str(tmp_path / "report")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stderr=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        while not (tmp_path / "report").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers too
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert list((tmp_path / "report").iterdir()) == []


@pytest.mark.slow
def test_two_processes_find_what_one_finds_in_the_same_order(tmp_path: Path) -> None:
    for number, faults in enumerate([[], ["clipped"], ["readable"], ["blur"], ["skull"], []]):
        write(tmp_path, f"BraTS-SSA-0000{number}-000", *faults)
    (tmp_path / "BraTS-SSA-00005-000" / "BraTS-SSA-00005-000-t1c.nii.gz").unlink()
    found = find_cases(tmp_path, need_label=False)

    one = list(examine_cases(found, DEFAULT_MODALITIES, qc_picture, workers=1))
    two = list(examine_cases(found, DEFAULT_MODALITIES, qc_picture, workers=2))

    assert one == two
    assert [examined.report.case_id for examined in one] == sorted(examined.report.case_id for examined in one)
    assert [examined.picture is not None for examined in one] == [True, True, False, True, True, False]
