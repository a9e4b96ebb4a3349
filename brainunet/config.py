"""The typed configuration tree (how files and options become one: ``brainunet.settings``).

The shared part (:class:`ModelConfig`, :class:`PreprocessConfig`, :class:`TrainConfig`, :class:`ValidationConfig`) travels
inside each task, so that a hospital never edits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.presets import AUGMENT_PRESETS
from brainunet.settings import Settings, nearest

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
PatchSide = Annotated[int, Field(ge=16, le=256, multiple_of=8)]
Window: TypeAlias = tuple[PatchSide, PatchSide, PatchSide]
Way: TypeAlias = Literal["windows", "one-pass"]  # how an image goes through a network (docs/adr/0009)
Local: TypeAlias = Literal["none", "norm"]  # which parameters stay with each site
Range: TypeAlias = tuple[FiniteFloat, FiniteFloat]


def Within(low: float, high: float) -> AfterValidator:  # noqa: N802 # stands in annotations, beside Field
    """A range that ascends and lies between ``low`` and ``high``."""

    def check(given: tuple[float, float]) -> tuple[float, float]:
        first, last = given
        if first > last:
            raise ValueError(f"goes from {first} down to {last}: write the smaller number first")
        if first < low or last > high:
            raise ValueError(f"should lie within {low:g} to {high:g}")
        return given

    return AfterValidator(check)


class ModelConfig(Settings):
    """Which network: enough to build it and to know what it eats."""

    preset: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9-]+$")] = "brainunet"
    norm: Literal["group", "batch", "instance"] = "group"
    modalities: tuple[Modality, ...] = DEFAULT_MODALITIES

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if not modalities or len(set(modalities)) < len(modalities):
            raise ValueError("name at least one modality, and each only once")
        return modalities


class PreprocessConfig(Settings):
    """How raw intensities become the network's input (see ``brainunet.data.preprocess``)."""

    clip_percentiles: tuple[Annotated[float, Field(ge=0, lt=50)], Annotated[float, Field(gt=50, le=100)]] = (0.5, 99.5)
    crop_margin_voxels: Annotated[int, Field(ge=0, le=64)] = 4


class LossConfig(Settings):
    """A line of ``brainunet.losses.LOSSES`` and its numbers; ``weights`` one per label, background first."""

    name: str = "tversky+cross_entropy"
    alpha: NonNegative = 0.3
    beta: NonNegative = 0.7
    weights: tuple[NonNegative, NonNegative, NonNegative, NonNegative] | None = None
    smooth_voxels: Positive = 1.0
    cross_entropy_share: Probability = 0.5

    @field_validator("weights")
    @classmethod
    def _some_label_counts(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not any(weights):
            raise ValueError("every label weighs 0: give at least one a weight")
        return weights


class AugmentConfig(Settings):
    """Random changes to a training patch; each probability 0 switches one off (see ``brainunet.data.augment``).

    ``preset`` names a line of ``AUGMENT_PRESETS`` and stands for its numbers: they take the place of all that was set before,
    and settings beside it win over it. What is resolved holds the numbers and not the name.

    Attributes:
        flip_probability: of each axis.
        affine_probability: of one scaling and one rotation together.
        scale_range: factors, the same on the three axes.
        rotation_degrees: at most so far about each axis, either way.
        motion_probability: of a head that moves while k-space is filled; each modality moves in its own way.
        motion_count: how often it moves.
        motion_degrees: at most so far about each axis, either way.
        motion_shift_mm: at most so far along each axis, either way.
        ghosting_probability: of faint copies along one axis, another one for each modality.
        ghosting_range: strength; at 1 the lines of k-space that make ghosts are missing, beyond it they are turned over.
        bias_probability: of an uneven coil, the same for all modalities.
        bias_coefficient: largest coefficient of the polynomial whose exponential is the field.
        blur_probability: of Gaussian smoothing.
        blur_range_mm: its standard deviation along each axis.
        noise_probability: of Gaussian noise.
        noise_range: its standard deviation; that of the brain is 1.
        anisotropy_probability: of slices that are thicker than the voxels they are written in.
        through_plane_range: thickness from foot to head, in voxels.
        in_plane_range: size of a voxel within the slice, in voxels.
        gamma_probability: of a change of contrast.
        log_gamma_range: logarithm of the exponent.
        dropout_probability: of modalities that are missing (0 everywhere); the last one is never dropped.
        dropout_most: at most so many are.
    """

    preset: Annotated[str | None, Field(exclude=True)] = None
    flip_probability: Probability = 0.5
    affine_probability: Probability = 0.3
    scale_range: Annotated[Range, Within(0.25, 4)] = (0.85, 1.15)
    rotation_degrees: Annotated[FiniteFloat, Field(ge=0, le=180)] = 0.0
    motion_probability: Probability = 0.0
    motion_count: Annotated[int, Field(ge=1, le=8)] = 3
    motion_degrees: Annotated[FiniteFloat, Field(ge=0, le=45)] = 5.0
    motion_shift_mm: Annotated[FiniteFloat, Field(ge=0, le=30)] = 3.0
    ghosting_probability: Probability = 0.0
    ghosting_range: Annotated[Range, Within(0, 3)] = (0.5, 1.5)
    bias_probability: Probability = 0.0
    bias_coefficient: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.5
    blur_probability: Probability = 0.0
    blur_range_mm: Annotated[Range, Within(0, 5)] = (0.5, 1.5)
    noise_probability: Probability = 0.0
    noise_range: Annotated[Range, Within(0, 3)] = (0.0, 0.33)
    anisotropy_probability: Probability = 0.0
    through_plane_range: Annotated[Range, Within(1, 12)] = (2.0, 6.0)
    in_plane_range: Annotated[Range, Within(1, 4)] = (1.0, 1.2)
    gamma_probability: Probability = 0.3
    log_gamma_range: Annotated[Range, Within(-3, 3)] = (-0.3, 0.3)
    dropout_probability: Probability = 0.0
    dropout_most: Annotated[int, Field(ge=1, le=3)] = 1

    @property
    def most_missing(self) -> int:
        """How many modalities a network that was trained so has learned to do without.

        >>> AugmentConfig().most_missing, AugmentConfig(dropout_probability=0.1, dropout_most=2).most_missing
        (0, 2)
        """
        return self.dropout_most if self.dropout_probability > 0 else 0

    @classmethod
    def unfold(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """``values`` with the numbers of their preset; a name that is not known is left for the validator to refuse."""
        preset = values.get("preset")
        if not isinstance(preset, str) or preset not in AUGMENT_PRESETS:
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        own = {name: value for name, value in values.items() if name != "preset"}
        return {**defaults, **AUGMENT_PRESETS[preset], **own}

    @model_validator(mode="before")
    @classmethod
    def _numbers_of_the_preset(cls, values: Any) -> Any:
        return cls.unfold(values) if isinstance(values, Mapping) else values

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str | None) -> None:
        if preset is not None:
            raise ValueError(f"no preset of this name ({nearest(preset, AUGMENT_PRESETS)})")


class TrainConfig(Settings):
    """Local work of one round, counted in optimizer steps so that every site does the same amount.

    Attributes:
        accumulate: batches whose gradients make one step: a larger batch in the same memory.
        average_decay: share of the running mean of the weights that each step keeps; 0 ends with the last step's weights.
        whole_share: the last part of the training (of its steps, at least one; of its minutes, where it goes by the clock)
            takes each case whole, one to a batch whatever ``batch_size`` says, as one pass over a brain sees it
            (docs/adr/0009). Such a step needs memory for the largest case: a brain of 144 x 176 x 144 voxels takes four times
            that of a patch of 96 x 96 x 96.
    """

    steps: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1, le=64)] = 2  # on CPUs torch's fast 3D convolutions need two samples or large maps
    patch: Window = (64, 64, 64)
    foreground_probability: Probability = 0.67
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    gradient_clip: Positive = 1.0
    accumulate: Annotated[int, Field(ge=1, le=256)] = 1
    average_decay: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.0
    whole_share: Probability = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()


SITE_METRICS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "dice": (0, 1),
        "hd95_mm": (0, 10_000),
        "nsd_0_5mm": (0, 1),
        "nsd_1mm": (0, 1),
        "lesion_dice": (0, 1),
        "lesion_hd95_mm": (0, 10_000),
    }
)
"""The metrics that a site may tell each round, and the bounds of their figures (docs/adr/0016). They judge the model; those of
``brainunet.metrics.METRICS`` that describe a patient (volumes, numbers of lesions) stay at the site."""


class ValidationConfig(Settings):
    """How a site scores the weights it receives.

    Attributes:
        window: side lengths of the windows; None ("none" in a file) takes each case in one pass (see docs/adr/0009).
        min_cases: with fewer validation cases a site withholds its figures, with fewer training cases its loss (a site's own
            setting may ask for more).
        metrics: names from SITE_METRICS; dice is always among them, since rounds are compared by it.
    """

    window: Window | None = (96, 96, 96)
    min_cases: Annotated[int, Field(ge=1, le=1000)] = 1
    metrics: Annotated[tuple[str, ...], Field(max_length=32)] = ("dice",)

    @property
    def way(self) -> Way:
        """What the window comes to.

        >>> ValidationConfig().way, ValidationConfig(window=None).way
        ('windows', 'one-pass')
        """
        return "one-pass" if self.window is None else "windows"

    @field_validator("window", mode="before")
    @classmethod
    def _none_in_words(cls, window: object) -> object:
        return None if window == "none" else window  # TOML knows no other way to say it

    @field_validator("metrics")
    @classmethod
    def _may_be_told(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for name in metrics:
            if name not in SITE_METRICS:
                raise ValueError(f"{name} is not a metric that sites tell ({nearest(name, SITE_METRICS)})")
        if "dice" not in metrics or len(set(metrics)) < len(metrics):
            raise ValueError("name dice, by which rounds are compared, and each metric only once")
        return metrics


class PrivacyConfig(Settings):
    """Differential privacy of each case: what the federation proposes, and each site enforces (docs/adr/0025).

    Attributes:
        epsilon: how much all rounds of a run may tell of any one case of a site, at most.
        delta: the chance with which that may fail; no more than 1 over the cases of a site.
        rounds: in so many rounds a site can take part before its epsilon is reached; None is all rounds of the run.
        clip: length to which the gradient of each case is cut; within what single precision can add noise to.
        cases_per_step: how many cases a step draws on average.
        patches_per_case: patches of a case that make its gradient.
        secure_noise: take draws and noise from the system's secure source, number by number (slower).
    """

    epsilon: Annotated[FiniteFloat, Field(gt=0, le=1e6)] = 8.0
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 1e-3
    rounds: Annotated[int, Field(ge=1, le=10_000)] | None = None
    clip: Annotated[FiniteFloat, Field(ge=1e-4, le=1e4)] = 1.0
    cases_per_step: Annotated[int, Field(ge=1, le=4096)] = 4
    patches_per_case: Annotated[int, Field(ge=1, le=64)] = 1
    secure_noise: bool = False


class StrategyConfig(Settings):
    """A line of the server's STRATEGIES and its numbers.

    Attributes:
        proximal_mu: pull towards the global weights (fedprox).
        server_learning_rate: step along the sites' mean change (fedadam, fedyogi, fedavgm).
        momentum: share of the last steps kept (fedavgm; the first moment of fedadam and fedyogi).
        second_momentum: share of the last squared steps kept (fedadam, fedyogi).
        adaptivity: added to the root of the second moment (fedadam, fedyogi).
        trimmed_share: cut off at each end before averaging (fedtrimmedavg).
        malicious_sites: how many sites may be hostile (multikrum).
        max_site_share: no site weighs more than this share of a mean, however many cases it has; 1.0 sets no cap.
        local: "norm" leaves each site its own normalisation parameters (FedBN, Li et al. 2021, arXiv:2102.07623).
    """

    name: str = "fedavg"
    proximal_mu: Annotated[FiniteFloat, Field(ge=0, le=100)] = 0.01
    server_learning_rate: Positive | None = None
    momentum: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.9
    second_momentum: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.99
    adaptivity: Positive = 1e-3
    trimmed_share: Annotated[FiniteFloat, Field(ge=0, lt=0.5)] = 0.2
    malicious_sites: Annotated[int, Field(ge=0)] = 0
    max_site_share: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    local: Local = "none"
