"""The network in OpenVINO on a CPU: several times as fast there as eager PyTorch."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from brainunet.errors import ConfigError
from brainunet.inference.openvino_graph import graph_of, openvino
from brainunet.inference.trust import agree, trial_image, wrong_in_bf16
from brainunet.inference.window import FloatArray
from brainunet.memory import for_this_program
from brainunet.modelfile import ModelCard
from brainunet.presets import WIDTHS
from brainunet.weights import Weights

TRIAL_SIDE: Final = 64


class OpenVinoEngine:
    """A graph that takes and gives numpy. It is compiled for one size of input at a time: a graph for any size is slower.

    Args:
        graph: for inputs (1, C, X, Y, Z) whose sides are multiples of ``stride``.
        threads: of the CPU; None leaves OpenVINO's own number.
    """

    name: Final = "openvino"
    device_kind: Final = "cpu"

    def __init__(self, graph: Any, stride: int, *, half: bool = False, threads: int | None = None) -> None:
        self._library = openvino()
        self._core = self._library.Core()
        self._graph = graph
        self._stride = stride
        self._half = half
        self._asked_threads = threads
        self._sides: tuple[int, ...] = ()
        self._request: Any = None

    @property
    def version(self) -> str:
        return str(self._library.__version__)

    @property
    def precision(self) -> str:
        return "bf16" if self._half else "fp32"

    @property
    def threads(self) -> int:
        if self._request is not None:
            return int(self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS"))
        return self._asked_threads or 0

    def free_bytes(self) -> int | None:
        """What this program may take in all."""
        return for_this_program()

    def prepare(self, size: tuple[int, int, int]) -> None:
        """Compile the graph for inputs of ``size`` (X, Y, Z), padded."""
        sides = tuple(-(-side // self._stride) * self._stride for side in size)
        if sides == self._sides:
            return
        self._request = None  # its memory goes before the next takes its own
        graph = self._graph.clone()
        graph.reshape([1, graph.inputs[0].get_partial_shape()[1], *sides])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._half else "f32",
            **({} if self._asked_threads is None else {"INFERENCE_NUM_THREADS": self._asked_threads}),
        }
        self._request = self._core.compile_model(graph, "CPU", settings).create_infer_request()
        self._sides = sides

    def logits(self, image: FloatArray) -> FloatArray:
        """(C, X, Y, Z) of normalised intensities -> logits (L, X, Y, Z); zeros fill up the sides, as in the network itself."""
        x, y, z = image.shape[1:]
        self.prepare((x, y, z))
        padded = np.zeros((1, image.shape[0], *self._sides), np.float32)
        padded[0, :, :x, :y, :z] = image
        made = self._request.infer({0: padded}, share_inputs=True, share_outputs=True)[0]
        return np.array(made[0, :, :x, :y, :z], np.float32)


def open_openvino(
    model: Path,
    card: ModelCard,
    weights: Weights,
    *,
    precision: Literal["auto", "fp32", "bf16"],
    threads: int | None,
    cache: Path | None = None,
) -> OpenVinoEngine:
    """The network of a model file on the CPU.

    Raises:
        ConfigError: bf16 on a processor that gets it wrong or has none, or a network that OpenVINO does not take.
    """
    if card.model.preset not in WIDTHS:
        raise ConfigError(
            "engine",
            found=f"openvino, for the network {card.model.preset}",
            expected=f"one of {', '.join(WIDTHS)}",
            remedy="leave --engine to auto, or choose torch",
        )
    stride = 2 ** (len(WIDTHS[card.model.preset]) - 1)
    graph = graph_of(model, card, weights, cache)
    full = OpenVinoEngine(graph.network, stride, threads=threads)
    if precision == "fp32" or (precision == "auto" and not _has_bf16()):
        return full
    half = OpenVinoEngine(graph.network, stride, half=True, threads=threads)

    def is_right() -> bool:
        return agree(half.logits, full.logits, trial_image(len(card.model.modalities), TRIAL_SIDE))

    if graph.remembered(f"bf16 is right on {_processor()}", is_right):
        return half
    if precision == "bf16":
        raise wrong_in_bf16()
    return full


def _has_bf16() -> bool:
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _processor() -> str:
    """Its name and all that OpenVINO says it can do: another one may get wrong what this one gets right."""
    core = openvino().Core()
    can = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} ({platform.machine()}; {', '.join(can)})"
