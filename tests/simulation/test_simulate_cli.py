"""``brainunet-simulate`` as a person runs it, on phantoms so small that nothing is learnt and everything is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brainunet.modelfile import read_model
from brainunet_server.store.reader import StoreReader
from brainunet_sim.cli import main as simulate
from tests.support.simulation import SHAPE, TINY, Arguments, digests, figures, partition_csv, read_summary, run, summary_of

REGIONS = {"ET", "TC", "WT"}


def test_the_summary_has_an_entry_for_the_start_and_each_round_with_what_every_site_did(finished: Path) -> None:
    summary = read_summary(finished)

    assert [entry["round"] for entry in summary["rounds"]] == [0, 1, 2]
    for entry in summary["rounds"]:
        assert set(entry["mean_dice"]) >= REGIONS
        assert set(entry["sites"]) == {"CRV", "MEDHUB", "NKDC"}
        for site in entry["sites"].values():
            assert set(site) == {"cases", "dice", "loss", "seconds", "bytes_down", "bytes_up"}
            assert site["cases"] == {"train": 1, "validation": 1}
            assert set(site["dice"]) >= REGIONS
            assert all(0 <= value <= 1 for value in site["dice"].values())
    assert summary["skipped"] == []
    assert summary["status"] == "completed"


def test_loss_seconds_and_bytes_belong_to_the_round_that_made_the_model(finished: Path) -> None:
    start, *made = read_summary(finished)["rounds"]

    for site in start["sites"].values():
        assert (site["loss"], site["seconds"], site["bytes_down"], site["bytes_up"]) == (None, None, 0, 0)
    model_bytes = (finished / "models" / "round-001.safetensors").stat().st_size
    for entry in made:
        for site in entry["sites"].values():
            assert site["loss"] > 0
            assert site["seconds"] > 0
            assert site["bytes_down"] == pytest.approx(model_bytes, rel=0.02)
            assert site["bytes_up"] == pytest.approx(model_bytes, rel=0.02)


def test_the_summary_says_what_it_cost_and_how_to_repeat_it(finished: Path) -> None:
    summary, config = read_summary(finished), json.loads((finished / "config.json").read_text())

    assert summary["seed"] == config["config"]["seed"] == 5
    assert summary["config_sha256"] == config["config_sha256"]
    assert summary["seconds"] > 0
    assert 50 < summary["peak_memory_mb"] < 10_000


def test_the_folder_has_the_figure_the_store_and_every_model_with_its_card(finished: Path) -> None:
    assert (finished / "dice.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    models = {path.stem: read_model(path)[1] for path in (finished / "models").iterdir()}
    assert sorted(models) == ["best", "best-worst-site", "round-000", "round-001", "round-002"]
    summary = read_summary(finished)
    assert models["best"].round == summary["best_round"]
    assert models["round-000"].trained_on == "nothing"
    assert models["round-000"].provenance == "random weights of seed 5"
    for number in (1, 2):
        card = models[f"round-00{number}"]
        assert (card.run, card.round, card.trained_on) == (summary["run"], number, "phantoms")  # made up, as their files say
        assert card.parent_sha256 == models["round-000"].weights_sha256
        assert card.config_sha256 == summary["config_sha256"]
    with StoreReader(finished / "store.sqlite") as store:
        assert [model.digest for model in store.models(summary["run"])] == [
            models[f"round-00{k}"].weights_sha256 for k in range(3)
        ]
        assert store.run(summary["run"]).status == "completed"


def test_figures_go_to_stdout_and_the_rounds_to_stderr(finished: Path) -> None:
    out, err = json.loads((finished.parent / "said").read_text())

    first, last = (
        entry["mean_dice"]["WT"] for entry in (read_summary(finished)["rounds"][0], read_summary(finished)["rounds"][-1])
    )
    assert out.splitlines()[0] == f"mean WT Dice over the sites' validation cases: {first:.3f} -> {last:.3f}"
    assert f"see {finished / 'dice.png'}" in out
    assert [line.partition(":")[0] for line in err.splitlines()[1:]] == [f"model of round {k} of 2" for k in range(3)]


@pytest.mark.slow
def test_equal_seeds_give_equal_figures_and_models_and_with_json_stdout_is_the_summary(
    finished: Path, tmp_path: Path, two_cases_a_site: Arguments
) -> None:
    ended = run(simulate, *TINY, "--out", tmp_path / "out", *two_cases_a_site, "--json")

    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert json.loads(ended.out) == read_summary(tmp_path / "out")
    assert figures(read_summary(tmp_path / "out")) == figures(read_summary(finished))
    assert digests(tmp_path / "out") == digests(finished)


UNKNOWN = [
    (["--partition", "centr"], 4, "did you mean centre?"),
    (["--strategy", "fedprx"], 4, "did you mean fedprox?"),
    (["--preset", "brainunet-nan"], 4, "did you mean brainunet-nano?"),
    (["--set", "train.step=3"], 4, "did you mean steps?"),
    (["--set", "train.loss.name=tverksy"], 4, "did you mean tversky"),
    (["--set", "steps"], 4, "key.sub=value"),
    (["--baseline", "lokal"], 4, "baseline"),
    (["--convention", "brats2022"], 3, "did you mean brats202"),
    (["--convention", "decathlon"], 3, "--convention"),
    (["--init", "nowhere.safetensors"], 4, "nowhere.safetensors: No such file"),
    (["--config", "nowhere.toml"], 4, "nowhere.toml: No such file"),
    (["--data", "nowhere"], 3, "nowhere: No such file or directory, but expected a folder of cases"),
    (["--rounds", "0"], 2, "0 is not in the range"),
    (["--sites", "three"], 2, "not a valid integer"),
    (["--phantom"], 2, "--data and --phantom: both, but expected one of them"),
    (["--partitions", "iid"], 2, "No such option"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), UNKNOWN, ids=[" ".join(case[0]) for case in UNKNOWN])
def test_what_makes_no_sense_is_said_at_once_and_nothing_is_begun(
    tmp_path: Path, cases: Path, arguments: list[str], code: int, said: str
) -> None:
    ended = run(simulate, *TINY, "--data", cases, "--out", tmp_path / "out", *arguments)

    assert ended.code == code
    assert said in ended.err
    assert ended.out == ""
    assert not (tmp_path / "out").exists()


def test_neither_data_nor_phantoms_is_refused(tmp_path: Path) -> None:
    assert run(simulate, *TINY, "--out", tmp_path / "out").code == 2


def test_a_model_of_another_network_than_the_preset_is_refused_with_the_field(
    finished: Path, tmp_path: Path, cases: Path
) -> None:
    best = finished / "models" / "best.safetensors"

    ended = run(simulate, "--init", best, "--preset", "brainunet-lite", "--data", cases, "--out", tmp_path / "out")

    assert ended.code == 4
    assert "best.safetensors: model" in ended.err
    assert "brainunet-lite" in ended.err
    assert not (tmp_path / "out").exists()


def test_bad_cases_are_named_and_the_others_go_on(tmp_path: Path, cases: Path) -> None:
    data = Path(shutil.copytree(cases, tmp_path / "data"))
    first, second, *others = sorted(data.iterdir())
    (first / f"{first.name}-t1c.nii.gz").unlink()
    (second / f"{second.name}-seg.nii.gz").write_bytes(b"not a volume")

    ended = run(simulate, *TINY, "--data", data, "--out", tmp_path / "out", "--sites", "2", "--rounds", "1")

    assert ended.code == 0, ended.err
    summary = read_summary(tmp_path / "out")
    assert [problem["case"] for problem in summary["skipped"]] == [first.name, second.name]
    assert "no file for t1c" in summary["skipped"][0]["reason"]
    assert f"skipped: {second.name}" in ended.out
    sides: dict[str, dict[str, str]] = json.loads((tmp_path / "out" / "sites.json").read_text())
    assert sorted(case for site in sides.values() for case in site) == [path.name for path in others]


def test_a_folder_with_nothing_usable_ends_with_3_and_every_reason(tmp_path: Path, cases: Path) -> None:
    data = Path(shutil.copytree(cases, tmp_path / "data"))
    for seg in data.rglob("*-seg.nii.gz"):
        seg.write_bytes(b"")

    ended = run(simulate, *TINY, "--data", data, "--out", tmp_path / "out")

    assert ended.code == 3
    assert "no usable case of 6" in ended.err
    assert all(path.name in ended.err for path in data.rglob("*-seg.nii.gz"))


@pytest.mark.slow
def test_phantoms_need_no_data_and_their_models_are_marked(tmp_path: Path) -> None:
    phantoms = ("--set", "phantom.cases=4", "--set", f"phantom.shape={list(SHAPE)}")

    summary_of(tmp_path / "out", "--phantom", *phantoms, "--sites", "2", "--rounds", "1")

    assert len(list((tmp_path / "out" / "phantoms").iterdir())) == 4
    assert read_model(tmp_path / "out" / "models" / "round-001.safetensors")[1].trained_on == "phantoms"


@pytest.mark.slow
def test_fedprox_pulls_and_with_no_pull_it_is_fedavg(finished: Path, tmp_path: Path, two_cases_a_site: Arguments) -> None:
    def last(mu: str) -> str:
        out = tmp_path / mu
        summary_of(out, *two_cases_a_site, "--strategy", "fedprox", "--set", f"strategy.proximal_mu={mu}", "--rounds", "1")
        return digests(out)[1]

    assert last("0") == digests(finished)[1]
    assert last("10") != digests(finished)[1]


@pytest.mark.slow
def test_the_baseline_trains_each_site_alone_for_the_same_rounds(
    finished: Path, tmp_path: Path, two_cases_a_site: Arguments
) -> None:
    summary = summary_of(tmp_path / "out", *two_cases_a_site, "--baseline", "local")

    assert {name: [entry["round"] for entry in own] for name, own in summary["local_only"].items()} == {
        "CRV": [0, 1, 2], "MEDHUB": [0, 1, 2], "NKDC": [0, 1, 2],
    }  # fmt: skip
    for name, own in summary["local_only"].items():
        assert own[0]["dice"] == summary["rounds"][0]["sites"][name]["dice"]  # all begin with one model
        card = read_model(tmp_path / "out" / "models" / name / "round-001.safetensors")[1]
        assert card.provenance == "trained on one virtual site, from: random weights of seed 5"
    assert digests(tmp_path / "out") == digests(finished)  # the baseline leaves the federation as it was


@pytest.mark.slow
def test_it_goes_on_from_a_model_of_its_own_and_the_cards_tell_the_line(finished: Path, tmp_path: Path, cases: Path) -> None:
    best = finished / "models" / "best.safetensors"
    settings = (
        *("--set", "train.steps=1", "--set", "train.patch=[16,16,16]", "--sites", "1", "--rounds", "1", "--quiet"),
        *("--set", "train.augment.dropout_probability=0.5", "--set", "validation.window=none"),
    )

    ended = run(simulate, "--init", best, "--data", cases, "--out", tmp_path / "out", *settings)

    assert ended.code == 0, ended.err
    before, after = read_model(best)[1], read_model(tmp_path / "out" / "models" / "round-001.safetensors")[1]
    assert after.parent_sha256 == before.weights_sha256
    assert (before.accepts_missing, before.scored_in) == (0, "windows")
    assert (after.accepts_missing, after.scored_in) == (1, "one-pass")
    assert after.provenance == f"federated over 1 virtual sites, from: {before.provenance}"


@pytest.mark.slow
def test_a_partition_file_names_the_sites(tmp_path: Path, cases: Path) -> None:
    ids = sorted(path.name for path in cases.iterdir())
    (tmp_path / "fets.csv").write_text(partition_csv([("1", case) for case in ids[:2]] + [("7", case) for case in ids[2:5]]))

    summary = summary_of(tmp_path / "out", "--data", cases, "--partition-file", tmp_path / "fets.csv", "--rounds", "1")

    assert {name: site["cases"] for name, site in summary["rounds"][0]["sites"].items()} == {
        "site-1": {"train": 1, "validation": 1},
        "site-7": {"train": 2, "validation": 1},
    }


def test_help_is_there_without_any_of_it() -> None:
    ended = run(simulate, "--help")

    assert ended.code == 0
    assert all(option in ended.out for option in ("--phantom", "--partition", "--resume", "--overwrite", "--database"))
