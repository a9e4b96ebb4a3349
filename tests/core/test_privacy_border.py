"""What may leave a hospital: tasks and replies, and in them no text that could name a patient."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from brainunet.labels import Convention, Modality
from brainunet.records import (
    Case,
    CaseScore,
    CaseScoreRow,
    EvaluateReply,
    Fault,
    PrivacySpend,
    Problem,
    Reply,
    ScoreRow,
    SiteScore,
    TrainReply,
    Volume,
)
from brainunet.weights import Weights
from brainunet.wire import pack
from tests.support.messages import (
    SCORE,
    SPEND,
    WEIGHTS,
    evaluate_reply,
    fault,
    private_reply,
)

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


def test_a_score_that_is_withheld_has_room_for_no_figure() -> None:
    withheld = SiteScore(cases=2, rows=(), withheld=True)

    assert json.loads(pack(evaluate_reply().model_copy(update={"score": withheld})).header)["score"] == {
        "cases": 2,
        "rows": [],
        "withheld": True,
    }
    with pytest.raises(ValidationError, match="withheld, and yet there are figures"):
        SiteScore(cases=2, rows=SCORE.rows, withheld=True)
    assert {name for name, field in SiteScore.model_fields.items() if field.annotation is not bool} == {"cases", "rows"}


@pytest.mark.parametrize("word", ["yes", 1, None])
def test_whether_figures_are_withheld_is_said_by_true_or_false_alone(word: Any) -> None:
    with pytest.raises(ValidationError):
        SiteScore.model_validate({"cases": 2, "rows": (), "withheld": word})


def test_the_smallest_and_the_largest_figure_of_a_case_have_no_field() -> None:
    assert set(ScoreRow.model_fields) == {"structure", "metric", "mean", "median", "n", "missing"}


def test_a_private_reply_has_room_for_nothing_of_the_training_cases_but_the_noised_delta() -> None:
    """All that is left beside it: names, agreed numbers, the declared count, the ledger's, and figures of validation cases."""
    header = json.loads(pack(private_reply()).header)

    assert {name for name, value in header.items() if value is not None} == {
        "protocol", "run", "round", "kind", "cases", "score", "spend", "client_version", "layout",
    }  # fmt: skip
    for leak in ({"loss": 0.5}, {"seconds": 3.5}):
        with pytest.raises(ValidationError, match="private training"):
            TrainReply.model_validate({**private_reply().model_dump(), "delta": WEIGHTS, **leak})


@pytest.mark.parametrize("text", ["Jane Doe", "a" * 63, "A" * 64, "a" * 64 + "\n", "../" + "a" * 61])
def test_the_head_of_a_ledger_is_a_digest_and_nothing_else(text: str) -> None:
    with pytest.raises(ValidationError):
        PrivacySpend.model_validate({**SPEND.model_dump(), "ledger_head": text})


def test_figures_that_no_site_can_have_are_refused() -> None:
    def row(mean: float = 0.5, *, metric: str = "dice", n: int = 3) -> dict[str, object]:
        return {"structure": "WT", "metric": metric, "mean": mean, "median": mean, "n": n, "missing": 0}

    SiteScore.model_validate({"cases": 3, "rows": [row(), row(metric="hd95")]})
    SiteScore.model_validate({"cases": 3, "rows": [row(374.0, metric="hd95_mm"), row(metric="lesion_dice")]})
    distances = [[row(-1.0, metric="hd95_mm")], [row(2e4, metric="lesion_hd95_mm")], [row(1.5, metric="lesion_dice")]]
    for rows in ([row(), row(0.6)], [row(1e308)], [row(-0.1)], [row(1e12, metric="hd95")], [row(n=4)], *distances):
        with pytest.raises(ValidationError):
            SiteScore.model_validate({"cases": 3, "rows": rows})
