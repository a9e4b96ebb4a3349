"""Opacus' sampler, optimizer and validator for one case at a time: who is drawn, and how clip and noise come to a gradient.

Opacus' hooks keep the gradients of a whole batch for every layer, which for three-dimensional networks takes several times the
time and the memory (benchmarks/dp_step.py). So each case is handed to its optimizer as a batch of one, clipped and added up
before the next one is looked at. Why it is done so: docs/adr/0025.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from brainunet.errors import ConfigError
from brainunet.losses import Loss
from brainunet.training.chance import Chance

_PIECE: Final = 2**14  # numbers whose squares are added in single precision


class CaseOptimizer(DPOptimizer):  # type: ignore[misc] # Opacus is not typed
    """Opacus' optimizer for one case at a time, with this project's noise.

    Opacus clips by copies of every gradient, and draws its noise from a generator that 32 bits of seed decide.
    """

    chance: Chance

    def clip_and_accumulate(self) -> None:
        """As Opacus does for a batch of one, in one pass over the gradients; a batch of none adds 0."""
        gradients = [_only_case_of(parameter) for parameter in self.params]
        if gradients[0] is None:
            for parameter in self.params:
                if parameter.summed_grad is None:
                    parameter.summed_grad = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            return
        norm = length_of(gradients)
        # of a gradient that is no number nothing is taken: 0 times it would be none either
        factor = min(1.0, self.max_grad_norm / (norm + 1e-6)) if math.isfinite(norm) else None
        for parameter, gradient in zip(self.params, gradients, strict=True):
            if parameter.summed_grad is not None:
                if factor is not None:
                    parameter.summed_grad.add_(gradient, alpha=factor)
            else:
                parameter.summed_grad = gradient.zero_() if factor is None else gradient.mul_(factor)

    def add_noise(self) -> None:
        for parameter in self.params:
            if hasattr(parameter.summed_grad, "_processed"):
                raise ValueError("gradients of an earlier step are still there: call zero_grad() first")
            noise = self.chance.normal_like(parameter.summed_grad, self.noise_multiplier * self.max_grad_norm)
            parameter.grad = noise.add_(parameter.summed_grad)
            parameter.summed_grad._processed = True


def length_of(gradients: Iterable[Tensor]) -> float:
    """The length of all gradients together as one vector; infinite or NaN if a number of them is (or is about to be).

    In single precision the sum of the squares of some million equal numbers comes out a hundredth too small or too large: a
    case could then do more than its clip allows. So they are summed piece by piece, and the pieces in double precision.
    """
    total = 0.0
    for gradient in gradients:
        strides = gradient.stride()
        as_it_lies = gradient.permute(sorted(range(gradient.dim()), key=lambda axis: -strides[axis]))  # no copy
        pieces = torch.split(as_it_lies.flatten(), _PIECE)
        total += float(torch.stack([torch.linalg.vector_norm(piece) for piece in pieces]).double().square().sum())
    return math.sqrt(total)


def _only_case_of(parameter: Any) -> Any:
    """The gradient of the one case in ``grad_sample``, None of an empty one."""
    sample = parameter.grad_sample
    if hasattr(sample, "_processed"):
        raise ValueError("the gradient of a case is there a second time")
    if len(sample) > 1:
        raise ValueError(f"{len(sample)} cases at once, where each is clipped by itself")
    sample._processed = True
    return sample[0] if len(sample) else None


def draw(cases: int, rate: float, chance: Chance) -> list[int]:
    """The cases of one step: each with probability ``rate``, whatever the others do; maybe none."""
    if chance.system:
        return [case for case in range(cases) if chance.uniform() < rate]
    generator = torch.Generator().manual_seed(chance.seed())
    return list(next(iter(UniformWithReplacementSampler(num_samples=cases, sample_rate=rate, generator=generator, steps=1))))


def add_case(optimizer: DPOptimizer) -> None:
    """Clip the gradient that lies in the parameters, of one case, and add it to the step's sum; the gradient is let go."""
    for parameter in optimizer.params:
        given = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad_sample = given.unsqueeze(0)
    optimizer.signal_skip_step(do_skip=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def finish_step(optimizer: DPOptimizer) -> None:
    """Add the noise to the sum of the cases that were added, and step; the sum of none is 0."""
    for parameter in optimizer.params:
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
    optimizer.signal_skip_step(do_skip=False)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def require_separate_cases(network: nn.Module, loss_of: Loss) -> None:
    """Pass if no case can change what another one's gradient is; ``network`` must be in training mode.

    Raises:
        ConfigError: batch norm (or running statistics), or a loss that is no mean over its samples.
    """
    problems = ModuleValidator.validate(network, strict=False)
    if problems:
        layers = sorted({type(m).__name__ for m in network.modules() if "BatchNorm" in type(m).__name__})
        raise ConfigError(
            "model.norm",
            found=f"{', '.join(layers)}, in which the cases of a batch change each other" if layers else str(problems[0])[:200],
            expected='norm "group" (any preset of BrainUNet has it), which sees one case at a time',
            remedy='start the run from a model with model.norm = "group": the gradient of a case would depend on the others of '
            "its batch, and no clipping could hide it",
        )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 6, 6, generator=generator)
    truth = torch.randint(0, 4, (2, 6, 6, 6), generator=generator)
    truth[0, :3] = 0  # two samples that differ much, so that a sum over both would show
    together = loss_of(logits, truth)
    apart = (loss_of(logits[:1], truth[:1]) + loss_of(logits[1:], truth[1:])) / 2
    if together.ndim or not math.isclose(together.item(), apart.item(), rel_tol=1e-4, abs_tol=1e-6):
        raise ConfigError(
            "train.loss.name",
            found="a loss over a batch that is not the mean of its samples' losses",
            expected="one that takes each sample by itself",
            remedy="choose another loss: a gradient that depends on two cases can't be clipped for each",
        )
