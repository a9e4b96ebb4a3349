"""The graph that is made from a model once and kept beside it: used again, and never trusted more than the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from brainunet.inference import openvino_graph
from brainunet.inference.segmenter import Segmenter, open_segmenter
from brainunet.inference.window import FloatArray
from tests.support.engines import noise, options, random_model
from tests.support.pace import first_fast


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are sealed with a secret in the user's home: not in that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that tests leave as it is, and its graph."""
    return random_model(tmp_path_factory.mktemp("random"))


def kept(model: Path) -> Path:
    return model.with_name(f"{model.name}.openvino")


def probabilities(segmenter: Segmenter) -> FloatArray:
    return segmenter.predict(noise(3, 16, 16, 16)).probabilities


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights of nothing": lambda graph: (graph / "network.bin").write_bytes(b"\0" * 100),
    "no network": lambda graph: (graph / "network.xml").unlink(),
    "a list": lambda graph: (graph / "about.json").write_text("[]"),
    "no JSON": lambda graph: (graph / "about.json").write_text("{"),
    "a seal of no letters": lambda graph: (graph / "about.json").write_text('{"told": {}, "seal": "ü"}'),
    "an earlier format": lambda graph: (graph / "about.json").write_text(
        (graph / "about.json").read_text().replace('"format": 2', '"format": 1')
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", first_fast(*DAMAGES))
def test_a_graph_that_was_damaged_or_is_of_another_model_is_made_anew(tmp_path: Path, sound: Path, damage: str) -> None:
    fp32 = options("openvino", precision="fp32")
    true = probabilities(open_segmenter(sound, fp32))
    model = Path(shutil.copy(sound, tmp_path))
    shutil.copytree(kept(sound), kept(model))
    about = kept(model) / "about.json"
    DAMAGES[damage](kept(model))
    broken = about.read_text()

    np.testing.assert_array_equal(probabilities(open_segmenter(model, fp32)), true)
    assert about.read_text() != broken or (kept(model) / "network.xml").exists()
    made = (kept(model) / "network.bin").stat().st_mtime_ns
    probabilities(open_segmenter(model, fp32))
    assert (kept(model) / "network.bin").stat().st_mtime_ns == made  # and what was made is used
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random.safetensors", "random.safetensors.openvino"]


@pytest.mark.slow
def test_nobody_can_put_another_network_under_a_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = random_model(tmp_path / "ours"), random_model(tmp_path / "theirs", norm="instance")
    fp32 = options("openvino", precision="fp32")
    true = probabilities(open_segmenter(ours, fp32))
    monkeypatch.setenv("HOME", str(tmp_path / "attacker"))  # who knows the format, and has a secret of their own
    probabilities(open_segmenter(theirs, fp32))
    key = json.loads((kept(ours) / "about.json").read_text())["told"]["key"]
    told = json.loads((kept(theirs) / "about.json").read_text())["told"]
    forged = openvino_graph._sealed({**told, "key": key})
    monkeypatch.undo()
    shutil.rmtree(kept(ours))
    shutil.copytree(kept(theirs), kept(ours))
    (kept(ours) / "about.json").write_text(forged)

    np.testing.assert_array_equal(probabilities(open_segmenter(ours, fp32)), true)


def test_whether_bf16_is_right_is_tried_once_for_a_model_and_a_processor(tmp_path: Path) -> None:
    graph = openvino_graph.Graph(None, tmp_path, {"weights_sha256": "a"})
    asked: list[int] = []

    def right() -> bool:
        asked.append(1)
        return True

    for _ in range(2):
        assert graph.remembered("bf16 on this", right)
    assert len(asked) == 1
    assert not graph.remembered("bf16 on that", lambda: False)
    assert not openvino_graph.Graph(None, tmp_path, {"weights_sha256": "b"}).remembered("bf16 on this", lambda: False)
    assert not openvino_graph.Graph(None, None, {}).remembered("bf16 on this", lambda: False)


@pytest.mark.slow
def test_a_model_in_a_folder_that_cant_be_written_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(tmp_path)
    kept(model).write_text("in the way")
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))

    for _ in range(2):
        probabilities(open_segmenter(model, options("openvino")))

    assert len([path for path in (home / ".cache" / "brainunet").iterdir() if path.is_dir()]) == 1
    assert kept(model).read_text() == "in the way"


def test_the_second_start_needs_no_torch_and_no_telemetry(tmp_path: Path) -> None:
    model = random_model(tmp_path)
    probabilities(open_segmenter(model, options("openvino")))
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from brainunet.inference.segmenter import open_segmenter\n"
        f"open_segmenter(Path({str(model)!r})).predict(np.zeros((3, 16, 16, 16)))\n"
        "loaded = {name.split('.')[0] for name, module in sys.modules.items() if module is not None}\n"
        "print(sorted(loaded & {'torch', 'openvino_telemetry'}))"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
