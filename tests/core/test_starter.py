"""The starter model: what ships, what it says of itself, and that a gain over it means something."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from brainunet.config import PreprocessConfig, ValidationConfig
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import prepare
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.overlap import dice
from brainunet.model import load
from brainunet.modelfile import read_model
from brainunet.starter import STARTER


def test_the_starter_is_small_and_says_that_it_knows_no_patient() -> None:
    _, card = read_model(STARTER)

    assert STARTER.stat().st_size <= 2_000_000
    assert card.model.preset == "brainunet-nano"
    assert card.trained_on == "phantoms"
    assert "do not use it on a patient" in card.intended_use


@pytest.mark.slow
def test_the_starter_finds_the_whole_tumour_of_clean_phantoms_that_it_never_saw(tmp_path: Path) -> None:
    network, modalities = load(STARTER), read_model(STARTER)[1].model.modalities
    write_phantoms(tmp_path, cases=4, style="gli", seed=2026, shape=(96, 96, 96))

    scores = []
    for case in find_cases(tmp_path).cases:
        prepared = prepare(case, modalities, PreprocessConfig())
        assert prepared.label is not None
        labels = predict_labels(network, prepared.image, ValidationConfig().window)
        scores.append(dice(labels > 0, prepared.label > 0))

    assert fmean(scores) >= 0.80
