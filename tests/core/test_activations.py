"""Activation checkpointing changes how much is kept, and no number."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brainunet.model import choose_checkpointing, set_activation_checkpointing
from brainunet.model.activations import step_bytes
from tests.support.nets import Norm, network
from tests.support.pace import first_fast

NORMS: tuple[Norm, ...] = get_args(Norm)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def after_a_step(norm: Norm, on: bool, *, half: bool = False, size: tuple[int, ...] = (16, 24, 13)) -> dict[str, Tensor]:
    """Logits, gradients, and all that a batch norm counts, after one forward and backward pass."""
    made = network(norm=norm).train()
    assert set_activation_checkpointing(made, on)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = made(noise(2, 3, *size))
    F.cross_entropy(logits.float(), torch.ones(2, *size, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert len(gradients) == len(list(made.parameters()))
    return {"logits": logits.detach(), **gradients, **dict(made.named_buffers())}


@pytest.mark.parametrize("half", first_fast(True, False))
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_and_running_statistics_are_the_same_with_and_without(norm: Norm, half: bool) -> None:
    size = (32, 40, 32) if half else (16, 24, 13)  # in bfloat16 a short side is not the same twice: oneDNN reads beyond it
    without, with_it = (after_a_step(norm, on, half=half, size=size) for on in (False, True))

    assert without.keys() == with_it.keys()
    for name, value in without.items():
        assert torch.equal(with_it[name], value), f"{name}: {(with_it[name] - value).abs().max()}"


def test_a_batch_norm_counts_each_batch_once() -> None:
    counters = [value for name, value in after_a_step("batch", True).items() if name.endswith("num_batches_tracked")]

    assert len(counters) == 23
    assert all(value.item() == 1 for value in counters)


def test_after_a_step_every_batch_norm_has_its_own_buffers() -> None:
    made = network(norm="batch").train()
    before = {name: id(value) for name, value in made.named_buffers()}
    set_activation_checkpointing(made, True)
    made(noise(1, 3, 16, 16, 16)).sum().backward()

    assert {name: id(value) for name, value in made.named_buffers()} == before


def kept_bytes(on: bool) -> int:
    """What autograd holds between the forward and the backward pass."""
    made = network().train()
    set_activation_checkpointing(made, on)
    sizes: dict[int, int] = {}
    held = []

    def note(saved: Tensor) -> Tensor:
        held.append(saved)
        sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        made(noise(1, 3, 32, 32, 32))
    return sum(sizes.values()) - sum(p.untyped_storage().nbytes() for p in made.parameters())


def test_much_less_is_kept_for_the_backward_pass() -> None:
    assert kept_bytes(True) < 0.3 * kept_bytes(False)


def test_it_can_be_switched_off_again_and_does_nothing_in_evaluation() -> None:
    made = network().eval()
    image = noise(1, 3, 16, 16, 16)
    before = made(image)

    set_activation_checkpointing(made, True)
    assert torch.equal(made(image), before)
    set_activation_checkpointing(made, False)
    assert not any(getattr(module, "checkpoint_activations", False) for module in made.modules())


def test_a_network_that_cannot_says_so() -> None:
    assert not set_activation_checkpointing(nn.Conv3d(3, 4, 1), True)


def test_the_estimate_grows_with_the_patch_and_halves_its_activations_in_bfloat16() -> None:
    made = network()
    small, large, half = (
        step_bytes(made, (1, 3, side, side, side), half=half) for side, half in ((32, False), (64, False), (64, True))
    )
    weights = 4 * 4 * sum(p.numel() for p in made.parameters())

    assert large - weights == pytest.approx(8 * (small - weights), rel=0.01)
    assert half - weights == pytest.approx((large - weights) / 2, rel=0.01)


def test_the_paper_s_network_at_128_is_estimated_as_it_was_measured() -> None:
    with torch.device("meta"):
        made = network("brainunet")

    # measured: 22.1 maps of 64 channels at the most, beside weights and gradients (benchmarks/training_memory.py)
    estimate = step_bytes(made, (1, 3, 128, 128, 128), half=False) - 4 * 91_345_332

    assert estimate == pytest.approx(22.1 * 64 * 128**3 * 4, rel=0.1)


def test_auto_saves_memory_only_where_the_estimate_exceeds_what_is_there() -> None:
    made, batch = network(), (1, 3, 32, 32, 32)
    needed = step_bytes(made, batch, half=False)

    assert choose_checkpointing(made, batch, half=False, available=needed - 1)
    assert not choose_checkpointing(made, batch, half=False, available=needed)
    assert not choose_checkpointing(made, batch, half=False, available=None)
    assert not choose_checkpointing(nn.Conv3d(3, 4, 1), batch, half=False, available=0)
