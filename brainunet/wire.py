"""Tasks and replies <-> one JSON header and one flat float32 array.

A state dict of some hundred arrays would cost two network objects each; one flat array costs two in all. Everything that
arrives is hostile until :func:`unpack` has returned it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from brainunet.complaints import in_words
from brainunet.errors import FederationError
from brainunet.records import PROTOCOL, AnyTask, EvaluateReply, EvaluateTask, Fault, Message, Reply, TrainReply, TrainTask
from brainunet.weights import FloatArray, Layout, Weights

MAX_HEADER_BYTES = 1_000_000
MAX_WEIGHTS_BYTES = 2_000_000_000

_WEIGHTS_FIELD = {"train_task": "weights", "evaluate_task": "weights", "train_reply": "delta"}
_MAY_TRAVEL = (TrainTask, EvaluateTask, TrainReply, EvaluateReply, Fault)
# As weights.Layout, with bounds on what an unknown sender may claim.
_Side = Annotated[int, Field(strict=True, ge=1, le=2**31)]
_Entry = tuple[Annotated[str, Field(max_length=256)], Annotated[tuple[_Side, ...], Field(max_length=8)]]
_LAYOUT: TypeAdapter[Layout] = TypeAdapter(tuple[_Entry, ...])

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, eq=False)
class Packed:
    """A message ready for any transport."""

    header: str
    values: FloatArray | None = None

    @property
    def n_bytes(self) -> int:
        return len(self.header.encode()) + (self.values.nbytes if self.values is not None else 0)


def pack(message: AnyTask | Reply) -> Packed:
    """Header and values of a message.

    Raises:
        TypeError: anything but a task or a reply: nothing else may leave a site.
    """
    if not isinstance(message, _MAY_TRAVEL):
        raise TypeError(f"{type(message).__name__} may not travel: only {', '.join(t.__name__ for t in _MAY_TRAVEL)}")
    header = message.model_dump(mode="json")
    field = _WEIGHTS_FIELD.get(message.kind)
    if field is None:
        return Packed(json.dumps(header))
    weights: Weights = getattr(message, field)
    return Packed(json.dumps({**header, "layout": weights.layout}), weights.flat())


def with_head(packed: Packed, head: str) -> Packed:
    """A packed task with another ``ledger_head``, the one thing in a task that is not the same for all sites.

    >>> with_head(Packed('{"round": 1}'), "a" * 64).header[:30]
    '{"round": 1, "ledger_head": "a'
    """
    return Packed(json.dumps({**json.loads(packed.header), "ledger_head": head}), packed.values)


def unpack(packed: Packed, expected: type[M] | Any) -> M:
    """The message, checked: ``expected`` is a message type or a union of them.

    Raises:
        FederationError: too large, not JSON, an unknown field, a value out of range, or weights that don't fit their layout.
    """
    kinds = {t.model_fields["kind"].default: t for t in (get_args(expected) or (expected,))}
    try:
        if len(packed.header) > MAX_HEADER_BYTES or packed.n_bytes > MAX_HEADER_BYTES + MAX_WEIGHTS_BYTES:
            raise FederationError("message", found=f"{packed.n_bytes} bytes", expected=f"at most {MAX_WEIGHTS_BYTES}")
        header = json.loads(packed.header)
        kind = str(header.get("kind")) if isinstance(header, dict) else ""
        if kind not in kinds:
            raise FederationError("message", found=f"kind {kind[:40]!r}", expected=" or ".join(kinds))
        if kind == "fault" and type(header.get("protocol")) is int:
            header["protocol"] = PROTOCOL  # who speaks another one says so by a fault, and that has stayed as it was
        if header.get("protocol") != PROTOCOL:
            raise FederationError(
                "message",
                found=f"protocol {ascii(header.get('protocol'))[:20]}",
                expected=f"protocol {PROTOCOL}",
                remedy="bring both ends to one version",
            )
        field = _WEIGHTS_FIELD.get(kind)
        if field is not None:
            layout = _LAYOUT.validate_python(header.pop("layout", None))
            header[field] = Weights.from_flat(layout, _float32(packed.values))
        elif packed.values is not None:
            raise FederationError("message", found=f"a {kind} with weights", expected="none")
        message: M = kinds[kind].model_validate(header)
        return message
    except (ValueError, RecursionError) as error:  # ValidationError and JSONDecodeError are ValueErrors
        raise FederationError("message", found=_first_problem(error), expected="a message of this protocol") from None


def _float32(values: FloatArray | None) -> FloatArray:
    if values is None or values.dtype != np.float32:
        found = "no weights" if values is None else f"weights as {values.dtype}"
        raise FederationError("message", found=found, expected="float32 weights")
    return values


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        # a name made by the sender may hold anything: NUL, line breaks, half of a surrogate pair
        where = ".".join(part if str(part).isidentifier() else ascii(part) for part in map(str, first["loc"]))
        return f"{where[:80]}: {ascii(in_words(first))[1:-1][:120]}"
    return "a header that is not JSON"
