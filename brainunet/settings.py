"""Settings from defaults, a file and ``--set`` overrides: every problem said at once, in our own words.

Order: defaults, the model's own card, the file, the options of the command line, then ``--set a.b=value``. Unknown keys are
errors that name the nearest known one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from brainunet.complaints import in_words, shown
from brainunet.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def unfold(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """``values`` with each name that stands for several settings replaced by these; most kinds have no such name."""
        return values


S = TypeVar("S", bound=Settings)


def load(
    kind: type[S],
    path: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    base: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> S:
    """Settings of ``kind`` from defaults, ``base``, a TOML file, ``options``, ``key.sub=value`` overrides; later ones win.

    >>> from brainunet.config import TrainConfig
    >>> load(TrainConfig, overrides=["learning_rate=1e-4", "loss.name=tversky"]).loss.name
    'tversky'
    >>> load(TrainConfig, overrides=["learnig_rate=1e-4"])
    Traceback (most recent call last):
    brainunet.errors.ConfigError: settings: learnig_rate is not a known setting (did you mean learning_rate?).

    Raises:
        ConfigError: unreadable file, or every problem of the settings in one message.
    """
    # from the defaults of this kind, not of its parts: train.steps alone must leave the rest of this kind's train as it is
    values: dict[str, Any] = kind().model_dump()
    asked: dict[str, Any] = {}
    for override in overrides:
        _merge(asked, _parse_override(override))
    for layer in (base or {}, {} if path is None else _read_toml(path), options or {}, asked):
        _merge(values, _unfolded(kind, layer))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(kind, detail) for detail in error.errors())
        raise ConfigError(path if path is not None else "settings", found=problems) from None


def sha256_of(settings: Settings) -> str:
    """Digest of the resolved settings: equal exactly when every value is equal."""
    canonical = json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to "not known": the closest name, else all of them.

    >>> nearest("brainunet-lit", ["brainunet", "brainunet-lite"])
    'did you mean brainunet-lite?'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(names)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise ConfigError(path, found=str(reason), expected="a readable TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, found=f"TOML that does not parse ({error})", expected="key = value lines") from None


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", found=override, expected="key.sub=value, such as train.learning_rate=1e-4")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: --set loss.name=tversky
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _merge(into: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), Mapping):
            inner = dict(into[key])
            _merge(inner, value)
            into[key] = inner
        else:
            into[key] = value


def _unfolded(kind: type[BaseModel], layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The layer with its presets written out, so that it wins over all of an earlier layer's numbers."""
    values = dict(kind.unfold(layer)) if issubclass(kind, Settings) else dict(layer)
    for name, value in values.items():
        if isinstance(value, Mapping) and (field := kind.model_fields.get(name)) and (part := _group_of(field.annotation)):
            values[name] = _unfolded(part, value)
    return values


def _explain(kind: type[Settings], detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{where} is not a known setting ({_nearest_setting(kind, detail['loc'])})"
    reason = in_words(detail)
    if not where:
        return reason
    found = detail["input"]
    return f"{where}: {reason}" + ("" if isinstance(found, Mapping | BaseModel) else f" (found {shown(found)})")


def _nearest_setting(kind: type[Settings], location: tuple[int | str, ...]) -> str:
    """The same name in another group, else the nearest in the group where it stands, else all of that."""
    name = str(location[-1])
    elsewhere = [path for path in _paths(kind) if path.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return nearest(name, _group_at(kind, location[:-1]).model_fields)


def _group_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is not None:  # else a place in a list: its settings are those of the list's items
            kind = _group_of(field.annotation) or kind
    return kind


def _paths(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by its dotted name, those in lists and mappings left out."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group_of(annotation: Any) -> type[BaseModel] | None:
    inner = (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel))
    return next(inner, None)
