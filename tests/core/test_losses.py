"""What every loss promises, and the numbers of each by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from brainunet.config import LossConfig
from brainunet.errors import ConfigError
from brainunet.labels import LABELS, Label
from brainunet.losses import LOSSES, loss_from
from brainunet.losses.cross_entropy import CrossEntropy
from brainunet.losses.proximal import add_proximal_gradient
from brainunet.losses.tversky import Tversky

SHAPE = (4, 4, 4)


def truth_of(label: int, *, batch: int = 1) -> Tensor:
    return torch.full((batch, *SHAPE), label, dtype=torch.uint8)


def mixed_truth(seed: int, *, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(LABELS), (batch, *SHAPE), generator=generator, dtype=torch.uint8)


def random_logits(seed: int, *, batch: int = 1, spread: float = 3) -> Tensor:
    return spread * torch.randn(batch, len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(seed))


def sure_of(truth: Tensor, confidence: float = 20) -> Tensor:
    return confidence * nn.functional.one_hot(truth.long(), len(LABELS)).movedim(-1, 1).float()


def probabilities(*per_voxel: tuple[float, ...]) -> Tensor:
    """Logits (1, L, N, 1, 1) whose softmax is given, voxel by voxel."""
    return torch.tensor(per_voxel).log().T[None, :, :, None, None]


def labels(*per_voxel: int) -> Tensor:
    return torch.tensor(per_voxel)[None, :, None, None]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "truth",
    [truth_of(Label.BACKGROUND), *(truth_of(label) for label in LABELS[1:]), mixed_truth(0) % 3],
    ids=["no tumour", "all NETC", "all SNFH", "all ET", "ET missing"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 3.0, 1e4])
def test_value_and_gradient_are_finite_whatever_is_absent(name: str, truth: Tensor, dtype: torch.dtype, scale: float) -> None:
    logits = random_logits(1, spread=scale).to(dtype).requires_grad_()

    value = loss_from(LossConfig(name=name))(logits, truth)
    value.backward()  # type: ignore[no-untyped-call]

    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert value.item() >= 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 1.5)])
def test_a_perfect_prediction_costs_next_to_nothing_and_less_than_a_random_one(
    name: str, weights: tuple[float, ...] | None
) -> None:
    loss_of, truth = loss_from(LossConfig(name=name, weights=weights)), mixed_truth(2)

    perfect, random, opposite = (
        loss_of(logits, truth).item() for logits in (sure_of(truth), random_logits(3), sure_of((truth + 1) % 4))
    )

    assert perfect < 1e-3
    assert perfect < random < opposite


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 2**16), batch=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_the_value_of_a_batch_is_the_mean_of_its_samples_values(name: str, seed: int, batch: int) -> None:
    loss_of = loss_from(LossConfig(name=name, weights=(0.5, 1.0, 2.0, 1.5)))
    logits, truth = random_logits(seed, batch=batch), mixed_truth(seed, batch=batch)
    truth[0] = 0  # one sample without tumour among others with one

    alone = torch.stack([loss_of(logits[i : i + 1], truth[i : i + 1]) for i in range(batch)])

    torch.testing.assert_close(loss_of(logits, truth), alone.mean())


@pytest.mark.parametrize("name", LOSSES)
def test_one_sample_s_gradient_does_not_depend_on_another_sample(name: str) -> None:
    loss_of, truth = loss_from(LossConfig(name=name)), mixed_truth(4, batch=2)
    gradients = []
    for companion in (5, 6):
        logits = torch.cat([random_logits(7), random_logits(companion)]).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(logits, truth), logits)
        gradients.append(gradient[0])

    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name: str) -> None:
    loss_of, truth = loss_from(LossConfig(name=name)), mixed_truth(8)
    logits = random_logits(9).requires_grad_()
    before = loss_of(logits, truth)
    (gradient,) = torch.autograd.grad(before, logits)

    assert loss_of(logits - gradient, truth) < before


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"train\.loss\.name: tverski is not known \(did you mean tversky\?\)"):
        loss_from(LossConfig(name="tverski"))


def test_tversky_on_two_voxels_by_hand() -> None:
    # voxel 1 is NETC and predicted so with 0.6; voxel 2 is background and predicted NETC with 0.2
    logits = probabilities((0.4, 0.6, 0.0, 0.0), (0.8, 0.2, 0.0, 0.0))
    truth = labels(1, 0)

    only_netc = Tversky(alpha=0.3, beta=0.7, weights=(0, 1, 0, 0), smooth_voxels=1)(logits, truth)
    every_tumour = Tversky(alpha=0.3, beta=0.7, smooth_voxels=1)(logits, truth)

    # hit 0.6, false positive 0.2, false negative 0.4: (0.6 + 1) / (0.6 + 0.06 + 0.28 + 1)
    assert only_netc.item() == pytest.approx(1 - 1.6 / 1.94, abs=1e-6)
    # SNFH and ET are absent from both and cost nothing; three labels share the weight
    assert every_tumour.item() == pytest.approx((1 - 1.6 / 1.94) / 3, abs=1e-6)


def test_alpha_is_the_price_of_claiming_too_much_and_beta_of_missing() -> None:
    too_much, too_little, truth = (
        probabilities((0, 1, 0, 0), (0, 1, 0, 0)),
        probabilities((1, 0, 0, 0), (1, 0, 0, 0)),
        labels(1, 0),
    )

    def cost(logits: Tensor, alpha: float, beta: float) -> float:
        return Tversky(alpha, beta, weights=(0, 1, 0, 0))(logits, truth).item()

    assert cost(too_much, 0.3, 0.7) == pytest.approx(1 - 2 / 2.3)
    assert cost(too_little, 0.3, 0.7) == pytest.approx(1 - 1 / 1.7)
    assert cost(too_much, 0.7, 0.3) > cost(too_much, 0.3, 0.7)
    assert cost(too_little, 0.7, 0.3) < cost(too_little, 0.3, 0.7)
    # alpha = beta = 1/2 is soft Dice: 2 TP / (2 TP + FP + FN), here with one smoothing voxel
    assert cost(too_much, 0.5, 0.5) == pytest.approx(1 - 2 / 2.5)


def test_the_authors_class_weights_are_shares_of_the_whole() -> None:
    logits, truth = random_logits(10), mixed_truth(10)
    one_label = [Tversky(weights=tuple(float(i == label) for i in LABELS))(logits, truth).item() for label in LABELS]

    weighted = Tversky(weights=(0.5, 1, 2, 1.5))(logits, truth).item()

    assert weighted == pytest.approx(sum(w * value for w, value in zip((0.1, 0.2, 0.4, 0.3), one_label, strict=True)))
    assert Tversky(weights=(5, 10, 20, 15))(logits, truth).item() == pytest.approx(weighted)


def test_cross_entropy_on_two_voxels_by_hand() -> None:
    logits, truth = probabilities((0.5, 0.25, 0.125, 0.125), (0.25, 0.5, 0.125, 0.125)), labels(0, 2)

    assert CrossEntropy()(logits, truth).item() == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert CrossEntropy((1, 0, 0.3, 0))(logits, truth).item() == pytest.approx((math.log(2) + 0.3 * math.log(8)) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_do_not_coarsen_the_class_weights(name: str) -> None:
    weights, truth = (0.1, 0.3, 0.7, 1.1), mixed_truth(11)
    logits = random_logits(11).bfloat16()
    loss_of = loss_from(LossConfig(name=name, weights=weights))

    torch.testing.assert_close(loss_of(logits, truth), loss_of(logits.float(), truth), rtol=1e-6, atol=0)


def test_the_blend_is_the_stated_share_of_each() -> None:
    logits, truth = random_logits(12), mixed_truth(12)

    def cost(**numbers: float) -> float:
        return loss_from(LossConfig(name="tversky+cross_entropy", **numbers))(logits, truth).item()

    tversky, entropy = cost(cross_entropy_share=0), cost(cross_entropy_share=1)
    assert tversky == pytest.approx(Tversky()(logits, truth).item())
    assert entropy == pytest.approx(CrossEntropy()(logits, truth).item())
    assert cost(cross_entropy_share=0.25) == pytest.approx(0.75 * tversky + 0.25 * entropy)


@given(mu=st.floats(0, 10), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_the_proximal_gradient_is_that_of_the_term_in_the_paper(mu: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (4,))]
    received = [torch.randn(p.shape, generator=generator) for p in parameters]
    task_loss = torch.stack([((p - 1) ** 2).sum() for p in parameters]).sum()
    distance = torch.stack([((p - w) ** 2).sum() for p, w in zip(parameters, received, strict=True)]).sum()
    expected = torch.autograd.grad(task_loss + mu / 2 * distance, parameters, retain_graph=True)

    torch.autograd.backward(task_loss)
    add_proximal_gradient(parameters, received, mu)

    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_a_parameter_that_does_not_train_is_not_pulled() -> None:
    frozen = nn.Parameter(torch.ones(2))

    add_proximal_gradient([frozen], [torch.zeros(2)], 1.0)

    assert frozen.grad is None
