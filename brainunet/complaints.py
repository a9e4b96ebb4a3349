"""What pydantic finds wrong with a value, in words for the person who wrote it: one table, for settings, messages and kits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import ErrorDetails

MOST_SHOWN: Final = 80  # characters of a value
MOST_SAID: Final = 300  # of what a validator says, which may quote one

# pydantic's type of an error -> what must be; in braces what pydantic says of the bounds
WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "a value is missing",
        "extra_forbidden": "is not known",
        "none_required": "must be left out",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number of fewer digits",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "finite_number": "must be a number, neither infinite nor NaN",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "multiple_of": "must be a multiple of {multiple_of}",
        "string_type": "must be a text",
        "string_unicode": "must be a text of UTF-8",
        "string_too_short": "must have at least {min_length} characters",
        "string_too_long": "must have at most {max_length} characters",
        "string_pattern_mismatch": "has characters, or an order of them, that are not allowed here ({pattern})",
        "enum": "must be {expected}",
        "literal_error": "must be {expected}",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "too_short": "must have at least {min_length} values",
        "too_long": "must have at most {max_length} values",
        "dict_type": "must be a group of settings, not one value",
        "model_type": "must be a group of settings, not one value",
        "model_attributes_type": "must be a group of settings, not one value",
        "is_instance_of": "must be a {class}",
        "datetime_type": "must be a moment such as 2026-03-01T12:00:00Z",
        "datetime_parsing": "must be a moment such as 2026-03-01T12:00:00Z",
        "datetime_from_date_parsing": "must be a moment such as 2026-03-01T12:00:00Z",
        "timezone_aware": "must be a moment with its time zone, such as 2026-03-01T12:00:00Z",
    }
)
_OURS: Final = ("value_error", "assertion_error")  # of a validator: its own words are in the message
_OTHER: Final = "is not a value for this"


def in_words(detail: ErrorDetails) -> str:
    """What is wrong with the value, without saying where or what it is.

    >>> in_words({"type": "less_than_equal", "loc": ("batch_size",), "msg": "", "input": 65, "ctx": {"le": 64}})
    'must be at most 64'
    """
    if detail["type"] in _OURS:
        return _short(detail["msg"].partition(", ")[2], MOST_SAID)
    bounds = {name: f"{value:g}" if isinstance(value, float) else value for name, value in detail.get("ctx", {}).items()}
    return WORDS.get(detail["type"], _OTHER).format_map(bounds)


def shown(value: Any) -> str:
    """A value as its author wrote it, cut short where it is long.

    >>> shown("two"), shown(True), shown([1, 2.5])
    ("'two'", 'true', '[1, 2.5]')
    """
    text = json.dumps(value) if isinstance(value, bool) else repr(value)
    return _short(text, MOST_SHOWN)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def one_line(text: str, most: int = 2000) -> str:
    """The text without anything that moves a cursor, colours a screen or ends a line, and not longer than ``most``.

    >>> one_line("lagos\\x1b[2J\\nFAIL")
    'lagos?[2J?FAIL'
    """
    shown = "".join(char if char.isprintable() else "?" for char in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."


def visible(text: str) -> str:
    """The text with everything in it that moves a cursor, colours a screen or turns words around, written out as Python would.

    A new line stays where it goes on indented, as in a list of problems: a name in it can't begin a sentence of ours.

    >>> visible("error: a\\x1b[2Jb\\u202ec\\nerror: none\\n  one\\n  two")
    'error: a\\\\x1b[2Jb\\\\u202ec\\\\nerror: none\\n  one\\n  two'
    """
    return "\n  ".join("".join(map(_written_out, line)) for line in text.split("\n  "))


def _written_out(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
