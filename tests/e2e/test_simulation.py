"""Whole simulations: stopped by the signals that stop them in life, short of disk, with a store elsewhere, on real cases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet_server.store.reader import StoreReader
from brainunet_sim.cli import main as simulate
from tests.support.rights import largest_file, open_folder, ordinary_rights
from tests.support.simulation import SHAPE, TINY, digests, figures, read_summary, run, summary_of

COMMAND = [sys.executable, "-c", "from brainunet_sim.cli import main; main()"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cases"
    write_phantoms(folder, cases=6, style="ssa", seed=4, shape=SHAPE)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cases: Path) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    ended = run(simulate, *TINY, "--data", cases, "--out", out, "--quiet")
    assert ended.code == 0, ended.err
    return out


def stopped(by: signal.Signals, at: str, cases: Path, out: Path) -> tuple[int, list[str]]:
    """The exit code and the last words of a simulation that gets a signal when it has said a line with ``at``."""
    command = [*COMMAND, *TINY, "--data", str(cases), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = list[str]()
        for line in process.stderr:
            said.append(line)
            if at in line:
                process.send_signal(by)
                break
        else:
            pytest.fail(f"ended without saying {at!r}: {''.join(said)}")
        words = process.stderr.read().splitlines()
    return process.returncode, words


@pytest.mark.slow
def test_ctrl_c_tells_how_to_go_on_and_that_gives_the_same_figures(tmp_path: Path, cases: Path, uninterrupted: Path) -> None:
    out = tmp_path / "out"

    code, words = stopped(signal.SIGINT, "model of round 0", cases, out)

    assert code == 130
    assert words[-2:] == [f"stopped; go on with: brainunet-simulate --resume --out {out}", "interrupted"]
    with StoreReader(out / "store.sqlite") as store:
        (begun,) = store.runs()
    assert begun.status == "interrupted"
    assert run(simulate, "--resume", "--out", out, "--quiet").code == 0
    assert read_summary(out)["run"] == begun.id
    assert figures(read_summary(out)) == figures(read_summary(uninterrupted))
    assert digests(out) == digests(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["cases to train", "model of round 1"])
def test_kill_9_costs_a_round_at_most_and_the_figures_stay_the_same(
    tmp_path: Path, cases: Path, uninterrupted: Path, moment: str
) -> None:
    out = tmp_path / "out"

    code, words = stopped(signal.SIGKILL, moment, cases, out)

    assert code == -signal.SIGKILL
    assert words == []
    assert not (out / "summary.json").exists()
    assert run(simulate, "--resume", "--out", out, "--quiet").code == 0
    assert figures(read_summary(out)) == figures(read_summary(uninterrupted))
    assert digests(out) == digests(uninterrupted)


@pytest.mark.slow
def test_on_a_full_disk_it_says_so_and_goes_on_when_there_is_room(tmp_path: Path, cases: Path, uninterrupted: Path) -> None:
    out = tmp_path / "out"

    with largest_file(1024):  # less than a model
        ended = run(simulate, *TINY, "--data", cases, "--out", out, "--quiet")

    assert ended.code == 1
    assert "round-000.safetensors: it can't be written" in ended.err
    assert "Free space on the disk" in ended.err
    assert run(simulate, "--resume", "--out", out, "--quiet").code == 0
    assert figures(read_summary(out)) == figures(read_summary(uninterrupted))
    assert digests(out) == digests(uninterrupted)


@pytest.mark.slow
def test_a_store_in_postgresql_holds_the_same_rows(tmp_path: Path, cases: Path, uninterrupted: Path, postgres_url: str) -> None:
    out = tmp_path / "out"

    summary = summary_of(out, "--data", cases, "--database", postgres_url)

    assert figures(summary) == figures(read_summary(uninterrupted))
    assert digests(out, postgres_url) == digests(uninterrupted)
    assert not (out / "store.sqlite").exists()


@pytest.mark.slow
def test_a_store_elsewhere_is_found_again_from_another_folder(
    tmp_path: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    summary_of(tmp_path / "out", "--data", cases, "--sites", "1", "--database", "ours.sqlite", "--rounds", "1")
    monkeypatch.chdir(tmp_path / "there")

    assert run(simulate, "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    assert [path.parent.name for path in tmp_path.glob("*/ours.sqlite")] == ["here"]


@pytest.mark.slow
def test_two_threads_and_the_processor_s_own_precision_give_the_same_figures_twice(tmp_path: Path, cases: Path) -> None:
    asked = [*TINY, "--set", "train.precision=auto", "--set", "train.patch=[32,32,32]", "--set", "train.batch_size=2"]
    for out in (tmp_path / "first", tmp_path / "second"):
        command = [*COMMAND, *asked, "--data", str(cases), "--out", str(out), "--quiet"]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"}, stdout=subprocess.DEVNULL)

    assert figures(read_summary(tmp_path / "first")) == figures(read_summary(tmp_path / "second"))
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_a_site_s_own_error_is_the_sentence_that_ends_a_simulation(tmp_path: Path, cases: Path) -> None:
    ended = run(simulate, *TINY, "--data", cases, "--out", tmp_path / "out", "--quiet", "--set", "train.learning_rate=1e30")

    assert ended.code == 1
    assert ended.err.startswith("error: training, step 2: a loss of nan")
    assert "lower train.learning_rate" in ended.err.lower()
    assert "Traceback" not in ended.err


def test_a_folder_without_permission_is_said_in_a_sentence(cases: Path) -> None:
    with open_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        with ordinary_rights():
            ended = run(simulate, *TINY, "--data", cases, "--out", closed / "out", "--quiet")

    assert ended.code in (2, 3)
    assert "Permission denied" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.real
def test_real_cases_go_through_a_round_and_none_is_left_out(tmp_path: Path) -> None:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    short = ("--rounds", "1", "--set", "train.steps=2", "--set", "train.batch_size=1", "--set", "train.patch=[32,32,32]")
    one_pass = ("--set", "validation.window=[256,256,256]")

    ended = run(
        simulate, "--data", folder, "--out", tmp_path / "out", "--sites", "3", "--init", "random", "--preset", "brainunet-nano",
        *short, *one_pass, "--quiet",
    )  # fmt: skip

    assert ended.code == 0, ended.err
    summary = read_summary(tmp_path / "out")
    assert summary["skipped"] == []
    assert [entry["round"] for entry in summary["rounds"]] == [0, 1]
    counts = [site["cases"] for site in summary["rounds"][0]["sites"].values()]
    assert len(counts) == 3
    assert sum(count["train"] + count["validation"] for count in counts) == len(find_cases(Path(folder)).cases)
