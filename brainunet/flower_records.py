"""Packed messages <-> Flower's RecordDict: the one translation that both ends of a federation must agree on.

Imported only by the ``flower/`` folders of server and client (docs/adr/0002).
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_body, get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from brainunet.errors import FederationError
from brainunet.wire import Packed, with_head

HEADER, VALUES, NONCE = "header", "values", "nonce"
_NPY_HEAD = 1024  # the description of an (N,) array takes 128 bytes


def to_records(packed: Packed, *, unlike_any_other: bool = False) -> RecordDict:
    """One ConfigRecord with the header, and one ArrayRecord with the values where there are any.

    Flower stores objects by their content, those of all sites together: a reply must be ``unlike_any_other``, or a site that
    guesses it (a fault is easy to guess) could announce its objects in another shape, and it would never arrive whole.
    """
    nonce = {NONCE: secrets.token_hex(16)} if unlike_any_other else {}
    records = RecordDict({HEADER: ConfigRecord({HEADER: packed.header, **nonce})})
    if packed.values is not None:
        records[VALUES] = ArrayRecord({VALUES: Array(packed.values)})
    return records


def for_site(records: RecordDict, packed: Packed, head: str | None) -> RecordDict:
    """The records of a packed task with the head of one site's ledger in their header; the values are the same object."""
    if not head:
        return records
    own = RecordDict({HEADER: ConfigRecord({HEADER: with_head(packed, head).header})})
    if VALUES in records:
        own[VALUES] = records[VALUES]
    return own


def inflated(root: str, contents: dict[str, bytes], limit_bytes: int) -> Message:
    """The message that Flower's objects make together; ``contents`` is emptied, to need the memory once.

    Raises:
        FederationError: they make none, or one that would take more than ``limit_bytes``: an array's description may name one
            chunk a million times.
    """
    try:
        claimed = sum(_claimed_bytes(content, contents) for content in contents.values())
        if claimed > limit_bytes:
            raise FederationError("message", found=f"arrays of {claimed} bytes", expected=f"at most {limit_bytes}")
        whole = inflate_object_from_contents(root, contents)
    except FederationError:
        raise
    except Exception as error:  # noqa: BLE001 # objects made up by others fail in a dozen ways
        raise FederationError("message", found=f"objects that make no message ({type(error).__name__})") from None
    if not isinstance(whole, Message):
        raise FederationError("message", found=f"a {type(whole).__name__}", expected="a message")
    whole.metadata.__dict__["_message_id"] = root
    return whole


def _claimed_bytes(content: bytes, contents: Mapping[str, bytes]) -> int:
    """How large the array is that this object describes; 0 of one that is no array."""
    kind, children, _ = get_object_head_values_from_object_content(content)
    if kind != Array.__qualname__:
        return 0
    sizes = [len(contents[child]) for child in children]
    return sum(sizes[index] for index in json.loads(get_object_body(content, Array))["arraychunk_ids"])


def values_of(array: Array) -> npt.NDArray[Any]:
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
    header = configs[HEADER].get(HEADER) if set(configs) == {HEADER} and set(configs[HEADER]) <= {HEADER, NONCE} else None
    strangers = records.metric_records or set(arrays) - {VALUES} or any(set(record) != {VALUES} for record in arrays.values())
    if not isinstance(header, str) or strangers:
        raise FederationError("message", found="other records than a header and its values", expected="this protocol's two")
    try:
        values = values_of(arrays[VALUES][VALUES]) if arrays else None
    except Exception as error:  # noqa: BLE001 # numpy fails on bytes made up by others in a dozen ways, MemoryError among them
        raise FederationError("message", found=f"values that can't be read ({type(error).__name__})") from None
    return Packed(header, values)
