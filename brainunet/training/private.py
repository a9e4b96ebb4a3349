"""Training whose result hides any one case: DP-SGD with the case as its unit, one backward pass for each case.

M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133. A Poisson draw picks the cases of a
step; all patches of a case make one gradient; each gradient is clipped, the sum of them gets noise once, and the optimizer
steps (``case_by_case``).

The draw and the noise come from this machine alone. The seed of a task does not reach them: the coordinator knows it, and who
knows the noise can take it away again. Why it is done so: docs/adr/0025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainunet.config import PrivacyConfig, TrainConfig
from brainunet.data.augment import augment_from
from brainunet.data.patches import PatchSource, draw_batch
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import PrivacyError
from brainunet.losses import Loss, loss_from
from brainunet.losses.proximal import add_proximal_gradient
from brainunet.model import choose_checkpointing, default_device, set_activation_checkpointing
from brainunet.model.forward import logits_of, memory_order
from brainunet.privacy.accounting import Charge
from brainunet.training.average import average_in
from brainunet.training.case_by_case import CaseOptimizer, add_case, draw, finish_step, require_separate_cases
from brainunet.training.chance import Chance
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import TrainingDivergedError
from brainunet.training.optimizer import learning_rate_at, optimizer_for
from brainunet.training.precision import uses_bf16
from brainunet.training.seeds import derive


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
