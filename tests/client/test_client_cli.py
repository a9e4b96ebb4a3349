"""``brainunet-client`` as a person at a hospital meets it: what is typed, what is said, and what it ends with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainunet.data.phantom import write_phantoms
from brainunet.kit import open_kit
from brainunet.model import build, weights_of
from brainunet.spool import write_packed
from brainunet.wire import pack
from brainunet_client.cli import main as brainunet_client
from brainunet_client.home import Home, hold_lock, open_home
from brainunet_client.ledger import record_sent
from tests.support.coordinator import SERVER, Coordinator, coordinator
from tests.support.simulation import Ended, run
from tests.support.sites import NANO, train_task

HEAVY = ("torch", "torchio", "flwr", "sqlalchemy", "matplotlib", "cryptography", "httpx")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home named by the environment; the current folder is the desk of whoever types."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("BRAINUNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _umask_as_before() -> Iterator[None]:
    """A site closes what it writes to others, which must not last for the tests that come after it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def kit(home: Home) -> Path:
    """The kit that came back for an enrolled site."""
    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER).code == 0
    path = Path("lagos.kit")
    path.write_bytes(coordinator().kit(Path("lagos.request").read_bytes()))
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def install(kit: Path, typed: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> Ended:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    return run(brainunet_client, "--kit", kit, *more)


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


def test_enrolling_puts_the_request_where_one_stands_and_says_what_to_do_with_it(home: Home) -> None:
    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert ended.code == 0, ended.err
    request = Path("lagos.request")
    assert request.read_bytes() == home.request_of("lagos").read_bytes()
    assert f"request of lagos: {request.absolute()}" in ended.out
    assert "fingerprint: " in ended.out
    assert "no patient data" in ended.out
    assert f"1. Send the file to the coordinator of {SERVER}" in ended.out
    assert "2. When a kit comes back: brainunet-client --kit KIT" in ended.out
    assert str(home.settings) in ended.out


def test_enrolling_twice_says_the_same_twice(home: Home) -> None:
    first = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER) == first


def test_enrolling_from_within_the_home_needs_no_copy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.path.mkdir(mode=0o700)
    monkeypatch.chdir(home.path)

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert f"request of lagos: {home.request_of('lagos')}\n" in ended.out
    assert len(list(home.path.glob("*.request*"))) == 1


def test_where_no_copy_can_be_made_the_kept_request_is_named(home: Home) -> None:
    Path("lagos.request").mkdir()

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert ended.code == 0, ended.err
    assert f"request of lagos: {home.request_of('lagos')}\n" in ended.out


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


def test_a_kit_is_shown_and_installed_when_the_answer_is_yes(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = install(kit, "y\n", monkeypatch)

    assert ended.code == 0, ended.err
    for line in ("federation:  glioma", f"server:      {SERVER}\n", "site:        lagos", "valid until: 20"):
        assert line in ended.out
    assert f"fingerprint: {open_kit(kit).fingerprint}" in ended.out
    assert "Does the coordinator read out the same numbers? [y/N]" in ended.out
    assert "brainunet-client --data DIR takes part as lagos" in ended.out
    assert home.kit.read_bytes() == kit.read_bytes()


@pytest.mark.parametrize("typed", ["n\n", "\n", "no\n"])
def test_any_other_answer_installs_nothing(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    ended = install(kit, typed, monkeypatch)

    assert ended.code == 4
    assert "lagos.kit: a fingerprint that the coordinator did not confirm" in ended.err
    assert not home.kit.exists()


def test_a_server_that_is_not_the_one_asked_is_pointed_out(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.write_bytes(coordinator().kit(Path("lagos.request").read_bytes(), server="other.example.org:443"))

    assert f"server:      other.example.org:443 (you asked {SERVER})" in install(kit, "y\n", monkeypatch).out


@pytest.mark.parametrize("spelling", ["{}", "{} ", "  {}\n"])
def test_with_the_right_numbers_nothing_is_asked(home: Home, kit: Path, spelling: str) -> None:
    numbers = open_kit(kit).fingerprint

    for told in (spelling.format(numbers), numbers.replace(" ", ""), numbers.replace(" ", "-")):
        ended = run(brainunet_client, "--kit", kit, "--fingerprint", told)
        assert ended.code == 0, ended.err
        assert "?" not in ended.out


@pytest.mark.parametrize("numbers", ["12345 12345 12345 12345 12345 12345", "", "none", "12345"])
def test_with_other_numbers_nothing_is_installed(home: Home, kit: Path, numbers: str) -> None:
    ended = run(brainunet_client, "--kit", kit, "--fingerprint", numbers)

    assert ended.code == 4
    # the right numbers come from the coordinator's mouth: whoever could paste them from here would have compared nothing
    assert open_kit(kit).fingerprint not in ended.err + ended.out
    assert "ask for it by another way" in ended.err
    assert not home.kit.exists()


def test_without_a_terminal_and_without_numbers_nobody_can_be_asked(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--kit", kit)

    assert ended.code == 2
    assert "no terminal to ask on, and no --fingerprint" in ended.err
    assert not home.kit.exists()


def test_another_federation_takes_the_word_replace(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(kit, "y\n", monkeypatch).code == 0
    stranger = Coordinator("other")
    kit.write_bytes(stranger.kit(Path("lagos.request").read_bytes()))
    refused = install(kit, "y\n", monkeypatch, "--replace")
    assert (refused.code, "--new-key" in refused.err) == (4, True)
    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER, "--new-key").code == 0
    kit.write_bytes(stranger.kit(Path("lagos.request").read_bytes()))

    refused = install(kit, "y\n", monkeypatch)
    assert (refused.code, "--replace" in refused.err) == (4, True)
    assert install(kit, "y\n", monkeypatch, "--replace").code == 0
    assert open_kit(home.kit).federation == "other"


def test_a_site_with_a_key_and_no_kit_is_told_which_file_to_send(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--data", ".")

    assert ended.code == 4
    assert "Send lagos.request to the coordinator; then brainunet-client --kit KIT" in ended.err


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


def test_where_there_is_no_home_there_is_no_ledger_and_none_is_made(home: Home) -> None:
    ended = run(brainunet_client, "--ledger")

    assert ended.code == 4
    assert "no such folder" in ended.err
    assert not home.path.exists()


def test_a_ledger_that_was_removed_is_missed(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(kit, "y\n", monkeypatch).code == 0
    home.ledger.unlink()

    for arguments in (["--ledger"], ["--ledger", "--verify"]):
        ended = run(brainunet_client, *arguments)
        assert ended.code == 1
        assert "it is gone or empty, in a home that has a kit" in ended.err


def a_transfer(home: Home, round: int) -> None:
    record_sent(
        home, server=SERVER, federation="glioma", run="run-1", round=round, kind="train_reply", n_bytes=1_500_000,
        digest="ab" * 32, figures={"loss": 0.25}, purpose="research", legal_basis="approval no. 7",
    )  # fmt: skip


def test_a_ledger_tells_each_transfer_in_a_line_and_all_of_them_in_one(home: Home, kit: Path) -> None:
    a_transfer(home, 1)
    a_transfer(home, 2)

    lines = run(brainunet_client, "--ledger").out.splitlines()

    assert "made a request to enrol as lagos" in lines[0]
    assert "sent train reply of round 2" in lines[2]
    assert lines[3] == "2 transfers, 3.0 MB in all; runs: run-1 (2)"
    told = json.loads(run(brainunet_client, "--ledger", "--json").out)
    assert (told["transfers"], told["bytes"], told["runs"]) == (2, 3_000_000, {"run-1": 2})
    assert [entry["kind"] for entry in told["entries"]] == ["request-made", "sent", "sent"]
    assert told["entries"][1]["data"]["figures"] == {"loss": 0.25}


def test_a_ledger_is_verified_and_its_last_digest_told(home: Home, kit: Path) -> None:
    a_transfer(home, 1)

    for_people = run(brainunet_client, "--ledger", "--verify")
    facts = json.loads(run(brainunet_client, "--ledger", "--verify", "--json").out)

    assert for_people.code == 0
    assert f"{home.ledger}: 2 entries, each as it was written." in for_people.out
    assert facts["head"] in for_people.out
    assert facts == {"entries": 2, "head": facts["head"], "torn": False}

    with home.ledger.open("a") as file:
        file.write('{"n":3')
    assert "Its last line was cut short" in run(brainunet_client, "--ledger", "--verify").out


@pytest.mark.parametrize("arguments", [["--ledger"], ["--ledger", "--verify"], ["--ledger", "--json"]])
def test_a_ledger_that_was_changed_is_shown_up_to_there_and_then_refused(home: Home, kit: Path, arguments: list[str]) -> None:
    a_transfer(home, 1)
    a_transfer(home, 2)
    home.ledger.write_text(home.ledger.read_text().replace("1500000", "1", 1))

    ended = run(brainunet_client, *arguments)

    assert ended.code == 1
    assert "ledger.jsonl line 2" in ended.err
    assert ended.out.count("\n") == (1 if arguments == ["--ledger"] else 0)
