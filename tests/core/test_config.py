"""Settings come from defaults, then the file, then the command line, and every mistake is named at once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from brainunet.config import AugmentConfig, LossConfig, ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.errors import ConfigError
from brainunet.labels import Modality
from brainunet.settings import Settings, load, nearest, sha256_of


class Part(Settings):
    depth: int = 1


class Whole(Settings):
    train: TrainConfig = TrainConfig()
    maybe: Part | None = None
    several: tuple[Part, ...] = ()
    named: dict[str, Part] = Field(default_factory=dict)


def written(folder: Path, text: str) -> Path:
    path = folder / "federation.toml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(kind: type[Settings], *overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load(kind, path, overrides)
    assert raised.value.exit_code == 4
    return str(raised.value)


# --- order -----------------------------------------------------------------------------------------------------------------


def test_defaults_then_base_then_file_then_options_then_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, "steps = 3\nbatch_size = 3\nweight_decay = 0.3\n[loss]\nalpha = 0.3\nbeta = 0.3\n")
    base = {"learning_rate": 0.2, "steps": 2, "batch_size": 2, "loss": {"alpha": 0.2, "smooth_voxels": 2.0}}

    options = {"weight_decay": 0.4, "batch_size": 4}

    config = load(TrainConfig, path, ["batch_size=5", "loss.beta=0.5"], base=base, options=options)

    assert config.warmup_steps == 0  # default
    assert (config.learning_rate, config.loss.smooth_voxels) == (0.2, 2.0)  # base
    assert (config.steps, config.loss.alpha) == (3, 0.3)  # file
    assert config.weight_decay == 0.4  # option
    assert (config.batch_size, config.loss.beta) == (5, 0.5)  # override
    assert base["loss"] == {"alpha": 0.2, "smooth_voxels": 2.0}


def test_the_later_override_wins() -> None:
    assert load(TrainConfig, overrides=["steps=5", "steps=6"]).steps == 6


def test_a_preset_becomes_its_numbers_and_what_stands_beside_it_wins() -> None:
    config = load(Whole, overrides=["train.augment.noise_range=[0, 0.5]", "train.augment.preset=ssa"])

    assert config.train.augment == AugmentConfig(preset="ssa", noise_range=(0, 0.5))
    resolved = config.model_dump()["train"]["augment"]
    assert "preset" not in resolved
    assert (resolved["flip_probability"], resolved["rotation_degrees"], resolved["noise_range"]) == (0.3, 15.0, (0, 0.5))


def test_a_preset_of_a_later_layer_wins_over_all_numbers_of_an_earlier_one(tmp_path: Path) -> None:
    path = written(tmp_path, '[train.augment]\npreset = "ssa"\nblur_probability = 1.0\n')

    assert load(Whole, path).train.augment == AugmentConfig(preset="ssa", blur_probability=1.0)
    assert load(Whole, path, ["train.augment.preset=none"]).train.augment == AugmentConfig(preset="none")
    assert load(Whole, path, ["train.augment.gamma_probability=0"]).train.augment.blur_probability == 1.0


def test_settings_resolved_from_a_preset_are_those_written_out() -> None:
    named = load(TrainConfig, overrides=["augment.preset=ssa"])

    assert TrainConfig.model_validate_json(named.model_dump_json()) == named
    assert sha256_of(named) == sha256_of(TrainConfig.model_validate(named.model_dump()))
    assert sha256_of(load(TrainConfig, overrides=["augment.preset=light"])) == sha256_of(TrainConfig())


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("loss.name=tversky", "tversky"),
        ('loss.name="tversky"', "tversky"),
        (" loss.name = tversky", "tversky"),
        ("loss.name=tversky+cross_entropy", "tversky+cross_entropy"),
        ("loss.name=a=b", "a=b"),
    ],
)
def test_a_word_needs_no_quotes(override: str, value: str) -> None:
    assert load(TrainConfig, overrides=[override]).loss.name == value


def test_lists_and_small_numbers_are_written_as_in_toml() -> None:
    config = load(TrainConfig, overrides=["learning_rate=1e-4", "patch=[32, 48, 64]", "loss.weights=[0.5, 1, 2, 1.5]"])

    assert (config.learning_rate, config.patch, config.loss.weights) == (1e-4, (32, 48, 64), (0.5, 1, 2, 1.5))
    assert load(ModelConfig, overrides=['modalities=["t2f"]']).modalities == (Modality.T2F,)


def test_a_file_from_an_editor_that_marks_utf8_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\n")

    assert load(TrainConfig, path).steps == 3


# --- mistakes --------------------------------------------------------------------------------------------------------------


def test_an_unknown_key_names_the_nearest_one_at_every_depth(tmp_path: Path) -> None:
    assert "learnig_rate is not a known setting (did you mean learning_rate?)" in complaint(TrainConfig, "learnig_rate=1")
    assert "train.loss.apha is not a known setting (did you mean alpha?)" in complaint(Whole, "train.loss.apha=1")
    assert "maybe.dept is not a known setting (did you mean depth?)" in complaint(Whole, "maybe.dept=1")
    several = written(tmp_path, "[[several]]\ndepth = 1\n[[several]]\ndeep = 1\n[named.first]\ndeth = 1")
    assert "several.1.deep is not a known setting (did you mean depth?)" in complaint(Whole, path=several)
    assert "named.first.deth is not a known setting (did you mean depth?)" in complaint(Whole, path=several)


def test_a_key_that_is_like_no_other_lists_them_all() -> None:
    message = complaint(PreprocessConfig, "xyzzy=1")

    assert message == "settings: xyzzy is not a known setting (known: clip_percentiles, crop_margin_voxels)."


def test_all_problems_come_at_once_and_name_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'steps = 0\nbatchsize = 2\nprecision = "fp8"\npatch = [64, 64]\n[loss]\nalpha = -1\n')

    message = complaint(TrainConfig, path=path)

    assert message.startswith("federation.toml: ")
    problems = message.split("; ")
    for name in (
        "steps: ",
        "batchsize is not a known setting (did you mean batch_size?)",
        "precision: ",
        "patch.2: ",
        "loss.alpha: ",
    ):
        assert sum(name in problem for problem in problems) == 1
    assert "(found 0)" in message
    assert len(problems) == 5


@pytest.mark.parametrize(
    ("kind", "override", "found"),
    [
        (TrainConfig, "learning_rate=0", "(found 0)"),
        (TrainConfig, "learning_rate=nan", "(found nan)"),
        (TrainConfig, "learning_rate=inf", "(found inf)"),
        (TrainConfig, "gradient_clip=-1", "(found -1)"),
        (TrainConfig, "foreground_probability=1.5", "(found 1.5)"),
        (TrainConfig, "patch=[60, 64, 64]", "patch.0: must be a multiple of 8 (found 60)"),
        (TrainConfig, "patch=[64, 8, 64]", "patch.1: must be at least 16 (found 8)"),
        (TrainConfig, "patch=[64, 64, 512]", "patch.2: must be at most 256 (found 512)"),
        (TrainConfig, "steps=1.5", "(found 1.5)"),
        (TrainConfig, "loss=tversky", "(found 'tversky')"),
        (LossConfig, "weights=[1, 2, 3]", "weights.3: a value is missing"),
        (LossConfig, "weights=[1, 2, 3, nan]", "(found nan)"),
        (AugmentConfig, "scale_range=[1.2, 0.8]", "goes from 1.2 down to 0.8"),
        (AugmentConfig, "log_gamma_range=[-inf, 0]", "(found -inf)"),
        (AugmentConfig, "scale_range=[0, 1]", "should lie within 0.25 to 4 (found [0, 1])"),
        (AugmentConfig, "noise_range=[-0.1, 0.2]", "should lie within 0 to 3 (found [-0.1, 0.2])"),
        (AugmentConfig, "through_plane_range=[0.5, 2]", "should lie within 1 to 12"),
        (AugmentConfig, "motion_count=0", "must be at least 1 (found 0)"),
        (AugmentConfig, "rotation_degrees=-5", "(found -5)"),
        (AugmentConfig, "preset=sssa", "no preset of this name (did you mean ssa?) (found 'sssa')"),
        (AugmentConfig, "preset=3", "(found 3)"),
        (PreprocessConfig, "clip_percentiles=[nan, 99]", "(found nan)"),
        (PreprocessConfig, "clip_percentiles=[1, nan]", "(found nan)"),
        (PreprocessConfig, "clip_percentiles=[60, 99]", "(found 60)"),
        (PreprocessConfig, "clip_percentiles=[1, 101]", "(found 101)"),
        (PreprocessConfig, "crop_margin_voxels=-1", "(found -1)"),
        (ModelConfig, "modalities=[]", "name at least one modality"),
        (ModelConfig, 'modalities=["t1ce"]', "'t1n', 't1c', 't2w' or 't2f' (found 't1ce')"),
        (ModelConfig, 'modalities=["t1c", "t1c"]', "each only once"),
        (ModelConfig, "preset=../../etc/passwd", "(found '../../etc/passwd')"),
        (ModelConfig, "norm=layer", "'group', 'batch' or 'instance' (found 'layer')"),
    ],
)
def test_a_value_out_of_range_is_named_once_with_what_was_found(kind: type[Settings], override: str, found: str) -> None:
    message = complaint(kind, override)

    assert message.startswith(f"settings: {override.partition('=')[0]}")
    assert found in message
    assert ";" not in message


def test_a_range_that_descends_says_which_and_how() -> None:
    assert "augment.scale_range: goes from 1.2 down to 0.8: write the smaller number first" in complaint(
        TrainConfig, "augment.scale_range=[1.2, 0.8]"
    )


@pytest.mark.parametrize("override", ["", "steps", "=3", "  =3"])
def test_an_override_without_key_or_value_shows_how_to_write_one(override: str) -> None:
    assert "expected key.sub=value, such as train.learning_rate=1e-4" in complaint(TrainConfig, override)


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"steps = = 3", "TOML that does not parse"), (b"a = 1\na = 2", "TOML that does not parse"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_file_that_is_no_toml_is_named(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes(content)

    message = complaint(TrainConfig, path=path)

    assert message.startswith("federation.toml: ")
    assert found in message


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml: No such file or directory, but expected a readable" in complaint(
        TrainConfig, path=tmp_path / "nowhere.toml"
    )
    assert "Is a directory" in complaint(TrainConfig, path=tmp_path)


def test_settings_do_not_change_once_they_are_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().steps = 3  # type: ignore[misc]


def test_the_nearest_name_is_offered_or_all_of_them() -> None:
    assert nearest("tverski", ["dice", "tversky"]) == "did you mean tversky?"
    assert nearest("zzz", ["dice", "tversky"]) == "known: dice, tversky"


# --- digest ----------------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_sorted_json() -> None:
    class Two(Settings):
        b: tuple[float, ...] = (0.5, 1)
        a: int = 1

    assert sha256_of(Two()) == hashlib.sha256(b'{"a":1,"b":[0.5,1.0]}').hexdigest()


def test_the_same_settings_have_one_digest_however_they_were_given(tmp_path: Path) -> None:
    from_file = load(TrainConfig, written(tmp_path, "learning_rate = 1\n[loss]\nalpha = 0.50\n"))
    from_overrides = load(TrainConfig, overrides=["loss.alpha=5e-1", "learning_rate=1.0"])
    spelled_out = TrainConfig.model_validate(from_file.model_dump())

    assert sha256_of(from_file) == sha256_of(from_overrides) == sha256_of(spelled_out)
    assert sha256_of(from_file) != sha256_of(TrainConfig())


def test_the_digest_is_the_same_in_every_process() -> None:
    code = "from brainunet.config import TrainConfig; from brainunet.settings import sha256_of; print(sha256_of(TrainConfig()))"

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}, timeout=30
    )

    assert run.stdout.strip() == sha256_of(TrainConfig())


@given(
    steps=st.integers(1, 10**6),
    rate=st.floats(0, 1e3, exclude_min=True),
    weights=st.none() | st.tuples(*[st.floats(0.1, 100)] * 4),
)
def test_settings_survive_json_with_their_digest(steps: int, rate: float, weights: tuple[float, ...] | None) -> None:
    config = TrainConfig(steps=steps, learning_rate=rate, loss=LossConfig(weights=weights))

    back = TrainConfig.model_validate_json(config.model_dump_json())

    assert back == config
    assert sha256_of(back) == sha256_of(config)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["dice", "lesion_dise"], "lesion_dise is not a metric that sites tell (did you mean lesion_dice?)"),
        (["dice", "truth_volume_ml"], "truth_volume_ml is not a metric that sites tell"),  # it describes patients
        (["hd95_mm"], "name dice, by which rounds are compared"),
        (["dice", "dice"], "each metric only once"),
    ],
)
def test_a_metric_that_sites_do_not_tell_is_refused_by_name(metrics: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(ValidationConfig, overrides=[f"metrics={metrics}"])

    assert said in str(refused.value)


def test_sites_tell_dice_and_more_where_it_is_asked_for() -> None:
    assert ValidationConfig().metrics == ("dice",)
    assert load(ValidationConfig, overrides=['metrics=["dice", "lesion_hd95_mm"]']).metrics == ("dice", "lesion_hd95_mm")
