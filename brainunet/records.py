"""The types that cross package borders, all frozen.

Two families, and the difference is the privacy border:

* what stays at its site: :class:`Case`, :class:`Volume`, :class:`CaseScore` are plain dataclasses, and ``brainunet.wire``
  refuses to pack them;
* what may travel: :data:`Task` and :data:`Reply` (and what they hold) are strict pydantic records without a field that could
  carry a path, a case id or an exception's text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from brainunet.config import (
    SITE_METRICS,
    Local,
    ModelConfig,
    PreprocessConfig,
    PrivacyConfig,
    TrainConfig,
    ValidationConfig,
)
from brainunet.labels import Convention, Modality
from brainunet.weights import Weights

# One more whenever a task or a reply changes, the settings in a task included: unknown ones are refused at a site.
PROTOCOL: Final = 3

Structure: TypeAlias = Literal["ET", "TC", "WT", "NETC", "SNFH"]  # a region, or a label scored alone (ET is both)


@dataclass(frozen=True)
class Case:
    """One study of one patient on disk; ``label`` is None for a case to segment."""

    case_id: str
    images: Mapping[Modality, Path]
    label: Path | None
    convention: Convention


@dataclass(frozen=True)
class Problem:
    """Why a case (or a file) was left out, in words for a person at the site."""

    case_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Volume:
    """array (X, Y, Z), its affine (4, 4) from voxel to RAS+ millimetres, and the voxel's sides."""

    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class CaseScoreRow:
    """One figure of one case; ``value`` None says why in ``reason``."""

    structure: Structure
    metric: str
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class CaseScore:
    """The figures of one case. Never crosses the wire."""

    case_id: str
    rows: tuple[CaseScoreRow, ...]


class Record(BaseModel):
    """Something that may leave a site: strict, frozen, no unknown field, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


Count = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=1e9)]
Figure = Annotated[FiniteFloat, Field(ge=-1e9, le=1e9)]  # sums of any number of them stay finite
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Version = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9.+_-]+$")]
# Of a site's ledger of spending: the digest of its last entry, empty where there is none.
LedgerHead = Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{64})?$")]
# The values travel beside the header as one flat array (see brainunet.wire), never inside the JSON.
WeightsField = Annotated[Weights, Field(exclude=True)]


class ScoreRow(Record):
    """One metric over a site's validation cases: mean and median of the ``n`` that have a value, ``missing`` that have none.

    Without a mean and with ``n`` > 0 the figure is withheld: too few cases have a value. Of a few more the mean is told and
    the median is not (see ``brainunet.metrics.summary.site_score``).
    """

    structure: Structure
    metric: Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9_]+$")]
    mean: Figure | None
    median: Figure | None
    n: Count
    missing: Count

    @model_validator(mode="after")
    def _a_figure_is_of_something(self) -> ScoreRow:
        figures = [figure for figure in (self.mean, self.median) if figure is not None]
        if self.n == 0 and figures:
            raise ValueError("a figure of no case")
        low, high = SITE_METRICS.get(self.metric, (-math.inf, math.inf))
        if not all(low <= figure <= high for figure in figures):
            raise ValueError(f"{self.metric} outside {low:g} to {high:g}")
        return self


class SiteScore(Record):
    """A site's figures over its validation cases: no case ids, no minimum or maximum.

    ``withheld``: there are too few cases behind the figures to tell them, so there are no rows.
    """

    cases: Count
    rows: Annotated[tuple[ScoreRow, ...], Field(max_length=256)]
    withheld: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _rows_agree(self) -> SiteScore:
        if self.withheld and self.rows:
            raise ValueError("withheld, and yet there are figures")
        if len({(row.structure, row.metric) for row in self.rows}) < len(self.rows):
            raise ValueError("one figure twice")
        if any(row.n + row.missing > self.cases for row in self.rows):
            raise ValueError("figures of more cases than there are")
        return self


class CaseCounts(Record):
    train: Count
    validation: Count


class PrivacySpend(Record):
    """What private training has cost, from a site's own ledger; it depends on no case but on numbers that were agreed on.

    Attributes:
        epsilon: of all rounds of this run at this site so far, at ``delta``.
        noise_multiplier: of this round's steps: noise over clip; sample_rate: with which a case was drawn.
        steps: of this round, with those that were taken again after an interruption.
        total_epsilon: of all runs and models of the site so far, at ``total_delta``.
        ledger_head: of the ledger after this round, with ``ledger_entries`` entries; the coordinator returns it in its tasks.
    """

    epsilon: Annotated[FiniteFloat, Field(ge=0)]
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    noise_multiplier: Annotated[FiniteFloat, Field(ge=0)]
    sample_rate: Annotated[FiniteFloat, Field(ge=0, le=1)]
    steps: Count
    accountant: Literal["rdp"] = "rdp"
    total_epsilon: Annotated[FiniteFloat, Field(ge=0)] | None = None
    total_delta: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = None
    ledger_head: LedgerHead = ""
    ledger_entries: Count = 0


class FaultCode(StrEnum):
    """All that a site says about a failure. The exception's own text stays in the site's log: it can name a patient."""

    NO_USABLE_CASES = "no_usable_cases"
    TASK_NOT_UNDERSTOOD = "task_not_understood"
    MODEL_DOES_NOT_FIT = "model_does_not_fit"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    TRAINING_DIVERGED = "training_diverged"
    OUTSIDE_HOURS = "outside_hours"
    TOO_LATE = "too_late"
    SITE_NOT_READY = "site_not_ready"
    PRIVACY_REFUSED = "privacy_refused"
    BUDGET_SPENT = "budget_spent"
    INTERNAL = "internal"


class Message(Record):
    """What every task and reply says about itself; ``round`` counts from 1 and names the exchange."""

    protocol: Literal[3] = PROTOCOL
    run: Name
    round: Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class Task(Message):
    """``answer_within_s``: how long the coordinator waits, counted from its sending; None sets no limit. ``demo``: it is for a
    demonstration, in which cases that are marked as made up may take part.

    ``ledger_head``: the last head of the site's ledger of spending that the coordinator has; the site looks for it there.
    """

    model: ModelConfig
    preprocess: PreprocessConfig
    validation: ValidationConfig = ValidationConfig()
    answer_within_s: Annotated[int, Field(strict=True, ge=1, le=31_536_000)] | None = None
    local: Local = "none"
    demo: Annotated[bool, Field(strict=True)] = False
    ledger_head: LedgerHead = ""
    weights: WeightsField


class TrainTask(Task):
    """Score these weights on the validation cases, then train from them; with ``privacy`` so that no case can be told."""

    kind: Literal["train_task"] = "train_task"
    train: TrainConfig
    privacy: PrivacyConfig | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    proximal_mu: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _noise_is_for_a_number_of_rounds(self) -> TrainTask:
        if self.privacy is not None and self.privacy.rounds is None:
            raise ValueError("privacy without the number of its rounds")
        return self


class EvaluateTask(Task):
    """Only score these weights (the last round's model, or a site that does not train)."""

    kind: Literal["evaluate_task"] = "evaluate_task"


class TrainReply(Message):
    """What training gave: ``score`` belongs to the weights received, ``delta`` and ``loss`` to the training after it.

    ``loss`` is None of fewer training cases than the site tells figures of: that of one case is a patient's own. Of private
    training (``spend``) nothing is told but the delta, which has the noise, and numbers that were public before: no loss, no
    seconds (they count the cases that were drawn), and as ``cases.train`` the number that the site declared once.
    """

    kind: Literal["train_reply"] = "train_reply"
    delta: WeightsField
    cases: CaseCounts
    score: SiteScore
    loss: Figure | None
    seconds: Seconds | None
    spend: PrivacySpend | None = None
    client_version: Version

    @model_validator(mode="after")
    def _noise_is_not_bypassed(self) -> TrainReply:
        if self.spend is not None and (self.loss is not None or self.seconds is not None):
            raise ValueError("a loss or seconds of private training")
        return self


class EvaluateReply(Message):
    """``budget_spent``: training was asked for, and the site's budget of privacy bears no more."""

    kind: Literal["evaluate_reply"] = "evaluate_reply"
    budget_spent: Annotated[bool, Field(strict=True)] = False
    cases: CaseCounts
    score: SiteScore
    seconds: Seconds
    client_version: Version


class Fault(Message):
    """The site could not do the task."""

    kind: Literal["fault"] = "fault"
    code: FaultCode


AnyTask: TypeAlias = TrainTask | EvaluateTask
Reply: TypeAlias = TrainReply | EvaluateReply | Fault
