"""``brainunet evaluate --model``: a model's own predictions, scored where the segmentations lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainunet.config import ModelConfig, PreprocessConfig, ValidationConfig
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import prepare
from brainunet.inference.predictor import predict_labels
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.metrics.overlap import dice
from brainunet.modelfile import ModelCard, write_model
from brainunet.starter import STARTER
from tests.support.evaluated import evaluate, rows_of, summary_of
from tests.support.nets import network, weights
from tests.support.pace import first_fast


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=2, style="gli", seed=0, shape=(32, 36, 40))
    return folder


def model_file(path: Path, *modalities: Modality) -> Path:
    config = ModelConfig(preset="brainunet-nano", modalities=modalities or DEFAULT_MODALITIES)
    card = ModelCard(title="random", model=config, preprocess=PreprocessConfig(), provenance="a test", trained_on="nothing")
    write_model(path, weights(), card)
    return path


def test_a_model_s_own_predictions_are_scored_on_the_full_grid(tmp_path: Path, phantoms: Path) -> None:
    model = model_file(tmp_path / "model.safetensors")

    ended = evaluate("--model", model, "--data", phantoms, "--out", tmp_path / "out", "--metrics", "dice,specificity")

    assert ended.code == 0, ended.err
    values = {(row["case_id"], row["region"], row["metric"]): float(row["value"]) for row in rows_of(tmp_path / "out")}
    for case in find_cases(phantoms).cases:
        prepared = prepare(case, DEFAULT_MODALITIES, PreprocessConfig())
        assert prepared.label is not None
        predicted, truth = predict_labels(network(), prepared.image, ValidationConfig().window) > 0, prepared.label > 0
        outside = 32 * 36 * 40 - truth.sum()
        assert values[case.case_id, "WT", "dice"] == pytest.approx(dice(predicted, truth))
        assert values[case.case_id, "WT", "specificity"] == pytest.approx(1 - (predicted & ~truth).sum() / outside)
    settings = summary_of(tmp_path / "out")["settings"]
    assert (settings["model_title"], settings["modalities"]) == ("random", ["t1c", "t2w", "t2f"])
    assert settings["weights_sha256"] == weights().digest


@pytest.mark.slow
def test_made_up_cases_and_a_model_of_them_are_named_wherever_figures_are(tmp_path: Path, phantoms: Path) -> None:
    out = tmp_path / "out"

    ended = evaluate("--model", STARTER, "--data", phantoms, "--out", out, "--metrics", "dice", "--json")

    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["made_up_cases"] == summary_of(out)["made_up_cases"] == 2
    assert "note: 2 of 2 cases made up, as the files say: no figure of patients" in ended.err
    assert "note: the model was trained on phantoms" in ended.err
    assert "Mean over 2 cases (2 made up)" in evaluate("--pred", phantoms, "--truth", phantoms, "--out", out).out


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "window"), first_fast(("16", (16, 16, 16)), ("none", None), ("256", (256, 256, 256))))
def test_windows_can_be_chosen_and_one_pass_is_one(
    asked: str, window: tuple[int, int, int] | None, tmp_path: Path, phantoms: Path
) -> None:
    model, out = model_file(tmp_path / "model.safetensors"), tmp_path / "out"

    ended = evaluate("--model", model, "--data", phantoms, "--out", out, "--metrics", "dice", "--window", asked)

    assert ended.code == 0, ended.err
    assert summary_of(out)["settings"]["window"] == (window and list(window))
    values = {row["case_id"]: float(row["value"]) for row in rows_of(out) if row["region"] == "WT"}
    for case in find_cases(phantoms).cases:
        prepared = prepare(case, DEFAULT_MODALITIES, PreprocessConfig())
        assert prepared.label is not None
        predicted = predict_labels(network(), prepared.image, window) > 0
        assert values[case.case_id] == pytest.approx(dice(predicted, prepared.label > 0))


@pytest.mark.parametrize("asked", ["all", "95", "-96", "0", "512", "96,96", "", "[]"])
def test_a_window_that_is_none_is_refused_with_what_can_be(asked: str, tmp_path: Path, phantoms: Path) -> None:
    model = model_file(tmp_path / "model.safetensors")

    ended = evaluate("--model", model, "--data", phantoms, "--out", tmp_path / "out", "--window", asked)

    assert (ended.code, "expected a side of 16 to 256 voxels, a multiple of 8, or none" in ended.err) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_a_model_for_a_modality_that_no_case_has_is_refused_with_the_field(tmp_path: Path, phantoms: Path) -> None:
    model = model_file(tmp_path / "model.safetensors")
    for path in phantoms.rglob("*"):
        if path.is_file() and "-t2w" not in path.name:
            (tmp_path / "data" / path.parent.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / path.parent.name / path.name).write_bytes(path.read_bytes())

    ended = evaluate("--model", model, "--data", tmp_path / "data", "--out", tmp_path / "out")

    assert ended.code == 4
    assert "model.safetensors: model.modalities = t1c, t2w, t2f; no case has t2w" in ended.err
    assert "a model for what the cases have: t1n, t1c, t2f" in ended.err


def test_a_case_without_a_modality_of_the_model_is_left_out_by_name(tmp_path: Path, phantoms: Path) -> None:
    first, second = find_cases(phantoms).cases
    for case in (first, second):
        for path in [*case.images.values(), case.label]:
            assert path is not None
            if (case, path) != (second, second.images[Modality.T2W]):
                (tmp_path / "data").mkdir(exist_ok=True)
                (tmp_path / "data" / path.name).write_bytes(path.read_bytes())

    ended = evaluate(
        "--model", model_file(tmp_path / "model.safetensors"), "--data", tmp_path / "data", "--out", tmp_path / "out",
        "--metrics", "dice",
    )  # fmt: skip

    assert ended.code == 0
    assert f"left out: {second.case_id}: no file for t2w" in ended.err
    assert {row["case_id"] for row in rows_of(tmp_path / "out")} == {first.case_id}


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path: Path, phantoms: Path) -> None:
    model = model_file(tmp_path / "model.safetensors", Modality.T1C, Modality.T2F)

    ended = evaluate("--model", model, "--data", phantoms, "--out", tmp_path / "out")

    assert ended.code == 4
    assert "preset, norm and modalities" in ended.err
