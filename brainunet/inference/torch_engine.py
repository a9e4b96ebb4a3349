"""The network in eager PyTorch: on a GPU, where OpenVINO is missing, and while training validates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
import torch
from torch import nn

from brainunet.errors import ConfigError
from brainunet.inference.trust import agree, trial_image, wrong_in_bf16
from brainunet.inference.window import FloatArray
from brainunet.memory import for_this_program
from brainunet.model import build, default_device, set_weights
from brainunet.model.forward import has_bf16_instructions, memory_order
from brainunet.modelfile import ModelCard
from brainunet.weights import Weights

TRIAL_SIDE: Final = 64


class TorchEngine:
    """A network that takes and gives numpy; sets it to eval mode and uses the device it is on.

    Args:
        half: in bfloat16 by autocast.
        threads: of the CPU; None leaves torch's own number.
    """

    name: Final = "torch"

    def __init__(self, network: nn.Module, *, half: bool = False, threads: int | None = None) -> None:
        self.device = next(network.parameters()).device
        self.order = memory_order(network, self.device)
        self.network = network.eval().to(memory_format=self.order)  # type: ignore[call-overload]
        self.half = half
        self.asked_threads = threads

    @property
    def version(self) -> str:
        return torch.__version__

    @property
    def precision(self) -> str:
        return "bf16" if self.half else "fp32"

    @property
    def threads(self) -> int:
        return self.asked_threads or torch.get_num_threads()

    @property
    def device_kind(self) -> str:
        return self.device.type

    def free_bytes(self) -> int | None:
        """What this program may take in all: on a GPU of its memory, else of the machine's."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0]) + int(torch.cuda.memory_reserved(self.device))
        return for_this_program()

    def prepare(self, size: tuple[int, int, int]) -> None:
        """Nothing: torch takes any size as it comes."""

    def logits(self, image: FloatArray) -> FloatArray:
        """(C, X, Y, Z) of normalised intensities -> logits (L, X, Y, Z)."""
        kind = self.device.type
        with torch.inference_mode(), _threads(self.asked_threads), torch.autocast(kind, torch.bfloat16, enabled=self.half):
            tensor = torch.from_numpy(np.array(image, np.float32))[None].to(self.device, memory_format=self.order)
            logits: FloatArray = self.network(tensor)[0].float().cpu().numpy()
        return logits


def open_torch(
    card: ModelCard,
    weights: Weights,
    *,
    precision: Literal["auto", "fp32", "bf16"],
    threads: int | None,
    device: Literal["auto", "cpu", "cuda"],
) -> TorchEngine:
    """The network of a model file on the CPU or a GPU.

    Raises:
        ConfigError: no GPU; bf16 on a processor that gets it wrong; weights that don't fit the card's architecture.
    """
    network = build(card.model)
    set_weights(network, weights)
    place = _device(device)
    network.to(place)
    full = TorchEngine(network, threads=threads)
    if precision == "fp32" or (precision == "auto" and not has_bf16_instructions(place)):
        return full
    half = TorchEngine(network, half=True, threads=threads)
    if agree(half.logits, full.logits, trial_image(len(card.model.modalities), TRIAL_SIDE)):
        return half
    if precision == "bf16":
        raise wrong_in_bf16()
    return full


def _device(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device", found="cuda, which torch does not see", expected="cpu or auto", remedy="leave --device to auto"
        )
    return default_device() if asked == "auto" else torch.device(asked)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch has one number of threads for the whole process, so it is put back."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)
