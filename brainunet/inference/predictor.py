"""A label map for a prepared image, in windows of about the size that the network was trained on (docs/adr/0009)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainunet.config import Window
from brainunet.inference.window import predict_in_windows


def predict_labels(network: nn.Module, image: npt.NDArray[np.float16], window: Window | None) -> npt.NDArray[np.uint8]:
    """image (C, X, Y, Z) -> label numbers (X, Y, Z); ``window`` None takes the whole image in one pass.

    Sets the network to eval mode and uses the device it is on.
    """
    network.eval()
    parameter = next(network.parameters())
    with torch.inference_mode():
        tensor = torch.from_numpy(np.asarray(image, np.float32))[None].to(parameter.device)
        if parameter.device.type == "cpu":
            tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
        logits = network(tensor) if window is None else predict_in_windows(network, tensor, window)
        labels: npt.NDArray[np.uint8] = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels
