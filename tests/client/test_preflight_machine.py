"""How much disk and memory are enough, and that a container's limit counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from brainunet.memory import available_memory
from brainunet_client.home import Home, open_home
from brainunet_client.preflight import Context
from brainunet_client.preflight.machine_checks import disk, judge_disk, judge_memory
from tests.support.rights import full_disk

GB = 10**9
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"
MACHINE = 8_000_000 * 1024


def machine(root: Path, group: str = "", files: Mapping[str, object] = MappingProxyType({})) -> Path:
    """A made-up Linux: the control groups of this process, and the files of the groups' folder."""
    write(root / "proc/meminfo", MEMINFO)
    write(root / "proc/self/cgroup", group)
    for name, content in files.items():
        write(root / "sys/fs/cgroup" / name, str(content))
    return root


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(("free_gb", "outcome"), [(0.9, "FAIL"), (1.1, "WARN"), (4.9, "WARN"), (5.1, "PASS")])
def test_the_disk_needs_one_gigabyte_and_should_have_five(tmp_path: Path, free_gb: float, outcome: str) -> None:
    check = judge_disk(int(free_gb * GB), tmp_path)

    assert check.outcome == outcome
    assert f"{free_gb:.1f} GB free" in check.said
    assert bool(check.remedy) == (outcome != "PASS")


def test_a_full_disk_fails() -> None:
    with full_disk(64) as folder:
        home = open_home(folder / "home")
        (home.path / "log").write_bytes(bytes(32 * 1024))

        assert disk(Context(home, None)).outcome == "FAIL"


def test_a_home_that_is_not_there_fails_without_being_made(tmp_path: Path) -> None:
    assert disk(Context(Home(tmp_path / "none"), None)).outcome == "FAIL"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("available_gb", "allowed_gb", "outcome"),
    [(1.9, None, "FAIL"), (3, None, "WARN"), (4.1, None, "PASS"), (16, 3, "WARN"), (16, 1, "FAIL"), (16, 64, "PASS")],
)
def test_training_needs_two_gigabytes_and_should_have_four(available_gb: float, allowed_gb: float | None, outcome: str) -> None:
    check = judge_memory(int(available_gb * GB), allowed_gb)

    assert check.outcome == outcome
    if allowed_gb in (1, 3):
        assert "memory_gb" in check.remedy


def test_without_control_groups_the_machine_says_what_is_available(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path)) == MACHINE


def test_a_system_without_meminfo_says_nothing(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemAvailable: lots\n")
    assert available_memory(tmp_path) is None


def test_a_containers_limit_counts_less_what_it_uses_but_not_its_page_cache(tmp_path: Path) -> None:
    files = {
        "memory.max": 4 * GB,
        "memory.current": 3 * GB,
        "memory.stat": f"anon {GB}\ninactive_file {2 * GB}\nactive_file 0\n",
    }

    assert available_memory(machine(tmp_path, "0::/\n", files)) == 3 * GB


def test_a_limit_of_any_group_above_counts(tmp_path: Path) -> None:
    files = {
        "site/client/memory.max": "max\n",
        "site/client/memory.current": 1 * GB,
        "site/memory.max": 3 * GB,
        "site/memory.current": 1 * GB,
    }

    assert available_memory(machine(tmp_path, "0::/site/client\n", files)) == 2 * GB


def test_the_older_control_groups_count_too(tmp_path: Path) -> None:
    files = {
        "memory/docker/abc/memory.limit_in_bytes": 2 * GB,
        "memory/docker/abc/memory.usage_in_bytes": 1 * GB,
        "memory/docker/abc/memory.stat": f"total_inactive_file {GB // 2}\n",
        "memory/memory.limit_in_bytes": 2**63 - 4096,
        "memory/memory.usage_in_bytes": 9 * GB,
    }

    group = "11:memory:/docker/abc\n10:cpu,cpuacct:/docker/abc\n"
    assert available_memory(machine(tmp_path, group, files)) == 3 * GB // 2


def test_a_group_that_this_container_cannot_see_is_its_root(tmp_path: Path) -> None:
    files = {"memory.max": 2 * GB, "memory.current": GB}

    assert available_memory(machine(tmp_path, "0::/kubepods/pod1/abc\n", files)) == GB


def test_control_groups_full_of_garbage_are_passed_over(tmp_path: Path) -> None:
    files = {"memory.max": "many", "memory.current": GB, "memory.stat": "inactive_file\n\nx"}

    assert available_memory(machine(tmp_path, "nonsense\n\n0::/\n:::\n", files)) == MACHINE
