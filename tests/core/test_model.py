"""What every network promises, and that BrainUNet is the network of the paper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.errors import ConfigError
from brainunet.labels import Modality
from brainunet.model import build, load, set_weights, size_of, weights_of
from brainunet.modelfile import ModelCard, write_model
from brainunet.weights import Weights
from tests.support.nets import NORMS, Norm, architectures, disturb_norms, network

# The tensors of the authors' network, key by key in their order: convolution weights (each has a bias besides) ...
AUTHORS_CONVOLUTIONS = """
    64x3x3x3x3 64x64x3x3x3 64x3x1x1x1         128x64x3x3x3 128x128x3x3x3 128x64x1x1x1
    256x128x3x3x3 256x256x3x3x3 256x128x1x1x1 512x256x3x3x3 512x512x3x3x3 512x256x1x1x1
    128x256x1x1x1 128x256x1x1x1 1x128x1x1x1   256x512x3x3x3 256x256x3x3x3 256x512x1x1x1
    64x128x1x1x1 64x128x1x1x1 1x64x1x1x1      128x256x3x3x3 128x128x3x3x3 128x256x1x1x1
    32x64x1x1x1 32x64x1x1x1 1x32x1x1x1        64x128x3x3x3 64x64x3x3x3 64x128x1x1x1         4x64x1x1x1
"""
AUTHORS_TRANSPOSED = "512x256x2x2x2 256x128x2x2x2 128x64x2x2x2"
# ... and the channels of each batch norm (weight, bias, running mean, running variance, and a counter).
AUTHORS_NORMS = (64, 64, 128, 128, 256, 256, 512, 512, 128, 128, 1, 256, 256, 64, 64, 1, 128, 128, 32, 32, 1, 64, 64)


def on_no_device(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return build(config)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("preset", "norm"), architectures())
def test_every_parameter_takes_part_in_training(preset: str, norm: Norm) -> None:
    made = on_no_device(ModelConfig(preset=preset, norm=norm)).train()

    made(torch.empty(1, 3, 32, 32, 32, device="meta")).sum().backward()

    assert [name for name, parameter in made.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("norm", NORMS)
def test_every_kernel_has_something_to_learn_from_a_patch(norm: Norm) -> None:
    made = network(norm=norm).train()

    F.cross_entropy(made(noise(1, 3, 16, 16, 16)), torch.zeros(1, 16, 16, 16, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]

    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # but the bias of a convolution before a norm, which cancels it
        assert parameter.ndim == 1 or parameter.grad.any(), name


@pytest.mark.parametrize(("preset", "norm"), architectures())
def test_every_entry_of_the_state_dict_has_a_storage_of_its_own(preset: str, norm: Norm) -> None:
    state = on_no_device(ModelConfig(preset=preset, norm=norm)).state_dict()

    assert len({value.untyped_storage()._cdata for value in state.values()}) == len(state)


@pytest.mark.parametrize(("preset", "norm"), architectures())
def test_a_patch_of_any_size_gives_logits_of_its_size(preset: str, norm: Norm) -> None:
    made = on_no_device(ModelConfig(preset=preset, norm=norm)).eval()

    assert made(torch.empty(2, 3, 17, 8, 21, device="meta")).shape == (2, 4, 17, 8, 21)


@pytest.mark.parametrize("norm", NORMS)
def test_an_odd_patch_is_the_same_as_one_that_was_padded_with_zeros_by_hand(norm: Norm) -> None:
    made = network(norm=norm).eval()
    image = noise(2, 3, 13, 24, 9)

    with torch.inference_mode():
        by_hand = made(F.pad(image, (0, 7, 0, 0, 0, 3)))[..., :13, :24, :9]
        torch.testing.assert_close(made(image), by_hand)


@pytest.mark.parametrize("norm", NORMS)
def test_the_parameters_of_the_paper_s_network_are_counted_exactly(norm: Norm) -> None:
    three, four = (size_of(ModelConfig(norm=norm, modalities=tuple(Modality)[-n:]), patch=(16, 16, 16)) for n in (3, 4))

    assert (three.parameters, four.parameters) == (22_836_333, 22_838_125)
    assert round(three.n_bytes / 1e6, 2) == 91.35


def test_one_pass_over_a_patch_costs_what_was_measured() -> None:
    assert size_of(ModelConfig()).multiply_adds == pytest.approx(1.85e12, rel=0.01)
    # the same widths and half the side: an eighth
    assert 8 * size_of(ModelConfig(), patch=(64, 64, 64)).multiply_adds == size_of(ModelConfig()).multiply_adds


@pytest.mark.parametrize(("preset", "millions"), [("brainunet-fast", 23.0), ("brainunet-lite", 5.71), ("brainunet-nano", 0.36)])
def test_the_smaller_networks_have_the_sizes_we_say(preset: str, millions: float) -> None:
    counted = size_of(ModelConfig(preset=preset), patch=(16, 16, 16)).parameters / 1e6

    assert counted == pytest.approx(millions, abs=0.05 if millions > 20 else 0.005)


def test_with_batch_norm_there_are_the_authors_tensors_and_no_others() -> None:
    expected: Counter[tuple[int, ...]] = Counter()
    for words, outputs_axis in ((AUTHORS_CONVOLUTIONS, 0), (AUTHORS_TRANSPOSED, 1)):
        for word in words.split():
            shape = tuple(int(side) for side in word.split("x"))
            expected.update([shape, (shape[outputs_axis],)])
    for channels in AUTHORS_NORMS:
        expected.update([(channels,)] * 4 + [()])

    state = on_no_device(ModelConfig(norm="batch")).state_dict()

    assert len(state) == sum(expected.values()) == 183
    assert Counter(tuple(value.shape) for value in state.values()) == expected


def described_in_words(x: Tensor, state: dict[str, Tensor], levels: int, norm: Norm) -> Tensor:
    """The network as the facts describe it, written a second time: by recursion, on a bare state dict, without modules."""

    def conv(x: Tensor, name: str) -> Tensor:
        kernel = state[f"{name}.weight"]
        return F.conv3d(x, kernel, state[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    def normed(x: Tensor, name: str) -> Tensor:
        channels = x.shape[1]
        if norm == "batch":
            middle, spread = state[f"{name}.running_mean"], state[f"{name}.running_var"]
            middle, spread = middle[None, :, None], spread[None, :, None]
            flat = x.reshape(len(x), channels, -1)
        else:
            groups = channels if norm == "instance" else max(1, min(8, channels // 4))
            flat = x.reshape(len(x), groups, -1)
            middle, spread = flat.mean(dim=2, keepdim=True), flat.var(dim=2, keepdim=True, unbiased=False)
        out = ((flat - middle) / (spread + 1e-5).sqrt()).reshape(x.shape)
        return out * state[f"{name}.weight"].view(1, -1, 1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1, 1)

    def block(x: Tensor, name: str) -> Tensor:
        once = normed(conv(x, f"{name}.conv1"), f"{name}.norm1").relu()
        twice = normed(conv(once, f"{name}.conv2"), f"{name}.norm2").relu()
        return (twice + conv(x, f"{name}.shortcut")).relu()

    def gate(up: Tensor, skip: Tensor, name: str) -> Tensor:
        gating = normed(conv(up, f"{name}.gate_conv"), f"{name}.gate_norm")
        mixed = (gating + normed(conv(skip, f"{name}.skip_conv"), f"{name}.skip_norm")).relu()
        return skip * normed(conv(mixed, f"{name}.psi_conv"), f"{name}.psi_norm").sigmoid()

    def level(x: Tensor, depth: int) -> Tensor:
        skip = block(x, f"encoder.{depth}")
        if depth == levels - 1:
            return skip
        below = level(F.max_pool3d(skip, 2), depth + 1)
        i = levels - 2 - depth  # the decoder counts from the bottom
        up = F.conv_transpose3d(below, state[f"up.{i}.weight"], state[f"up.{i}.bias"], stride=2)
        return block(torch.cat([up, gate(up, skip, f"attention.{i}")], dim=1), f"decoder.{i}")

    return conv(level(x, 0), "head")


@pytest.mark.parametrize("norm", NORMS)
def test_a_second_network_written_from_the_description_gives_the_same_logits(norm: Norm) -> None:
    made = network(norm=norm).eval()
    disturb_norms(made)
    image = noise(2, 3, 16, 24, 16)

    with torch.inference_mode():
        torch.testing.assert_close(made(image), described_in_words(image, made.state_dict(), 4, norm), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("training", [True, False])
def test_no_patient_leaks_into_another_patient_s_logits(norm: Norm, training: bool) -> None:
    made = network(norm=norm).train(training)
    batch = noise(3, 3, 16, 16, 16)

    with torch.no_grad():
        together, alone = made(batch), torch.cat([made(image[None]) for image in batch])

    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_training_does_mix_patients() -> None:
    made = network(norm="batch").train()
    batch = noise(3, 3, 16, 16, 16)

    with torch.no_grad():
        assert (made(batch)[0] - made(batch[:1])[0]).abs().max() > 1e-3


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean brainunet-lite"):
        build(ModelConfig(preset="brainunet-lit"))


@pytest.mark.parametrize("norm", NORMS)
def test_weights_put_into_another_network_come_out_the_same(norm: Norm) -> None:
    first, second = network(norm=norm, seed=1), network(norm=norm, seed=2)

    set_weights(second, weights_of(first))

    assert weights_of(second).digest == weights_of(first).digest
    assert all(name.endswith("num_batches_tracked") for name in second.state_dict().keys() - set(weights_of(second).names))


def test_weights_taken_out_are_a_copy() -> None:
    made = network()
    taken = weights_of(made)
    before = taken.digest

    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)

    assert Weights(taken.names, taken.arrays).digest == before


def test_weights_of_another_architecture_are_refused_and_change_nothing() -> None:
    made = network()
    before = weights_of(made).digest
    arrays = weights_of(made).as_dict()
    shorn = {name: array for name, array in arrays.items() if name != "head.bias"}

    for wrong in (
        shorn,
        {**arrays, "stranger": arrays["head.bias"]},
        {**arrays, "head.bias": arrays["head.bias"][:2]},
        {**shorn, "head.bies": arrays["head.bias"]},
        {},
    ):
        with pytest.raises(ConfigError, match="Check that preset, norm and modalities") as raised:
            set_weights(made, Weights.of(wrong))
        odd = set(wrong) ^ set(arrays) or {"head.bias"}
        assert any(f"{name} is missing, unknown or of another shape" in str(raised.value) for name in odd)
    assert weights_of(made).digest == before


def test_a_model_file_loads_as_a_network_ready_to_predict(tmp_path: Path) -> None:
    made = network(norm="batch").eval()
    disturb_norms(made)
    card = ModelCard(
        title="test",
        model=ModelConfig(preset="brainunet-nano", norm="batch"),
        preprocess=PreprocessConfig(),
        provenance="random",
        trained_on="nothing",
    )
    write_model(tmp_path / "model.safetensors", weights_of(made), card)

    loaded = load(tmp_path / "model.safetensors")

    assert isinstance(loaded, nn.Module)
    assert not loaded.training
    with torch.inference_mode():
        torch.testing.assert_close(loaded(noise(1, 3, 16, 16, 16)), made(noise(1, 3, 16, 16, 16)), rtol=0, atol=0)


def test_weights_that_do_not_fit_the_card_are_refused_on_loading(tmp_path: Path) -> None:
    card = ModelCard(
        title="test", model=ModelConfig(), preprocess=PreprocessConfig(), provenance="random", trained_on="nothing"
    )
    write_model(tmp_path / "model.safetensors", weights_of(network()), card)

    with pytest.raises(ConfigError, match="of another shape"):
        load(tmp_path / "model.safetensors")
