"""Where a private training takes its chance from: what it must hide behind, so no seed of a federation reaches it."""

from __future__ import annotations

import math
import os
import secrets
from typing import Final

import numpy as np
import torch
from torch import Tensor

_AT_ONCE: Final = 2**22  # numbers; what is drawn in one piece from the system takes 8 bytes each


class Chance:
    """Draws, seeds and normal noise.

    Args:
        system: everything comes from the system's own source (``os.urandom``), a stream that nobody can guess, and the noise is
            made of four draws for each number, against attacks on the gaps between floating-point numbers (I. Mironov, "On
            Significance of the Least Significant Bits For Differential Privacy", CCS 2012; N. Holohan and S. Braghin, 2021,
            arXiv:2107.10138, as Opacus' secure mode). Slower: see benchmarks/dp_step.py.
        seed: repeats a simulation. It protects nothing, for who knows the seed knows the noise. None takes 128 bits from the
            system, which nobody can try out; but a generator of this kind is not made to withstand an attacker.
    """

    def __init__(self, *, system: bool = False, seed: int | None = None) -> None:
        if system and seed is not None:
            raise ValueError("a seed for what must not repeat")
        self.system = system
        self._generator = np.random.default_rng(secrets.randbits(128) if seed is None else seed)

    def seed(self) -> int:
        """A fresh seed of 63 bits."""
        return secrets.randbits(63) if self.system else int(self._generator.integers(2**63))

    def uniform(self) -> float:
        """At least 0, below 1, of 53 bits."""
        return secrets.randbits(53) / 2**53 if self.system else float(self._generator.random())

    def normal_like(self, like: Tensor, deviation: float) -> Tensor:
        """Independent normal numbers of mean 0, in shape, order of memory and place those of ``like``."""
        if deviation == 0:
            return torch.zeros_like(like)
        made = torch.empty_like(like, dtype=torch.float32, device="cpu")
        flat = made.as_strided((made.numel(),), (1,))  # dense in whatever order: all numbers are alike
        if not self.system:
            self._generator.standard_normal(out=flat.numpy(), dtype=np.float32)
        else:
            for start in range(0, flat.numel(), _AT_ONCE):
                part = flat[start : start + _AT_ONCE]
                part.copy_(_from_system(part.numel()))
        return made.mul_(deviation).to(like)


def _from_system(size: int) -> Tensor:
    """Normal numbers (size,): half the sum of four, each by the method of Box and Muller."""
    total = torch.zeros(size, dtype=torch.float64)
    for _ in range(2):  # a pair each
        bits = np.frombuffer(os.urandom(16 * size), np.uint64).reshape(2, size) >> np.uint64(11)
        first, second = torch.from_numpy((bits.astype(np.float64) + 0.5) / 2**53)
        radius, angle = torch.sqrt(-2 * torch.log(first)), 2 * math.pi * second
        total += radius * torch.cos(angle) + radius * torch.sin(angle)
    return total / 2
