"""Which run a federation is in: the same after every restart, until it is complete or another is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import ModelConfig, PreprocessConfig, StrategyConfig, TrainConfig, ValidationConfig
from brainunet.errors import ConfigError
from brainunet.modelfile import ModelCard
from brainunet.settings import sha256_of
from brainunet_server.admission import AdmissionConfig
from brainunet_server.federation import FederationConfig, Folder, RoundsConfig, ServeOptions
from brainunet_server.running import RunFile, Said, plan_of, remembered, row_of, settings_of_run, take_up_run

CARD = ModelCard(
    title="start",
    model=ModelConfig(preset="brainunet-nano"),
    preprocess=PreprocessConfig(),
    provenance="made up",
    trained_on="nothing",
    weights_sha256="ab" * 32,
)
CONFIG = FederationConfig(name="Glioma Africa", host="fl.example.org", seed=7, rounds=RoundsConfig(count=5, min_sites=3))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def take_up(folder: Folder, config: FederationConfig = CONFIG, card: ModelCard = CARD, *, new_run: bool = False) -> RunFile:
    return take_up_run(folder, config, card, new_run=new_run)


def changed(**settings: Any) -> FederationConfig:
    return CONFIG.model_copy(update=settings)


def test_the_first_run_is_named_after_the_federation_and_the_hour(folder: Folder) -> None:
    run = take_up(folder)

    assert re.fullmatch(r"glioma-africa-\d{8}-\d{6}", run.id)
    assert f"{run.began_at:%Y%m%d-%H%M%S}" in run.id
    assert run.start_sha256 == CARD.weights_sha256
    assert run.settings == settings_of_run(CONFIG, CARD)
    assert RunFile.model_validate_json(folder.run_file.read_bytes()) == run


@pytest.mark.parametrize("name", ["A", "x" * 48, "a. . .b", "Ab_c-9", "9"])
def test_every_federations_name_gives_a_run_that_can_be_taken_up_again(folder: Folder, name: str) -> None:
    run = take_up(folder, changed(name=name))

    assert take_up(folder, changed(name=name)) == run


def test_after_a_restart_the_same_run_goes_on(folder: Folder) -> None:
    run = take_up(folder)

    assert take_up(folder) == run
    assert take_up(folder) == run


def test_what_concerns_only_this_server_may_change_in_between(folder: Folder) -> None:
    run = take_up(folder)
    patient = RoundsConfig(count=5, min_sites=4, gather_s=1, deadline_s=100, silence_s=10, retry_s=0)

    assert take_up(folder, changed(port=9000, listen="127.0.0.1", database="other.sqlite", rounds=patient)) == run


OTHERS: dict[str, tuple[FederationConfig, str]] = {
    "rounds": (changed(rounds=RoundsConfig(count=6, min_sites=3)), "rounds was 5, now 6"),
    "seed": (changed(seed=8), "seed was 7, now 8"),
    "training": (
        changed(train=TrainConfig(steps=21, learning_rate=0.5)),
        "train.steps was 20, now 21; train.learning_rate was 0.001, now 0.5",
    ),
    "inner": (
        changed(train=TrainConfig.model_validate({"loss": {"name": "dice"}})),
        'train.loss.name was "tversky+cross_entropy", now "dice"',
    ),
    "list": (
        changed(train=TrainConfig(patch=(32, 32, 32))),
        "train.patch was [64, 64, 64], now [32, 32, 32]",
    ),
    "strategy": (
        changed(strategy=StrategyConfig(name="fedprox", proximal_mu=0.5, max_site_share=0.5)),
        'strategy.name was "fedavg", now "fedprox"; strategy.proximal_mu was 0.01, now 0.5',
    ),
    "validation": (changed(validation=ValidationConfig(min_cases=5)), "validation.min_cases was 3, now 5"),
    "nothing": (changed(validation=ValidationConfig(min_cases=3, window=None)), "validation.window was [96, 96, 96], now null"),
    "admission": (changed(admission=AdmissionConfig(norm_factor=3)), "admission.norm_factor was 10.0, now 3.0"),
}


@pytest.mark.parametrize(("other", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_each_changed_setting_of_the_run_is_named_and_refused(folder: Folder, other: FederationConfig, words: str) -> None:
    run = take_up(folder)

    with pytest.raises(ConfigError, match=re.escape(f"was begun with: {words}, but expected")) as refused:
        take_up(folder, other)

    assert run.id in str(refused.value)
    assert "--new-run" in str(refused.value)
    assert take_up(folder) == run


def test_all_that_changed_is_said_at_once(folder: Folder) -> None:
    take_up(folder)

    with pytest.raises(ConfigError, match=r"rounds was 5, now 6; seed was 7, now 8; the start model is another one"):
        take_up(
            folder,
            changed(seed=8, rounds=RoundsConfig(count=6)),
            CARD.model_copy(update={"weights_sha256": "cd" * 32}),
        )


def test_another_start_model_is_refused(folder: Folder) -> None:
    take_up(folder)

    with pytest.raises(ConfigError, match="the start model is another one"):
        take_up(folder, card=CARD.model_copy(update={"weights_sha256": "cd" * 32}))


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (CARD.model_copy(update={"model": ModelConfig(preset="brainunet-nano", norm="batch")}), "model.norm was"),
        (CARD.model_copy(update={"preprocess": PreprocessConfig(crop_margin_voxels=9)}), "preprocess.crop_margin_voxels was 4"),
    ],
)
def test_a_start_model_of_another_network_is_refused_with_what_differs(folder: Folder, card: ModelCard, words: str) -> None:
    take_up(folder)

    with pytest.raises(ConfigError, match=words):
        take_up(folder, card=card)


def test_another_title_of_the_same_weights_is_no_other_model(folder: Folder) -> None:
    run = take_up(folder)

    assert take_up(folder, card=CARD.model_copy(update={"title": "renamed", "scores": {}})) == run


def test_a_new_run_takes_the_settings_as_they_are_now(folder: Folder) -> None:
    first = take_up(folder)
    old = first.model_copy(update={"id": "glioma-africa-20200101-000000"})
    folder.run_file.write_text(old.model_dump_json())

    second = take_up(folder, changed(seed=8), new_run=True)

    assert second.id != old.id
    assert second.settings.seed == 8
    assert take_up(folder, changed(seed=8)) == second


def test_two_new_runs_asked_for_within_a_second_are_two_runs(folder: Folder) -> None:
    first = take_up(folder)

    assert take_up(folder, new_run=True).id != first.id


def damaged(harm: str, content: bytes) -> bytes:
    told = json.loads(content)
    match harm:
        case "empty":
            return b""
        case "cut short":
            return content[:-2]
        case "not text":
            return b"\xff" + content
        case "another kind":
            return b"[]"
        case "nested":
            return b"[" * 10_000
        case "a setting more":
            told["settings"]["train"]["speed"] = 3
        case "a setting less":
            del told["settings"]["strategy"]
        case "a name that is a path":
            told["id"] = "../../elsewhere"
        case "no time zone":
            told["began_at"] = "2026-03-01T12:00:00"
    return json.dumps(told).encode()


HARMS = [
    "empty",
    "cut short",
    "not text",
    "another kind",
    "nested",
    "a setting more",
    "a setting less",
    "a name that is a path",
    "no time zone",
]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_of_the_run_is_never_taken_for_no_run(folder: Folder, harm: str) -> None:
    take_up(folder)
    folder.run_file.write_bytes(damaged(harm, folder.run_file.read_bytes()))
    before = folder.run_file.read_bytes()

    for new_run in (False, True):
        with pytest.raises(ConfigError, match=r"run\.json: it can't be read.*[Rr]estore it from your backup.*new run"):
            take_up(folder, new_run=new_run)

    assert folder.run_file.read_bytes() == before


def test_the_store_knows_the_run_with_its_settings(folder: Folder) -> None:
    run = take_up(folder, changed(strategy=StrategyConfig(name="fedadam")))

    row = row_of(run)

    assert (row.id, row.kind, row.strategy, row.preset, row.norm) == (
        run.id,
        "federation",
        "fedadam",
        "brainunet-nano",
        "group",
    )
    assert (row.rounds, row.seed, row.started_at, row.status) == (5, 7, run.began_at, "running")
    assert json.loads(row.config)["strategy"]["name"] == "fedadam"
    assert row.config_sha256 == sha256_of(run.settings)


def test_the_plan_takes_the_runs_settings_and_this_servers_patience(folder: Folder) -> None:
    run = take_up(folder, changed(strategy=StrategyConfig(max_site_share=0.5, local="norm")))
    now = changed(rounds=RoundsConfig(count=99, min_sites=4, deadline_s=100))

    plan = plan_of(run, now)

    assert (plan.run, plan.rounds, plan.seed, plan.model) == (run.id, 5, 7, CARD.model)
    assert (plan.max_site_share, plan.local, plan.validation.min_cases) == (0.5, "norm", 3)
    assert (plan.min_sites, plan.deadline_s) == (4, 100)
    assert plan.durable


def test_a_run_is_gone_on_with_as_it_was_begun_when_nothing_else_is_said(folder: Folder) -> None:
    begun = ServeOptions(database="postgresql+psycopg://fl@db/fl", demo=True, overrides=("rounds.count=5",))
    said = Said(database=begun.database, demo=begun.demo, overrides=begun.overrides)

    assert remembered(folder, ServeOptions()) == ServeOptions()
    take_up_run(folder, CONFIG, CARD, new_run=False, said=said)

    assert remembered(folder, ServeOptions()) == begun
    assert remembered(folder, ServeOptions(overrides=("rounds.count=6",))).overrides == ("rounds.count=6",)
    assert remembered(folder, ServeOptions(new_run=True)) == ServeOptions(new_run=True)


@pytest.mark.parametrize("demo", [False, True])
def test_a_run_that_was_begun_as_a_demonstration_is_one_to_its_end(demo: bool, folder: Folder) -> None:
    run = take_up_run(folder, CONFIG, CARD, new_run=False, said=Said(demo=demo))

    assert plan_of(run, CONFIG).demo is demo
    assert plan_of(take_up(folder), CONFIG).demo is demo  # after a restart, too
