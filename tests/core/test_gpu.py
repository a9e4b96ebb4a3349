"""What is promised on a CUDA GPU: the same network, trained and applied there, in mixed precision and within its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainunet.config import TrainConfig
from brainunet.inference.predictor import predict_labels
from brainunet.model import set_activation_checkpointing, weights_of
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import begin, take_step, train
from brainunet.training.precision import uses_bf16
from tests.support.nets import network
from tests.support.prepared import prepared_case

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")]
CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]


def config(**numbers: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 60, "patch": (16, 16, 16), "learning_rate": 3e-3, **numbers})


def test_auto_is_mixed_precision_where_the_gpu_has_it_and_the_tumour_is_learnt() -> None:
    made = network()
    half = uses_bf16("auto", torch.device("cuda"), made, (2, 3, 16, 16, 16))
    assert half is torch.cuda.is_bf16_supported(including_emulation=False)

    losses = train(made, CASES, config(), seed=0).losses

    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:8])
    assert next(made.parameters()).device.type == "cuda"


def test_a_step_in_full_precision_is_the_one_that_the_cpu_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu, on_cpu = network(), network()
    training = begin(on_gpu, CASES, config(precision="fp32"), seed=0)
    take_step(training, 1e-3)
    monkeypatch.setattr("brainunet.training.loop.default_device", lambda: torch.device("cpu"))
    same = begin(on_cpu, CASES, config(precision="fp32"), seed=0)
    take_step(same, 1e-3)

    assert training.losses[0] == pytest.approx(same.losses[0], rel=1e-3)


def test_a_training_with_a_mean_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "this", every_steps=2)
    cut = begin(network(), CASES, config(average_decay=0.9), seed=1)
    for _ in range(2):
        take_step(cut, 1e-3)
    cut.save(checkpoint)

    made = network()
    result = train(made, CASES, config(steps=4, average_decay=0.9), seed=1, checkpoint=checkpoint)

    assert len(result.losses) == 4
    assert weights_of(made).is_finite()


def test_labels_predicted_there_are_those_of_the_cpu() -> None:
    made = network().eval()
    image = CASES[0].image
    expected = predict_labels(made, image, None)

    found = predict_labels(made.to("cuda"), image, None)

    assert np.mean(found == expected) > 0.999


def test_computing_activations_again_takes_less_memory_and_gives_the_same_gradient() -> None:
    images = torch.randn(1, 3, 64, 64, 64, generator=torch.Generator().manual_seed(0)).to("cuda")
    peaks, gradients = [], []
    for on in (False, True):
        made = network("brainunet-lite").to("cuda").train()
        set_activation_checkpointing(made, on)
        torch.cuda.reset_peak_memory_stats()
        made(images).square().mean().backward()
        peaks.append(torch.cuda.max_memory_allocated())
        gradients.append(torch.cat([p.grad.ravel() for p in made.parameters() if p.grad is not None]))
    assert peaks[1] < 0.8 * peaks[0]
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)
