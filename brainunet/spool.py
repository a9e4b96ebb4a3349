"""A packed message in one file: what must outlive a process (a task being done, a reply not yet averaged).

The file is a magic line, the header's length, the header (JSON with the SHA-256 of the values), then the values as raw
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
        "sha256": hashlib.sha256(values.data).hexdigest() if durable and values is not None else None,
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
        if size is None:
            return Packed(header)
        values: FloatArray = np.memmap(path, dtype="<f4", mode="r", offset=_START + length, shape=(size,))
        # a whole number of values, and no byte behind them
        if path.stat().st_size != _START + length + values.nbytes:
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if sha256 is not None and hashlib.sha256(values.data).hexdigest() != sha256:
        return None
    return Packed(header, values)
