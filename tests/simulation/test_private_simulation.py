"""``brainunet-simulate --privacy``: the federation's own code under noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet_sim.cli import main as simulate
from brainunet_sim.private_sites import privacy_options
from tests.support.simulation import TINY, digests, read_summary, run, summary_of

PRIVATE = ("--privacy", "eps=5,delta=0.1,cases_per_step=1", "--seed", "5")


@pytest.fixture(scope="module")
def private(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a private simulation, with what it said beside it; read, never written."""
    out = tmp_path_factory.mktemp("private") / "out"
    ended = run(simulate, *TINY, "--out", out, "--data", cases, "--sites", "2", *PRIVATE, "--quiet")
    assert ended.code == 0, ended.err
    (out.parent / "said").write_text(ended.out)
    return out


def test_every_site_keeps_to_the_epsilon_and_tells_no_loss(private: Path) -> None:
    summary = read_summary(private)

    said = (private.parent / "said").read_text()
    assert f"site-1: epsilon {summary['privacy']['site-1']['epsilon']:.2f} at delta 0.1" in said
    assert {site: entry["delta"] for site, entry in summary["privacy"].items()} == {"site-1": 0.1, "site-2": 0.1}
    assert all(4.5 < entry["epsilon"] <= 5 for entry in summary["privacy"].values())
    for entry in summary["rounds"][1:]:
        assert {(site["loss"], site["seconds"]) for site in entry["sites"].values()} == {(None, None)}


@pytest.mark.slow
def test_equal_seeds_give_equal_models_and_privacy_other_ones(private: Path, cases: Path, tmp_path: Path) -> None:
    summary_of(tmp_path / "again", "--data", cases, "--sites", "2", *PRIVATE)
    summary_of(tmp_path / "plain", "--data", cases, "--sites", "2", "--seed", "5")

    assert digests(tmp_path / "again") == digests(private)
    assert digests(tmp_path / "plain")[0] == digests(private)[0]
    assert digests(tmp_path / "plain")[1] != digests(private)[1]


@pytest.mark.parametrize(
    ("privacy", "code", "said"),
    [
        ("eps=0", 4, "privacy.epsilon: must be more than 0"),
        ("eps=8,delta=1", 4, "privacy.delta: must be less than 1"),
        ("eps", 2, "eps, but expected name=number"),
        ("epsilom=8", 4, "did you mean epsilon?"),
        ("eps=8,delta=0.9", 5, "one over the cases of this site"),
        ("eps=8,delta=0.1,cases_per_step=20", 5, "20 cases in a step, of 2"),
    ],
)
def test_privacy_that_can_not_be_is_refused_in_words(cases: Path, tmp_path: Path, privacy: str, code: int, said: str) -> None:
    ended = run(simulate, *TINY, "--out", tmp_path / "out", "--data", cases, "--sites", "2", "--privacy", privacy, "--quiet")

    assert ended.code == code
    assert said in ended.err


def test_batch_norm_is_refused_before_anything_is_read(cases: Path, tmp_path: Path) -> None:
    ended = run(
        simulate,
        *TINY,
        "--out",
        tmp_path / "out",
        "--data",
        cases,
        "--privacy",
        "eps=8",
        "--set",
        "model.norm=batch",
        "--quiet",
    )

    assert ended.code == 4
    assert 'privacy needs model.norm = "group"' in ended.err


def test_short_words_mean_settings() -> None:
    assert privacy_options("eps=8, secure_noise=true") == {"epsilon": 8, "secure_noise": True}
