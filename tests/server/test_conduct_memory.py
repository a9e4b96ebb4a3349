"""What a strategy remembers between two rounds outlives the process: a run that was cut off ends equal to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.errors import ConfigError
from brainunet.modelfile import read_model
from brainunet.spool import read_packed, write_packed
from brainunet.wire import Packed
from tests.support.replies import PLAN
from tests.support.runs import SITES, Sites, damage, every_state_of, keeping, kept, raising, run_in

DURABLE = replace(PLAN, durable=True)  # as a served federation runs
MOMENTS = [(exchange, who) for exchange in (1, 2, 3) for who in (*SITES, "all have answered")]
MOMENTS_BY_PACE = [pytest.param(moment, marks=() if moment == (2, "lagos") else pytest.mark.slow) for moment in MOMENTS]
REMEMBERING = ("fedadam", "fedyogi", "fedavgm")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By strategy."""
    ends = {}
    for name in REMEMBERING:
        folder = tmp_path_factory.mktemp(name)
        run_in(folder, plan=DURABLE, strategy=name)
        ends[name] = kept(folder)
    return ends


def cut_off_in(folder: Path, moment: tuple[int, str], strategy: str = "fedadam") -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(folder, Sites(before=raising(KeyboardInterrupt, at=moment)), plan=DURABLE, strategy=strategy)


def memories(folder: Path) -> list[str]:
    return sorted(path.name for path in keeping(folder).models.glob("*.strategy"))


@pytest.mark.parametrize("moment", MOMENTS_BY_PACE)
@pytest.mark.parametrize("strategy", REMEMBERING)
def test_cut_off_while_sites_answer_it_remembers_and_ends_equal_to_the_bit(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]], strategy: str, moment: tuple[int, str]
) -> None:
    cut_off_in(tmp_path, moment, strategy)

    run_in(tmp_path, plan=DURABLE, strategy=strategy)

    assert without_bytes(kept(tmp_path)) == without_bytes(uninterrupted[strategy])


@pytest.mark.slow
def test_whatever_kill_9_leaves_on_the_disk_it_remembers(tmp_path: Path, uninterrupted: dict[str, dict[str, Any]]) -> None:
    left = list[Path]()
    with every_state_of(tmp_path / "run", into=tmp_path / "left", found=left):
        run_in(tmp_path / "run", plan=DURABLE, strategy="fedadam")
    assert len(left) > 25  # replies and memories half written, a memory without its model ...

    for folder in left:
        run_in(folder, plan=DURABLE, strategy="fedadam")
        assert without_bytes(kept(folder)) == without_bytes(uninterrupted["fedadam"]), folder.name


def without_bytes(end: dict[str, Any]) -> dict[str, Any]:
    """A reply that was kept is not sent again, which the rows of that exchange say."""
    rows = [replace(row, bytes_down=0, bytes_up=0) if hasattr(row, "bytes_up") else row for row in end["rows"]]
    return end | {"rows": [replace(row, update_digest=None) if hasattr(row, "update_digest") else row for row in rows]}


def test_what_it_remembers_is_kept_after_each_round_until_two_more_are_complete(tmp_path: Path) -> None:
    seen = dict[int, list[str]]()

    run_in(
        tmp_path,
        on_round=lambda result: seen.update({result.exchange: memories(tmp_path)}),
        plan=DURABLE,
        strategy="fedadam",
    )

    first, second = "round-001.strategy", "round-002.strategy"
    assert seen == {1: [first], 2: [first, second], 3: [first, second]}  # a damaged newest model costs one round


def test_what_was_remembered_matters(tmp_path: Path, uninterrupted: dict[str, dict[str, Any]]) -> None:
    """Else the tests above would show nothing."""
    cut_off_in(tmp_path, (2, "boston"))
    file = keeping(tmp_path).strategy_file(1)
    memory = read_packed(file)
    assert memory is not None
    assert memory.values is not None
    write_packed(file, Packed(memory.header, np.zeros_like(memory.values)))

    run_in(tmp_path, plan=DURABLE, strategy="fedadam")

    digests = kept(tmp_path)["digests"]
    assert digests["round-001.safetensors"] == uninterrupted["fedadam"]["digests"]["round-001.safetensors"]
    assert digests["round-002.safetensors"] != uninterrupted["fedadam"]["digests"]["round-002.safetensors"]


@pytest.mark.parametrize("harm", ["gone", "cut short", "a bit flipped"])
def test_without_what_it_remembered_a_run_is_refused_and_nothing_is_changed(tmp_path: Path, harm: str) -> None:
    cut_off_in(tmp_path, (2, "boston"))
    damage(keeping(tmp_path).strategy_file(1), harm)
    before = kept(tmp_path)["digests"]

    with pytest.raises(
        ConfigError,
        match=r"round-001\.strategy: it is gone, damaged, or of another strategy.*Begin a new run from the last model",
    ):
        run_in(tmp_path, plan=DURABLE, strategy="fedadam")

    assert kept(tmp_path)["digests"] == before


@pytest.mark.parametrize(
    "header",
    [
        json.dumps([["momentum", [5]]]),
        json.dumps([["m_t", [5]], ["v_t", [4]]]),
        json.dumps([["m_t", [2]], ["v_t", [3]]]),
        json.dumps({}),
        json.dumps([5]),
        "null",
        "not JSON",
    ],
)
def test_what_another_strategy_remembered_is_refused_with_words(tmp_path: Path, header: str) -> None:
    cut_off_in(tmp_path, (2, "boston"))
    write_packed(keeping(tmp_path).strategy_file(1), Packed(header, np.ones(5, np.float32)))

    with pytest.raises(ConfigError):
        run_in(tmp_path, plan=DURABLE, strategy="fedadam")


def test_a_strategy_that_remembers_nothing_leaves_no_file(tmp_path: Path) -> None:
    run_in(tmp_path, plan=DURABLE)

    assert memories(tmp_path) == []


def test_a_damaged_newest_model_costs_its_round_and_no_more_with_a_strategy_that_remembers(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]]
) -> None:
    cut_off_in(tmp_path, (3, "boston"))
    damage(keeping(tmp_path).model_file(2), "a bit flipped")

    run_in(tmp_path, plan=DURABLE, strategy="fedadam")

    assert without_bytes(kept(tmp_path)) == without_bytes(uninterrupted["fedadam"])
    read_model(keeping(tmp_path).model_file(2))
