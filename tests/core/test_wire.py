"""Messages arrive as they left, and a hostile message becomes a FederationError."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brainunet.errors import FederationError
from brainunet.records import (
    PROTOCOL,
    AnyTask,
    Fault,
    Message,
    Reply,
    TrainReply,
)
from brainunet.weights import Weights
from brainunet.wire import MAX_HEADER_BYTES, Packed, pack, unpack
from tests.support.messages import (
    MESSAGES,
    SCORE,
    SPEND,
    WEIGHTS,
    fault,
    train_reply,
    train_task,
)

ANY = AnyTask | Reply


def header_of(message: AnyTask | Reply) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(pack(message).header)
    return header


def weights_in(message: Message) -> Weights | None:
    weights: Weights | None = getattr(message, "weights", getattr(message, "delta", None))
    return weights


# --- there and back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_arrives_as_it_left(kind: str) -> None:
    message = MESSAGES[kind]()

    arrived: Message = unpack(pack(message), ANY)

    assert type(arrived) is type(message)
    assert arrived.model_dump() == message.model_dump()
    sent, received = weights_in(message), weights_in(arrived)
    assert (sent is None) == (received is None)
    if sent is not None and received is not None:
        assert received.digest == sent.digest


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(make()) for make in MESSAGES.values()} == {*get_args(AnyTask), *get_args(Reply)}


@st.composite
def layouts(draw: st.DrawFn) -> Weights:
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), unique=True, max_size=5))
    shape = arrays.array_shapes(min_dims=0, max_dims=5, max_side=3)
    return Weights.of({name: draw(arrays.arrays(np.float32, shape, elements=st.floats(width=32))) for name in names})


@given(layouts())
def test_weights_of_any_layout_and_any_bits_arrive(weights: Weights) -> None:
    arrived: TrainReply = unpack(pack(train_reply(weights)), TrainReply)

    assert arrived.delta.layout == weights.layout
    assert arrived.delta.flat().tobytes() == weights.flat().tobytes()


def test_the_values_travel_beside_the_header_once() -> None:
    packed = pack(train_task())

    assert packed.values is not None
    assert packed.values.dtype == np.float32
    assert packed.n_bytes == len(packed.header) + 7 * 4
    assert header_of(train_task())["layout"] == [["w", [2, 3]], ["b", []]]
    assert "weights" not in header_of(train_task())


# --- hostile messages -------------------------------------------------------------------------------------------------------

FLAT = WEIGHTS.flat()


def refused(header: Any, values: Any = None, expected: Any = ANY) -> str:
    text = header if isinstance(header, str) else json.dumps(header)
    with pytest.raises(FederationError) as raised:
        unpack(Packed(text, values), expected)
    assert raised.value.exit_code == 6
    assert len(str(raised.value)) < 400
    return str(raised.value)


def reply_with(**changes: Any) -> dict[str, Any]:
    """A train reply's header with changes; a change to ``...`` leaves the field out."""
    header = {**header_of(train_reply()), **changes}
    return {name: value for name, value in header.items() if value is not ...}


@pytest.mark.parametrize(
    "header",
    [
        "", "{", "not json", "null", "1", "[]", '"fault"', "[" * 100_000, '{"a":' * 100_000, "\ud800", "1" * 10_000,
        '{"kind": ' + "9" * 5000 + "}", "x" * (MAX_HEADER_BYTES + 1), '{"kind": ["fault"]}', '{"kind": null}', "NaN",
    ],
    ids=lambda header: ascii(header[:20]),
)  # fmt: skip
def test_what_is_no_header_is_refused(header: str) -> None:
    refused(header)


CHANGES: dict[str, dict[str, Any]] = {
    "an unknown field": {"note": "hello"},
    "an unknown field inside": {"cases": {"train": 1, "validation": 1, "names": []}},
    "a missing field": {"seconds": ...},
    "no protocol": {"protocol": ...},
    "an older protocol": {"protocol": PROTOCOL - 1},
    "a newer protocol": {"protocol": PROTOCOL + 1},
    "a protocol in words": {"protocol": "1"},
    "a protocol of a list": {"protocol": [1] * 1000},
    "no kind": {"kind": ...},
    "a kind from nowhere": {"kind": "shell"},
    "a float for a round": {"round": 3.0},
    "a fraction for a round": {"round": 3.5},
    "a truth for a round": {"round": True},
    "words for a round": {"round": "3"},
    "a negative round": {"round": -1},
    "a huge round": {"round": 10**400},
    "a float for a count": {"cases": {"train": 9.0, "validation": 3}},
    "a negative count": {"cases": {"train": -9, "validation": 3}},
    "a count beyond all hospitals": {"cases": {"train": 10**9, "validation": 3}},
    "no number for the seconds": {"seconds": float("nan")},
    "infinite seconds": {"seconds": float("inf")},
    "infinite loss": {"loss": float("-inf")},
    "a mean that is no number": {"score": {"cases": 1, "rows": [{**SCORE.rows[0].model_dump(), "mean": float("nan")}]}},
    "too many rows": {"score": {"cases": 1, "rows": [SCORE.rows[0].model_dump()] * 257}},
    "a structure nobody knows": {"score": {"cases": 1, "rows": [{**SCORE.rows[0].model_dump(), "structure": "Jane"}]}},
    "a run with a path": {"run": "../../etc/passwd"},
    "a run with a new line": {"run": "run-1\n"},
    "a delta of privacy of 1": {"spend": {**SPEND.model_dump(), "delta": 1.0}},
    "an epsilon that is no number": {"spend": {**SPEND.model_dump(), "epsilon": float("nan")}},
    "a loss of private training": {"seconds": None, "spend": SPEND.model_dump()},
    "seconds of private training": {"loss": None, "spend": SPEND.model_dump()},
    "a head of a ledger that is no digest": {
        "loss": None,
        "seconds": None,
        "spend": {**SPEND.model_dump(), "ledger_head": "Jane"},
    },
    "a list for a record": {"score": []},
    "no layout": {"layout": ...},
    "a layout of null": {"layout": None},
    "a layout of a number": {"layout": 7},
    "a layout of too few": {"layout": [["w", [2, 3]]]},
    "a layout of too many": {"layout": [["w", [2, 3]], ["b", [2]]]},
    "a layout with a negative side": {"layout": [["w", [-1]], ["b", [8]]]},
    "a layout of two negative sides": {"layout": [["w", [-2, -3]], ["b", []]]},
    "a layout with an empty array": {"layout": [["w", [7]], ["b", [0]]]},
    "a layout with a huge side": {"layout": [["w", [2**63]], ["b", []]]},
    "a layout that comes round": {"layout": [["w", [2**32, 2**32]], ["b", [7]]]},
    "a layout of huge numbers": {"layout": [["w", [10**4000] * 200]]},
    "a layout of many axes": {"layout": [["w", [1] * 100], ["b", [6]]]},
    "a layout with floats": {"layout": [["w", [2.0, 3.0]], ["b", []]]},
    "a layout with a name twice": {"layout": [["w", [2, 3]], ["w", []]]},
    "a layout with a name of a number": {"layout": [[1, [2, 3]], ["b", []]]},
    "a layout with an endless name": {"layout": [["w" * 1000, [2, 3]], ["b", []]]},
    "a layout of 60 000 arrays": {"layout": [["w", []]] * 60_000},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_header_that_is_not_quite_right_is_refused(change: str) -> None:
    assert unpack(Packed(json.dumps(reply_with()), FLAT), ANY) is not None

    refused(reply_with(**CHANGES[change]), FLAT)


def test_another_protocol_says_what_to_do() -> None:
    assert refused(reply_with(protocol=1), FLAT) == (
        "message: protocol 1, but expected protocol 3. Bring both ends to one version."
    )


def test_a_fault_is_understood_whatever_protocol_its_sender_speaks() -> None:
    """An older site that can't read a task says so, and the run can tell that no waiting mends it."""
    for theirs in (PROTOCOL - 1, PROTOCOL, PROTOCOL + 7):
        assert unpack(Packed(json.dumps({**header_of(fault()), "protocol": theirs})), ANY) == fault()

    for nothing in ("1", True, None, 1.0, [1]):
        refused({**header_of(fault()), "protocol": nothing})
    refused({**header_of(fault()), "protocol": PROTOCOL + 1, "text": "Jane Doe"})


def test_whoever_changes_what_travels_raises_the_protocol() -> None:
    """Fields and settings that one side does not know are refused there: the number lets both say so in words."""
    names = sorted({name for kind, make in MESSAGES.items() for name in names_in({kind: make().model_dump(mode="json")})})

    assert (PROTOCOL, hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]) == (3, "1a86bfd68bad3f6d"), "raise PROTOCOL"


def names_in(value: Any, prefix: str = "") -> Iterator[str]:
    """Every field by its dotted name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}{name}"
            yield from names_in(inner, f"{prefix}{name}.")
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner, prefix)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (None, "no weights"),
        (FLAT.astype(np.float64), "weights as float64"),
        (FLAT.astype(np.float16), "weights as float16"),
        (FLAT.astype(np.int32), "weights as int32"),
        (FLAT.astype(">f4"), "weights as >f4"),
        (FLAT.astype(object), "weights as object"),
        (FLAT.reshape(7, 1), "values of shape (7, 1)"),
        (FLAT[:-1], "values of shape (6,)"),
        (np.zeros((), np.float32), "values of shape ()"),
    ],
)
def test_values_that_are_missing_or_of_another_kind_are_refused(values: Any, found: str) -> None:
    assert found in refused(reply_with(), values)


def test_values_where_none_belong_are_refused() -> None:
    assert "fault with weights" in refused(header_of(fault()), FLAT)
    assert "layout" in refused({**header_of(fault()), "layout": []})


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_another_kind_than_expected_is_refused(kind: str) -> None:
    packed = pack(MESSAGES[kind]())
    others = get_args(Reply) if kind.endswith("task") else get_args(AnyTask)

    for other in others:
        assert f"kind '{json.loads(packed.header)['kind']}'" in refused(packed.header, packed.values, other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), kind=st.sampled_from(sorted(MESSAGES)))
def test_whatever_stands_in_a_field_it_is_a_message_or_a_federation_error(data: st.DataObject, kind: str) -> None:
    packed = pack(MESSAGES[kind]())
    header = json.loads(packed.header)
    sent = header["kind"]
    header[data.draw(st.sampled_from(sorted(header)))] = data.draw(json_values)

    try:
        arrived: Message = unpack(Packed(json.dumps(header), packed.values), ANY)
    except FederationError:
        return
    assert arrived.protocol == PROTOCOL
    assert typing.cast(AnyTask, arrived).kind == sent


@pytest.mark.parametrize(
    "header",
    [
        '{"kind": "fault", "protocol": "\\u0000"}',
        '{"kind": "\\u0000\\ud800", "protocol": 1}',
        '{"kind": "fault", "protocol": 1, "run": "r", "round": 1, "code": "internal", "a\\u0000\\ud800\\n": 1}',
        '{"kind": "fault", "protocol": 1, "run": "\\u0000", "round": 1, "code": "\\ud800"}',
    ],
)
def test_what_a_sender_wrote_is_quoted_as_printable_ascii(header: str) -> None:
    with pytest.raises(FederationError) as refused:
        unpack(Packed(header), Fault)

    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
