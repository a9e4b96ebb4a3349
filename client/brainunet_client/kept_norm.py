"""The normalisation that stays at its site: kept from round to round of one run (FedBN, Li et al. 2021, arXiv:2102.07623).

The file holds the values that the last training started from beside those that it made: a task that comes a second time (its
reply was lost, the machine went off) starts from where it started the first time, and gives the same reply to the bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Set
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
from safetensors.numpy import save

from brainunet.files import writing_aside
from brainunet.records import AnyTask
from brainunet.weights import FloatArray, Weights
from brainunet_client.site import Site

_METADATA: Final = "brainunet-norm"

log = logging.getLogger(__name__)


def kept_norm_file(site: Site, run: str) -> Path:
    """Where a run's normalisation is kept; no two runs share a file, not even on a disk that takes "a" and "A" for one name."""
    return site.work / f"norm-{_key(site, run)[:16]}.safetensors"


def with_kept_norm(task: AnyTask, site: Site, names: Set[str]) -> Weights:
    """The task's weights with this site's own values for ``names``: those that it had before this round of this run.

    Those received, where it has none yet or where they are damaged.
    """
    path = kept_norm_file(site, task.run)
    try:
        own = _read(path, task, site, names)
    except FileNotFoundError:
        return task.weights
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        log.warning("%s is damaged: this site's normalisation starts from the one received", path.name)
        return task.weights
    return Weights.of({**task.weights.as_dict(), **own})


def keep_norm(task: AnyTask, site: Site, names: Set[str], start: Weights, trained: Weights) -> None:
    """Keep the values of ``names`` that this round started from, and those that it made.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    moments = (("before", start.as_dict()), ("after", trained.as_dict()))
    arrays = {f"{moment}/{name}": np.ascontiguousarray(values[name]) for moment, values in moments for name in sorted(names)}
    told = {"key": _key(site, task.run), "round": task.round, "sha256": Weights.of(arrays).digest}
    with writing_aside(kept_norm_file(site, task.run)) as aside:
        aside.write_bytes(save(arrays, {_METADATA: json.dumps(told)}))


def without(names: Set[str], delta: Weights) -> Weights:
    """The delta with exact zeros for ``names``."""
    return Weights.of({name: np.zeros_like(array) if name in names else array for name, array in delta.as_dict().items()})


def _read(path: Path, task: AnyTask, site: Site, names: Set[str]) -> dict[str, FloatArray]:
    with safetensors.safe_open(path, framework="numpy") as file:
        told: dict[str, Any] = json.loads((file.metadata() or {})[_METADATA])
        # the order in which they were written, which safetensors does not keep
        kept = Weights.of(
            {f"{m}/{name}": file.get_tensor(f"{m}/{name}") for m in ("before", "after") for name in sorted(names)}
        )
    if told["key"] != _key(site, task.run) or told["sha256"] != kept.digest or not kept.is_finite():
        raise ValueError("not the values that were kept")
    moment = "after" if task.round > told["round"] else "before"
    own = {name: kept[f"{moment}/{name}"] for name in names}
    if any(array.shape != task.weights[name].shape for name, array in own.items()):
        raise ValueError("values of another network")
    return own


def _key(site: Site, run: str) -> str:
    return hashlib.sha256(f"{site.name} {run}".encode()).hexdigest()
