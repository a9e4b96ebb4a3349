"""The training loop, top to bottom: draw patches, augment, forward, backward, clip, step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from brainunet.config import TrainConfig
from brainunet.data.patches import PatchSource
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.losses import loss_from
from brainunet.losses.proximal import add_proximal_gradient
from brainunet.model import default_device
from brainunet.training.batches import batches
from brainunet.training.checkpoint import Checkpoint

WRONG_GRADIENT = 0.05  # of its largest entry; bfloat16's own rounding stays below 0.02
SHORT_SIDE = 4  # below it a 3x3x3 convolution can reach over two borders at once


class TrainingDivergedError(BrainUNetError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Trained:
    """What a training did: one loss per step, in order."""

    losses: tuple[float, ...]

    @property
    def mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)


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
    """Train ``network`` in place for ``config.steps`` steps on patches of labelled ``cases``.

    Every step draws from its own seed, so a run repeats exactly on one machine's CPU, and one that was cut off goes on from its
    checkpoint as if it had not been.

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
    if not cases:
        raise ConfigError("training", found="no labelled case", expected="at least one")
    device = default_device()
    network.train().to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # true of modules, missing in torch's stubs
    loss_of = loss_from(config.loss)
    sources = [PatchSource(case) for case in cases]
    parameters = [p for p in network.parameters() if p.requires_grad]
    anchors = [p.detach().clone() for p in parameters] if proximal_mu else []
    optimizer = optimizer_for(parameters, config)
    batch = (config.batch_size, cases[0].image.shape[0], *config.patch)
    half = uses_bf16(config.precision, device, network, batch)
    done, losses = checkpoint.restore(network, optimizer) if checkpoint else (0, [])

    # the loop alone holds the iterator, so that its workers end with it, by an error too
    for step, (images, labels) in enumerate(batches(sources, config, seed=seed, start=done, workers=workers), start=done):
        images = images.to(device, memory_format=torch.channels_last_3d)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = _logits(network, images)
        loss = loss_of(logits, labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        add_proximal_gradient(parameters, anchors, proximal_mu)
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            raise TrainingDivergedError(
                f"training, step {step + 1}",
                found=f"a loss of {value} with a gradient norm of {norm.item()}",
                expected="finite numbers",
                remedy="lower train.learning_rate, or set train.precision to fp32",
            )
        optimizer.step()
        losses.append(value)
        on_step(step + 1, value)
        if checkpoint and (step + 1) % checkpoint.every_steps == 0:
            checkpoint.save(step + 1, losses, network, optimizer)
    return Trained(tuple(losses))


def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    try:
        logits: torch.Tensor = network(images)
        return logits
    except ValueError as error:  # of a norm whose channel has shrunk to one voxel
        raise ConfigError(
            "train.patch", found=str(error), expected="a patch that this network can halve", remedy="choose larger sides"
        ) from None


def optimizer_for(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The rate of step ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0 after the last step.

    >>> config = TrainConfig(steps=10, warmup_steps=2, schedule="cosine", learning_rate=1.0)
    >>> [round(learning_rate_at(step, config), 3) for step in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def uses_bf16(precision: str, device: torch.device, network: nn.Module, batch: Sequence[int]) -> bool:
    """Whether to autocast to bfloat16; "auto" does so where the hardware has instructions for it and the gradients are right.

    Args:
        batch: the shape (B, C, X, Y, Z) of what ``network`` will be trained on.

    Raises:
        ConfigError: "bf16" on a CPU where a gradient of this network would be wrong.
    """
    if precision == "fp32" or (precision == "auto" and not _has_bf16_instructions(device)):
        return False
    wrong = wrong_in_bf16(network, batch) if device.type == "cpu" else None
    if wrong and precision == "bf16":
        raise ConfigError(
            "train.precision",
            found=f"bf16, in which this processor gets the gradient of {wrong} wrong",
            expected="fp32 or auto for patches this small",
            remedy="set train.precision to auto, or choose larger sides for train.patch",
        )
    return wrong is None


def wrong_in_bf16(network: nn.Module, batch: Sequence[int]) -> str | None:
    """The first convolution whose gradients in bfloat16 on this CPU are not those in float32, in words; None if all are right.

    A processor's flags don't tell: oneDNN 3.12 for AVX-512 takes the weight gradient of a padded 3x3x3 convolution over two
    slices from the wrong slice and from memory behind the last one, and by its source the same code serves processors that
    have instructions for bfloat16 but no AMX. So every convolution is tried once, on numbers of its own.

    Args:
        batch: the shape (B, C, X, Y, Z) of the network's input.
    """
    twin = copy.deepcopy(network).to("meta")  # shapes without arithmetic; the network itself stays as it is
    seen: dict[tuple[str, tuple[int, ...]], tuple[str, nn.Module]] = {}

    def note(name: str, layer: nn.Module, x: torch.Tensor) -> None:
        shape = tuple(x.shape)
        if min(shape[2:]) >= SHORT_SIDE:  # a short one is tried as it is: how it is shared among threads matters too
            shape = (min(shape[0], 2), shape[1], SHORT_SIDE, SHORT_SIDE, SHORT_SIDE)
        seen.setdefault((repr(layer), shape), (name, layer))

    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_pre_hook(lambda layer, inputs, name=name: note(name, layer, *inputs))
    _logits(twin, torch.empty(*batch, device="meta"))
    for (_, shape), (name, layer) in seen.items():
        if not _same_gradients_in_bf16(layer.to_empty(device="cpu"), shape):
            return f"{name} over {' x '.join(str(side) for side in shape[2:])} voxels"
    return None


def _same_gradients_in_bf16(layer: nn.Module, shape: Sequence[int]) -> bool:
    generator = torch.Generator().manual_seed(0)
    parameters = list(layer.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.requires_grad_(True).normal_(generator=generator)
    x = torch.randn(*shape, generator=generator).to(memory_format=torch.channels_last_3d).requires_grad_(True)

    def gradients(*, half: bool) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            y = layer(x)
        towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        return torch.autograd.grad(y, [x, *parameters], towards)

    pairs = zip(gradients(half=True), gradients(half=False), strict=True)
    # "not <=" of the largest difference: a NaN is wrong too
    return all(bool((ours - true).abs().max() <= WRONG_GRADIENT * true.abs().max()) for ours, true in pairs)


def _has_bf16_instructions(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has = torch.cpu.get_capabilities()
    return any(bool(has.get(feature)) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
