"""From an exception to the little that may be said about it outside: a code, never its text."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from brainunet.errors import BrainUNetError, ConfigError, DataError, FederationError, PrivacyError
from brainunet.records import FaultCode

StopCode: TypeAlias = Literal[FaultCode.TOO_LATE, FaultCode.OUTSIDE_HOURS]

_WHY: Final[Mapping[StopCode, str]] = MappingProxyType(
    {
        FaultCode.TOO_LATE: "the coordinator no longer waits for the reply",
        FaultCode.OUTSIDE_HOURS: "this site may not work on it now",
    }
)


class Stopped(BrainUNetError):
    """A task that its site stopped on purpose. What it has trained so far is kept for when the same task comes again."""

    def __init__(self, code: StopCode) -> None:
        super().__init__("task", found=f"stopped: {_WHY[code]}")
        self.code: FaultCode = code


class SiteNotReady(BrainUNetError):
    """What this site's people have to mend: their settings, their kit, their register of excluded cases."""


@contextmanager
def of_this_site() -> Iterator[None]:
    """What is not good in this block is the site's own, and no fault of the task: the coordinator is told so.

    Raises:
        SiteNotReady: instead of a ConfigError or PrivacyError, with the same words.
    """
    try:
        yield
    except (ConfigError, PrivacyError) as error:
        raise SiteNotReady(error.where, found=error.found, expected=error.expected, remedy=error.remedy) from error


def fault_code(error: BaseException) -> FaultCode:
    """The code for an exception raised while a task was done.

    >>> fault_code(MemoryError()), fault_code(ZeroDivisionError("patient Jane Doe"))
    (<FaultCode.OUT_OF_MEMORY: 'out_of_memory'>, <FaultCode.INTERNAL: 'internal'>)
    """
    if isinstance(error, Stopped):
        return error.code
    if isinstance(error, SiteNotReady):
        return FaultCode.SITE_NOT_READY
    if isinstance(error, PrivacyError):
        return FaultCode.PRIVACY_REFUSED
    if isinstance(error, DataError):
        return FaultCode.NO_USABLE_CASES
    if isinstance(error, FederationError):
        return FaultCode.TASK_NOT_UNDERSTOOD
    if isinstance(error, ConfigError):
        return FaultCode.MODEL_DOES_NOT_FIT
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_torch_without_memory(error)):
        return FaultCode.OUT_OF_MEMORY
    if any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in _with_causes(error)):
        return FaultCode.DISK_FULL
    if isinstance(error, BrainUNetError) and type(error).__name__ == "TrainingDivergedError":
        return FaultCode.TRAINING_DIVERGED
    return FaultCode.INTERNAL


def _is_torch_without_memory(error: RuntimeError) -> bool:
    # by name, so that this file needs no torch
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__
