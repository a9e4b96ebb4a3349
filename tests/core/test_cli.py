"""The ``brainunet`` command, and what every command line does with errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from brainunet import __version__
from brainunet.cli import main as brainunet
from brainunet.data.cases import find_cases
from brainunet.errors import (
    BrainUNetError,
    ConfigError,
    DataError,
    FederationError,
    GeometryMismatch,
    PrivacyError,
    UsageError,
)
from brainunet.starter import STARTER
from brainunet.terminal import main_of, progress_bar, tell, telling_how_to_go_on
from tests.support.simulation import run


def command(action: Callable[[], object]) -> Callable[[], None]:
    app = typer.Typer(add_completion=False)

    @app.command()
    def do(debug: bool = False) -> None:
        action()

    return main_of(app)


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return command(action)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (BrainUNetError, 1),
        (UsageError, 2),
        (DataError, 3),
        (GeometryMismatch, 3),
        (ConfigError, 4),
        (PrivacyError, 5),
        (FederationError, 6),
    ],
)
def test_every_error_of_ours_is_one_sentence_and_its_own_exit_code(kind: type[BrainUNetError], code: int) -> None:
    ended = run(raising(kind("scan [1].nii.gz", found="0 bytes", expected="a volume", remedy="copy it again")))

    assert ended.code == code
    assert ended.err == "error: scan [1].nii.gz: 0 bytes, but expected a volume. Copy it again.\n"
    assert ended.out == ""


def test_with_debug_the_error_itself_comes_out() -> None:
    with pytest.raises(DataError):
        run_raw(raising(DataError("scan", found="0 bytes")), "--debug")


def test_an_error_that_nobody_foresaw_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_raw(raising(ZeroDivisionError()))


def test_ctrl_c_is_said_and_ends_with_130() -> None:
    ended = run(raising(KeyboardInterrupt()))

    assert (ended.code, ended.out, ended.err) == (130, "", "interrupted\n")


@pytest.mark.parametrize("code", [0, 7])
def test_a_command_that_chooses_its_exit_code_ends_with_it(code: int) -> None:
    assert run(raising(typer.Exit(code))).code == code


def test_a_command_that_does_its_work_ends_with_0() -> None:
    assert run(command(lambda: typer.echo("done"))).code == 0
    assert run(command(lambda: "a value that is no exit code")).code == 0


def test_a_reader_who_has_seen_enough_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from brainunet.cli import main; main()", "--version"],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)

    assert ended.stderr == ""


def test_a_progress_bar_needs_a_terminal() -> None:
    assert progress_bar().disable


def test_help_names_the_commands_and_what_this_is_not() -> None:
    ended = run(brainunet, "--help")

    assert ended.code == 0
    words = ("check", "phantom", "train", "crossval", "evaluate", "model", "--debug", "not a medical device")
    assert all(word in ended.out for word in words)


def test_without_a_command_the_help_is_shown() -> None:
    assert "Usage" in run(brainunet).out + run(brainunet).err


def test_the_version_is_the_packages() -> None:
    assert run(brainunet, "--version").out.strip() == __version__


@pytest.mark.parametrize(
    "arguments", [["phantoms"], ["phantom"], ["phantom", "--case", "3", "x"], ["model", "info", "--patch", "1"]]
)
def test_a_command_line_that_makes_no_sense_ends_with_2_and_a_hint(arguments: list[str]) -> None:
    ended = run(brainunet, *arguments)

    assert ended.code == 2
    assert ended.err
    assert "Traceback" not in ended.err


def test_phantoms_are_cases_that_can_be_found_and_the_line_says_where(tmp_path: Path) -> None:
    ended = run(brainunet, "phantom", tmp_path / "cases", "--cases", "2", "--shape", "32", "36", "40", "--style", "gli")

    found = find_cases(tmp_path / "cases")
    ids = [case.case_id for case in found.cases]
    assert ended.code == 0, ended.err
    assert (len(ids), found.problems) == (2, ())
    assert ended.out == f"2 gli-style cases in {tmp_path / 'cases'}: {ids[0]} ... {ids[1]}\n"


def test_one_phantom_is_named_once(tmp_path: Path) -> None:
    ended = run(brainunet, "phantom", tmp_path, "--cases", "1", "--shape", "32", "32", "32")

    (case,) = find_cases(tmp_path).cases
    assert ended.out == f"1 ssa-style cases in {tmp_path}: {case.case_id}\n"


def test_phantoms_with_json_print_nothing_else(tmp_path: Path) -> None:
    ended = run(brainunet, "phantom", tmp_path, "--cases", "1", "--shape", "32", "32", "32", "--json")

    assert json.loads(ended.out) == {"out": str(tmp_path), "cases": [case.case_id for case in find_cases(tmp_path).cases]}
    assert ended.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--style", "sss"], "style: 'sss' (did you mean ssa?)"),
        (["--shape", "8", "32", "32"], "shape: 8x32x32, but expected three sides of 32 to 256 voxels"),
        (["--cases", "5000"], "cases: 5000, but expected 1 to"),
    ],
)
def test_phantoms_that_cannot_be_made_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    ended = run(brainunet, "phantom", tmp_path / "cases", *arguments)

    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "cases").exists()


def test_phantoms_in_the_place_of_a_file_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cases").write_text("mine")

    ended = run(brainunet, "phantom", tmp_path / "cases", "--cases", "1", "--shape", "32", "32", "32")

    assert ended.code == 1
    assert "choose a folder you may write to" in ended.err
    assert (tmp_path / "cases").read_text() == "mine"


def test_a_network_tells_its_size() -> None:
    ended = run(brainunet, "model", "info", "--preset", "brainunet-nano", "--patch", "32", "32", "32", "--json")

    facts = json.loads(ended.out)
    assert (facts["preset"], facts["norm"], facts["patch"]) == ("brainunet-nano", "group", [32, 32, 32])
    assert facts["modalities"] == ["t1c", "t2w", "t2f"]
    assert facts["bytes"] == 4 * facts["parameters"]
    assert facts["multiply_adds"] > facts["parameters"]


def test_a_network_tells_its_size_to_people_too() -> None:
    ended = run(brainunet, "model", "info", "--preset", "brainunet-nano", "--patch", "16", "16", "16")

    assert ended.code == 0
    assert all(word in ended.out for word in ("brainunet-nano, group norm", "3 channels: t1c, t2w, t2f", "MB", "16x16x16"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--preset", "brainunet-nanno"], 4, "did you mean brainunet-nano?"),
        (["--preset", "BRAINUNET"], 4, "preset"),
        (["--norm", "layer"], 4, "'group', 'batch' or 'instance'"),
        (["--patch", "0", "32", "32"], 2, "--patch: (0, 32, 32), but expected sides of 1 to 512 voxels"),
    ],
)
def test_a_network_that_does_not_exist_is_refused_by_name(arguments: list[str], code: int, said: str) -> None:
    ended = run(brainunet, "model", "info", *arguments)

    assert ended.code == code
    assert said in ended.err


def run_raw(main: Callable[[], None], *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *arguments])
        main()


def test_an_interrupt_tells_the_line_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), telling_how_to_go_on("brainunet train", Path("my out")):
        raise KeyboardInterrupt

    assert capsys.readouterr() == ("", "stopped; go on with: brainunet train --resume --out 'my out'\n")


HOSTILE = "a\x1b[2J\x9b31mb\u202ec\nerror: all is well"


@pytest.mark.parametrize(
    "words",
    [
        ("check", HOSTILE),
        ("predict", "-o", "out", "--model", str(STARTER), "--demo", "-i", HOSTILE),
        ("predict", "-o", HOSTILE, "--model", HOSTILE, "-i", "."),
        ("model", "show", HOSTILE),
        ("model", "verify", HOSTILE),
        ("evaluate", "--pred", HOSTILE, "--truth", HOSTILE, "--out", "scores"),
        ("pull", "--kit", HOSTILE),
        (HOSTILE,),  # click's own words
    ],
    ids=lambda words: " ".join(words[:2])[:13].strip() if HOSTILE not in words[:1] else "no command",
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_name_does_nothing_to_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], is_there: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if is_there:
        Path(HOSTILE).mkdir()
        for kind in ("t1c", "t2w", "t2f"):
            (Path(HOSTILE) / f"{HOSTILE}-{kind}.nii.gz").write_bytes(b"no image")

    ended = run(brainunet, *words)

    assert ended.code != 0
    assert "\\x1b[2J\\x9b31mb\\u202ec" in ended.err
    shown = ended.err + ended.out
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert not any(line.startswith("error: all is well") for line in shown.splitlines())


def test_a_list_of_problems_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tell("error: none is usable:\n  one\n  two\x07")
    assert capsys.readouterr().err == "error: none is usable:\n  one\n  two\\x07\n"
