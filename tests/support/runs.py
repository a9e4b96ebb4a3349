"""Runs of two sites that are plain numbers: what they leave on the disk, and every moment at which they could be killed."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

import brainunet.files
import brainunet.modelfile
import brainunet.spool
import brainunet_server.conduct
import brainunet_server.keeping
import brainunet_server.replies
import brainunet_server.rounds
import brainunet_server.store.writer
from brainunet.config import StrategyConfig
from brainunet.files import writing_aside
from brainunet.modelfile import ModelCard, read_model
from brainunet.records import AnyTask, Fault, FaultCode, Reply, ScoreRow, SiteScore, TrainTask
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.conduct import conduct
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.keeping import Keeping
from brainunet_server.round_results import RoundResult
from brainunet_server.rounds import Plan
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Run
from tests.support.replies import PLAN, START, delta, evaluate_reply, train_reply

RUN = Run(
    id=PLAN.run,
    kind="federation",
    strategy="fedavg",
    preset="brainunet",
    norm="group",
    rounds=PLAN.rounds,
    seed=PLAN.seed,
    config="{}",
    config_sha256="ab" * 32,
    started_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
)
GIVEN = ModelCard(
    title="given",
    model=PLAN.model,
    preprocess=PLAN.preprocess,
    provenance="made up",
    trained_on="nothing",
    weights_sha256=START.digest,
)
MADE = GIVEN.model_copy(
    update={"provenance": "federated, from: made up", "trained_on": "real cases", "config_sha256": "ab" * 32}
)
SITES: Final = {"boston": 1.0, "lagos": 3.0}  # where each site's data pull every weight

Moment = tuple[int, str]  # an exchange, and a site in it
Dice = Mapping[int, Mapping[str, float]]  # of the model of each round, at each site


def around(*means: float) -> Dice:
    """Figures of these means over the sites."""
    return {number: {"boston": mean - 0.05, "lagos": mean + 0.05} for number, mean in enumerate(means)}


DICE: Final = around(0.2, 0.7, 0.4)  # the best is neither the first nor the last


def no_matter(moment: Moment) -> None:
    pass


@dataclass(frozen=True)
class Sites:
    """Sites that move the weights half the way to a number of their own; ``before`` is told each moment and may raise."""

    before: Callable[[Moment], None] = no_matter
    silent: frozenset[Moment] = frozenset()
    dice: Dice = field(default_factory=lambda: DICE)
    faults: Mapping[Moment, FaultCode] = field(default_factory=dict)

    def is_member(self, site: str) -> bool:
        return True

    def sites(self) -> Sequence[str]:
        return list(SITES)

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        for site in sites:
            self.before((task.round, site))
            code = FaultCode.OUT_OF_MEMORY if (task.round, site) in self.silent else self.faults.get((task.round, site))
            if code is not None:
                yield Answer(site, Fault(run=task.run, round=task.round, code=code), 200, 10)
            else:
                yield Answer(site, _reply(task, site, self.dice[task.round - 1][site]), 200, 100)
        self.before((task.round, "all have answered"))


def _reply(task: AnyTask, site: str, dice: float) -> Reply:
    rows = tuple(ScoreRow(structure=s, metric="dice", mean=dice, median=dice, n=4, missing=0) for s in ("ET", "TC", "WT"))
    score = SiteScore(cases=4, rows=rows)
    if not isinstance(task, TrainTask):
        return evaluate_reply(run=task.run, round=task.round, score=score)
    goal = delta(SITES[site])
    half = Weights.of({name: (goal[name] - task.weights[name]) / 2 for name in goal.names})
    return train_reply(half, run=task.run, round=task.round, score=score, loss=1.0 / task.round)


def run_in(
    folder: Path,
    exchange: Sites | None = None,
    on_round: Callable[[RoundResult], None] = lambda result: None,
    *,
    plan: Plan = PLAN,
    strategy: str = "fedavg",
    keep_every: int | None = None,
) -> None:
    taken = strategy_from(StrategyConfig(name=strategy))
    run = replace(RUN, strategy=strategy)
    conduct(run, plan, lambda: (START, GIVEN), MADE, keeping(folder, keep_every), exchange or Sites(), taken, on_round)


def keeping(folder: Path, keep_every: int | None = None) -> Keeping:
    return Keeping(folder / "store.sqlite", folder / "models", folder / "replies", sign=sign, keep_every=keep_every)


def sign(path: Path) -> None:
    """Stands for a signature: it covers exactly the bytes of the file."""
    with writing_aside(path.with_name(f"{path.name}.signed")) as aside:
        aside.write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def is_signed(path: Path) -> bool:
    signature = path.with_name(f"{path.name}.signed")
    return signature.exists() and signature.read_text() == hashlib.sha256(path.read_bytes()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    return sorted(keeping(folder).models.glob("*.safetensors"))


def kept(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for the hours of the day."""
    with StoreReader(folder / "store.sqlite") as store:
        run = store.run(RUN.id)
        models = [
            replace(model, made_at=RUN.started_at, removed_at=model.removed_at and RUN.started_at)
            for model in store.models(RUN.id)
        ]
        rows = [*store.site_rounds(RUN.id), *store.scores(RUN.id), *models]
    files = {path.name: read_model(path) for path in model_files(folder)}
    cards = {name: card.model_copy(update={"made_at": None}) for name, (_, card) in files.items()}
    return {
        "status": run.status,
        "rows": rows,
        "digests": {name: weights.digest for name, (weights, _) in files.items()},
        "cards": cards,
        "unsigned": [path.name for path in model_files(folder) if not is_signed(path)],
    }


def raising(error: type[BaseException], *, at: Moment) -> Callable[[Moment], None]:
    def before(moment: Moment) -> None:
        if moment == at:
            raise error

    return before


def damage(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "another model":
        shutil.copy(path.with_name("round-000.safetensors"), path)
    else:
        path.write_bytes(data[:-7] if harm == "cut short" else data[:-3] + bytes([data[-3] ^ 16]) + data[-2:])


class every_state_of:  # noqa: N801 - reads as a sentence
    """Copies ``folder`` whenever its files have changed between two lines of the code that writes them.

    A killed process leaves what lies on the disk at that moment; here each of these moments is tried, not one by chance.
    """

    WRITERS = frozenset(
        str(module.__file__)
        for module in (
            brainunet.files,
            brainunet.modelfile,
            brainunet.spool,
            brainunet_server.conduct,
            brainunet_server.keeping,
            brainunet_server.replies,
            brainunet_server.rounds,
            brainunet_server.store.writer,
        )
    )

    def __init__(self, folder: Path, *, into: Path, found: list[Path]) -> None:
        self._folder, self._into, self._found = folder, into, found
        self._last: object = None
        folder.mkdir()

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename in self.WRITERS else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        if state != self._last:
            self._last = state
            copy = self._into / f"{len(self._found):03d}, {Path(frame.f_code.co_filename).name} line {frame.f_lineno}"
            shutil.copytree(self._folder, copy)
            self._found.append(copy)
        return self._line
