"""Training whose result hides any one case: DP-SGD with the case as its unit, one backward pass for each case.

M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133. A Poisson draw picks the cases of a
step; all patches of a case make one gradient; each gradient is clipped, the sum of them gets noise once, and the optimizer
steps. The sampler and the optimizer are Opacus' own, fed case by case: its hooks keep the gradients of a whole batch for every
layer, which for three-dimensional networks takes several times the time and the memory (benchmarks/dp_step.py).

The draw and the noise come from this machine alone. The seed of a task does not reach them: the coordinator knows it, and who
knows the noise can take it away again. Why it is done so: docs/adr/0025.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from brainunet.config import PrivacyConfig, TrainConfig
from brainunet.data.augment import augment_from
from brainunet.data.patches import PatchSource, draw_batch
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import ConfigError, PrivacyError
from brainunet.losses import Loss, loss_from
from brainunet.losses.proximal import add_proximal_gradient
from brainunet.model import choose_checkpointing, default_device, set_activation_checkpointing
from brainunet.model.forward import logits_of, memory_order
from brainunet.privacy.accounting import Charge
from brainunet.training.average import average_in
from brainunet.training.chance import Chance
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import TrainingDivergedError, learning_rate_at, optimizer_for
from brainunet.training.precision import uses_bf16
from brainunet.training.seeds import derive

log = logging.getLogger(__name__)


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
        norm = nn.utils.get_total_norm(gradients).item()
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


def _only_case_of(parameter: Any) -> Any:
    """The gradient of the one case in ``grad_sample``, None of an empty one."""
    sample = parameter.grad_sample
    if hasattr(sample, "_processed"):
        raise ValueError("the gradient of a case is there a second time")
    if len(sample) > 1:
        raise ValueError(f"{len(sample)} cases at once, where each is clipped by itself")
    sample._processed = True
    return sample[0] if len(sample) else None


@dataclass
class PrivateTraining:
    """A private training under way: all that a step reads and changes.

    Attributes:
        step: noise, rate and how many steps there are in all.
        last_loss: the mean over the cases of the last step that drew any; it stays at this machine.
        done: steps whose result is in ``network``.
    """

    network: nn.Module
    config: TrainConfig
    privacy: PrivacyConfig
    step: Charge
    device: torch.device
    half: bool
    loss_of: Loss
    optimizer: CaseOptimizer
    sources: Sequence[PatchSource]
    chance: Chance
    average: dict[str, Tensor] | None = None
    last_loss: float = 0.0
    losses: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        return len(self.losses)


def train_privately(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: TrainConfig,
    privacy: PrivacyConfig,
    step: Charge,
    *,
    before_step: Callable[[int], None],
    chance: Chance,
    proximal_mu: float = 0.0,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train ``network`` in place for ``step.steps`` noisy steps; what it then holds is all that may leave.

    A training that was cut off goes on from its checkpoint with fresh draws and noise, and the steps that it takes again are
    told to ``before_step`` again: of two noisy versions of one gradient both are counted, though only one can leave.

    Args:
        config: as of other trainings; ``privacy`` has its own clip and batch in the place of those here.
        step: the noise over the clip, and the probability with which a case is drawn.
        before_step: told the number (from 1) of each step before it is begun; what it raises ends the training. The place to
            write the step down as spent.
        chance: where draws, patches and noise come from.
        on_step: told the number of steps done and the last loss.

    Raises:
        ConfigError: a network or a loss in which cases change each other's gradients.
        PrivacyError: fewer cases than a step is meant to draw.
        TrainingDivergedError: noise or learning rate have made weights that are no numbers.
    """
    training = begin(network, cases, config, privacy, step, chance=chance)
    parameters = training.optimizer.params
    anchors = [p.detach().clone() for p in parameters] if proximal_mu else []
    # the pull depends on no case, so it is added when clip and noise are done
    training.optimizer.attach_step_hook(lambda _: add_proximal_gradient(parameters, anchors, proximal_mu))
    kept = checkpoint.restore(network, training.optimizer) if checkpoint else None
    if kept is not None:
        training.losses = list(kept.losses)
        average = kept.rest.get("average")
        training.average = None if average is None else {name: value.to(training.device) for name, value in average.items()}
    while training.done < step.steps:
        before_step(training.done + 1)
        take_private_step(training, learning_rate_at(training.done, config))
        on_step(training.done, training.last_loss)
        if checkpoint and training.done % checkpoint.every_steps == 0:
            checkpoint.save(training.done, training.losses, network, training.optimizer, {"average": training.average})
    if training.average is not None:
        network.load_state_dict(training.average)


def begin(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: TrainConfig,
    privacy: PrivacyConfig,
    step: Charge,
    *,
    chance: Chance,
) -> PrivateTraining:
    """A private training before its first step.

    Raises:
        ConfigError, PrivacyError: see :func:`train_privately`.
    """
    if len(cases) < privacy.cases_per_step:
        raise PrivacyError(
            "privacy",
            found=f"{len(cases)} cases to train on",
            expected=f"at least the {privacy.cases_per_step} that a step draws on average",
            remedy="add cases, or have the federation lower privacy.cases_per_step",
        )
    loss_of = loss_from(config.loss)
    require_separate_cases(network.train(), loss_of)
    device = default_device()
    network.to(device)
    network.to(memory_format=memory_order(network, device))  # type: ignore[call-overload] # true of modules, missing in torch's stubs
    batch = (privacy.patches_per_case, cases[0].image.shape[0], *config.patch)
    half = uses_bf16(config.precision, device, network, batch)
    set_activation_checkpointing(network, choose_checkpointing(network, batch, half=half, available=None))
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = CaseOptimizer(
        optimizer_for(parameters, config),
        noise_multiplier=step.noise,
        max_grad_norm=privacy.clip,
        expected_batch_size=privacy.cases_per_step,  # public; the size of the draw is not
    )
    optimizer.chance = chance
    return PrivateTraining(
        network, config, privacy, step, device, half, loss_of, optimizer, [PatchSource(case) for case in cases], chance
    )


def take_private_step(training: PrivateTraining, rate: float) -> None:
    """Draw cases, clip and add up their gradients, add noise, step at learning rate ``rate``. No case may be drawn: only noise.

    Raises:
        TrainingDivergedError: the weights are no longer numbers. The gradient of one case can't do that: one that is NaN or
            infinite counts as 0.
    """
    optimizer, network, total = training.optimizer, training.network, 0.0
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    drawn = draw(len(training.sources), training.step.rate, training.chance)
    for case in drawn:
        images, labels = _patches_of(training, case)
        images = images.to(training.device, memory_format=memory_order(network, training.device))
        with torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=training.half):
            logits = logits_of(network, images)
        loss = training.loss_of(logits, labels.to(training.device))
        loss.backward()  # type: ignore[no-untyped-call]
        del logits
        add_case(optimizer)
        total += loss.item()
    finish_step(optimizer)
    if not math.isfinite(nn.utils.get_total_norm(optimizer.params).item()):
        raise TrainingDivergedError(
            f"private training, step {training.done + 1}",
            found="weights that are no numbers",
            expected="finite numbers",
            remedy="lower train.learning_rate: with noise it must be smaller than without",
        )
    if training.config.average_decay:
        training.average = average_in(training.average, network, training.config.average_decay, training.done)
    if drawn:
        training.last_loss = total / len(drawn)
    training.losses.append(training.last_loss)


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


def _patches_of(training: PrivateTraining, case: int) -> tuple[Tensor, Tensor]:
    config, seed = training.config, training.chance.seed()
    images, labels = draw_batch(
        [training.sources[case]],
        np.random.default_rng(derive(seed, "patches")),
        size=training.privacy.patches_per_case,
        patch=config.patch,
        foreground_probability=config.foreground_probability,
    )
    changed: Any = augment_from(config.augment)(images, labels, derive(seed, "augment"))
    return changed[0], changed[1]
