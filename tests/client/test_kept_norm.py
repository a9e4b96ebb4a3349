"""Normalisation that stays at its site: used, trained and kept there, and not in any reply."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import score_case
from brainunet.metrics.summary import site_score
from brainunet.model import set_weights, weights_of
from brainunet.model.normalisation import norm_names
from brainunet.records import SiteScore, TrainTask
from brainunet.training.loop import train as train_network
from brainunet.training.seeds import derive
from brainunet.weights import Weights
from brainunet_client.kept_norm import keep_norm, kept_norm_file, with_kept_norm, without
from brainunet_client.site import Site
from brainunet_client.stopping import KeepGoing
from brainunet_client.tasks import evaluate, train
from tests.support.nets import NORMS, Norm, architectures, disturb_norms, network
from tests.support.pace import first_fast
from tests.support.rights import largest_file
from tests.support.sites import NANO, evaluate_task, train_task

NAMES = norm_names(network())
MOST_FIRST = first_fast("batch", *(norm for norm in NORMS if norm != "batch"))  # it keeps running statistics too


def received(seed: int = 0, norm: Norm = "group") -> Weights:
    """Weights whose normalisation is like no other's."""
    made = network(norm=norm, seed=seed)
    disturb_norms(made, seed=seed)
    return weights_of(made)


def local_task(weights: Weights | None = None, **changes: object) -> TrainTask:
    return train_task(received() if weights is None else weights, local="norm", **changes)


def mixed(weights: Weights, own: Weights, names: frozenset[str]) -> Weights:
    return Weights.of({name: (own if name in names else weights)[name] for name in weights.names})


def trained_from(start: Weights, task: TrainTask, site: Site) -> Weights:
    made = network(norm=task.model.norm)
    set_weights(made, start)
    cases = [site.cache.get(case, task.model.modalities, task.preprocess) for case in site.train]
    train_network(made, cases, task.train, seed=derive(task.seed, site.name, task.round), proximal_mu=task.proximal_mu)
    return weights_of(made)


def score_of(weights: Weights, site: Site, norm: Norm = "group") -> SiteScore:
    made = network(norm=norm)
    set_weights(made, weights)
    scores = []
    for case in site.validation:
        prepared = site.cache.get(case, NANO.modalities, PreprocessConfig())
        assert prepared.label is not None
        labels = predict_labels(made, prepared.image, (96, 96, 96))
        scores.append(score_case(case.case_id, labels, prepared.label, prepared.spacing_mm, ["dice"]))
    return site_score(scores)


@pytest.mark.parametrize("norm", MOST_FIRST)
def test_a_site_scores_trains_and_keeps_its_own_normalisation_and_sends_exactly_none_of_it(norm: Norm, site: Site) -> None:
    names = norm_names(network(norm=norm))
    model = ModelConfig(preset="brainunet-nano", norm=norm)
    first, second = received(1, norm), received(2, norm)
    task = local_task(first, model=model, round=1, proximal_mu=0.1)

    reply = train(task, site)

    # there is none of its own yet: the one received
    after = trained_from(first, task, site)
    assert all(not reply.delta[name].any() for name in names)
    assert all(after[name].any() and not np.array_equal(after[name], first[name]) for name in names)
    assert reply.delta.digest == without(names, after.minus(first)).digest
    assert reply.score == score_of(first, site, norm)

    task = local_task(second, model=model, round=2, proximal_mu=0.1)
    reply = train(task, site)

    start = mixed(second, after, names)
    assert reply.score == score_of(start, site, norm)
    assert reply.delta.digest == without(names, trained_from(start, task, site).minus(second)).digest
    assert reply.delta.layout == second.layout


@pytest.mark.parametrize(("preset", "norm"), architectures(with_weights=True))
def test_what_is_kept_comes_back_for_every_architecture_to_the_bit(preset: str, norm: Norm, site: Site) -> None:
    made = network(preset, norm=norm)
    names, start = norm_names(made), weights_of(made)
    disturb_norms(made)
    task = train_task(start, local="norm", round=1, model=ModelConfig(preset=preset, norm=norm))

    keep_norm(task, site, names, start, weights_of(made))

    following = with_kept_norm(task.model_copy(update={"round": 2}), site, names)
    assert following.digest == weights_of(made).digest


def test_an_evaluation_scores_with_the_site_s_own_normalisation_and_keeps_nothing(site: Site) -> None:
    own = trained_from(received(), local_task(), site)
    train(local_task(), site)
    before = kept_norm_file(site, "glioma-1").read_bytes()

    reply = evaluate(evaluate_task(received(3), local="norm"), site)

    assert reply.score == score_of(mixed(received(3), own, NAMES), site)
    assert kept_norm_file(site, "glioma-1").read_bytes() == before
    assert [path.name for path in site.work.iterdir()] == [kept_norm_file(site, "glioma-1").name]


@pytest.mark.slow
def test_a_task_that_comes_again_gives_the_same_reply_to_the_bit(site: Site) -> None:
    train(local_task(round=1), site)
    first = train(local_task(received(2), round=2), site)
    kept = kept_norm_file(site, "glioma-1").read_bytes()

    again = train(local_task(received(2), round=2), site)

    assert again.delta.digest == first.delta.digest
    assert again.score == first.score
    assert kept_norm_file(site, "glioma-1").read_bytes() == kept


def stop_after(steps: list[int], last: int) -> KeepGoing:
    """Goes on until step ``last`` is told."""
    return lambda: last not in steps


@pytest.mark.slow
@pytest.mark.parametrize("norm", MOST_FIRST)
def test_a_training_stopped_and_taken_up_again_ends_where_one_without_a_stop_does(
    norm: Norm, site: Site, tmp_path: Path
) -> None:
    model = ModelConfig(preset="brainunet-nano", norm=norm)
    elsewhere = replace(site, work=tmp_path / "elsewhere")
    for place in (site, elsewhere):
        train(local_task(received(1, norm), model=model, round=1, steps=1), place)
    task = local_task(received(2, norm), model=model, round=2, steps=3, proximal_mu=0.5)
    expected = train(task, elsewhere)
    told = list[int]()

    with pytest.raises(BrainUNetError, match="stopped"):
        train(task, site, lambda step, loss: told.append(step), stop_after(told, 1))
    reply = train(task, site, lambda step, loss: told.append(step))

    assert told == [1, 2, 3]
    assert reply.delta.digest == expected.delta.digest
    assert kept_norm_file(site, "glioma-1").read_bytes() == kept_norm_file(elsewhere, "glioma-1").read_bytes()


def test_another_run_and_another_site_start_from_what_they_receive(site: Site) -> None:
    train(local_task(), site)
    other_run, other_site = local_task(received(2), run="Glioma-1", round=9), replace(site, name="LASUTH")

    assert with_kept_norm(other_run, site, NAMES).digest == received(2).digest
    assert with_kept_norm(local_task(received(2), round=9), other_site, NAMES).digest == received(2).digest
    assert with_kept_norm(local_task(received(2), round=9), site, NAMES).digest != received(2).digest
    assert kept_norm_file(site, "Glioma-1").name.lower() != kept_norm_file(site, "glioma-1").name.lower()


@pytest.mark.slow
def test_a_round_gone_back_to_starts_from_the_oldest_values_that_are_known(site: Site) -> None:
    train(local_task(round=1), site)
    train(local_task(round=5), site)
    after_first = with_kept_norm(local_task(round=5), site, NAMES)

    assert with_kept_norm(local_task(round=3), site, NAMES).digest == after_first.digest
    assert with_kept_norm(local_task(round=6), site, NAMES).digest != after_first.digest


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "nothing in it", "a folder", "no card", "NaN"])
def test_what_is_damaged_is_not_taken_up_and_said_so(damage: str, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    task, path = local_task(round=1), kept_norm_file(site, "glioma-1")
    nan = Weights.of({name: np.full_like(array, np.nan) for name, array in task.weights.as_dict().items()})
    keep_norm(task, site, NAMES, task.weights, nan if damage == "NaN" else received(4))
    content = path.read_bytes()
    if damage == "a flipped bit":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 0x40]) + content[-4:])
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "nothing in it":
        path.write_bytes(b"")
    elif damage == "no card":
        path.write_bytes(content.replace(b"brainunet-norm", b"brainunet-nose"))
    elif damage == "a folder":
        path.unlink()
        path.mkdir()

    with caplog.at_level(logging.WARNING):
        start = with_kept_norm(local_task(received(2), round=2), site, NAMES)

    assert start.digest == received(2).digest
    assert f"{path.name} is damaged" in caplog.text


def test_a_run_that_changes_its_network_starts_from_what_it_receives(site: Site) -> None:
    train(local_task(round=1), site)
    batch = norm_names(network(norm="batch"))
    lite = network("brainunet-lite")

    assert with_kept_norm(local_task(received(2, "batch"), round=2), site, batch).digest == received(2, "batch").digest
    assert with_kept_norm(local_task(weights_of(lite), round=2), site, norm_names(lite)).digest == weights_of(lite).digest


def test_weights_of_another_network_are_refused_all_the_same(site: Site) -> None:
    train(local_task(round=1), site)

    with pytest.raises(ConfigError, match="model weights"):
        train(local_task(received(norm="batch"), round=2), site)


def test_where_nothing_stays_local_nothing_is_kept(site: Site) -> None:
    reply = train(train_task(received()), site)

    assert all(reply.delta[name].any() for name in NAMES)
    assert not site.work.exists()


def test_what_is_kept_names_neither_the_run_nor_a_case(site: Site) -> None:
    train(local_task(), site)

    content = kept_norm_file(site, "glioma-1").read_bytes()
    assert b"glioma-1" not in content
    assert not any(case.case_id.encode() in content for case in (*site.train, *site.validation))


def test_a_disk_that_is_full_leaves_what_was_kept(site: Site) -> None:
    train(local_task(round=1), site)
    before = kept_norm_file(site, "glioma-1").read_bytes()

    with largest_file(1), pytest.raises(BrainUNetError, match="it can't be written"):
        train(local_task(round=2), site)

    assert kept_norm_file(site, "glioma-1").read_bytes() == before
