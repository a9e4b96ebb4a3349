"""What a published model tells of each site: what it gave, and no number that is too small to be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.cli import main as brainunet
from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.modelfile import Ancestor, ModelCard, Publication, SitePart, read_model, write_model
from brainunet.records import PrivacySpend
from brainunet.weights import Weights
from brainunet_server.release_card import site_parts
from brainunet_server.store.rows import SiteRound
from tests.support.simulation import run
from tests.support.store import NOON, RUN, answered

WEIGHTS = Weights.of({"w": np.arange(3)})
SPEND = PrivacySpend(epsilon=7.5, delta=1e-3, noise_multiplier=1.0, sample_rate=0.1, steps=200, accountant="rdp")
RELEASE = Publication(
    name="africa-1",
    federation="Glioma Africa",
    published_at=NOON,
    start=Ancestor(title="GLI 2021", weights_sha256="ab" * 32, trained_on="real cases", provenance="", run="gli-1", round=9),
    sites={"boston": SitePart(rounds=1, cases_train=48, cases_validation=None, withheld=True)},
)


@pytest.fixture
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def show(path: Path) -> str:
    """What `brainunet model show` says, in one line."""
    return " ".join(run(brainunet, "model", "show", path).out.replace("│", " ").split())


def card(release: Publication | None = RELEASE) -> ModelCard:
    return ModelCard(
        title="a model",
        model=ModelConfig(),
        preprocess=PreprocessConfig(),
        provenance="by hand",
        trained_on="real cases",
        made_at=NOON,
        release=release,
    )


def test_a_site_counts_with_each_round_whose_model_has_its_training() -> None:
    rows = [answered(1, "boston"), answered(2, "boston"), answered(3, "boston"), answered(2, "lagos")]

    parts = site_parts(rows, last=2)

    assert {name: part.rounds for name, part in parts.items()} == {"boston": 2, "lagos": 1}
    assert parts["lagos"] == SitePart(rounds=1, cases_train=48, cases_validation=12)


def test_whoever_gave_nothing_is_not_named() -> None:
    absent = SiteRound(run_id=RUN.id, round=1, site="kigali", outcome="absent", reason="no reply in time")
    refused = replace(answered(1, "lome"), outcome="refused", reason="an update 90 times as long as the others'")
    only_scored = replace(answered(1, "accra"), update_norm=None, update_digest=None)

    assert list(site_parts([absent, refused, only_scored, answered(1, "lagos")], last=1)) == ["lagos"]


def test_numbers_of_cases_are_those_of_the_last_round_and_none_that_the_site_withheld() -> None:
    few_for_training = replace(answered(2, "boston"), cases_train=2, loss=None)
    few_for_validation = replace(answered(2, "lagos"), cases_validation=1, withheld=True)
    grown = replace(answered(2, "accra"), cases_train=50)
    rows = [answered(1, "accra"), answered(1, "boston"), answered(1, "lagos"), few_for_training, few_for_validation, grown]

    parts = site_parts(rows, last=2)

    assert parts["accra"].cases_train == 50
    assert (parts["boston"].cases_train, parts["boston"].cases_validation) == (None, 12)
    assert (parts["lagos"].cases_train, parts["lagos"].cases_validation) == (48, None)


def test_a_site_that_withheld_its_figures_of_the_model_itself_says_so() -> None:
    parts = site_parts([answered(1, "lagos"), answered(1, "boston")], last=1, withheld={"lagos"})

    assert parts["lagos"] == SitePart(rounds=1, cases_train=48, cases_validation=None, withheld=True)
    assert not parts["boston"].withheld


def test_the_card_of_a_release_comes_back_and_equal_cards_give_equal_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"

    for path in (first, second):
        write_model(path, WEIGHTS, card())

    assert read_model(first)[1].release == RELEASE
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.usefixtures("_wide")
def test_model_show_says_what_was_withheld_and_whence_the_start_came(tmp_path: Path) -> None:
    write_model(tmp_path / "africa-1.safetensors", WEIGHTS, card())

    said = show(tmp_path / "africa-1.safetensors")

    assert "1: boston: 1 round, cases: 48 for training, withheld for validation" in said
    assert "Dice of boston withheld: too few validation cases" in said
    assert "GLI 2021, round 9 of run gli-1 (trained on: real cases)" in said
    assert "none: every site trained without" in said


@pytest.mark.usefixtures("_wide")
def test_model_show_names_the_sites_that_paid_for_privacy_and_those_that_did_not(tmp_path: Path) -> None:
    part = SitePart(rounds=1, cases_train=48, cases_validation=12)
    both = RELEASE.model_copy(update={"sites": {"boston": part, "lagos": part}})
    write_model(tmp_path / "m.safetensors", WEIGHTS, card(both).model_copy(update={"spends": {"boston": SPEND}}))

    said = show(tmp_path / "m.safetensors")

    assert "boston epsilon 7.50 at delta 0.001 for each case; lagos: trained without (in this run)" in said
    assert "Dice of lagos no figures of this model" in said
