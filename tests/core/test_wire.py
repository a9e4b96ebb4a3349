"""Messages arrive as they left, nothing else leaves, and a hostile message becomes a FederationError."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig
from brainunet.errors import FederationError
from brainunet.labels import Convention, Modality
from brainunet.records import (
    AnyTask,
    Case,
    CaseCounts,
    CaseScore,
    CaseScoreRow,
    EvaluateReply,
    EvaluateTask,
    Fault,
    FaultCode,
    Message,
    PrivacySpend,
    Problem,
    Reply,
    ScoreRow,
    SiteScore,
    TrainReply,
    TrainTask,
    Volume,
)
from brainunet.weights import Weights
from brainunet.wire import MAX_HEADER_BYTES, Packed, pack, unpack

WEIGHTS = Weights.of({"w": np.arange(6).reshape(2, 3), "b": np.float32(0.5)})
SCORE = SiteScore(
    cases=3,
    rows=(
        ScoreRow(structure="ET", metric="dice", mean=0.5, median=0.25, n=2, missing=1),
        ScoreRow(structure="NETC", metric="dice", mean=None, median=None, n=0, missing=3),
    ),
)
SPEND = PrivacySpend(epsilon=3.5, delta=1e-5, noise_multiplier=1.1, sample_rate=0.1, steps=20, accountant="rdp")
COUNTS = CaseCounts(train=9, validation=3)


def train_task(weights: Weights = WEIGHTS) -> TrainTask:
    return TrainTask(
        run="run-1",
        round=3,
        model=ModelConfig(preset="brainunet-nano"),
        preprocess=PreprocessConfig(clip_percentiles=(1, 99)),
        weights=weights,
        train=TrainConfig(steps=7),
        seed=2**63 - 1,
        proximal_mu=0.01,
    )


def evaluate_task() -> EvaluateTask:
    return EvaluateTask(run="run-1", round=3, model=ModelConfig(), preprocess=PreprocessConfig(), weights=WEIGHTS)


def train_reply(delta: Weights = WEIGHTS) -> TrainReply:
    return TrainReply(
        run="run-1",
        round=3,
        delta=delta,
        cases=COUNTS,
        score=SCORE,
        loss=0.7,
        seconds=12.5,
        spend=SPEND,
        client_version="0.1.0",
    )


def evaluate_reply() -> EvaluateReply:
    return EvaluateReply(run="run-1", round=3, cases=COUNTS, score=SCORE, seconds=1, client_version="0.1.0+local")


def fault() -> Fault:
    return Fault(run="run-1", round=0, code=FaultCode.DISK_FULL)


MESSAGES: dict[str, Callable[[], AnyTask | Reply]] = {
    "train_task": train_task,
    "evaluate_task": evaluate_task,
    "train_reply": train_reply,
    "evaluate_reply": evaluate_reply,
    "fault": fault,
}
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


# --- what may leave -----------------------------------------------------------------------------------------------------------

ROW = CaseScoreRow("ET", "dice", 0.5)


@pytest.mark.parametrize(
    "secret",
    [
        CaseScore("Jane Doe", (ROW,)),
        Case("Jane Doe", {Modality.T1C: Path("/data/Jane Doe.nii")}, None, Convention.BRATS2023),
        Volume(np.zeros((1, 1, 1)), np.eye(4), (1, 1, 1)),
        Problem("Jane Doe", "no file"),
        {"kind": "fault", "text": "Jane Doe"},
        WEIGHTS,
        SCORE,
        "Jane Doe",
        None,
    ],
)
def test_nothing_but_tasks_and_replies_is_packed(secret: Any) -> None:
    with pytest.raises(TypeError, match="may not travel") as raised:
        pack(secret)

    assert "Jane" not in str(raised.value)


def models_in(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A record and every record inside it."""
    yield kind
    for field in kind.model_fields.values():
        for part in parts_of(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models_in(part)


def parts_of(annotation: Any) -> Iterator[Any]:
    """The plain types that a type is made of, Literals kept whole.

    >>> list(parts_of(tuple[int, ...] | None))
    [<class 'int'>, <class 'NoneType'>]
    """
    if get_origin(annotation) in (None, Literal):
        yield annotation
        return
    inside = get_args(annotation)
    for part in inside[:1] if get_origin(annotation) is Annotated else inside:
        if part is not Ellipsis:
            yield from parts_of(part)


def is_closed(field: FieldInfo) -> bool:
    """Whether every text that the field takes is of a pattern without blanks and of bounded length, a Literal or an enum."""
    for part in parts_of(field.annotation):
        if get_origin(part) is Literal or part in (int, float, bool, types.NoneType, Weights):
            continue
        if isinstance(part, type) and issubclass(part, (BaseModel, Enum)):
            continue
        patterns = [getattr(fact, "pattern", None) for fact in field.metadata]
        lengths = [getattr(fact, "max_length", None) for fact in field.metadata]
        if part is not str or not any(patterns) or not any(lengths) or field.annotation is not str:
            return False
    return True


REPLY_RECORDS = sorted({model for kind in get_args(Reply) for model in models_in(kind)}, key=lambda m: m.__name__)


@pytest.mark.parametrize("record", REPLY_RECORDS)
def test_no_field_of_a_reply_takes_free_text(record: type[BaseModel]) -> None:
    assert [name for name, field in record.model_fields.items() if not is_closed(field)] == []
    assert record.model_config.get("extra") == "forbid"


def test_the_walk_over_the_replies_reaches_what_is_inside_them() -> None:
    assert {m.__name__ for m in REPLY_RECORDS} == {
        "CaseCounts", "EvaluateReply", "Fault", "PrivacySpend", "ScoreRow", "SiteScore", "TrainReply",
    }  # fmt: skip


def test_the_walk_would_find_free_text() -> None:
    class Chatty(BaseModel):
        note: str
        maybe: str | None
        many: tuple[str, ...]
        anything: Any
        mapping: dict[str, int]
        path: Path
        fine: Literal["a"]

    assert [name for name, field in Chatty.model_fields.items() if not is_closed(field)] == [
        "note", "maybe", "many", "anything", "mapping", "path",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["Jane Doe", "/data/x.nii.gz", "a\nb", "trailing\n", "", "x" * 65, "-x", "naïve", "No such file: 'x'", "C:\\data"],
)
def test_no_path_and_no_sentence_fits_where_a_reply_has_text(text: str) -> None:
    row = SCORE.rows[0].model_dump()
    for record, values, name in (
        (Fault, fault().model_dump(), "run"),
        (Fault, fault().model_dump(), "code"),
        (EvaluateReply, evaluate_reply().model_dump(), "client_version"),
        (ScoreRow, row, "metric"),
        (ScoreRow, row, "structure"),
    ):
        if (name, text) == ("client_version", "-x"):
            continue
        with pytest.raises(ValidationError):
            record.model_validate({**values, name: text})


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
    "a newer protocol": {"protocol": 2},
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
    assert refused(reply_with(protocol=2), FLAT) == (
        "message: protocol 2, but expected protocol 1. Bring both ends to one version."
    )


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
        assert f"kind '{kind}'" in refused(packed.header, packed.values, other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), kind=st.sampled_from(sorted(MESSAGES)))
def test_whatever_stands_in_a_field_it_is_a_message_or_a_federation_error(data: st.DataObject, kind: str) -> None:
    packed = pack(MESSAGES[kind]())
    header = json.loads(packed.header)
    header[data.draw(st.sampled_from(sorted(header)))] = data.draw(json_values)

    try:
        arrived: Message = unpack(Packed(json.dumps(header), packed.values), ANY)
    except FederationError:
        return
    assert arrived.protocol == 1
    assert typing.cast(AnyTask, arrived).kind == kind
