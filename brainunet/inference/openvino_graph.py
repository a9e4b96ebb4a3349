"""A network as OpenVINO's graph: converted once, kept beside the model, and read without torch from then on (docs/adr/0023).

The home of OpenVINO together with ``openvino_engine``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from brainunet.errors import BrainUNetError, ConfigError
from brainunet.files import write_new_private, writing_aside
from brainunet.modelfile import ModelCard
from brainunet.weights import Weights

FORMAT: Final = 2  # one more whenever the way in which a graph is made changes
EXAMPLE_SIDE: Final = 32  # of the input that is followed through the network; any multiple of its stride will do

_ABOUT: Final = "about.json"
_ANSWERS: Final = "answers.json"
_XML: Final = "network.xml"
_BIN: Final = "network.bin"


def openvino() -> Any:
    """The library, without its telemetry: importing it would load a client that may speak with the Internet.

    Raises:
        ImportError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # "None" makes its import fail, which is foreseen
    import openvino

    return openvino


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as OpenVINO has it.

    Attributes:
        network: for inputs (1, C, X, Y, Z) of any sides that are multiples of its stride.
        place: the folder where it is kept; None where none could be written.
        key: what it was made of.
    """

    network: Any
    place: Path | None
    key: dict[str, Any]

    def remembered(self, what: str, finds: Callable[[], bool]) -> bool:
        """The answer that ``finds`` gives, found once and kept beside the graph; ``what`` names question and processor."""
        path = None if self.place is None else self.place / _ANSWERS
        told = {} if path is None else _unsealed(path) or {}
        if told.get("key") != self.key:
            told = {"key": self.key}
        if not isinstance(told.get(what), bool):
            told[what] = finds()
            if path is not None:
                with suppress(OSError, BrainUNetError), writing_aside(path) as aside:
                    aside.write_text(_sealed(told), encoding="utf-8")
        return bool(told[what])


def graph_of(model: Path, card: ModelCard, weights: Weights, elsewhere: Path | None = None) -> Graph:
    """The graph of a model file.

    From the folder ``MODEL.openvino`` beside the file, or one in ``elsewhere`` (None: the user's cache) where that can't be
    written. What is there is used only if this user's program made it, of these weights and with this version of OpenVINO, and
    it is as it was written; else it is made anew. Whoever can write beside a model can't put another network there.

    Raises:
        ConfigError: the graph must be made, and torch is not installed, or OpenVINO does not know an operation of the network.
    """
    library = openvino()
    key = {
        "format": FORMAT,
        "weights_sha256": card.weights_sha256,
        "openvino": library.__version__,
        "preset": card.model.preset,
    }
    places = [model.with_name(f"{model.name}.openvino")]
    with suppress(BrainUNetError):
        places.append((elsewhere or _user_cache()) / card.weights_sha256[:32])
    for place in places:
        if (found := _read(library, place, key)) is not None:
            return Graph(found, place, key)
    network = _converted(card, weights)
    for place in places:
        with suppress(OSError, BrainUNetError), _aside(place) as aside:
            library.save_model(network, aside / _XML, compress_to_fp16=False)
            told = {"key": key, "sha256": {name: _sha256(aside / name) for name in (_XML, _BIN)}}
            (aside / _ABOUT).write_text(_sealed(told), encoding="utf-8")
            return Graph(network, place, key)
    return Graph(network, None, key)


def _read(library: Any, place: Path, key: dict[str, Any]) -> Any | None:
    """The graph that is kept there, None if there is none that can be trusted."""
    try:
        told = _unsealed(place / _ABOUT)
        if told is None or told["key"] != key or any(_sha256(place / name) != told["sha256"][name] for name in (_XML, _BIN)):
            return None
        return library.Core().read_model(place / _XML)
    except (OSError, LookupError, TypeError, RuntimeError):  # the last is OpenVINO's own
        return None


def _sealed(told: dict[str, Any]) -> str:
    """As JSON, with a code that only this user can make."""
    content = json.dumps(told, sort_keys=True)
    return json.dumps({"told": told, "seal": hmac.digest(_secret(), content.encode(), "sha256").hex()})


def _unsealed(path: Path) -> dict[str, Any] | None:
    """What this user sealed; None of anything else."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        told, seal = read["told"], read["seal"]
        right = hmac.digest(_secret(), json.dumps(told, sort_keys=True).encode(), "sha256").hex()
        return told if isinstance(told, dict) and hmac.compare_digest(seal, right) else None
    except (OSError, BrainUNetError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _secret() -> bytes:
    """This user's own, made when it is first needed.

    Raises:
        BrainUNetError: there is no place for it, or it can't be written; OSError: or read.
    """
    path = _user_cache() / "graphs.key"
    if not path.exists():
        with suppress(ConfigError):  # another process was first
            write_new_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _converted(card: ModelCard, weights: Weights) -> Any:
    """By OpenVINO's reader of TorchScript alone: its command-line tools would report what they do."""
    try:
        import torch

        from brainunet.model import build, set_weights
    except ImportError:
        raise ConfigError(
            "engine",
            found="no graph of this model yet, and torch, which makes it, is not installed",
            expected="torch for the first use of a model",
            remedy="install it: pip install 'brainunet-fl[infer]'",
        ) from None
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    network = build(card.model)
    set_weights(network, weights)
    channels = len(card.model.modalities)
    example = torch.zeros(1, channels, EXAMPLE_SIDE, EXAMPLE_SIDE, EXAMPLE_SIDE)
    reader = FrontEndManager().load_by_framework("pytorch")
    try:
        # tracing warns that sides are taken as fixed: those of the padding are, and no padding is left to the network
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            traced = TorchScriptPythonDecoder(network.eval(), example_input=(example,))
            graph = reader.convert(reader.load(traced))
    except RuntimeError as error:
        raise ConfigError(
            "engine",
            found=f"OpenVINO can't take the network {card.model.preset}: {str(error).splitlines()[0][:200]}",
            expected="a network of ours",
            remedy="leave --engine to auto, or choose torch",
        ) from None
    graph.reshape([1, channels, -1, -1, -1])
    return graph


def _user_cache() -> Path:
    """
    Raises:
        BrainUNetError: this user has no folder, as in a container.
    """
    try:
        return Path.home() / ".cache" / "brainunet"
    except RuntimeError:
        raise BrainUNetError("HOME", found="no folder of this user is known") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """A folder that takes the place's name when the block ends well; what was there goes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name[:40]}.", dir=place.parent) as folder:
        aside = Path(folder) / "whole"
        aside.mkdir()
        yield aside
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
