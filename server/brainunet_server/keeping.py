"""Where a run keeps what it makes, and which of its models stay there: three hundred of 91 MB would fill a disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brainunet.metrics.summary import best_round, best_round_by_worst, mean_region_dice
from brainunet.records import SiteScore
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.writer import StoreWriter

LAST_KEPT: Final = 2  # should the newest be found damaged, the run goes back one round and no further

_OF_A_ROUND: Final = re.compile(r"round-([0-9]{3,7})\.safetensors(\.sig|\.signed)?")  # a model, and what vouches for it


@dataclass(frozen=True)
class Keeping:
    """Where a run keeps what it makes: a store, a folder of models, and a folder for the replies of the round in progress.

    Attributes:
        sign: called with each model file as soon as it has its name.
        keep_every: None keeps every round's model. Else those stay that are named by :func:`rounds_kept`.
    """

    database: str | Path
    models: Path
    replies: Path
    sign: Callable[[Path], object] = lambda path: None
    keep_every: int | None = None

    def model_file(self, round_number: int) -> Path:
        return self.models / f"round-{round_number:03d}.safetensors"

    def strategy_file(self, round_number: int) -> Path:
        return self.models / f"round-{round_number:03d}.strategy"

    @property
    def best_file(self) -> Path:
        """Of the highest mean Dice."""
        return self.models / "best.safetensors"

    @property
    def best_for_all_file(self) -> Path:
        """Of the highest Dice at the site where it does worst."""
        return self.models / "best-worst-site.safetensors"


def best_rounds(by_round: Mapping[int, Mapping[str, SiteScore]]) -> tuple[int | None, int | None]:
    """The round of highest mean Dice over ET, TC and WT, and the one of highest Dice at its worst site.

    The earliest of equals; None and None where all figures are withheld. A round that is not the best of those so far is
    never the best of more.
    """
    means = {number: mean_region_dice(sites.values()) for number, sites in by_round.items()}
    return best_round(means), best_round_by_worst(by_round)


def rounds_kept(
    present: Collection[int], by_round: Mapping[int, Mapping[str, SiteScore]], last: int, keep_every: int
) -> frozenset[int]:
    """Of the rounds ``present`` those whose models stay: the last two, the best ones, and every ``keep_every``-th (0: none).

    >>> sorted(rounds_kept(range(11), {}, last=10, keep_every=4))
    [0, 4, 8, 9, 10]
    """
    stay = {last - back for back in range(LAST_KEPT)} | {best for best in best_rounds(by_round) if best is not None}
    if keep_every:
        stay |= {number for number in present if number % keep_every == 0}
    return frozenset(stay & set(present))


def remove_old(store: StoreWriter, run_id: str, last: int, keeping: Keeping) -> None:
    """Remove the models that need not stay, once round ``last`` is complete: its model on the disk, its rows committed.

    The store says first that a model is gone, and then its file goes. A kill in between leaves a file that the next call
    removes. A row stays, with the digest.

    Raises:
        BrainUNetError: the database.
    """
    if keeping.keep_every is None:
        return
    with StoreReader(keeping.database) as reader:
        models, scores = reader.models(run_id), site_scores(reader.scores(run_id, metric="dice"))
    present = [model.round for model in models if model.removed_at is None]
    stay = rounds_kept(present, {number: scores[number] for number in present if number in scores}, last, keeping.keep_every)
    store.mark_removed(run_id, [number for number in present if number not in stay])
    gone = {model.round for model in models} - stay
    for path in keeping.models.iterdir():
        named = _OF_A_ROUND.fullmatch(path.name)
        if named and int(named[1]) in gone:
            with suppress(OSError):  # tried again after the next round: what can't be removed is no reason to end a run
                path.unlink(missing_ok=True)
