"""Which steps of a training take whole cases in place of patches, and what a batch of either is at its smallest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brainunet.config import TrainConfig
from brainunet.data.patches import PatchSource


def whole_steps(config: TrainConfig) -> int:
    """How many of ``config.steps`` take whole cases, the last ones.

    >>> [whole_steps(TrainConfig(steps=30, whole_share=share)) for share in (0, 0.001, 0.1, 1)]
    [0, 1, 3, 30]
    """
    return max(1, round(config.whole_share * config.steps)) if config.whole_share else 0


def takes_whole(step: int, config: TrainConfig, progress: float | None = None) -> bool:
    """Whether step ``step`` (from 0) takes whole cases.

    Args:
        progress: the share of the training that is done, where it is not that of ``config.steps`` (a training by the clock).
    """
    if progress is None:
        return step >= config.steps - whole_steps(config)
    return config.whole_share > 0 and progress >= 1 - config.whole_share


def smallest_batches(config: TrainConfig, sources: Sequence[PatchSource]) -> Iterator[tuple[int, ...]]:
    """The shape (B, C, X, Y, Z) of a batch of patches and, if there will be any, of a whole case with the shortest sides."""
    channels = sources[0].image.shape[0]
    yield (config.batch_size, channels, *config.patch)
    if config.whole_share:
        yield (1, channels, *(min(sides) for sides in zip(*(source.label.shape for source in sources), strict=True)))
