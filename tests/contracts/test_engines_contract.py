"""What every engine promises: the labels that eager PyTorch in full precision gives, for any size of image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import prepare
from brainunet.errors import BrainUNetError, ConfigError, DataError
from brainunet.inference.segmenter import EngineOptions, open_segmenter
from brainunet.inference.window import FloatArray
from brainunet.labels import DEFAULT_MODALITIES, Modality, Region
from brainunet.metrics.report import score_case
from brainunet.starter import STARTER
from tests.support.engines import noise, options, random_model
from tests.support.pace import first_fast

ENGINES = ("torch", "openvino")
WAYS = ("one-pass", "windows")
TRUTH = EngineOptions(engine="torch", precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are sealed with a secret in the user's home: not in that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model whose graph is kept beside it."""
    path = tmp_path_factory.mktemp("model") / "starter.safetensors"
    path.write_bytes(STARTER.read_bytes())
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> FloatArray:
    folder = tmp_path_factory.mktemp("cases")
    write_phantoms(folder, cases=1, style="gli", seed=3, shape=(96, 96, 80))
    [case] = find_cases(folder).cases
    return np.asarray(prepare(case, DEFAULT_MODALITIES, PreprocessConfig()).image, np.float32)


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """One model of each kind for all tests that leave it as it is: its graph is made once."""

    @cache
    def made(modalities: tuple[Modality, ...] = DEFAULT_MODALITIES, norm: Any = "group") -> Path:
        return random_model(tmp_path_factory.mktemp("random"), modalities, norm)

    return made


def agreement(a: Any, b: Any) -> dict[str, float]:
    rows = score_case("x", a, b, (1.0, 1.0, 1.0), metrics=("dice",)).rows
    return {str(row.structure): row.value for row in rows if row.value is not None and row.structure in list(Region)}


@pytest.mark.parametrize(
    ("precision", "way"), first_fast(("auto", "windows"), ("auto", "one-pass"), ("fp32", "windows"), ("fp32", "one-pass"))
)
def test_the_engines_agree_on_every_region_of_a_trained_model(
    starter: Path, image: FloatArray, precision: Any, way: Any
) -> None:
    true = open_segmenter(starter, replace(TRUTH, way=way)).predict(image)

    made = open_segmenter(starter, options("openvino", precision=precision, way=way)).predict(image)

    assert set(np.unique(true.labels)) == {0, 1, 2, 3}  # else there is nothing to agree on
    assert min(agreement(made.labels, true.labels).values()) >= 0.99
    assert made.facts.way == way
    assert made.facts.engine == "openvino"


@pytest.mark.real
@pytest.mark.slow
def test_the_engines_agree_on_a_real_case(tmp_path: Path) -> None:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    model = tmp_path / "model.safetensors"
    model.write_bytes(Path(os.environ.get("BRAINUNET_TRAINED_MODEL", STARTER)).read_bytes())  # a better one, where there is one
    card = open_segmenter(model, TRUTH).card
    prepared = prepare(find_cases(Path(folder)).cases[0], card.model.modalities, card.preprocess)

    assert prepared.label is not None
    middle = np.argwhere(prepared.label).mean(axis=0).astype(int)
    around = tuple(
        slice(max(0, at - 48), at + 48) for at in middle
    )  # the tumour and what lies about it: the whole takes minutes
    image = np.asarray(prepared.image[:, *around], np.float32)

    true, made = (open_segmenter(model, options(engine, precision="fp32", way="one-pass")).predict(image) for engine in ENGINES)

    assert {0, 1, 2} <= set(np.unique(true.labels))  # else there is little to agree on
    assert min(agreement(made.labels, true.labels).values()) >= 0.99


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [(17, 31, 40), (1, 24, 24), (9, 8, 8), (33, 2, 50)])
@pytest.mark.parametrize("norm", first_fast("group", "batch", "instance"))
def test_any_size_and_norm_gives_the_same_numbers(
    random_models: Callable[..., Path], engine: Any, size: tuple[int, ...], norm: Any
) -> None:
    model = random_models(norm=norm)
    given = noise(3, *size)
    true = open_segmenter(model, replace(TRUTH, way="one-pass")).predict(given)

    made = open_segmenter(model, options(engine, precision="fp32", way="one-pass")).predict(given)

    assert made.probabilities.shape == (4, *size)
    np.testing.assert_allclose(made.probabilities, true.probabilities, atol=1e-3)
    np.testing.assert_allclose(made.probabilities.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("engine", first_fast(*ENGINES))
@pytest.mark.parametrize("modalities", [(Modality.T2F,), pytest.param(tuple(Modality), marks=pytest.mark.slow)], ids=len)
def test_a_model_of_one_modality_or_of_four_works(
    random_models: Callable[..., Path], engine: Any, modalities: tuple[Modality, ...]
) -> None:
    made = open_segmenter(random_models(modalities), options(engine)).predict(noise(len(modalities), 16, 16, 16))

    assert made.labels.shape == (16, 16, 16)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_image_gives_numbers(starter: Path, engine: Any) -> None:
    made = open_segmenter(starter, options(engine)).predict(np.zeros((3, 24, 24, 24), np.float32))

    assert np.isfinite(made.probabilities).all()
    assert 0 <= made.entropy.min() <= made.entropy.max() <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_no_image_for_the_model_is_refused(starter: Path, engine: Any) -> None:
    segmenter = open_segmenter(starter, options(engine))

    for wrong in (noise(2, 16, 16, 16), noise(3, 16, 16), noise(3, 8, 8, 8), np.full((3, 16, 16, 16), np.nan, np.float32)):
        with pytest.raises(DataError):
            segmenter.predict(wrong)


@pytest.mark.parametrize("engine", first_fast("openvino", "torch"))
def test_turned_over_images_are_averaged(starter: Path, image: FloatArray, engine: Any) -> None:
    crop = image[:, 20:60, 20:60, 20:60]
    averaged = open_segmenter(starter, options(engine, precision="fp32", way="one-pass", tta=True))
    mirrored = averaged.predict(crop[:, ::-1]).probabilities[:, ::-1]

    np.testing.assert_allclose(averaged.predict(crop).probabilities, mirrored, atol=2e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_that_were_asked_for_are_used(starter: Path, engine: Any) -> None:
    made = open_segmenter(starter, options(engine, threads=1)).predict(noise(3, 16, 16, 16))

    assert made.facts.threads == 1


def test_a_network_that_is_not_ours_runs_on_torch_alone(tmp_path: Path) -> None:
    model = random_model(tmp_path)
    from brainunet.inference.openvino_engine import open_openvino
    from brainunet.modelfile import read_model

    weights, card = read_model(model)
    foreign = card.model_copy(update={"model": card.model.model_copy(update={"preset": "nnunet-plain"})})

    with pytest.raises(ConfigError, match="nnunet-plain"):
        open_openvino(model, foreign, weights, precision="fp32", threads=None)


def test_where_memory_is_short_windows_are_taken_and_where_there_is_none_it_is_said(starter: Path, image: FloatArray) -> None:
    tight = open_segmenter(starter, options("openvino", max_memory_bytes=420_000_000)).predict(image)
    with pytest.raises(ConfigError, match="GB"):
        open_segmenter(starter, options("openvino", max_memory_bytes=1_000_000)).predict(image)

    assert tight.facts.way == "windows"
    assert tight.facts.estimated_bytes <= 420_000_000


def test_an_output_that_is_no_number_is_an_error_and_no_segmentation(starter: Path) -> None:
    huge = np.full((3, 16, 16, 16), 3e38, np.float32)

    with pytest.raises(BrainUNetError, match="not a number"):
        open_segmenter(starter, options("torch", precision="fp32")).predict(huge)
