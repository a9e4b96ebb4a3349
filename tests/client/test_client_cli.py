"""``brainunet-client`` as a person at a hospital meets it: what is typed, what is said, and what it ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainunet.data.phantom import write_phantoms
from brainunet.model import build, weights_of
from brainunet.spool import write_packed
from brainunet.wire import pack
from brainunet_client.cli import main as brainunet_client
from brainunet_client.cli_data import in_words
from brainunet_client.home import Home, hold_lock, open_home
from tests.support.coordinator import SERVER
from tests.support.simulation import run
from tests.support.sites import NANO, train_task
from tests.support.typed import home, install, kit

__all__ = ["home", "kit"]  # fixtures

HEAVY = ("torch", "torchio", "flwr", "sqlalchemy", "matplotlib", "cryptography", "httpx")


def test_help_is_light_and_names_every_mode() -> None:
    code = (
        "import sys; from brainunet_client.cli import main\n"
        "try: main()\n"
        f"finally: sys.stderr.write(' '.join(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip

    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(word in ended.stdout for word in ("--enrol", "--kit", "--data", "--check", "--dry-run", "--ledger", "--home"))
    assert "BRAINUNET_HOME" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "nothing to do"),
        (["--json"], "nothing to do"),
        (["--enrol", "lagos", "--kit", "k"], "--enrol and --kit together"),
        (["--data", "d", "--ledger"], "--data and --ledger together"),
        (["--kit", "k", "--check"], "--kit with --check"),
        (["--ledger", "--new-key", "--server", "h:1"], "--ledger with --server, --new-key"),
        (["--enrol", "lagos", "--server", "h:1", "--json"], "--enrol with --json"),
        (["--data", "d", "--check", "--dry-run"], "--check and --dry-run together"),
        (["--data", "d", "--json"], "--data with --json alone"),
        (["--data", "d", "--verify"], "--data with --verify"),
    ],
)
def test_modes_that_contradict_each_other_are_refused_with_all_of_them_listed(
    home: Home, arguments: list[str], found: str
) -> None:
    ended = run(brainunet_client, *arguments)

    assert ended.code == 2
    assert f"brainunet-client: {found}, but expected one of" in ended.err
    assert all(mode in ended.err for mode in ("--enrol NAME", "--kit KIT", "--data DIR", "--check", "--dry-run", "--ledger"))
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--enrol", "lagos"], 2, "--enrol: no --server"),
        (["--enrol", "la gos", "--server", SERVER], 4, "name of the site: 'la gos'"),
        (["--enrol", "lagos", "--server", "example.org"], 2, "--server: a server 'example.org', but expected host:port"),
        (["--kit", "lagos.kit", "--fingerprint", "1"], 4, "no key"),
        (["--data", "."], 4, "1. brainunet-client --enrol NAME --server HOST:PORT"),
        (["--data", "nowhere"], 3, "nowhere: no such folder"),
    ],
)
def test_what_can_not_be_is_said_before_anything_is_left_behind(home: Home, arguments: list[str], code: int, said: str) -> None:
    ended = run(brainunet_client, *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert not home.key.exists()


def test_a_home_named_on_the_command_line_comes_before_that_of_the_environment(home: Home, tmp_path: Path) -> None:
    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER, "--home", tmp_path / "other")

    assert ended.code == 0
    assert (tmp_path / "other" / "site.key").exists()
    assert not home.path.exists()


def test_a_second_client_of_one_home_is_refused(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(kit, "y\n", monkeypatch).code == 0

    Path("BraTS-SSA-00002-000-t1c.nii.gz").touch()
    with hold_lock(home):
        ended = run(brainunet_client, "--data", ".")

    assert ended.code == 1
    assert f"another client works in it (process {os.getpid()})" in ended.err


def test_a_check_is_for_people_or_as_json_and_ends_with_its_own_code(home: Home) -> None:
    (Path("cases")).mkdir()

    for_people = run(brainunet_client, "--data", "cases", "--check")
    as_json = run(brainunet_client, "--data", "cases", "--check", "--json")

    assert for_people.code == as_json.code == 3
    assert "FAIL  key" in for_people.out
    assert {check["outcome"] for check in json.loads(as_json.out)} >= {"FAIL"}
    assert not home.key.exists()


@pytest.mark.slow
def test_a_dry_run_shows_every_field_that_would_leave_and_no_case(home: Home) -> None:
    ids = write_phantoms(Path("cases"), cases=5, style="gli", seed=0, shape=(32, 36, 32))
    write_packed(open_home(home.path).received, pack(train_task(weights_of(build(NANO)))))

    as_json = run(brainunet_client, "--data", "cases", "--dry-run", "--json")
    for_people = run(brainunet_client, "--data", "cases", "--dry-run")

    assert as_json.code == for_people.code == 0, for_people.err
    facts = json.loads(as_json.out)
    for name in facts["header"]:
        assert f"\n{name} " in for_people.out
    assert "to a train task (the last task received) would be" in for_people.out
    assert "Nothing was sent." in for_people.out
    assert "figures of 1 validation cases: withheld, for there are too few" in for_people.out
    assert f"{facts['arrays']['number']} arrays, {facts['arrays']['values']} numbers" in for_people.out
    assert not [case for case in ids if case in for_people.out + as_json.out]
    assert str(Path.cwd()) not in for_people.out + as_json.out
    assert not home.ledger.exists()


def test_a_dry_run_says_of_each_figure_whether_it_is_withheld_or_there_is_none() -> None:
    few = {"structure": "ET", "metric": "dice", "mean": 0.5, "median": None, "n": 3, "missing": 0}
    none = {"structure": "TC", "metric": "dice", "mean": None, "median": None, "n": 0, "missing": 3}
    facts = {
        "site": "lagos",
        "task": {"kind": "train_task", "source": "the task given"},
        "bytes": 10,
        "header": {},
        "arrays": {"number": 0},
        "figures": {"cases": 3, "withheld": False, "rows": [few, none], "withheld_rows": []},
        "stays": "",
        "besides": "",
    }

    said = list(in_words(facts))

    assert "  ET dice: mean 0.5000, median withheld of 3 cases, 0 missing" in said
    assert "  TC dice: mean none, median none of 0 cases, 3 missing" in said
