"""A run that is cut off at any moment goes on to the same models and the same rows as one that was not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import brainunet.files
import brainunet.modelfile
import brainunet_server.conduct
import brainunet_server.rounds
import brainunet_server.store.writer
from brainunet.config import StrategyConfig
from brainunet.errors import BrainUNetError, ConfigError, FederationError
from brainunet.modelfile import ModelCard, read_model
from brainunet.records import AnyTask, Fault, FaultCode, Reply, ScoreRow, SiteScore, TrainTask
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.conduct import Keeping, conduct
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.rounds import RoundResult
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Run
from tests.support.replies import PLAN, START, delta, evaluate_reply, train_reply
from tests.support.rights import largest_file

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
DICE = {0: 0.2, 1: 0.7, 2: 0.4}  # of the model of each round: the best is neither the first nor the last
SITES = {"boston": 1.0, "lagos": 3.0}  # where each site's data pull every weight

Moment = tuple[int, str]  # an exchange, and a site in it


def no_matter(moment: Moment) -> None:
    pass


@dataclass(frozen=True)
class Sites:
    """Sites that move the weights half the way to a number of their own; ``before`` is told each moment and may raise."""

    before: Callable[[Moment], None] = no_matter
    silent: frozenset[Moment] = frozenset()

    def sites(self) -> Sequence[str]:
        return list(SITES)

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        for site in sites:
            self.before((task.round, site))
            if (task.round, site) in self.silent:
                yield Answer(site, Fault(run=task.run, round=task.round, code=FaultCode.OUT_OF_MEMORY), 200, 10)
            else:
                yield Answer(site, _reply(task, site), 200, 100)
        self.before((task.round, "all have answered"))


def _reply(task: AnyTask, site: str) -> Reply:
    dice = DICE[task.round - 1] + (0.05 if site == "lagos" else -0.05)
    rows = tuple(ScoreRow(structure=s, metric="dice", mean=dice, median=dice, n=4, missing=0) for s in ("ET", "TC", "WT"))
    score = SiteScore(cases=4, rows=rows)
    if not isinstance(task, TrainTask):
        return evaluate_reply(run=task.run, round=task.round, score=score)
    goal = delta(SITES[site])
    half = Weights.of({name: (goal[name] - task.weights[name]) / 2 for name in goal.names})
    return train_reply(half, run=task.run, round=task.round, score=score, loss=1.0 / task.round)


def run_in(folder: Path, exchange: Sites | None = None, on_round: Callable[[RoundResult], None] = lambda result: None) -> None:
    conduct(RUN, PLAN, (START, GIVEN), MADE, keeping(folder), exchange or Sites(), strategy_from(StrategyConfig()), on_round)


def keeping(folder: Path) -> Keeping:
    return Keeping(folder / "store.sqlite", folder / "models", folder / "replies")


def kept(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for the hours of the day."""
    with StoreReader(folder / "store.sqlite") as store:
        run = store.run(RUN.id)
        models = [replace(model, made_at=RUN.started_at) for model in store.models(RUN.id)]
        rows = [*store.site_rounds(RUN.id), *store.scores(RUN.id), *models]
    files = {path.name: read_model(path) for path in sorted((folder / "models").iterdir())}
    cards = {name: card.model_copy(update={"made_at": None}) for name, (_, card) in files.items()}
    return {
        "status": run.status,
        "rows": rows,
        "digests": {name: weights.digest for name, (weights, _) in files.items()},
        "cards": cards,
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_in(folder)
    return kept(folder)


def test_a_run_keeps_a_model_of_each_round_the_rows_of_each_exchange_and_the_best_model(uninterrupted: dict[str, Any]) -> None:
    digests = uninterrupted["digests"]

    assert uninterrupted["status"] == "completed"
    assert list(digests) == ["best-worst-site.safetensors", "best.safetensors", *(f"round-00{k}.safetensors" for k in range(3))]
    assert digests["round-000.safetensors"] == START.digest
    assert digests["best.safetensors"] == digests["round-001.safetensors"]
    assert len(uninterrupted["rows"]) == 3 * 2 + 3 * 2 * 3 + 3  # exchanges of two sites, three figures each, models


def test_the_weights_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    run_in(tmp_path)

    # the sites pull halfway to 1 and to 3: w -> w / 2 + 1, twice
    for name, values in read_model(tmp_path / "models" / "round-002.safetensors")[0].as_dict().items():
        assert values == pytest.approx(START[name] / 4 + 1.5)


def test_a_card_says_where_its_model_comes_from(uninterrupted: dict[str, Any]) -> None:
    cards: dict[str, ModelCard] = uninterrupted["cards"]

    first = cards["round-000.safetensors"]
    assert first.model_copy(update={"scores": {}}) == GIVEN  # not made here: its own card
    for number in (1, 2):
        card = cards[f"round-00{number}.safetensors"]
        assert (card.run, card.round, card.parent_sha256) == (RUN.id, number, START.digest)
        assert (card.trained_on, card.provenance, card.config_sha256) == ("real cases", MADE.provenance, "ab" * 32)
        assert card.title == f"brainunet after round {number} of run {RUN.id}"


def test_every_models_card_has_the_scores_that_the_next_exchange_gave_it(uninterrupted: dict[str, Any]) -> None:
    cards: dict[str, ModelCard] = uninterrupted["cards"]

    for number, dice in DICE.items():
        means = {site: score.rows[0].mean for site, score in cards[f"round-00{number}.safetensors"].scores.items()}
        assert means == pytest.approx({"boston": dice - 0.05, "lagos": dice + 0.05})


def test_the_best_models_card_has_its_scores_at_each_site(uninterrupted: dict[str, Any]) -> None:
    card: ModelCard = uninterrupted["cards"]["best.safetensors"]

    assert card.round == 1
    assert {site: score.rows[0].mean for site, score in card.scores.items()} == pytest.approx({"boston": 0.65, "lagos": 0.75})


def test_the_earliest_of_equally_good_models_is_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DICE, 0, 0.7)

    run_in(tmp_path)

    assert read_model(keeping(tmp_path).best_file)[1].title == "given"


MOMENTS = [(exchange, who) for exchange in (1, 2, 3) for who in (*SITES, "all have answered")]


@pytest.mark.parametrize(
    ("moment", "error"), [*((moment, KeyboardInterrupt) for moment in MOMENTS), ((2, "lagos"), MemoryError)]
)
def test_cut_off_while_sites_answer_it_goes_on_to_the_same_end(
    tmp_path: Path, uninterrupted: dict[str, Any], moment: Moment, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        run_in(tmp_path, Sites(before=raising(error, at=moment)))
    assert kept(tmp_path)["status"] == ("interrupted" if error is KeyboardInterrupt else "failed")

    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize("exchange", [1, 2, 3])
def test_cut_off_when_a_round_is_told_that_round_is_not_run_again(
    tmp_path: Path, uninterrupted: dict[str, Any], exchange: int
) -> None:
    def stop(result: RoundResult) -> None:
        if result.exchange == exchange:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, on_round=stop)
    asked = list[Moment]()
    run_in(tmp_path, Sites(before=asked.append))

    assert asked[0] == (min(exchange + 1, 3), "boston")
    assert kept(tmp_path) == uninterrupted


def test_stopped_again_and_again_it_gets_there(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    for moment in [(1, "lagos"), (2, "boston"), (2, "lagos"), (3, "boston"), (3, "all have answered")]:
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=moment)))
    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


def test_whatever_kill_9_leaves_on_the_disk_it_goes_on_to_the_same_end(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    left = list[Path]()
    with every_state_of(tmp_path / "run", into=tmp_path / "left", found=left):
        run_in(tmp_path / "run")
    assert len(left) > 15  # a model half written, a model without its row, rows of an exchange without its model ...

    for folder in left:
        run_in(folder)
        assert kept(folder) == uninterrupted, folder.name


def test_resumed_when_it_is_complete_it_only_scores_the_last_model_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run_in(tmp_path)
    asked = list[Moment]()

    run_in(tmp_path, Sites(before=asked.append))

    assert {exchange for exchange, _ in asked} == {3}
    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize(
    ("newest", "harm"), [(1, "gone"), (2, "cut short"), (2, "a bit flipped"), (2, "gone"), (2, "another model")]
)
def test_a_damaged_newest_model_costs_its_round_and_no_more(
    tmp_path: Path, uninterrupted: dict[str, Any], harm: str, newest: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(newest + 1, "boston"))))
    damage(keeping(tmp_path).model_file(newest), harm)
    asked = list[Moment]()

    run_in(tmp_path, Sites(before=asked.append))

    assert asked[0] == (newest, "boston")
    assert kept(tmp_path) == uninterrupted


def test_with_every_model_damaged_it_begins_anew_from_the_model_it_was_given(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(2, "boston"))))
    for path in keeping(tmp_path).models.iterdir():
        damage(path, "cut short")

    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize("other", [{"seed": 8}, {"strategy": "fedprox"}, {"config_sha256": "cd" * 32}, {"rounds": 9}])
def test_another_run_of_this_id_is_refused_and_the_first_one_stays_as_it_was(
    tmp_path: Path, uninterrupted: dict[str, Any], other: dict[str, Any]
) -> None:
    run_in(tmp_path)

    with pytest.raises(ConfigError, match=rf"run {RUN.id}: {next(iter(other))} "):
        conduct(replace(RUN, **other), PLAN, (START, GIVEN), MADE, keeping(tmp_path), Sites(), strategy_from(StrategyConfig()))

    assert kept(tmp_path) == uninterrupted


def test_two_runs_in_one_store_leave_each_other_alone(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run_in(tmp_path)
    other = Keeping(tmp_path / "store.sqlite", tmp_path / "others", tmp_path / "replies")
    plan = replace(PLAN, run="glioma-2")

    with pytest.raises(KeyboardInterrupt):
        conduct(
            replace(RUN, id="glioma-2", seed=9), plan, (START, GIVEN), MADE, other,
            Sites(before=raising(KeyboardInterrupt, at=(2, "lagos"))), strategy_from(StrategyConfig()),
        )  # fmt: skip

    assert kept(tmp_path) == uninterrupted


def test_too_few_replies_end_the_run_as_failed_with_the_sites_named_and_earlier_rounds_kept(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    everyone = frozenset((2, site) for site in SITES)

    with pytest.raises(FederationError, match=r"boston: out_of_memory; lagos: out_of_memory"):
        run_in(tmp_path, Sites(silent=everyone))
    assert kept(tmp_path)["status"] == "failed"
    assert list(kept(tmp_path)["digests"]) == ["round-000.safetensors", "round-001.safetensors"]

    run_in(tmp_path)
    assert kept(tmp_path) == uninterrupted


def test_a_site_that_fails_in_one_round_leaves_a_row_with_the_reason(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(silent=frozenset({(1, "lagos")})))

    with StoreReader(tmp_path / "store.sqlite") as store:
        rows = store.site_rounds(RUN.id)
        assert [(row.site, row.outcome, row.reason) for row in rows if row.round == 1] == [
            ("boston", "answered", None),
            ("lagos", "fault", "out_of_memory"),
        ]
        assert {score.site for score in store.scores(RUN.id) if score.round == 0} == {"boston"}


@pytest.mark.parametrize("size_kb", [1, 8])
def test_a_full_disk_is_said_and_with_room_again_it_goes_on(
    tmp_path: Path, uninterrupted: dict[str, Any], size_kb: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(2, "lagos"))))

    with pytest.raises(BrainUNetError) as refused, largest_file(size_kb):
        run_in(tmp_path)
    assert "disk" in str(refused.value)
    assert refused.value.exit_code == 1

    run_in(tmp_path)
    assert kept(tmp_path) == uninterrupted


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
            brainunet_server.conduct,
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
