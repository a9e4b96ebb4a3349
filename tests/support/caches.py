"""A cache of prepared cases in a folder of a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.preprocess import PreparedCase
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.records import Case
from tests.support.cases import only_case, tumour, write_case

CONFIG = PreprocessConfig()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_case(tmp_path / "data", label=np.minimum(tumour(), 2))  # labels that both conventions know
    return only_case(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> CaseCache:
    return CaseCache(tmp_path / "cache")


def get(
    cache: CaseCache, case: Case, modalities: Sequence[Modality] = DEFAULT_MODALITIES, config: PreprocessConfig = CONFIG
) -> PreparedCase:
    return cache.get(case, modalities, config)


def entries(cache: CaseCache) -> list[Path]:
    return sorted(path.parent for path in cache.folder.rglob("facts.json"))


def times(cache: CaseCache) -> dict[Path, int]:
    """When each file of the cache was last written."""
    return {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*") if path.is_file()}


def assert_same(a: PreparedCase, b: PreparedCase) -> None:
    assert np.array_equal(a.image, b.image)
    assert a.image.dtype == b.image.dtype
    assert (a.label is None) == (b.label is None)
    if a.label is not None and b.label is not None:
        assert np.array_equal(a.label, b.label)
        assert a.label.dtype == b.label.dtype
    assert np.array_equal(a.affine, b.affine)
    assert (a.box, a.shape, a.spacing_mm) == (b.box, b.shape, b.spacing_mm)


def change_facts(entry: Path, **facts: Any) -> None:
    path = entry / "facts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def cut(path: Path, to: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * to)])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "an image cut off": lambda entry: cut(entry / "image.npy", 0.5),
    "an image cut off in its header": lambda entry: cut(entry / "image.npy", 0.001),
    "an empty image": lambda entry: cut(entry / "image.npy", 0),
    "no image": lambda entry: (entry / "image.npy").unlink(),
    "no label": lambda entry: (entry / "label.npy").unlink(),
    "an empty label": lambda entry: cut(entry / "label.npy", 0),
    "no facts": lambda entry: (entry / "facts.json").unlink(),
    "empty facts": lambda entry: cut(entry / "facts.json", 0),
    "facts cut off": lambda entry: cut(entry / "facts.json", 0.5),
    "facts that are a list": lambda entry: (entry / "facts.json").write_text("[1, 2]"),
    "facts that are bytes": lambda entry: (entry / "facts.json").write_bytes(b"\xff\xfe\0"),
    "facts of another box": lambda entry: change_facts(entry, box=[[0, 5], [0, 5], [0, 5]]),
    "facts of a short box": lambda entry: change_facts(entry, box=[[0, 5]]),
    "facts of a short spacing": lambda entry: change_facts(entry, spacing_mm=[1.0]),
    "an image of another number type": lambda entry: np.save(entry / "image.npy", np.zeros((3, 12, 11, 10), np.float32)),
    "a label of another shape": lambda entry: np.save(entry / "label.npy", np.zeros((2, 2, 2), np.uint8)),
    "a pickle": lambda entry: np.save(entry / "image.npy", np.array([{}]), allow_pickle=True),
}


KILLED = """
import os, signal, sys
from pathlib import Path
from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.labels import DEFAULT_MODALITIES

def kill_at_the_file(event, arguments):
    if event == "open" and str(arguments[0]).endswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_at_the_file)
(case,) = find_cases(Path(sys.argv[1])).cases
CaseCache(Path(sys.argv[2])).get(case, DEFAULT_MODALITIES, PreprocessConfig())
"""
