"""``--check``: what is wrong at a site is found before the first round, and each line says what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.certificates import new_site_key, write_site_key
from brainunet.data.phantom import write_phantoms
from brainunet.labels import Modality
from brainunet_client.home import Home, open_home
from brainunet_client.preflight import CHECKS, Check, Context, exit_code, run_checks, to_json
from brainunet_client.preflight.contact import machine_clock
from brainunet_client.preflight.report import guarded
from tests.support.cases import head, write_case
from tests.support.health import Federation, health_server, no_proxy, now
from tests.support.nifti import write_nifti
from tests.support.rights import open_folder, ordinary_rights

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = 'min_cases = 1\npurpose = "segmentation"\nlegal_basis = "vote 12"\n'


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation()


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names have no address, so that no check waits for a network; a test that serves uses 127.0.0.1."""
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    no_proxy(monkeypatch)


@pytest.fixture
def home(tmp_path: Path, federation: Federation) -> Home:
    """A site that has joined, but whose server's name has no address."""
    return joined(tmp_path / "home", federation, "fl.example.org:8443")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten cases that can be used, each with images of its own."""
    for number in range(10):
        images = {m.value: head(seed=10 * number + i) for i, m in enumerate(Modality)}
        write_case(tmp_path / "data", case_id(number), images=images)
    return tmp_path / "data"


def case_id(number: int) -> str:
    return f"BraTS-SSA-{number:05d}-000"


def joined(path: Path, federation: Federation, server: str, **kit: Any) -> Home:
    home, key = open_home(path), new_site_key()
    write_site_key(home.key, key)
    home.kit.write_bytes(federation.sealed(federation.kit(server, key, **kit)))
    home.settings.write_text(SETTINGS)
    return home


def look(home: Home, data: Path | None = None, **options: Any) -> dict[str, Check]:
    return {check.name: check for check in run_checks(home, data, **options)}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.outcome == "FAIL"}


def test_a_site_that_is_ready_passes_everything(tmp_path: Path, federation: Federation, data: Path) -> None:
    with health_server(tmp_path, federation) as port:
        checks = look(joined(tmp_path / "home", federation, f"127.0.0.1:{port}"), data)

    told = [check for check in checks.values() if check.outcome != "PASS" and check.name not in ("disk", "memory")]
    assert told == []  # how much the machine has to give is not the test's
    assert checks["data"].said == "10 found, 10 usable (8 to train on, 2 for validation)"
    assert checks["kit"].said == f"of lagos in the federation 'glioma', server 127.0.0.1:{port}"


def test_each_part_has_its_exit_code_and_the_smallest_wins(home: Home, tmp_path: Path, data: Path) -> None:
    assert exit_code(run_checks(home, data)) == 6  # the server has no address
    home.settings.write_text("min_case = 1")
    assert exit_code(run_checks(home, data)) == 4
    assert exit_code(run_checks(home, tmp_path / "elsewhere")) == 3
    home.settings.write_text(SETTINGS)
    shutil.rmtree(home.cache)
    home.cache.write_text("no folder")
    assert exit_code(run_checks(home, data)) == 4  # the machine's fault, not that of the data
    assert exit_code([Check("disk", "WARN", "4 GB free"), Check("key", "PASS", "EC P-384")]) == 0


def test_a_home_without_anything_is_told_to_enrol_and_stays_unmade(tmp_path: Path, data: Path) -> None:
    checks = look(Home(tmp_path / "none"), data)

    assert failed(checks) == {"settings", "key", "kit", "disk"}
    assert all("--enrol" in checks[name].remedy for name in ("settings", "key", "kit"))
    assert "not checked" in checks["network"].said
    assert checks["data"].outcome == "PASS"
    assert not (tmp_path / "none").exists()


def test_a_key_that_others_may_read_is_a_warning_and_another_kind_of_key_fails(home: Home) -> None:
    home.key.chmod(0o640)
    assert look(home)["key"].outcome == "WARN"
    assert "chmod 600" in look(home)["key"].remedy

    home.key.write_text("a password")
    assert {"key", "kit"} <= failed(look(home))


def test_a_kit_for_another_key_and_a_damaged_one_fail_with_a_remedy(home: Home, federation: Federation) -> None:
    home.kit.write_bytes(federation.sealed(federation.kit("fl.example.org:8443", new_site_key())))
    check = look(home)["kit"]
    assert check.outcome == "FAIL"
    assert "another key" in check.said

    home.kit.write_bytes(home.kit.read_bytes().replace(b"lagos", b"abuja"))
    checks = look(home)
    assert "damaged" in checks["kit"].said
    assert checks["kit"].remedy
    assert "network" in checks  # which can't be checked without a server


def test_a_certificate_in_its_last_month_warns_and_afterwards_fails(tmp_path: Path, federation: Federation) -> None:
    home = joined(tmp_path / "home", federation, "fl.example.org:8443", days=20.5)

    check = look(home)["certificate"]
    assert (check.outcome, check.said[:18]) == ("WARN", "expires in 20 days")
    later = look(home, now=lambda: now() + timedelta(days=30))
    assert later["certificate"].outcome == "FAIL"
    assert "has expired" in later["certificate"].said


def test_a_clock_that_is_years_off_leaves_the_kit_good_and_the_network_checked(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation) as port:
        home = joined(tmp_path / "home", federation, f"127.0.0.1:{port}")
        checks = look(home, now=lambda: now() - timedelta(days=20_000))

    assert checks["kit"].outcome == "PASS"
    assert failed(checks) == {"certificate", "authority", "clock"}
    assert "is not valid yet" in checks["certificate"].said
    assert "only that is to be mended" in checks["certificate"].remedy
    assert "55 years behind the server's" in checks["clock"].said


def test_settings_that_do_not_parse_fail_and_a_ledger_without_a_purpose_is_warned_of(home: Home) -> None:
    home.settings.write_text("min_case = 1")
    assert "did you mean min_cases" in look(home)["settings"].said

    home.settings.write_text('purpose = ""')
    check = look(home)["settings"]
    assert check.outcome == "WARN"
    assert check.said.endswith("purpose and legal_basis not filled in")


def test_refused_cases_are_named_with_their_reasons_up_to_five(home: Home, data: Path) -> None:
    for number in range(7):
        (data / case_id(number) / f"{case_id(number)}-t1c.nii.gz").write_bytes(b"")

    checks = look(home, data)

    assert checks["data"].said == "10 found, 3 usable (2 to train on, 1 for validation), 7 refused"
    refused = checks["refused cases"]
    assert refused.outcome == "WARN"
    assert refused.said.count("0 bytes") == 5
    assert refused.said.endswith("and 2 more")
    assert refused.said.startswith(f"{case_id(0)}")


def test_a_head_is_refused_with_what_to_do(home: Home, data: Path) -> None:
    for path in (data / case_id(0)).glob("*-t2w.nii.gz"):
        image = head(seed=1)
        write_nifti(path, np.where(image == 0, 3, image).astype(np.int16))

    checks = look(home, data)

    assert "9 usable" in checks["data"].said
    assert "not skull-stripped: the background is not 0" in checks["refused cases"].said
    assert "HD-BET" in checks["refused cases"].said
    assert "brainunet check" in checks["refused cases"].remedy


def test_no_usable_case_fails_and_so_does_a_folder_without_cases(home: Home, tmp_path: Path) -> None:
    folder = write_case(tmp_path / "data")
    for path in folder.iterdir():
        path.write_bytes(b"")
    check = look(home, tmp_path / "data")["data"]
    assert (check.outcome, check.exit_code) == ("FAIL", 3)

    (tmp_path / "empty").mkdir()
    check = look(home, tmp_path / "empty")["data"]
    assert (check.outcome, check.exit_code) == ("FAIL", 3)
    assert check.remedy


def test_too_few_cases_to_train_on_or_to_tell_figures_of_are_warned_of(home: Home, tmp_path: Path) -> None:
    home.settings.write_text(SETTINGS.replace("1", "3", 1))
    write_case(tmp_path / "data")
    checks = look(home, tmp_path / "data")

    assert checks["data"].outcome == "WARN"
    assert "nothing to train on" in checks["data"].said
    assert checks["validation cases"].said.startswith("1 for validation, and figures are withheld below 3")
    assert "min_cases" in checks["validation cases"].remedy


def test_made_up_cases_are_named_since_only_demonstrations_take_them(home: Home, data: Path, tmp_path: Path) -> None:
    assert "made-up cases" not in look(home, data)
    write_phantoms(tmp_path / "made up", cases=2, style="gli", seed=0, shape=(32, 36, 32), centres=("CRV",))

    check = look(home, tmp_path / "made up")["made-up cases"]

    assert check.outcome == "WARN"
    assert check.said.startswith("2 of 2 usable cases, as their files say: BraTS-SSA-")
    assert "no demonstration refuses" in check.remedy


def test_cases_are_counted_on_the_sides_that_they_have_already(home: Home, data: Path) -> None:
    home.sides.write_text(json.dumps({case_id(number): "train" for number in range(10)}))
    checks = look(home, data)
    assert "(10 to train on, 0 for validation)" in checks["data"].said

    home.sides.write_text('{"BraTS')
    assert look(home, data)["data"].exit_code == 3
    assert "data" in failed(look(home, data))


def test_a_second_look_reads_no_case_again(home: Home, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(home, data)["data"]

    def read_again(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("brainunet.data.cache.prepare", read_again)

    assert look(home, data)["data"] == first


def test_an_excluded_case_is_not_even_read(home: Home, data: Path) -> None:
    home.consent.write_text("BraTS-SSA-00003  # withdrew\nBraTS-SSA-99999-000\n")

    checks = look(home, data)

    assert len(list(home.cache.glob("*/*/facts.json"))) == 9
    assert checks["data"].said.endswith("1 excluded by the register")
    assert checks["consent"].outcome == "WARN"
    assert "1 is of no case in the data: BraTS-SSA-99999-000" in checks["consent"].said


def test_a_register_that_cannot_be_read_keeps_every_case_unread(home: Home, data: Path) -> None:
    home.consent.write_bytes(b"\xff\xff\xff\0")
    checks = look(home, data)

    assert checks["consent"].outcome == "FAIL"
    assert checks["data"].said.startswith("not checked")
    assert not any(home.cache.iterdir())


def test_a_folder_that_cannot_be_written_fails_with_what_to_do(federation: Federation) -> None:
    with open_folder() as folder:
        home = joined(folder / "home", federation, "fl.example.org:8443")
        home.path.chmod(0o755)
        with ordinary_rights():
            if os.access(home.path, os.W_OK, effective_ids=True):
                pytest.skip("this user may write its own folder whatever its rights are")
            check = look(home)["disk"]

    assert check.outcome == "FAIL"
    assert "--home" in check.remedy


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_check_breaks_on_a_home_full_of_garbage(tmp_path: Path, check: Any) -> None:
    home = open_home(tmp_path / "home")
    for path in (home.key, home.kit, home.settings, home.sides, home.consent):
        path.write_bytes(os.urandom(100))

    for line in guarded("x", check, Context(home, tmp_path / "none", machine_clock), 4):
        assert "the check itself failed" not in line.said


def test_the_report_is_json(home: Home) -> None:
    checks = run_checks(home, None)

    told = json.loads(json.dumps(to_json(checks)))
    assert [check["name"] for check in told] == [check.name for check in checks]
    assert set(told[0]) == {"name", "outcome", "said", "remedy", "exit_code"}


def test_every_failure_says_what_to_do(home: Home, tmp_path: Path) -> None:
    checks = [*run_checks(home, None), *run_checks(Home(tmp_path / "none"), tmp_path / "none")]

    assert [check for check in checks if check.outcome == "FAIL" and not check.remedy] == []


def test_the_checks_need_neither_torch_nor_flower() -> None:
    code = "import sys, brainunet_client.preflight; print(*{'torch', 'flwr'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)

    assert run.stdout.split() == []
