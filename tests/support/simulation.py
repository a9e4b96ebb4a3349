"""Simulations small enough to run in a test, and commands as a person runs them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import strategies as st

from brainunet_server.store.reader import StoreReader
from brainunet_sim.cli import main as simulate

PatientFolder: TypeAlias = dict[str, float]  # case id -> volume of the whole tumour in ml
Arguments: TypeAlias = tuple[str | Path, ...]

# A network with random weights on small patches: it learns nothing, and a round takes parts of a second.
TINY: Final = (
    *("--init", "random", "--preset", "brainunet-nano", "--rounds", "2"),
    *("--set", "train.steps=2", "--set", "train.patch=[16,16,16]", "--set", "train.batch_size=1"),
    *("--set", "train.precision=fp32"),
)
SHAPE: Final = (32, 36, 32)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def run(main: Callable[[], None], *arguments: str | Path) -> Ended:
    """A command in this process, with its exit code: what ``main`` does for the words after the command's name."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *map(str, arguments)])
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        patch.setenv("COLUMNS", "200")  # no message is broken in the middle
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int), code
    return Ended(code, out.getvalue(), err.getvalue())


def summary_of(out: Path, *arguments: str | Path) -> dict[str, Any]:
    """The summary of a tiny simulation in ``out`` that went well."""
    ended = run(simulate, *TINY, "--out", out, "--quiet", *arguments)
    assert ended.code == 0, ended.err
    return read_summary(out)


def read_summary(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def figures(summary: dict[str, Any]) -> Any:
    """What two runs with one seed have in common: all but names, times, memory, and the digits of a time in ``bytes_up``."""
    rounds = [
        {name: {key: site[key] for key in ("cases", "dice", "loss", "bytes_down")} for name, site in entry["sites"].items()}
        for entry in summary["rounds"]
    ]
    means = [entry["mean_dice"] for entry in summary["rounds"]]
    return [summary[key] for key in ("status", "best_round", "seed", "config_sha256", "skipped")], means, rounds


def digests(out: Path, database: str | Path | None = None) -> list[str]:
    """The weights of each round of the only simulation in ``out``."""
    with StoreReader(database or out / "store.sqlite") as store:
        return [model.digest for model in store.models(read_summary(out)["run"])]


def african_patients() -> st.SearchStrategy[PatientFolder]:
    """Folders with any number of BraTS-Africa patients of the two largest hospitals, up to three visits each."""
    volumes = st.lists(st.floats(0, 300), min_size=1, max_size=3)
    numbers = st.integers(2, 81) | st.integers(123, 225)
    return st.dictionaries(numbers, volumes, max_size=20).map(
        lambda patients: {
            f"BraTS-SSA-{number:05d}-{visit:03d}": volume
            for number, visits in patients.items()
            for visit, volume in enumerate(visits)
        }
    )


def partition_csv(rows: Iterable[tuple[str, str]]) -> str:
    """The text of a FeTS partition file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("Partition_ID", "Subject_ID"), *rows])
    return text.getvalue()
