"""A packed message in one file: what must outlive a process (a task being done, a reply not yet averaged).

The file is a magic line, the header's length, the header (JSON with the message's SHA-256), then the values as raw
little-endian float32: they can be mapped instead of read, so a message of any size costs no memory until it is used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from brainunet.files import writing_aside
from brainunet.weights import FloatArray
from brainunet.wire import MAX_HEADER_BYTES, Packed

_MAGIC = b"brainunet-spool-1\n"
_LENGTH = 8
_START = len(_MAGIC) + _LENGTH


def write_packed(path: Path, packed: Packed, *, durable: bool = True) -> None:
    """Keep a message; ``durable`` False skips what makes it survive a power cut (a digest, and waiting for the disk).

    Raises:
        BrainUNetError: disk full, or a folder that can't be written.
    """
    # ">f4" or a strided view would be written as they lie in memory
    values = None if packed.values is None else np.ascontiguousarray(packed.values, dtype="<f4")
    told = {
        "header": packed.header,
        "values": None if values is None else values.size,
        "sha256": _sha256(packed.header, values) if durable else None,
    }
    header = json.dumps(told).encode()
    with writing_aside(path, durable=durable) as aside, aside.open("wb") as file:
        file.write(_MAGIC + len(header).to_bytes(_LENGTH, "little") + header)
        if values is not None:
            file.write(values.data)


def read_packed(path: Path) -> Packed | None:
    """The message, its values mapped from the file; None if there is none, or what is there is not whole.

    A kept message is a convenience (its work can be done again), so a damaged one counts as none.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            length = int.from_bytes(start[len(_MAGIC) :], "little")
            if not start.startswith(_MAGIC) or length > 2 * MAX_HEADER_BYTES:
                return None
            told = json.loads(file.read(length))
        header, size, sha256 = told["header"], told["values"], told["sha256"]
        ends = _START + length + (4 * size if type(size) is int and size >= 0 else 0)
        # a whole number of values, and no byte behind them
        if not isinstance(header, str) or path.stat().st_size != ends or (size is not None and type(size) is not int):
            return None
        values: FloatArray | None = None
        if size is not None:  # an empty file part can't be mapped
            values = np.memmap(path, "<f4", "r", _START + length, (size,)) if size else np.zeros(0, np.float32)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if sha256 is not None and _sha256(header, values) != sha256:
        return None
    return Packed(header, values)


def _sha256(header: str, values: FloatArray | None) -> str:
    sha = hashlib.sha256(header.encode())
    if values is not None:
        sha.update(values.data)
    return sha.hexdigest()
