"""Tensors by name from a file of somebody else: torch's format or safetensors. Nothing in the file is ever run.

torch's format is a pickle, and a pickle is a program. It is read by torch's own restricted reader (``weights_only=True``),
which knows how to make tensors and plain containers and refuses every other instruction.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from brainunet.errors import ConfigError
from brainunet.modelfile import MAX_MODEL_BYTES

MAX_ENTRIES: Final = 100_000  # of an archive; a state dict has one for each array and a few more

_EXPECTED: Final = "a state dict saved by torch.save, or safetensors"
_ZIP: Final = b"PK\x03\x04"
_PICKLE: Final = b"\x80"
_AGAIN: Final = "fetch the file again, or take a copy from where it is known to work"
# What the readers raise on damaged or hostile bytes, but the refusal of code, which torch tells in words of its own.
_DAMAGED: Final = (
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    OverflowError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def read_tensors(path: Path, *, wrappers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU, as they were stored.

    Args:
        wrappers: keys under which a training program may keep the state dict among other things.

    Raises:
        ConfigError: missing, a folder, empty, larger than a model may be, damaged, holding code, or no mapping of names to
            tensors.
    """
    try:
        if path.is_dir():
            raise _refused(path, "a folder", "name the file in it")
        size = path.stat().st_size
        if size == 0:
            raise _refused(path, "0 bytes")
        if size > MAX_MODEL_BYTES:
            raise _refused(path, f"{size} bytes, more than {MAX_MODEL_BYTES}", "check that it is the right file")
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:9] == b"{" and not start.startswith((_ZIP, _PICKLE)):
            return _from_safetensors(path)
        if not start.startswith((_ZIP, _PICKLE)):
            raise _refused(path, "a file of neither kind")
        if start.startswith(_ZIP):
            _require_sound_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual formats: what it can't read it refuses
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _refused(path, error.strerror or "not readable", "check that it is there and that you may read it") from None
    except pickle.UnpicklingError as error:
        raise _unpicklable(path, str(error)) from None
    except _DAMAGED:
        raise _refused(path, "a file that is damaged") from None
    return _tensors(path, loaded, wrappers)


def told_modalities(path: Path) -> str | None:
    """What a safetensors file says of its input in an entry ``modalities`` of its metadata; None of every other file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            told: str | None = (file.metadata() or {}).get("modalities")
            return told
    except (OSError, safetensors.SafetensorError):
        return None


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError:
        raise _refused(path, "a file that is damaged or no safetensors") from None


def _require_sound_archive(path: Path) -> None:
    """Whole, with the checksums it was written with, and no larger unpacked than it is: torch looks at none of these."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise _refused(path, f"an archive of {len(entries)} entries")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _refused(path, "a packed archive")
        if sum(entry.file_size for entry in entries) > MAX_MODEL_BYTES:
            raise _refused(path, "an archive that says it is larger than it is")
        if damaged := archive.testzip():
            raise _refused(path, f"an archive whose entry {damaged[-40:]!r} is damaged")


def _tensors(path: Path, loaded: Any, wrappers: Sequence[str]) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        inner = next((loaded[name] for name in wrappers if isinstance(loaded.get(name), Mapping)), None)
        if inner is not None:
            return _tensors(path, inner, wrappers)
    if not isinstance(loaded, Mapping):
        raise _refused(
            path, f"a {type(loaded).__name__}", "save the network's state dict: torch.save(model.state_dict(), FILE)"
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"{type(value).__name__} under {json.dumps(str(name)[:80])}"
            raise _refused(path, f"a {what}", "save the network's state dict: torch.save(model.state_dict(), FILE)")
    return dict(loaded)


def _unpicklable(path: Path, words: str) -> ConfigError:
    """torch names what it refuses; a damaged pickle ends in the same error with other words."""
    named = re.search(r"GLOBAL ([\w.]{1,120})", words)
    if named is None:
        return _refused(path, "a file that is damaged, or that holds more than numbers")
    return _refused(
        path,
        f"a file that would run or make {named[1]}, which was not done",
        "ask for the numbers alone, saved by torch.save(model.state_dict(), FILE); don't open this file in another program "
        "unless you trust who made it",
    )


def _refused(path: Path, found: str, remedy: str = _AGAIN) -> ConfigError:
    return ConfigError(path, found=found, expected=_EXPECTED, remedy=remedy)
