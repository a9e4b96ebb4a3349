"""Every mistake in every setting is said in this project's words, none in pydantic's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from brainunet.complaints import WORDS, in_words, shown
from brainunet.errors import ConfigError, FederationError
from brainunet.settings import Settings, load
from brainunet.wire import Packed, pack, unpack
from brainunet_client.site_settings import SiteSettings
from brainunet_server.federation import FederationConfig
from brainunet_sim.scenario import SimulationConfig
from tests.support.messages import train_task

KINDS: Final = (FederationConfig, SiteSettings, SimulationConfig)
NEEDED: Final[Mapping[type[Settings], Mapping[str, str]]] = {FederationConfig: {"name": "Glioma", "host": "fl.example.org"}}
# what a hurried person, or a damaged file, may put in the place of any setting
WRONG: Final[tuple[Any, ...]] = (
    *("two", "", "a" * 3000, "\x00", True, -1, 0, 1.5, 10**400, 1e300, float("nan"), float("inf"), float("-inf")),
    *([], [1], ["two"], [1, 2, 3, 4, 5, 6], [[1]], {}, {"unheard_of": 1}, None, b"bytes"),
)
THEIRS: Final = re.compile(r"[Ii]nput|parse string|unable to|ield required|should (be|have)|xtra inputs|[Vv]alue error")


def leaves(kind: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting and every group of settings."""
    for name, field in kind.model_fields.items():
        yield (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from leaves(field.annotation, (*above, name))


def nested(path: tuple[str, ...], value: Any) -> Mapping[str, Any]:
    return {path[0]: value if len(path) == 1 else nested(path[1:], value)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_mistake_in_any_setting_is_said_in_pydantics_words(kind: type[Settings]) -> None:
    unnamed, said, tried = set[str](), list[str](), 0
    for path in leaves(kind):
        for value in WRONG:
            try:
                kind.model_validate(nested(path, value))
            except ValidationError as error:
                tried += 1
                unnamed |= {d["type"] for d in error.errors()} - WORDS.keys() - {"value_error"}
                said += [in_words(detail) for detail in error.errors()]
            with_words(kind, path, value)

    assert tried > 50
    assert not unnamed
    assert not [words for words in said if THEIRS.search(words)]


def with_words(kind: type[Settings], path: tuple[str, ...], value: Any) -> None:
    """If the value is refused, then under its own name and in few words."""
    try:
        load(kind, base=NEEDED.get(kind, {}), options=nested(path, value))
    except ConfigError as error:
        problem = str(error)
        assert path[0] in problem
        assert not THEIRS.search(re.sub(r"\(found .*", "", problem))
        assert len(problem) < 1000


def test_all_problems_of_nested_groups_come_at_once_each_with_its_name_and_what_was_found() -> None:
    wrong = ["train.batch_size=two", "train.loss.alpha=-1", "rounds.count=0", "train.patchs=1", "train.augment=no"]

    with pytest.raises(ConfigError) as raised:
        load(FederationConfig, overrides=['name="Glioma"', 'host="fl.example.org"', *wrong])

    assert sorted(raised.value.found.split("; ")) == [
        "rounds.count: must be at least 1 (found 0)",
        "train.augment: must be a group of settings, not one value (found 'no')",
        "train.batch_size: must be a whole number (found 'two')",
        "train.loss.alpha: must be at least 0 (found -1)",
        "train.patchs is not a known setting (did you mean patch?)",
    ]


def test_a_setting_in_the_wrong_group_is_shown_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate is not a known setting \(did you mean train\.learning_rate\?\)"):
        load(FederationConfig, overrides=['name="Glioma"', 'host="fl.example.org"', "learning_rate=1e-4"])
    with pytest.raises(ConfigError, match=r"rounds\.min_cases is not a known setting \(did you mean validation\.min_cases\?\)"):
        load(FederationConfig, overrides=['name="Glioma"', 'host="fl.example.org"', "rounds.min_cases=4"])


def test_a_task_with_a_setting_that_cant_be_is_refused_in_the_same_words() -> None:
    packed = pack(train_task())
    broken = Packed(packed.header.replace('"batch_size": 2', '"batch_size": 65'), packed.values)
    assert broken.header != packed.header

    with pytest.raises(FederationError, match=r"train\.batch_size: must be at most 64, but expected a message of this"):
        unpack(broken, type(train_task()))


def test_an_error_that_the_table_does_not_know_is_still_said_without_pydantics_words() -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(complex).validate_python("x")

    assert in_words(raised.value.errors()[0]) == "is not a value for this"


def test_a_whole_group_that_is_at_odds_with_itself_is_not_printed() -> None:
    with pytest.raises(ConfigError) as raised:
        load(FederationConfig, base=NEEDED[FederationConfig], overrides=["strategy.malicious_sites=9"])

    assert raised.value.found == (
        "strategy: malicious_sites = 9 could be every site of a round that needs only rounds.min_sites = 2"
    )


def test_a_long_value_is_cut_short() -> None:
    assert len(shown("a" * 3000)) < 90
