"""The training loop, top to bottom: draw patches (or whole cases), augment, forward, backward, clip, step, average."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from brainunet.config import TrainConfig
from brainunet.data.patches import PatchSource
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.losses import Loss, loss_from
from brainunet.losses.proximal import add_proximal_gradient
from brainunet.memory import available_memory
from brainunet.model import choose_checkpointing, default_device, set_activation_checkpointing
from brainunet.model.forward import logits_of, memory_order
from brainunet.training.average import average_in
from brainunet.training.batches import Batch, batches
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.optimizer import learning_rate_at, optimizer_for
from brainunet.training.precision import uses_bf16
from brainunet.training.whole_cases import smallest_batches, takes_whole, whole_steps


class TrainingDivergedError(BrainUNetError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Trained:
    """What a training did: one loss per step, in order."""

    losses: tuple[float, ...]

    @property
    def mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)


@dataclass
class Training:
    """A training under way: all that a step reads and changes.

    Attributes:
        sources: the cases; seed: of patches and augmentation; workers: see :func:`train`.
        until: how many steps will be taken at most; None is ``config.steps``.
        batches: images (B, C, X, Y, Z) and labels (B, X, Y, Z), augmented; the place in it is that of ``losses``.
        whole: whether these are whole cases.
        anchors: the parameters that FedProx pulls to, none without a pull.
        average: name -> running mean of the weights; None keeps none.
        losses: one per step done.
        seconds: spent in steps.
        rest: what else is kept in the checkpoint, for the caller.
    """

    network: nn.Module
    config: TrainConfig
    device: torch.device
    order: torch.memory_format
    half: bool
    loss_of: Loss
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    sources: Sequence[PatchSource]
    seed: int
    until: int | None
    workers: int | None
    batches: Generator[Batch, None, None]
    whole: bool = False
    proximal_mu: float = 0.0
    anchors: list[Tensor] = field(default_factory=list)
    average: dict[str, Tensor] | None = None
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.losses)

    def close(self) -> None:
        """End the processes that make batches, if there are any."""
        self.batches.close()

    def save(self, checkpoint: Checkpoint) -> None:
        """
        Raises:
            BrainUNetError: the disk is full or the folder can't be written.
        """
        rest = {"average": self.average, "seconds": self.seconds, "rest": self.rest}
        checkpoint.save(self.done, self.losses, self.network, self.optimizer, rest)


def train(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: TrainConfig,
    *,
    seed: int,
    proximal_mu: float = 0.0,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    workers: int | None = None,
) -> Trained:
    """Train ``network`` in place for ``config.steps`` steps on patches of labelled ``cases``, the last ``config.whole_share``
    of them on whole cases.

    Every step draws from its own seed, so a run repeats exactly on one machine's CPU, and one that was cut off goes on from its
    checkpoint as if it had not been. With ``config.average_decay`` the network ends with the running mean of its weights.

    Args:
        seed: of patches and augmentation.
        proximal_mu: strength of FedProx's pull to the weights that ``network`` comes with.
        checkpoint: where to keep the state; removed by the caller once the result is safe.
        on_step: told the number of steps done and the last loss.
        workers: processes that prepare batches ahead; None decides for this machine. They change the time, never the result.

    Raises:
        ConfigError: no cases, an unknown loss, a patch so small that a norm sees a single voxel, or bf16 where it goes wrong.
        TrainingDivergedError: the loss or a gradient is NaN or infinite.
    """
    training = begin(network, cases, config, seed=seed, proximal_mu=proximal_mu, checkpoint=checkpoint, workers=workers)
    with closing(training):
        while training.done < config.steps:
            take_step(training, learning_rate_at(training.done, config), whole=takes_whole(training.done, config))
            on_step(training.done, training.losses[-1])
            if checkpoint and training.done % checkpoint.every_steps == 0:
                training.save(checkpoint)
    if training.average is not None:
        network.load_state_dict(training.average)
    return Trained(tuple(training.losses))


def begin(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: TrainConfig,
    *,
    seed: int,
    proximal_mu: float = 0.0,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
    workers: int | None = None,
) -> Training:
    """A training before its first step, or where its checkpoint left it.

    Close it when it is over: there may be processes behind its batches.

    Args:
        until: how many steps will be taken at most, if that is not ``config.steps``.
        workers: see :func:`train`.

    Raises:
        ConfigError: see :func:`train`.
    """
    if not cases:
        raise ConfigError("training", found="no labelled case", expected="at least one")
    device = default_device()
    network.train().to(device)
    order = memory_order(network, device)
    network.to(memory_format=order)  # type: ignore[call-overload] # true of modules, missing in torch's stubs
    parameters = [p for p in network.parameters() if p.requires_grad]
    sources = [PatchSource(case) for case in cases]
    # before the first step, for all that will be seen: a refusal must not come hours later
    half = all(uses_bf16(config.precision, device, network, batch) for batch in smallest_batches(config, sources))
    training = Training(
        network=network,
        config=config,
        device=device,
        order=order,
        half=half,
        loss_of=loss_from(config.loss),
        optimizer=optimizer_for(parameters, config),
        parameters=parameters,
        sources=sources,
        seed=seed,
        until=until,
        workers=workers,
        batches=_none(),
        proximal_mu=proximal_mu,
        anchors=[p.detach().clone() for p in parameters] if proximal_mu else [],
    )
    kept = checkpoint.restore(network, training.optimizer) if checkpoint else None
    if kept is not None:
        training.losses = list(kept.losses)
        average = kept.rest.get("average")
        training.average = None if average is None else {name: value.to(device) for name, value in average.items()}
        training.seconds = kept.rest.get("seconds", 0.0)
        training.rest = kept.rest.get("rest", {})
    supply(training, whole=False)
    return training


def supply(training: Training, *, whole: bool) -> None:
    """Have the batches that come next be of patches, or of whole cases."""
    training.close()
    config, network = training.config, training.network
    if whole:
        largest = max(training.sources, key=lambda source: source.voxels)
        batch = (1, *largest.image.shape)
        stop = config.steps
    else:
        batch = (config.batch_size, training.sources[0].image.shape[0], *config.patch)
        stop = config.steps - whole_steps(config)
    # the same numbers either way, so the machine may decide
    saving = choose_checkpointing(network, batch, half=training.half, available=_available(training.device))
    set_activation_checkpointing(network, saving)
    training.batches = batches(
        training.sources,
        config,
        seed=training.seed,
        start=training.done * config.accumulate,
        stop=(stop if training.until is None else training.until) * config.accumulate,
        workers=training.workers,
        whole=whole,
    )
    training.whole = whole


def _none() -> Generator[Batch, None, None]:
    yield from ()


def _available(device: torch.device) -> int | None:
    """Bytes that a step could take now; None where the system doesn't say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def take_step(training: Training, rate: float, *, whole: bool = False) -> None:
    """One optimizer step at learning rate ``rate``: the gradient's mean over ``config.accumulate`` batches.

    Args:
        whole: of whole cases, in place of patches.

    Raises:
        TrainingDivergedError: the loss or a gradient is NaN or infinite.
    """
    started = time.perf_counter()
    config = training.config
    if whole != training.whole:
        supply(training, whole=whole)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for _ in range(config.accumulate):
        images, labels = next(training.batches)
        images = images.to(training.device, memory_format=training.order)
        with torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=training.half):
            logits = logits_of(training.network, images)
        loss = training.loss_of(logits, labels.to(training.device)) / config.accumulate
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    add_proximal_gradient(training.parameters, training.anchors, training.proximal_mu)
    norm = nn.utils.clip_grad_norm_(training.parameters, config.gradient_clip)
    if not (math.isfinite(value) and math.isfinite(norm.item())):
        raise TrainingDivergedError(
            f"training, step {training.done + 1}",
            found=f"a loss of {value} with a gradient norm of {norm.item()}",
            expected="finite numbers",
            remedy="lower train.learning_rate, or set train.precision to fp32",
        )
    training.optimizer.step()
    if config.average_decay:
        training.average = average_in(training.average, training.network, config.average_decay, training.done)
    training.losses.append(value)
    training.seconds += time.perf_counter() - started
