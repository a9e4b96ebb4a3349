"""One pass or windows: decided by an estimate, before anything large is allocated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.errors import ConfigError
from brainunet.inference.plan import COSTS, MB, Needs, plan

BRAIN = (144, 176, 144)
PAPER = Needs("brainunet", 91 * MB, COSTS["openvino", "bf16"])


@pytest.mark.parametrize("line", sorted(COSTS))
def test_larger_images_and_windows_need_more(line: tuple[str, str]) -> None:
    needs = Needs("brainunet", 91 * MB, COSTS[line])

    assert needs.bytes_for((96, 96, 96), None) < needs.bytes_for(BRAIN, None)
    assert needs.bytes_for(BRAIN, (64, 64, 64)) < needs.bytes_for(BRAIN, (96, 96, 96)) < needs.bytes_for(BRAIN, None)


def test_a_side_counts_as_the_network_pads_it() -> None:
    assert PAPER.bytes_for((95, 95, 95), (96, 96, 96)) <= PAPER.bytes_for((96, 96, 96), None)


def test_one_pass_is_taken_where_it_was_asked_for_and_fits() -> None:
    assert plan(PAPER, BRAIN, way="one-pass", limit=10_000 * MB).window is None
    with pytest.raises(ConfigError, match="one pass needs about"):
        plan(PAPER, BRAIN, way="one-pass", limit=1_000 * MB)


def test_the_models_own_way_is_taken_where_nobody_chose_and_memory_allows() -> None:
    assert plan(PAPER, BRAIN, usually="one-pass").window is None
    assert plan(PAPER, BRAIN, usually="one-pass", way="windows").window == (96, 96, 96)
    short = plan(PAPER, BRAIN, usually="one-pass", limit=PAPER.bytes_for(BRAIN, (96, 96, 96)))
    assert short.window == (96, 96, 96)
    assert "though the model was scored in one pass" in short.warnings[0]


def test_windows_shrink_until_they_fit_and_say_so() -> None:
    chosen = plan(PAPER, BRAIN, limit=PAPER.bytes_for(BRAIN, (64, 64, 64)))

    assert chosen.window == (64, 64, 64)
    assert "windows of 64 x 64 x 64 voxels instead of 96 x 96 x 96" in chosen.warnings[0]


def test_a_window_that_was_asked_for_is_taken_or_refused_and_never_shrunk() -> None:
    asked = (128, 128, 128)
    assert plan(PAPER, BRAIN, window=asked, limit=PAPER.bytes_for(BRAIN, asked)).window == asked
    with pytest.raises(ConfigError, match="a window of 128 x 128 x 128 voxels needs about"):
        plan(PAPER, BRAIN, window=asked, limit=PAPER.bytes_for(BRAIN, asked) - 1)


def test_where_not_even_the_smallest_window_fits_it_is_said_what_to_do() -> None:
    with pytest.raises(ConfigError, match="--max-memory"):
        plan(PAPER, BRAIN, limit=100 * MB)


@given(limit=st.integers(min_value=200 * MB, max_value=20_000 * MB), size=st.tuples(*[st.integers(1, 256)] * 3))
def test_no_plan_is_above_the_limit(limit: int, size: tuple[int, int, int]) -> None:
    try:
        assert plan(PAPER, size, limit=limit).estimated_bytes <= limit
    except ConfigError:
        assert PAPER.bytes_for(size, (32, 32, 32)) > limit
