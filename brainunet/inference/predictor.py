"""A label map for a prepared image: in one pass where memory allows, else in windows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainunet.inference.window import predict_in_windows

WINDOW = (128, 128, 128)
DEFAULT_MEMORY_MB = 3000
# Measured at the network's top level, where the maps are largest: inputs, skip, gate and block hold about this many of them.
LIVE_MAPS = 7


def predict_labels(
    network: nn.Module, image: npt.NDArray[np.float16], *, max_memory_mb: int = DEFAULT_MEMORY_MB
) -> npt.NDArray[np.uint8]:
    """image (C, X, Y, Z) -> label numbers (X, Y, Z). Sets the network to eval mode; uses the device it is on."""
    network.eval()
    parameter = next(network.parameters())
    with torch.inference_mode():
        tensor = torch.from_numpy(np.asarray(image, np.float32))[None].to(parameter.device)
        if parameter.device.type == "cpu":
            tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
        if one_pass_mb(network, image.shape[1:]) <= max_memory_mb:
            logits = network(tensor)
        else:
            logits = predict_in_windows(network, tensor, WINDOW)
        labels: npt.NDArray[np.uint8] = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels


def one_pass_mb(network: nn.Module, shape: tuple[int, ...]) -> float:
    """About how much memory one pass over (X, Y, Z) takes beside the weights, in MB, told by the width of its first level."""
    top = next(p.shape[0] for p in network.parameters() if p.ndim == 5)
    return LIVE_MAPS * top * math.prod(shape) * 4 / 1e6
