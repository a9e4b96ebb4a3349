"""The authors' network of made-up weights, its file, and `brainunet import` of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from brainunet.cli import main as brainunet
from tests.support.reference_network import ReferenceNetwork, reference_network
from tests.support.simulation import Ended, run

ORDER = ("--modalities", "t1c,t2w,t2f")
State = dict[str, Any]


_made = cache(reference_network)  # 90 MB: once for all files of tests


@pytest.fixture
def reference() -> ReferenceNetwork:
    return _made()


@pytest.fixture
def state(reference: ReferenceNetwork) -> State:
    return dict(reference.state_dict())


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def imported(file: Path, *arguments: str | Path) -> Ended:
    return run(brainunet, "import", file, "-o", file.with_name("model.safetensors"), *arguments)
