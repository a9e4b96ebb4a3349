"""What a hospital does with a task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from brainunet.config import ModelConfig, PreprocessConfig, ValidationConfig
from brainunet.errors import BrainUNetError, ConfigError, DataError
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import STRUCTURES, score_case
from brainunet.metrics.summary import site_score
from brainunet.model import set_weights, weights_of
from brainunet.records import AnyTask, EvaluateReply, FaultCode, SiteScore, TrainReply
from brainunet.training.loop import train as train_network
from brainunet.training.seeds import derive
from brainunet.wire import pack, unpack
from brainunet_client.faults import fault_code
from brainunet_client.site import Site
from brainunet_client.tasks import do, train
from tests.support.nets import network, weights
from tests.support.pace import first_fast
from tests.support.sites import NANO, evaluate_task, train_task


def score_of(made_with_seed: int, site: Site) -> SiteScore:
    made = network(seed=made_with_seed)
    scores = []
    for case in site.validation:
        prepared = site.cache.get(case, NANO.modalities, PreprocessConfig())
        assert prepared.label is not None
        labels = predict_labels(made, prepared.image, None)
        scores.append(score_case(case.case_id, labels, prepared.label, prepared.spacing_mm, ["dice"]))
    return site_score(scores)


def test_a_train_reply_says_what_was_received_and_what_training_made_of_it(site: Site) -> None:
    received = weights(seed=5)
    task = train_task(received, proximal_mu=0.1)

    reply = train(task, site)

    made = network()
    set_weights(made, received)
    cases = [site.cache.get(case, NANO.modalities, task.preprocess) for case in site.train]
    trained = train_network(made, cases, task.train, seed=derive(task.seed, "CRV", task.round), proximal_mu=0.1)
    assert reply.delta.digest == weights_of(made).minus(received).digest
    assert reply.delta.norm > 0
    assert reply.loss == trained.mean_loss
    assert reply.score == score_of(5, site)  # of the weights received, not of those trained
    assert (reply.run, reply.round) == (task.run, task.round)
    assert (reply.cases.train, reply.cases.validation) == (2, 1)
    assert reply.seconds is not None
    assert reply.seconds > 0


@pytest.mark.parametrize(("min_cases", "told"), first_fast((3, False), (1, True), (2, True)))
def test_the_loss_of_fewer_training_cases_than_the_site_tells_figures_of_stays(site: Site, min_cases: int, told: bool) -> None:
    reply = train(train_task(weights(), steps=1, validation=ValidationConfig(min_cases=min_cases)), site)

    assert reply.cases.train == 2
    assert (reply.loss is not None) == told


@pytest.mark.slow  # of the trainer alone: test_training.py
def test_the_same_task_gives_the_same_delta_and_another_seed_round_or_site_another(site: Site) -> None:
    received = weights()
    first = train(train_task(received), site).delta.digest

    assert train(train_task(received), site).delta.digest == first
    others = [
        train(train_task(received, seed=8), site),
        train(train_task(received, round=4), site),
        train(train_task(received), replace(site, name="LASUTH")),
    ]
    assert first not in {other.delta.digest for other in others}
    assert len({other.delta.digest for other in others}) == 3


def test_the_order_in_which_cases_were_found_does_not_matter(hospital: Site, tmp_path: Path) -> None:
    everyone = [*hospital.validation, *reversed(hospital.train)]
    sides = {case.case_id: "train" if case in hospital.train else "validation" for case in everyone}

    same = Site.of("CRV", everyone, sides, hospital.cache, tmp_path)  # type: ignore[arg-type] # the two sides of a split

    assert (same.train, same.validation) == (hospital.train, hospital.validation)


def test_a_reply_survives_the_wire(site: Site) -> None:
    reply = train(train_task(weights()), site)
    there: TrainReply = unpack(pack(reply), TrainReply)

    assert there.delta.digest == reply.delta.digest
    assert there.model_copy(update={"delta": reply.delta}) == reply


def test_an_evaluation_scores_the_weights_received_and_changes_nothing(site: Site) -> None:
    reply = do(evaluate_task(weights(seed=6)), site)

    assert isinstance(reply, EvaluateReply)
    assert reply.score == score_of(6, site)
    assert (reply.run, reply.round, reply.cases.train, reply.cases.validation) == ("glioma-1", 4, 2, 1)
    assert not site.work.exists()


def test_the_task_s_kind_decides(site: Site) -> None:
    assert isinstance(do(train_task(weights(), steps=1), site), TrainReply)


def test_a_site_without_validation_cases_trains_and_has_no_figures(site: Site) -> None:
    reply = train(train_task(weights(), steps=1), replace(site, validation=()))

    assert reply.score == SiteScore(cases=0, rows=())
    assert reply.cases.validation == 0


@pytest.mark.parametrize("make", [train_task, evaluate_task])
def test_figures_over_too_few_cases_do_not_leave_in_any_form(make: Callable[..., AnyTask], site: Site) -> None:
    task = make(weights(), validation=ValidationConfig(window=None, min_cases=2))
    figure = score_of(0, site).rows[0].mean

    reply = do(task, site)

    assert reply.score == SiteScore(cases=1, rows=(), withheld=True)
    assert reply.cases.validation == 1
    assert figure is not None
    assert repr(figure) not in pack(reply).header
    assert "mean" not in pack(reply).header


def test_the_task_says_which_metrics_are_told(site: Site) -> None:
    asked = ("dice", "hd95_mm", "lesion_dice", "lesion_hd95_mm")

    reply = do(evaluate_task(weights(), validation=ValidationConfig(window=None, metrics=asked)), site)

    assert {(row.structure, row.metric) for row in reply.score.rows} == set(product(STRUCTURES, asked))
    assert all(row.mean is not None for row in reply.score.rows)
    assert unpack(pack(reply), EvaluateReply) == reply


def test_only_cases_that_could_be_scored_count_for_the_minimum(site: Site, tmp_path: Path) -> None:
    everyone = replace(broken(site, tmp_path, how_many=1), validation=broken(site, tmp_path, how_many=1).train)
    task = evaluate_task(weights(), validation=ValidationConfig(min_cases=2))

    assert do(task, everyone).score == SiteScore(cases=1, rows=(), withheld=True)
    assert len(do(task, replace(site, validation=site.train)).score.rows) == 5


def broken(site: Site, tmp_path: Path, *, how_many: int) -> Site:
    """The site with the first of its training cases cut short."""
    cases = list(site.train)
    for i in range(how_many):
        stub = tmp_path / f"{cases[i].case_id}-t1c.nii.gz"
        stub.write_bytes(b"")
        cases[i] = replace(cases[i], images=dict.fromkeys(cases[i].images, stub))
    return replace(site, train=tuple(cases))


def test_a_case_that_cannot_be_read_is_named_in_the_site_s_log_and_the_others_train(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reply = train(train_task(weights(), steps=1), broken(site, tmp_path, how_many=1))

    assert reply.cases.train == 1
    assert f"skipped: {site.train[0].case_id}" in caplog.text


def test_a_site_whose_cases_cannot_be_read_says_that_it_has_none(site: Site, tmp_path: Path) -> None:
    for nothing in (broken(site, tmp_path, how_many=2), replace(site, train=())):
        with pytest.raises(DataError, match="no case to train on") as raised:
            train(train_task(weights()), nothing)
        assert fault_code(raised.value) is FaultCode.NO_USABLE_CASES


def test_weights_of_another_network_are_refused_before_any_work(site: Site) -> None:
    other = ModelConfig(preset="brainunet-nano", norm="batch")

    for task in (train_task(weights(), model=other), evaluate_task(weights(), model=other)):
        with pytest.raises(ConfigError) as raised:
            do(task, site)
        assert fault_code(raised.value) is FaultCode.MODEL_DOES_NOT_FIT
    assert not site.work.exists()


def test_a_training_that_diverges_is_a_fault_of_its_own(site: Site) -> None:
    with pytest.raises(BrainUNetError) as raised:
        train(train_task(weights(), steps=8, learning_rate=1e30), site)

    assert fault_code(raised.value) is FaultCode.TRAINING_DIVERGED
