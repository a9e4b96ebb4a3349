"""``--check``: what is wrong at a site is found before the first round, and each line says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from brainunet.certificates import new_site_key
from brainunet_client.home import Home, open_home
from brainunet_client.preflight import CHECKS, Check, Context, exit_code, run_checks, to_json
from brainunet_client.preflight.contact import machine_clock
from brainunet_client.preflight.report import guarded
from tests.support.health import Federation, federation, health_server, now
from tests.support.looks import SETTINGS, _nobody_answers, data, failed, home, joined, look
from tests.support.rights import open_folder, ordinary_rights

__all__ = ["_nobody_answers", "data", "federation", "home"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]


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
