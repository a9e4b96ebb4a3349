"""A label map for a prepared image, by the network that is being trained (docs/adr/0009 says in which windows)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from brainunet.config import Window
from brainunet.inference.prediction import largest
from brainunet.inference.torch_engine import TorchEngine
from brainunet.inference.window import predict_in_windows


def predict_labels(network: nn.Module, image: npt.NDArray[np.float16], window: Window | None) -> npt.NDArray[np.uint8]:
    """image (C, X, Y, Z) -> label numbers (X, Y, Z); ``window`` None takes the whole image in one pass.

    Sets the network to eval mode and uses the device it is on. In float32: all sites score a model in the same way.
    """
    engine = TorchEngine(network)
    whole = np.asarray(image, np.float32)
    return largest(engine.logits(whole) if window is None else predict_in_windows(engine.logits, whole, window))
