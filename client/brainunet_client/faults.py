"""From an exception to the little that may be said about it outside: a code, never its text."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from brainunet.errors import BrainUNetError, ConfigError, DataError, FederationError
from brainunet.records import FaultCode


def fault_code(error: BaseException) -> FaultCode:
    """The code for an exception raised while a task was done.

    >>> fault_code(MemoryError()), fault_code(ZeroDivisionError("patient Jane Doe"))
    (<FaultCode.OUT_OF_MEMORY: 'out_of_memory'>, <FaultCode.INTERNAL: 'internal'>)
    """
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
