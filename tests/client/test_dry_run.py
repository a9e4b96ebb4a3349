"""What a hospital is shown before anything leaves is what would leave, and showing it changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.config import ValidationConfig
from brainunet.errors import ConfigError, DataError
from brainunet.privacy.accounting import Charge
from brainunet.privacy.purse import open_purse
from brainunet.records import PROTOCOL, TrainReply, TrainTask
from brainunet.spool import write_packed
from brainunet.wire import pack, unpack
from brainunet_client.dry_run import dry_run, figures_shown
from brainunet_client.home import Home, open_home
from brainunet_client.kept_norm import kept_norm_file
from brainunet_client.opening import open_site
from brainunet_client.site_settings import SiteSettings, stricter
from brainunet_client.tasks import do, train
from tests.support.messages import SCORE
from tests.support.nets import weights
from tests.support.sites import evaluate_task, made_up_site, train_task

OPEN = "min_cases = 1\n"  # for the one validation case there is


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    made_up_site(folder, train=2, validation=1)
    return folder / "cases"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def as_sent(task: TrainTask, home: Home, data: Path, elsewhere: Path) -> TrainReply:
    """The reply that the task would have, made in a work folder of its own."""
    reply: TrainReply = unpack(pack(do(task, replace(open_site(home.path, data, task), work=elsewhere))), TrainReply)
    return reply


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_field_of_the_reply_is_shown_with_its_value_and_the_bytes_add_up(home: Home, data: Path, tmp_path: Path) -> None:
    home.settings.write_text(OPEN)
    task = train_task(weights())

    facts = dry_run(home, data, task=task)

    reply = as_sent(task, home, data, tmp_path / "elsewhere")
    header = json.loads(pack(reply).header)
    assert list(facts["header"]) == list(header)
    odd = {"seconds", "layout"}  # of a moment; shown as shapes
    assert {n: f["value"] for n, f in facts["header"].items() if n not in odd} == {
        n: v for n, v in header.items() if n not in odd
    }
    assert facts["arrays"]["shapes"] == {name: list(shape) for name, shape in reply.delta.layout}
    assert facts["arrays"]["number"] == len(reply.delta.names)
    assert facts["arrays"]["bytes"] == 4 * facts["arrays"]["values"] == reply.delta.n_bytes
    header_bytes = sum(field["bytes"] for field in facts["header"].values()) + 2 * len(facts["header"])
    assert facts["bytes"] == header_bytes + facts["arrays"]["bytes"]
    assert facts["update_norm"] == reply.delta.norm
    assert facts["figures"]["cases"] == 1
    assert facts["figures"]["rows"] == header["score"]["rows"]
    assert facts["task"] == {"source": "the task given", "kind": "train_task", "run": "glioma-1", "round": 3}
    assert json.loads(json.dumps(facts)) == facts


def test_figures_that_the_site_withholds_are_not_shown_as_leaving(home: Home, data: Path) -> None:
    facts = dry_run(home, data, task=train_task(weights(), steps=1))  # a site asks for three cases where nothing is set

    assert facts["figures"] == {"cases": 1, "withheld": True, "rows": [], "withheld_rows": []}
    assert facts["header"]["score"]["value"] == {"cases": 1, "rows": [], "withheld": True}


def test_the_site_s_own_limits_hold(home: Home, data: Path) -> None:
    home.settings.write_text("max_steps = 1\n")
    told = list[int]()

    dry_run(home, data, task=train_task(weights(), steps=9), on_step=lambda step, loss: told.append(step))
    dry_run(home, data, task=train_task(weights(), steps=9), steps=7, on_step=lambda step, loss: told.append(step))

    assert told == [1, 1]


def test_no_word_of_a_case_or_a_folder_is_in_what_would_leave(home: Home, data: Path) -> None:
    home.settings.write_text(OPEN)
    text = json.dumps(dry_run(home, data, task=train_task(weights(), steps=1)))

    assert "BraTS-SSA" not in text
    assert str(data) not in text
    assert str(home.path) not in text
    assert ".nii" not in text


def test_the_last_task_received_is_done_when_none_is_given(home: Home, data: Path) -> None:
    write_packed(home.received, pack(train_task(weights(seed=3), round=8, steps=9)))

    facts = dry_run(home, data, steps=1)

    assert facts["task"] == {"source": "the last task received", "kind": "train_task", "run": "glioma-1", "round": 8}


@pytest.mark.slow
def test_after_a_run_whose_last_task_only_scores_a_training_of_its_model_shows_all_that_would_leave(
    home: Home, data: Path
) -> None:
    home.settings.write_text(OPEN)
    asked = ValidationConfig(metrics=("dice", "hd95_mm"))
    write_packed(home.received, pack(evaluate_task(weights(seed=3), validation=asked)))

    facts = dry_run(home, data, steps=1)

    assert (facts["task"]["kind"], facts["task"]["source"]) == ("train_task", "a short training of the last model received")
    assert facts["update_norm"] > 0
    assert {row["metric"] for row in facts["figures"]["rows"]} == {"dice", "hd95_mm"}  # as the next task will ask for


def test_an_evaluation_shows_that_there_is_no_update(home: Home, data: Path) -> None:
    home.settings.write_text(OPEN)

    facts = dry_run(home, data, task=evaluate_task(weights(seed=3)))

    assert facts["update_norm"] is None
    assert facts["arrays"] == {"number": 0, "values": 0, "bytes": 0, "shapes": {}}
    assert len(facts["figures"]["rows"]) == 5


@pytest.mark.slow
def test_before_there_is_a_task_the_starter_model_stands_for_it(home: Home, data: Path) -> None:
    told = list[int]()

    facts = dry_run(home, data, on_step=lambda step, loss: told.append(step))

    assert facts["task"] == {"source": "the starter model", "kind": "train_task", "run": "dry-run", "round": 1}
    assert told == [1, 2, 3, 4, 5]
    assert facts["update_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("left", ["half a task", "a task of another version"])
def test_a_task_that_cannot_be_read_stands_for_nothing(left: str, home: Home, data: Path) -> None:
    packed = pack(train_task(weights()))
    write_packed(home.received, replace(packed, header=packed.header.replace(f'"protocol": {PROTOCOL}', '"protocol": 1')))
    if left == "half a task":
        home.received.write_bytes(home.received.read_bytes()[:-100])

    assert dry_run(home, data, steps=1)["task"]["source"] == "the starter model"


@pytest.mark.slow
def test_what_waits_in_the_home_is_left_as_it_is(home: Home, data: Path) -> None:
    task = train_task(weights(), local="norm", round=3)
    site = open_site(home.path, data, task)
    train(task.model_copy(update={"round": 2}), site)
    (home.work / "training.ckpt").write_bytes(b"a training that waits to go on")
    before = files(home.path)
    cached = {path.name for path in home.cache.rglob("*")}

    facts = dry_run(home, data, task=task)

    after = files(home.path)
    assert {name: after[name] for name in before} == before
    assert {path.name for path in home.work.iterdir()} == {"training.ckpt", kept_norm_file(site, task.run).name}
    assert {path.name for path in home.cache.rglob("*")} == cached
    # and yet it starts from what the site keeps, as the reply would
    assert facts["update_norm"] == train(stricter(SiteSettings(), task), site).delta.norm


def test_a_single_figure_that_is_withheld_is_named() -> None:
    withheld = SCORE.rows[0].model_copy(update={"mean": None, "median": None})

    figures = figures_shown(SCORE.model_copy(update={"rows": (withheld, SCORE.rows[1])}))

    assert figures["withheld_rows"] == ["ET dice"]  # and not NETC, of which no case has any


def test_what_the_reply_would_be_a_fault_for_is_said_in_words(home: Home, data: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no file named like a case"):
        dry_run(home, tmp_path / "nothing", task=train_task(weights()))
    home.settings.write_text("min_case = 1\n")
    with pytest.raises(ConfigError, match="did you mean min_cases"):
        dry_run(home, data, task=train_task(weights(), validation=ValidationConfig(min_cases=2)))


@pytest.mark.parametrize("received", [pytest.param(False, marks=pytest.mark.slow), True], ids=["starter", "a scoring"])
def test_a_hospital_under_privacy_is_shown_a_private_training_and_its_budget_is_left_alone(
    received: bool, home: Home, data: Path
) -> None:
    home.settings.write_text(OPEN + "[privacy]\npublic_cases = 7\nepsilon = 3.0\n")
    with open_purse(home.privacy, site="this-site", cases=7, run="glioma-1", round=1) as purse:
        purse.pay(Charge(1.0, 0.5, 1000))  # far more than is allowed
    if received:
        write_packed(home.received, pack(evaluate_task(weights(), demo=True)))
    before = files(home.path)["privacy.jsonl"]

    shown = {name: field["value"] for name, field in dry_run(home, data, steps=1)["header"].items()}

    assert (shown["loss"], shown["seconds"], shown["cases"]["train"]) == (None, None, 7)
    assert shown["spend"]["steps"] == 1
    assert files(home.path)["privacy.jsonl"] == before
