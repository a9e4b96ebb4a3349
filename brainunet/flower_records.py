"""Packed messages <-> Flower's RecordDict: the one translation that both ends of a federation must agree on.

Imported only by the ``flower/`` folders of server and client (docs/adr/0002).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from brainunet.errors import FederationError
from brainunet.wire import Packed

HEADER, VALUES = "header", "values"
_NPY_HEAD = 1024  # the description of an (N,) array takes 128 bytes


def to_records(packed: Packed) -> RecordDict:
    """One ConfigRecord with the header, and one ArrayRecord with the values where there are any."""
    records = RecordDict({HEADER: ConfigRecord({HEADER: packed.header})})
    if packed.values is not None:
        records[VALUES] = ArrayRecord({VALUES: Array(packed.values)})
    return records


def _values(array: Array) -> npt.NDArray[Any]:
    """The array without a copy of its bytes: those of a large network are needed once.

    Raises:
        ValueError: no NPY bytes of one plain (N,) array.
    """
    head = io.BytesIO(array.data[:_NPY_HEAD])
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("another version of NPY")
    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    if len(shape) != 1 or dtype.hasobject:
        raise ValueError("no plain array")
    values = np.frombuffer(array.data, dtype, offset=head.tell())
    if values.shape != shape:
        raise ValueError("fewer or more values than it says")
    return values


def from_records(records: RecordDict) -> Packed:
    """The inverse of :func:`to_records`; records and keys that it does not know are refused.

    Raises:
        FederationError: other records or keys than these, or an array that numpy cannot read without pickle.
    """
    configs, arrays = dict(records.config_records), dict(records.array_records)
    header = configs[HEADER].get(HEADER) if set(configs) == {HEADER} and len(configs[HEADER]) == 1 else None
    strangers = records.metric_records or set(arrays) - {VALUES} or any(set(record) != {VALUES} for record in arrays.values())
    if not isinstance(header, str) or strangers:
        raise FederationError("message", found="other records than a header and its values", expected="this protocol's two")
    try:
        values = _values(arrays[VALUES][VALUES]) if arrays else None
    except Exception as error:  # noqa: BLE001 # numpy fails on bytes made up by others in a dozen ways, MemoryError among them
        raise FederationError("message", found=f"values that can't be read ({type(error).__name__})") from None
    return Packed(header, values)
