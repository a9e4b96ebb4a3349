"""A model file made ready to predict: which engine, in which precision, in one pass or in windows.

>>> from brainunet.starter import STARTER
>>> segmenter = open_segmenter(STARTER, EngineOptions(engine="torch", precision="fp32"))
>>> prediction = segmenter.predict(np.random.default_rng(0).normal(size=(3, 24, 20, 17)))
>>> prediction.probabilities.shape, prediction.labels.dtype.name, prediction.facts.way
((4, 24, 20, 17), 'uint8', 'windows')
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from brainunet.config import Window
from brainunet.errors import BrainUNetError, ConfigError, DataError
from brainunet.inference.plan import COSTS, Needs, Plan, plan, require_room
from brainunet.inference.prediction import Prediction, RunFacts, softmax
from brainunet.inference.window import FloatArray, places, predict_in_windows, window_sides
from brainunet.modelfile import ModelCard, read_model
from brainunet.presets import WIDTHS
from brainunet.weights import Weights

__all__ = ["EngineOptions", "Prediction", "RunFacts", "Segmenter", "open_segmenter"]

# Axes of (C, X, Y, Z) that are turned over, the patient's left and right first.
FLIPS: Final = tuple(axes for number in range(4) for axes in itertools.combinations((1, 2, 3), number))


@dataclass(frozen=True)
class EngineOptions:
    """How to predict; the defaults suit a machine that nobody described.

    Attributes:
        engine: "auto" is OpenVINO on a CPU where it is installed and knows the network, else PyTorch.
        precision: "auto" is bf16 where the processor has instructions for it and gets this network right, else fp32.
        threads: None leaves it to the engine.
        max_memory_bytes: of the whole program; the machine's free memory bounds it in any case.
        way: "auto" is the way in which the model was scored, and windows where one pass does not fit.
        window: sides of the windows; None is that of validation.
        tta: the mean of the eight predictions of the image turned over along each axis or none.
        device: "auto" is the CPU, and a GPU where the engine is PyTorch and there is one.
    """

    engine: Literal["auto", "openvino", "torch"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = None
    max_memory_bytes: int | None = None
    way: Literal["auto", "one-pass", "windows"] = "auto"
    window: Window | None = None
    tta: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Engine(Protocol):
    """What can run a network."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device_kind(self) -> str: ...
    @property
    def threads(self) -> int: ...

    def free_bytes(self) -> int | None:
        """What this program may take in all, where the network runs; None where that is not known."""

    def prepare(self, size: tuple[int, int, int]) -> None:
        """Make ready for inputs of ``size`` (X, Y, Z)."""

    def logits(self, image: FloatArray) -> FloatArray:
        """(C, X, Y, Z) of normalised intensities -> logits (L, X, Y, Z)."""


class Segmenter:
    """A model on an engine, for as many images as there are."""

    def __init__(self, card: ModelCard, weight_bytes: int, engine: Engine, options: EngineOptions, seconds_load: float) -> None:
        self.card = card
        self.options = options
        self.engine = engine
        self._needs = Needs(card.model.preset, weight_bytes, COSTS[engine.name, engine.precision])
        self._seconds_load = seconds_load

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, as on the card."""
        return self.card.weights_sha256

    def describe(self) -> dict[str, str | int]:
        """What runs here, for a report."""
        engine = self.engine
        return {
            "engine": engine.name,
            "engine_version": engine.version,
            "precision": engine.precision,
            "device": engine.device_kind,
            "threads": engine.threads,
            "model": self.card.title,
            "model_preset": self.card.model.preset,
            "model_sha256": self.digest,
        }

    def plan(self, size: tuple[int, int, int], beside_bytes: int = 0) -> Plan:
        """How an image of ``size`` (X, Y, Z) would be predicted, with ``beside_bytes`` of memory for the caller.

        Raises:
            TooLarge: it does not fit into memory.
        """
        options = self.options
        return plan(
            self._needs,
            size,
            usually=self.card.scored_in,
            way=None if options.way == "auto" else options.way,
            window=options.window,
            limit=self._limit(),
            beside=self._counted(beside_bytes),
        )

    def require_room(self, beside_bytes: int) -> None:
        """Pass if images of so many bytes could be read at all.

        Raises:
            TooLarge: they could not.
        """
        require_room(self._needs, self._counted(beside_bytes), self._limit())

    def _limit(self) -> int | None:
        limits = [bound for bound in (self.options.max_memory_bytes, self.engine.free_bytes()) if bound is not None]
        return min(limits, default=None)

    def _counted(self, beside_bytes: int) -> int:
        """On a GPU the network has a memory of its own."""
        return 0 if self.engine.device_kind == "cuda" else beside_bytes

    def predict(self, image: npt.NDArray[np.floating], beside_bytes: int = 0) -> Prediction:
        """image (C, X, Y, Z) as made by ``data.preprocess.prepare``: one channel for each modality of the model, in its order.

        Args:
            beside_bytes: of memory, that the caller needs now and after.

        Raises:
            DataError: another shape than the model takes, or NaN or infinite values.
            TooLarge: it does not fit into memory.
            BrainUNetError: the network's output is no number.
        """
        begun = time.perf_counter()
        whole = self._checked(image)
        size = (whole.shape[1], whole.shape[2], whole.shape[3])
        chosen = self.plan(size, beside_bytes)
        sides = size if chosen.window is None else window_sides(size, chosen.window)
        self.engine.prepare((sides[0], sides[1], sides[2]))
        ready = time.perf_counter()
        flips = FLIPS if self.options.tta else FLIPS[:1]
        probabilities = self._mean_over(flips, whole, chosen)
        engine = self.engine
        facts = RunFacts(
            engine=engine.name,
            precision=engine.precision,
            device=engine.device_kind,
            threads=engine.threads,
            way=chosen.way,
            window=chosen.window,
            passes=len(flips) * sum(1 for _ in places(size, sides)),
            estimated_bytes=chosen.estimated_bytes,
            seconds_load=self._seconds_load + ready - begun,
            seconds_network=time.perf_counter() - ready,
            warnings=chosen.warnings,
        )
        self._seconds_load = 0.0
        return Prediction(probabilities, facts)

    def _mean_over(self, flips: tuple[tuple[int, ...], ...], image: FloatArray, chosen: Plan) -> FloatArray:
        total: FloatArray | None = None
        for axes in flips:
            turned = np.ascontiguousarray(np.flip(image, axes))
            logits = self.engine.logits
            made = logits(turned) if chosen.window is None else predict_in_windows(logits, turned, chosen.window)
            probabilities = np.flip(softmax(made), axes)
            if total is None:
                total = probabilities
            else:
                total += probabilities
        assert total is not None
        if len(flips) > 1:
            total /= len(flips)
        if not np.isfinite(total).all():
            raise BrainUNetError(
                self.card.title,
                found="the network's output is not a number",
                expected="probabilities",
                remedy="try --precision fp32 or --engine torch, or fetch the model again",
            )
        return total

    def _checked(self, image: npt.NDArray[np.floating]) -> FloatArray:
        channels = len(self.card.model.modalities)
        if image.ndim != 4 or image.shape[0] != channels or min(image.shape) < 1:
            raise DataError(
                "image",
                found=f"an array of shape {image.shape}",
                expected=f"({channels}, X, Y, Z), a channel for each of {', '.join(self.card.model.modalities)}",
                remedy="prepare the case with the modalities of the model",
            )
        widths = WIDTHS.get(self.card.model.preset, (0,))
        if max(image.shape[1:]) <= 2 ** (len(widths) - 1):  # the network would halve it to a single voxel, which no norm bears
            raise DataError(
                "image",
                found=f"{' x '.join(map(str, image.shape[1:]))} voxels",
                expected=f"at least one side of more than {2 ** (len(widths) - 1)}",
                remedy="check that the brain in the files is whole",
            )
        whole = np.ascontiguousarray(image, np.float32)
        if not np.isfinite(whole).all():
            raise DataError(
                "image", found="NaN or infinite values", expected="numbers", remedy="check the files, and export them again"
            )
        return whole


def open_segmenter(model: Path, options: EngineOptions = EngineOptions()) -> Segmenter:
    """A model file, checked and made ready.

    Raises:
        ConfigError: no model file, or damaged; an engine, device or precision that is not there.
    """
    begun = time.perf_counter()
    weights, card = read_model(model)
    engine = _engine(model, card, weights, options)
    return Segmenter(card, weights.n_bytes, engine, options, time.perf_counter() - begun)


def _engine(model: Path, card: ModelCard, weights: Weights, options: EngineOptions) -> Engine:
    if options.engine == "openvino" and options.device == "cuda":
        raise ConfigError("device", found="cuda", expected="cpu with openvino", remedy="choose --engine torch for a GPU")
    if options.engine == "openvino" or (options.engine == "auto" and _suits_openvino(card, options)):
        from brainunet.inference.openvino_engine import open_openvino

        return open_openvino(model, card, weights, precision=options.precision, threads=options.threads)
    try:
        from brainunet.inference.torch_engine import open_torch
    except ImportError:
        raise ConfigError(
            "engine",
            found="neither openvino nor torch is installed",
            expected="one of them",
            remedy="install one: pip install 'brainunet-fl[infer]'",
        ) from None
    return open_torch(card, weights, precision=options.precision, threads=options.threads, device=options.device)


def _suits_openvino(card: ModelCard, options: EngineOptions) -> bool:
    if options.device == "cuda" or card.model.preset not in WIDTHS or find_spec("openvino") is None:
        return False
    return options.device == "cpu" or not _sees_gpu()


def _sees_gpu() -> bool:
    """Whether torch would find a GPU, without importing it: that takes seconds, and is not needed for OpenVINO."""
    return Path("/dev/nvidiactl").exists()
