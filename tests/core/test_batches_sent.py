"""What is sent to a process that makes batches, and the errors that come back."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainunet.config import AugmentConfig, TrainConfig
from brainunet.data.patches import PatchSource
from brainunet.errors import BrainUNetError, DataError, GeometryMismatch
from brainunet.training import batches as module
from brainunet.training.batch_worker import portable
from brainunet.training.batches import Recipe
from tests.support.prepared import prepared_case

CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]
SSA = TrainConfig(steps=6, patch=(16, 16, 16), precision="fp32", augment=AugmentConfig(preset="ssa"))


def bits(made: Any) -> list[tuple[bytes, bytes]]:
    return [(images.numpy().tobytes(), labels.numpy().tobytes()) for images, labels in made]


def test_every_error_of_ours_comes_whole_from_another_process() -> None:
    for kind in (BrainUNetError, DataError, GeometryMismatch):
        error = kind(Path("/data/scan.nii"), found="nothing", expected="something", remedy="look")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)
        assert (again.where, again.found, again.expected, again.remedy) == ("scan.nii", "nothing", "something", "look")


class StubbornError(Exception):
    """One that can't be pickled back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    assert str(portable(StubbornError("this", "that"))) == "training patches: StubbornError: this and that."
    assert isinstance(portable(MemoryError()), MemoryError)


def mapped(folder: Path) -> PatchSource:
    """A source whose arrays lie in files, as those of the cache do."""
    case = CASES[0]
    assert case.label is not None
    arrays: list[npt.NDArray[Any]] = []
    for name, array in (("image", case.image), ("label", case.label)):
        np.save(folder / f"{name}.npy", array)
        arrays.append(np.lib.format.open_memmap(folder / f"{name}.npy", mode="r"))
    return PatchSource(replace(case, image=arrays[0], label=arrays[1]))


def sent(recipe: Recipe) -> tuple[int, Recipe]:
    """How many bytes a recipe takes on its way to a worker, and what arrives."""
    pipe = io.BytesIO()
    module.send_recipe(recipe, pipe)
    pipe.seek(0)
    size = pickle.load(pipe)
    return size, pickle.loads(pipe.read(size))


def test_cases_of_the_cache_are_sent_by_name_and_read_from_the_same_pages(tmp_path: Path) -> None:
    source = mapped(tmp_path)

    size, again = sent(Recipe([source], SSA, 1))

    assert size < source.image.nbytes / 2
    assert isinstance(again.sources[0].image, np.memmap)
    assert np.array_equal(again.sources[0].image, CASES[0].image)
    assert bits([again.make(3)]) == bits([Recipe([PatchSource(CASES[0])], SSA, 1).make(3)])


def test_a_part_of_a_mapped_file_is_sent_as_it_is(tmp_path: Path) -> None:
    source = mapped(tmp_path)
    source.image = source.image[:, 2:]

    _, again = sent(Recipe([source], SSA, 1))

    assert np.array_equal(again.sources[0].image, source.image)
