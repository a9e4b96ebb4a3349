"""The hospital's settings: read with every mistake named, and never loosened by what the federation asks."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.config import TrainConfig, ValidationConfig
from brainunet.errors import ConfigError
from brainunet.records import EvaluateTask, TrainTask
from brainunet_client.home import Home
from brainunet_client.site_settings import (
    TEMPLATE,
    SitePrivacy,
    SiteSettings,
    may_train_at,
    read_site_settings,
    seconds_until_allowed,
    stricter,
)
from tests.support import messages

CLOCKS = st.times().map(lambda t: f"{t.hour:02d}:{t.minute:02d}")
SPANS = st.tuples(CLOCKS, CLOCKS | st.just("24:00")).filter(lambda pair: pair[0] != pair[1]).map("-".join)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))


@contextmanager
def this_machine_in(zone: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


def settings_from(tmp_path: Path, text: str | bytes) -> SiteSettings:
    home = Home(tmp_path)
    home.settings.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_site_settings(home)


def test_the_template_changes_nothing_and_names_every_setting(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in TEMPLATE.splitlines() if " = " in line or line == "# [privacy]"]
    named = tomllib.loads("\n".join(lines))

    assert settings_from(tmp_path, TEMPLATE) == SiteSettings()
    assert set(named) == set(SiteSettings.model_fields)
    assert set(named["privacy"]) == set(SitePrivacy.model_fields)
    assert SiteSettings.model_validate(named).hours == ("19:00-07:00",)


def test_what_was_not_filled_in_says_so() -> None:
    assert "not filled in" in SiteSettings().purpose
    assert "not filled in" in SiteSettings().legal_basis


def test_settings_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = '\ufeffhours = ["19:00-07:00", "12:00-13:30"]\r\nthreads = 8\r\nmemory_gb = 16\r\nmin_cases = 5\r\n'

    settings = settings_from(tmp_path, text)

    assert (settings.hours, settings.threads, settings.memory_gb, settings.min_cases) == (
        ("19:00-07:00", "12:00-13:30"), 8, 16.0, 5,
    )  # fmt: skip


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    text = 'hours = ["7pm-7am"]\nthread = 8\nnice = 20\nmin_cases = 0\nmax_steps = 0\nmemory_gb = -1\n'

    with pytest.raises(ConfigError) as refused:
        settings_from(tmp_path, text)

    said = str(refused.value)
    assert said.startswith("site.toml: ")
    assert "thread is not a known setting (did you mean threads?)" in said
    assert all(word in said for word in ("7pm-7am", "nice", "min_cases", "max_steps", "memory_gb"))


@pytest.mark.parametrize("span", ["19:00", "19:00-25:00", "9:00-17:00", "9-17 ", "24:00-07:00", "19:00\u201307:00", "-", ""])
def test_a_span_of_time_that_is_none_is_refused_with_an_example(span: str) -> None:
    with pytest.raises(ValueError, match="no span of time such as"):
        SiteSettings(hours=(span,))


def test_a_span_without_length_is_refused_because_it_could_mean_never_or_always() -> None:
    with pytest.raises(ValueError, match=r"for the whole day write 00:00-24:00"):
        SiteSettings(hours=("08:00-08:00",))


def test_hours_without_brackets_are_refused_with_the_right_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'write a list: hours = \["19:00-07:00"\]'):
        settings_from(tmp_path, 'hours = "19:00-07:00"')


def test_a_file_that_is_gone_is_an_error_because_it_may_have_forbidden_something(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site.toml: no such file.*enrolling again under the same name"):
        read_site_settings(Home(tmp_path))


@pytest.mark.parametrize("content", [b"hours = [", b"\xff\xfe", b"= 3"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"site\.toml"):
        settings_from(tmp_path, content)


@pytest.mark.parametrize(
    ("hours", "clock", "may"),
    [
        ((), "03:00", True),
        (("19:00-07:00",), "18:59", False),
        (("19:00-07:00",), "19:00", True),
        (("19:00-07:00",), "00:00", True),
        (("19:00-07:00",), "06:59", True),
        (("19:00-07:00",), "07:00", False),
        (("12:00-13:30",), "13:29", True),
        (("12:00-13:30",), "13:30", False),
        (("20:00-24:00",), "23:59", True),
        (("20:00-24:00",), "00:00", False),
        (("20:00-00:00",), "23:59", True),
        (("00:00-24:00",), "00:00", True),
        (("01:00-02:00", "12:00-13:00"), "12:30", True),
    ],
)
def test_training_runs_from_the_first_minute_of_a_span_to_the_last(hours: tuple[str, ...], clock: str, may: bool) -> None:
    assert may_train_at(SiteSettings(hours=hours), local(f"2026-03-04T{clock}")) is may


def test_hours_are_those_of_this_machine_whatever_zone_a_moment_comes_in() -> None:
    evening = SiteSettings(hours=("19:00-20:00",))
    noon_in_london = datetime(2026, 1, 7, 12, tzinfo=UTC)

    with this_machine_in("Asia/Tokyo"):
        assert not may_train_at(evening, noon_in_london)
        assert seconds_until_allowed(evening, noon_in_london) == 22 * 3600
    with this_machine_in("Etc/GMT-7"):
        assert may_train_at(evening, noon_in_london)


@pytest.mark.parametrize(
    ("hours", "clock", "seconds"),
    [
        ((), "03:00", 0),
        (("19:00-07:00",), "20:00", 0),
        (("19:00-07:00",), "18:59", 60),
        (("19:00-07:00",), "07:00", 12 * 3600),
        (("05:00-06:00",), "07:00", 22 * 3600),
        (("05:00-06:00", "08:00-09:00"), "07:00", 3600),
    ],
)
def test_the_wait_is_until_the_next_span(hours: tuple[str, ...], clock: str, seconds: float) -> None:
    with this_machine_in("UTC"):
        assert seconds_until_allowed(SiteSettings(hours=hours), local(f"2026-03-04T{clock}")) == seconds


@pytest.mark.parametrize(
    ("now", "hours", "hours_to_wait"),
    [
        ("2026-03-28T22:00", "05:00-06:00", 6),  # the clocks go forward in that night,
        ("2026-10-24T22:00", "05:00-06:00", 8),  # and back in this one
        ("2026-03-29T01:00", "02:15-02:45", 24 + 0.25),  # a span that the night leaves out
    ],
)
def test_the_wait_is_right_in_the_nights_when_the_clocks_change(now: str, hours: str, hours_to_wait: float) -> None:
    with this_machine_in("Europe/Berlin"):
        assert seconds_until_allowed(SiteSettings(hours=(hours,)), local(now)) == hours_to_wait * 3600


@given(st.lists(SPANS, min_size=1, max_size=3), MOMENTS, st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_after_the_wait_training_may_run_and_it_is_never_longer_than_two_days(
    hours: list[str], now: datetime, zone: str
) -> None:
    settings = SiteSettings(hours=tuple(hours))
    with this_machine_in(zone):
        wait = seconds_until_allowed(settings, now)

        assert may_train_at(settings, now + timedelta(seconds=wait))
        assert (wait == 0) == may_train_at(settings, now)
        assert wait < 48 * 3600


@given(
    site=st.builds(SiteSettings, min_cases=st.integers(1, 1000), max_steps=st.none() | st.integers(1, 1000)),
    steps=st.integers(1, 1000),
    min_cases=st.integers(1, 1000),
)
def test_a_task_is_done_as_the_stricter_of_site_and_federation_wants(site: SiteSettings, steps: int, min_cases: int) -> None:
    validation = ValidationConfig(min_cases=min_cases, window=(32, 32, 32))
    task = messages.train_task().model_copy(update={"train": TrainConfig(steps=steps), "validation": validation})

    done = stricter(site, task)

    assert done.validation.min_cases >= max(site.min_cases, min_cases)
    assert done.train.steps <= min(steps, site.max_steps or steps)
    # nothing else is changed, and it is a task that could have been sent
    same = {"train": done.train.model_copy(update={"steps": steps}), "validation": validation}
    assert done.model_copy(update=same) == task
    assert TrainTask.model_validate(done.model_dump() | {"weights": done.weights}) == done
    assert stricter(site, done) == done


def test_a_task_that_only_evaluates_gets_the_sites_minimum_too() -> None:
    task = messages.evaluate_task()

    done = stricter(SiteSettings(min_cases=7, max_steps=1), task)

    assert isinstance(done, EvaluateTask)
    assert done.validation.min_cases == 7
    assert done.model_copy(update={"validation": task.validation}) == task
