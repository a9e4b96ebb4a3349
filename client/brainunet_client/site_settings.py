"""The hospital's own settings, and the one place where they meet the federation's: the stricter wins."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Final, TypeVar

from pydantic import Field, FiniteFloat, field_validator, model_validator

from brainunet.config import NonNegative, Positive
from brainunet.errors import ConfigError
from brainunet.records import Task, TrainTask
from brainunet.settings import Settings, load
from brainunet_client.home import Home

TEMPLATE: Final = """\
# The settings of this hospital. They stay here: the coordinator can neither see nor change them.
# Where the federation asks for something else, the stricter of the two holds.
# Take away the "# " in front of a line to set it; it holds from the next task on.

# When training may run, in this machine's time. "19:00-07:00" goes over midnight; an empty list means always.
# hours = ["19:00-07:00"]

# How many processor threads and how much memory training may take; without these lines, what the machine has.
# threads = 8
# memory_gb = 16.0

# How much training gives way to other programs: 0 (not at all) to 19 (to everything).
# nice = 10

# With fewer validation cases than this, no figure about them leaves the hospital; with fewer training cases, not the loss.
# min_cases = 3

# The most training steps in one round; without this line, what the federation asks for.
# max_steps = 200

# Written down with every transfer in the ledger: what the transfers are for, and what allows them.
# purpose = "training of a segmentation model in federation ..., protocol no. ..."
# legal_basis = "approval no. ... of the ethics committee of ..., of 1 March 2026"

# With this part the hospital takes part only under differential privacy (docs/guides/privacy.md), and enforces it here.
# [privacy]
#   public_cases = 40  # training cases, declared once: this number is told, and stays when cases come or go
#   epsilon = 8.0  # how much may ever be told of any one case, over all runs and models
#   delta = 0.0025  # without this line a tenth of 1 / public_cases
#   min_noise = 0.0  # never less noise than this, whatever the federation proposes
#   secure_noise = false  # true: draws and noise from the system's secure source, which takes longer
#   tell_scores = true  # false: tell no figures of validation cases, which the noise does not cover
"""

_NOT_FILLED_IN: Final = "not filled in: set {} in site.toml"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_DAY = timedelta(days=1)

Words = Annotated[str, Field(max_length=500)]
T = TypeVar("T", bound=Task)


class SitePrivacy(Settings):
    """What the hospital allows of private training; with these settings there is no other.

    Attributes:
        public_cases: the number of training cases that is told, declared once: it decides the weight in the average, the rate
            of draws and the noise.
        epsilon: the most that may ever be spent, over all runs and models.
        delta: at which that is counted; None is a tenth of 1 / ``public_cases``.
        min_noise: the least noise over clip.
        secure_noise: see ``brainunet.training.chance``.
        tell_scores: whether figures of validation cases may leave; the noise does not cover them.
    """

    public_cases: Annotated[int, Field(ge=1, le=1_000_000)]
    epsilon: Annotated[FiniteFloat, Field(gt=0)]
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = None
    min_noise: NonNegative = 0.0
    secure_noise: bool = False
    tell_scores: bool = True

    @model_validator(mode="after")
    def _fails_for_fewer_than_one(self) -> SitePrivacy:
        if self.delta is not None and self.delta > 1 / self.public_cases:
            raise ValueError(
                f"delta {self.delta:g} is more than 1 / public_cases = {1 / self.public_cases:.3g}: with such a chance to fail "
                "somebody could be published whole"
            )
        return self

    @property
    def counted_at(self) -> float:
        """The delta at which the budget is counted."""
        return 0.1 / self.public_cases if self.delta is None else self.delta


class SiteSettings(Settings):
    """What ``site.toml`` says.

    Attributes:
        hours: spans of local time in which training may run, such as ``19:00-07:00``; none means always.
        threads: processor threads for training; None takes what the machine has.
        memory_gb: memory for training; None sets no limit.
        nice: how much training gives way to other programs, 0 to 19.
        min_cases: with fewer validation cases than this the site withholds its figures, with fewer training cases the loss.
        max_steps: most optimizer steps in one round, a step over several batches (``train.accumulate``) counted as so many;
            None takes the federation's number.
        purpose: what the transfers are for, in words, for the ledger.
        legal_basis: what allows them, in words, for the ledger.
        privacy: with it the site trains only under differential privacy.
    """

    hours: Annotated[tuple[str, ...], Field(max_length=24)] = ()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_gb: Positive | None = None
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    min_cases: Annotated[int, Field(ge=1, le=1000)] = 3
    max_steps: Annotated[int, Field(ge=1)] | None = None
    purpose: Words = _NOT_FILLED_IN.format("purpose")
    legal_basis: Words = _NOT_FILLED_IN.format("legal_basis")
    privacy: SitePrivacy | None = None

    @field_validator("hours", mode="before")
    @classmethod
    def _a_list(cls, hours: object) -> object:
        if isinstance(hours, str):
            raise ValueError(f'write a list: hours = ["{hours}"]')
        return hours

    @field_validator("hours")
    @classmethod
    def _spans_of_time(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        for span in hours:
            start, _, end = span.partition("-")
            if not _HOURS.fullmatch(span):
                raise ValueError(f'{span!r} is no span of time such as "19:00-07:00"')
            if start == end:
                raise ValueError(f"{span!r} begins when it ends; for the whole day write 00:00-24:00")
        return hours


def read_site_settings(home: Home) -> SiteSettings:
    """The settings of this home.

    Raises:
        ConfigError: no file (enrolment writes one: without it, hours that were forbidden would be allowed again), or every
            problem of the file in one message.
    """
    if not home.settings.exists():
        raise ConfigError(
            home.settings,
            found="no such file",
            expected=f"the settings of this hospital, in {home.path}",
            remedy="put it back, or write one anew by enrolling again under the same name: brainunet-client --enrol NAME "
            "--server HOST:PORT (the key stays)",
        )
    return load(SiteSettings, home.settings)


def stricter(settings: SiteSettings, task: T) -> T:
    """The task as this site does it: never laxer than the federation asks, nor than the site allows."""
    min_cases = max(settings.min_cases, task.validation.min_cases)
    changes: dict[str, object] = {"validation": task.validation.model_copy(update={"min_cases": min_cases})}
    if isinstance(task, TrainTask) and settings.max_steps is not None:
        most = max(1, settings.max_steps // task.train.accumulate)
        changes["train"] = task.train.model_copy(update={"steps": min(most, task.train.steps)})
    if isinstance(task, TrainTask) and task.privacy is not None and settings.privacy is not None:
        asked, own = task.privacy, settings.privacy
        changes["privacy"] = asked.model_copy(
            update={
                "epsilon": min(asked.epsilon, own.epsilon),
                "delta": min(asked.delta, own.counted_at) if asked.delta <= 1 / own.public_cases else asked.delta,
                "secure_noise": asked.secure_noise or own.secure_noise,
            }
        )
    return task.model_copy(update=changes)


def may_train_at(settings: SiteSettings, now: datetime) -> bool:
    """Whether training may run at ``now`` (a moment of any time zone, or this machine's time if it has none).

    >>> evenings = SiteSettings(hours=("19:00-07:00",))
    >>> may_train_at(evenings, datetime(2026, 3, 1, 23, 0)), may_train_at(evenings, datetime(2026, 3, 1, 7, 0))
    (True, False)
    """
    clock = now.astimezone().time()
    return not settings.hours or any(_within(clock, *_span(span)) for span in settings.hours)


def seconds_until_allowed(settings: SiteSettings, now: datetime) -> float:
    """How long until training may run: 0 if it may, else seconds to the next hour of ``hours`` that there is.

    >>> seconds_until_allowed(SiteSettings(hours=("19:00-07:00",)), datetime(2026, 3, 1, 18, 30))
    1800.0
    """
    if may_train_at(settings, now):
        return 0.0
    today = now.astimezone().date()
    starts = sorted({_span(span)[0] for span in settings.hours})
    for day in range(8):  # the clocks may leave out a span on one day of the year, so that tomorrow's is the next
        for start in starts:
            moment = datetime.combine(today + day * _DAY, start).astimezone()
            wait = moment.timestamp() - now.timestamp()
            if wait > 0 and may_train_at(settings, moment):
                return wait
    return _DAY.total_seconds()


def _span(text: str) -> tuple[time, time]:
    start, _, end = text.partition("-")
    return time.fromisoformat(start), time() if end == "24:00" else time.fromisoformat(end)


def _within(clock: time, start: time, end: time) -> bool:
    if start < end:
        return start <= clock < end
    return clock >= start or clock < end
