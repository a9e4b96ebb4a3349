"""A model's predictions for a folder of cases, scored on the full grid of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainunet.config import ValidationConfig, Window
from brainunet.data.cases import FoundCases, find_cases
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.errors import ConfigError
from brainunet.inference.predictor import predict_labels
from brainunet.labels import Convention, Modality
from brainunet.metrics.report import score_case
from brainunet.model import build, default_device, set_weights
from brainunet.modelfile import ModelCard, read_model
from brainunet.records import Case, CaseScore


@dataclass(frozen=True)
class ModelEvaluation:
    """What a model is, the window that it is asked in (None: one pass), and the cases to score it on."""

    card: ModelCard
    window: Window | None
    found: FoundCases
    works: Iterator[tuple[str, Callable[[], CaseScore]]]


def evaluate_model(
    path: Path, data: Path, convention: Convention | None, metrics: Sequence[str], asked: ValidationConfig | None = None
) -> ModelEvaluation:
    """The work of each case below ``data``, not begun: in the window of ``asked``, or else in the way the model was scored in.

    Raises:
        ConfigError: no model file, or a model for a modality that none of the cases has.
        DataError: no case.
    """
    weights, card = read_model(path)
    window = asked.window if asked else None if card.scored_in == "one-pass" else ValidationConfig().window
    network = build(card.model)
    set_weights(network, weights)
    network.to(default_device())
    found = find_cases(data, modalities=(), convention=convention)
    _require_modalities(path, card, found)

    def score(case: Case) -> CaseScore:
        prepared = prepare(case, card.model.modalities, card.preprocess)
        assert prepared.label is not None  # find_cases asked for it
        labels = predict_labels(network, prepared.image, window)
        predicted, truth = on_full_grid(labels, prepared), on_full_grid(prepared.label, prepared)
        return score_case(case.case_id, predicted, truth, prepared.spacing_mm, metrics)

    return ModelEvaluation(card, window, found, ((case.case_id, lambda case=case: score(case)) for case in found.cases))  # type: ignore[misc]


def on_full_grid(labels: npt.NDArray[np.uint8], prepared: PreparedCase) -> npt.NDArray[np.uint8]:
    """A label map of the crop (X, Y, Z), put back where it was cut out; background outside."""
    full = np.zeros(prepared.shape, np.uint8)
    full[tuple(slice(start, stop) for start, stop in prepared.box)] = labels
    return full


def _require_modalities(path: Path, card: ModelCard, found: FoundCases) -> None:
    if not found.cases:
        return
    present = {modality for case in found.cases for modality in case.images}
    absent = [modality.value for modality in card.model.modalities if modality not in present]
    if absent:
        raise ConfigError(
            path,
            found=f"model.modalities = {', '.join(card.model.modalities)}; no case has {', '.join(absent)}",
            expected=f"a model for what the cases have: {', '.join(m for m in Modality if m in present) or 'no modality'}",
            remedy="choose a model for these modalities, or add the files",
        )
