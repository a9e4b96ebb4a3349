"""`brainunet predict` for demonstrations: two cases, and the command with the model that ships with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainunet.cli import main as brainunet
from brainunet.starter import STARTER
from tests.support.balls import ball_case
from tests.support.simulation import Ended, run


def two_cases(folder: Path) -> Path:
    """One that is named SECRET below ``a``, and "Other-1" on another grid below ``b``."""
    ball_case(folder / "a", np.diag([-1.0, 1.0, 1.0, 1.0]), (40, 42, 44))
    ball_case(folder / "b", np.diag([1.0, 1.0, 2.0, 1.0]), (40, 40, 22), "Other-1")
    return folder


def predict(data: Path, out: Path, *more: str) -> Ended:
    known = ("--model", str(STARTER), "--engine", "torch", "--precision", "fp32", "--demo")
    return run(brainunet, "predict", "-i", str(data), "-o", str(out), *known, *more)
