"""Of a long run's models the last two, the best and every so-many-th stay, whatever moment it is cut off at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.modelfile import read_model
from brainunet.records import SiteScore
from brainunet_server.keeping import best_rounds, rounds_kept
from brainunet_server.store.reader import StoreReader
from tests.support.pace import first_fast
from tests.support.replies import PLAN, site_score
from tests.support.runs import RUN, Dice, Sites, around, damage, every_state_of, keeping, kept, raising, run_in

LONG = replace(PLAN, rounds=7)
# best by mean is round 2; of the highest worst site round 4
FIGURES: Dice = {
    **around(0.2, 0.3, 0.8, 0.4, 0.5, 0.4, 0.3, 0.2),
    2: {"boston": 0.65, "lagos": 0.95},
    4: {"boston": 0.7, "lagos": 0.75},
}


def there(folder: Path) -> list[int]:
    """The rounds whose model files lie on the disk."""
    return sorted(int(path.stem.removeprefix("round-")) for path in keeping(folder).models.glob("round-*.safetensors"))


def told(folder: Path) -> list[int]:
    """The rounds whose models are there, as the store tells it."""
    with StoreReader(folder / "store.sqlite") as store:
        return [model.round for model in store.models(RUN.id) if model.removed_at is None]


def test_the_last_two_and_the_best_ones_stay_and_the_others_leave_a_row(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(dice=FIGURES), plan=LONG, keep_every=0)

    assert there(tmp_path) == told(tmp_path) == [2, 4, 6, 7]
    with StoreReader(tmp_path / "store.sqlite") as store:
        models = store.models(RUN.id)
    assert [model.round for model in models] == list(range(8))
    assert all(model.digest for model in models)
    assert read_model(keeping(tmp_path).best_file)[1].round == 2
    assert read_model(keeping(tmp_path).best_for_all_file)[1].round == 4
    signatures = {path.name.removesuffix(".signed") for path in keeping(tmp_path).models.glob("*.signed")}
    assert signatures == {path.name for path in keeping(tmp_path).models.glob("*.safetensors")}


def test_the_best_rounds_are_those_of_a_run_that_keeps_every_model(tmp_path: Path) -> None:
    for which in ("all", "few"):
        (tmp_path / which).mkdir()
    run_in(tmp_path / "all", Sites(dice=FIGURES), plan=LONG)
    run_in(tmp_path / "few", Sites(dice=FIGURES), plan=LONG, keep_every=0)

    for name in ("best.safetensors", "best-worst-site.safetensors", "round-007.safetensors"):
        digests = {read_model(tmp_path / which / "models" / name)[0].digest for which in ("all", "few")}
        assert len(digests) == 1
    assert there(tmp_path / "all") == list(range(8))


def test_while_it_runs_there_are_never_more_than_the_last_two_and_two_best_ones(tmp_path: Path) -> None:
    seen: dict[int, list[int]] = {}

    run_in(
        tmp_path,
        Sites(dice=FIGURES),
        lambda result: seen.update({result.exchange: there(tmp_path)}),
        plan=LONG,
        keep_every=0,
    )

    assert seen[3] == [2, 3]  # the scores of models 0 to 2 are known, and 2 is the best of them
    assert seen[5] == [2, 4, 5]
    assert all(len(rounds) <= 4 for rounds in seen.values())
    assert all({exchange - 1, exchange} <= set(rounds) for exchange, rounds in seen.items() if exchange <= 7)


def test_every_so_many_th_stays_too_where_that_is_asked_for(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(dice=FIGURES), plan=LONG, keep_every=3)

    assert there(tmp_path) == [0, 2, 3, 4, 6, 7]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a run that nothing cut off left."""
    folder = tmp_path_factory.mktemp("whole")
    run_in(folder, Sites(dice=FIGURES), plan=LONG, keep_every=0)
    return kept(folder)


@pytest.mark.parametrize("exchange", first_fast(5, *(number for number in range(1, 9) if number != 5)))
def test_cut_off_in_any_round_it_goes_on_to_the_same_end(tmp_path: Path, exchange: int, whole: Any) -> None:
    cut = Sites(dice=FIGURES, before=raising(KeyboardInterrupt, at=(exchange, "lagos")))
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cut, plan=LONG, keep_every=0)

    run_in(tmp_path, Sites(dice=FIGURES), plan=LONG, keep_every=0)

    assert kept(tmp_path) == whole


@pytest.mark.slow
def test_whatever_kill_9_leaves_on_the_disk_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    short, figures = replace(PLAN, rounds=3), around(0.5, 0.2, 0.3, 0.1)
    left: list[Path] = []
    with every_state_of(tmp_path / "run", into=tmp_path / "left", found=left):
        run_in(tmp_path / "run", Sites(dice=figures), plan=short, keep_every=0)
    whole = kept(tmp_path / "run")
    assert there(tmp_path / "run") == [0, 2, 3]
    assert len([folder for folder in left if "keeping.py" in folder.name]) >= 2  # half removed

    for folder in left:
        run_in(folder, Sites(dice=figures), plan=short, keep_every=0)
        assert kept(folder) == whole, folder.name
        assert there(folder) == told(folder) == [0, 2, 3], folder.name


def test_a_file_that_a_kill_left_of_a_removed_model_goes_with_the_next_round(tmp_path: Path) -> None:
    cut = Sites(dice=FIGURES, before=raising(KeyboardInterrupt, at=(6, "lagos")))
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cut, plan=LONG, keep_every=0)
    assert 1 not in there(tmp_path)
    orphan = keeping(tmp_path).model_file(1)
    orphan.write_bytes(b"not removed any more")

    run_in(tmp_path, Sites(dice=FIGURES), plan=LONG, keep_every=0)

    assert there(tmp_path) == told(tmp_path) == [2, 4, 6, 7]


def test_what_cant_be_removed_does_not_end_the_run(tmp_path: Path) -> None:
    in_the_way = keeping(tmp_path).models / "round-001.safetensors.notes"
    in_the_way.mkdir(parents=True)

    run_in(tmp_path, Sites(dice=FIGURES), plan=LONG, keep_every=0)

    assert there(tmp_path) == told(tmp_path) == [2, 4, 6, 7]
    assert in_the_way.is_dir()


def test_a_damaged_newest_model_costs_its_round_and_no_more(tmp_path: Path) -> None:
    cut = Sites(dice=FIGURES, before=raising(KeyboardInterrupt, at=(6, "boston")))
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cut, plan=LONG, keep_every=0)
    damage(keeping(tmp_path).model_file(5), "a bit flipped")
    asked: list[tuple[int, str]] = []

    run_in(tmp_path, Sites(dice=FIGURES, before=asked.append), plan=LONG, keep_every=0)

    assert asked[0] == (5, "boston")
    assert there(tmp_path) == [2, 4, 6, 7]


def test_a_model_that_scores_worse_when_it_is_scored_again_does_not_bring_a_removed_one_back(tmp_path: Path) -> None:
    falling = around(*(0.9 - 0.1 * number for number in range(8)))
    first: Dice = {**falling, 5: around(0.95)[0]}  # better than round 0, which is let go for it
    cut = Sites(dice=first, before=raising(KeyboardInterrupt, at=(7, "boston")))
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cut, plan=LONG, keep_every=0)
    assert 0 not in there(tmp_path)
    damage(keeping(tmp_path).model_file(6), "gone")

    run_in(tmp_path, Sites(dice=falling), plan=LONG, keep_every=0)  # round 5 is scored anew, and is not so good

    assert read_model(keeping(tmp_path).best_file)[1].round == 5


FIGURE = st.none() | st.floats(0, 1)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), FIGURE), min_size=1, max_size=12), st.integers(0, 4))
def test_what_is_let_go_on_the_way_is_never_the_best_of_the_whole_run(
    rounds: list[dict[str, float | None]], keep_every: int
) -> None:
    scores: dict[int, dict[str, SiteScore]] = {
        number: {site: site_score(value) for site, value in sites.items()} for number, sites in enumerate(rounds)
    }
    present: set[int] = set()

    for last in range(len(rounds)):
        present.add(last)
        known = {number: scores[number] for number in present if number < last}
        present = set(rounds_kept(present, known, last, keep_every))

    assert best_rounds({number: scores[number] for number in present}) == best_rounds(scores)
    assert {len(rounds) - 1, max(0, len(rounds) - 2)} <= present
    if keep_every:
        assert set(range(0, len(rounds), keep_every)) <= present
