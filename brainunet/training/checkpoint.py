"""Where a training stands, on disk: enough to go on to the same result after kill -9."""

from __future__ import annotations

import hashlib
import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from brainunet.errors import ConfigError
from brainunet.files import writing_aside

log = logging.getLogger(__name__)

_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError)


@dataclass(frozen=True)
class Kept:
    """Steps done, their losses, and what else was kept."""

    step: int
    losses: list[float]
    rest: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the last saved step of one training; ``purpose`` names that training in every detail that matters.

    A file made for another purpose (other weights, settings or seed) is not taken up.

    Attributes:
        alone: no other training has its checkpoint here, so one of another purpose is this one's, begun otherwise: an error.
    """

    path: Path
    purpose: str
    every_steps: int = 25
    alone: bool = False

    def save(
        self,
        step: int,
        losses: list[float],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        rest: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write aside, then rename: the earlier state stays until the new one is whole.

        Args:
            rest: what else belongs to the state: tensors, numbers, text, and lists and dicts of them.

        Raises:
            BrainUNetError: the disk is full or the folder can't be written.
        """
        state = {
            "purpose": self._key(),
            "step": step,
            "losses": losses,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rest": dict(rest),
        }
        with writing_aside(self.path) as aside, aside.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch hides a full disk behind a complaint about its archive
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Kept | None:
        """Put network and optimizer where they stood; None, and nothing changed, if there is no state of this training.

        Raises:
            ConfigError: a state of another training where there should be none (``alone``).
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                if damaged := archive.testzip():  # torch reads on over a wrong checksum
                    raise zipfile.BadZipFile(damaged)
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if self.alone and state["purpose"] != self._key():
                raise ConfigError(
                    self.path,
                    found="a training begun from another model, or by another version of brainunet",
                    expected="the one that goes on",
                    remedy="put back what it was begun with, or begin anew by --overwrite",
                )
            if state["purpose"] != self._key() or _shapes(state["network"]) != _shapes(network.state_dict()):
                return None
            kept = Kept(int(state["step"]), list(state["losses"]), dict(state["rest"]))
            if len(kept.losses) != kept.step:
                raise ValueError("another number of losses than of steps")
            optimizer.load_state_dict(state["optimizer"])
            network.load_state_dict(state["network"])
            return kept
        except FileNotFoundError:
            return None
        except (*_UNREADABLE, RuntimeError, LookupError, TypeError, ValueError, AttributeError):
            log.warning("%s is damaged: this training starts from its first step", self.path.name)
            return None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _key(self) -> str:
        return hashlib.sha256(self.purpose.encode()).hexdigest()


def _shapes(state: dict[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
