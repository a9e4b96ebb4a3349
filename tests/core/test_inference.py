"""From an image to its label map, in one pass or in windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from brainunet.inference.predictor import predict_labels
from brainunet.inference.torch_engine import TorchEngine
from brainunet.inference.window import FloatArray, _starts, predict_in_windows
from tests.support.nets import network
from tests.support.prepared import prepared_case


class SeesOneVoxel(nn.Module):
    """A network without a neighbourhood: label = the channel that is largest. Notes the sizes that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Conv3d(3, 4, kernel_size=1)
        with torch.no_grad():
            self.pick.weight.copy_(torch.eye(4, 3)[..., None, None, None])
            self.pick.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -100.0]))  # type: ignore[union-attr] # it has one
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[2:]))
        logits: Tensor = self.pick(x)
        return logits


def noise(*shape: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("window", [(16, 24, 16), (128, 128, 128), (17, 24, 20)])
def test_a_window_that_covers_the_image_gives_what_one_pass_gives(window: tuple[int, int, int]) -> None:
    engine, image = TorchEngine(network()), noise(3, 16, 24, 16)

    np.testing.assert_allclose(predict_in_windows(engine.logits, image, window), engine.logits(image), atol=1e-5)


@given(
    size=st.tuples(*[st.integers(5, 37)] * 3),
    window=st.tuples(*[st.integers(1, 20)] * 3),
)
@settings(deadline=None, max_examples=60)
def test_windows_of_any_size_cover_an_image_of_any_size(size: tuple[int, int, int], window: tuple[int, int, int]) -> None:
    if np.prod([len(_starts(whole, min(side, whole))) for whole, side in zip(size, window, strict=True)]) > 300:
        window = (16, 16, 16)
    made, image = SeesOneVoxel(), noise(3, *size)
    engine = TorchEngine(made)

    blended = predict_in_windows(engine.logits, image, window)
    np.testing.assert_allclose(blended, engine.logits(image), atol=1e-5, rtol=1e-5)

    assert set(made.seen[:-1]) == {tuple(min(pair) for pair in zip(size, window, strict=True))}


@given(whole=st.integers(1, 400), side=st.integers(1, 130))
def test_neighbouring_windows_overlap_by_a_quarter_and_end_at_the_edges(whole: int, side: int) -> None:
    starts = _starts(whole, side)

    assert starts[0] == 0
    assert starts[-1] == max(0, whole - side)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, int(0.75 * side))).all()


def test_where_windows_overlap_the_middle_of_one_outweighs_the_edge_of_another() -> None:
    turns = itertools.count()

    def says_its_turn(shown: FloatArray) -> FloatArray:
        return np.full((1, *shown.shape[1:]), next(turns), np.float32)

    blended = predict_in_windows(says_its_turn, np.zeros((1, 24, 16, 16), np.float32), (16, 16, 16))[0, :, 8, 8]

    assert blended[:8].tolist() == [0] * 8  # the first window alone
    assert blended[16:].tolist() == [1] * 8
    assert (np.diff(blended) >= 0).all()
    assert blended[9] < 0.2
    assert blended[14] > 0.8


@pytest.mark.parametrize("shape", [(24, 24, 24), (13, 30, 17)])
def test_a_label_map_has_the_image_s_shape_and_labels(shape: tuple[int, int, int]) -> None:
    made = network().train()
    labels = predict_labels(made, prepared_case(shape, tumour_at=(2, 8, 8)).image, None)

    assert labels.shape == shape
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    assert not made.training


def test_every_voxel_gets_the_label_of_its_largest_logit() -> None:
    image = np.random.default_rng(0).normal(size=(3, 20, 18, 16)).astype(np.float16)

    np.testing.assert_array_equal(predict_labels(SeesOneVoxel(), image, None), image.argmax(axis=0))


def test_a_window_smaller_than_the_image_is_moved_over_it_and_none_means_one_pass() -> None:
    made, image = SeesOneVoxel(), np.zeros((3, 150, 20, 20), np.float16)

    predict_labels(made, image, None)
    assert made.seen == [(150, 20, 20)]
    made.seen.clear()
    predict_labels(made, image, (128, 128, 128))
    assert made.seen == [(128, 20, 20)] * 2


def test_windows_and_one_pass_agree_on_nearly_every_voxel_of_a_trained_like_network() -> None:
    engine = TorchEngine(network("brainunet-nano", norm="batch"))
    image = noise(3, 40, 24, 24)

    windows, whole = predict_in_windows(engine.logits, image, (24, 24, 24)), engine.logits(image)

    assert (windows.argmax(0) == whole.argmax(0)).mean() > 0.9


def test_prediction_repeats_to_the_bit_and_leaves_the_image_alone() -> None:
    made, case = network(), prepared_case()
    case.image.setflags(write=False)

    first = predict_labels(made, case.image, None)

    np.testing.assert_array_equal(predict_labels(made, case.image, None), first)
