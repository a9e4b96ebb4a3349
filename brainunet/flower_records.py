"""Packed messages <-> Flower's RecordDict: the one translation that both ends of a federation must agree on.

Imported only by the ``flower/`` folders of server and client (docs/adr/0002).
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from brainunet.errors import FederationError
from brainunet.wire import Packed

HEADER, VALUES = "header", "values"


def to_records(packed: Packed) -> RecordDict:
    """One ConfigRecord with the header, and one ArrayRecord with the values where there are any."""
    records = RecordDict({HEADER: ConfigRecord({HEADER: packed.header})})
    if packed.values is not None:
        records[VALUES] = ArrayRecord({VALUES: Array(packed.values)})
    return records


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
        values = arrays[VALUES][VALUES].numpy() if arrays else None
    except Exception as error:  # noqa: BLE001 # numpy fails on bytes made up by others in a dozen ways, MemoryError among them
        raise FederationError("message", found=f"values that can't be read ({type(error).__name__})") from None
    if not isinstance(values, np.ndarray | None):
        raise FederationError("message", found="values that are no array", expected="one array")  # numpy opens archives too
    return Packed(header, values)
