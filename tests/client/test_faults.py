"""How little a failure may say outside the hospital."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from brainunet.errors import (
    BrainUNetError,
    ConfigError,
    DataError,
    FederationError,
    GeometryMismatch,
    MissingModality,
    PrivacyError,
    UnknownLabel,
    UnreadableVolume,
    UnsupportedConvention,
    UsageError,
)
from brainunet.files import writing_aside
from brainunet.records import Fault, FaultCode
from brainunet.training.loop import TrainingDivergedError
from brainunet_client.faults import SiteNotReady, Stopped, fault_code, of_this_site

PATIENT = "Jane Doe"


class OutOfMemoryError(RuntimeError):
    """As torch.cuda.OutOfMemoryError: known by its name, for this file of the client imports no torch."""


def out_of_memory() -> BaseException:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    return raised.value


def disk_full(path: Path) -> BaseException:
    with pytest.raises(BrainUNetError) as raised, writing_aside(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    return raised.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((kind(PATIENT, found="x"), FaultCode.NO_USABLE_CASES) for kind in (DataError, UnreadableVolume, GeometryMismatch)),
        *((kind(PATIENT, found="x"), FaultCode.NO_USABLE_CASES) for kind in (MissingModality, UnknownLabel)),
        (UnsupportedConvention(PATIENT, found="x"), FaultCode.NO_USABLE_CASES),
        (FederationError("message", found="x"), FaultCode.TASK_NOT_UNDERSTOOD),
        (ConfigError("model", found="x"), FaultCode.MODEL_DOES_NOT_FIT),
        (MemoryError(PATIENT), FaultCode.OUT_OF_MEMORY),
        (OutOfMemoryError(PATIENT), FaultCode.OUT_OF_MEMORY),
        (out_of_memory(), FaultCode.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device", PATIENT), FaultCode.DISK_FULL),
        (OSError(errno.EDQUOT, "Quota exceeded", PATIENT), FaultCode.DISK_FULL),
        (TrainingDivergedError("training", found="x"), FaultCode.TRAINING_DIVERGED),
        (OSError(errno.EACCES, "Permission denied", PATIENT), FaultCode.INTERNAL),
        (PrivacyError(PATIENT, found="x"), FaultCode.PRIVACY_REFUSED),
        (UsageError(PATIENT, found="x"), FaultCode.INTERNAL),
        (ZeroDivisionError(PATIENT), FaultCode.INTERNAL),
        (RuntimeError(), FaultCode.INTERNAL),
        (KeyboardInterrupt(), FaultCode.INTERNAL),
        (Stopped(FaultCode.TOO_LATE), FaultCode.TOO_LATE),
        (Stopped(FaultCode.OUTSIDE_HOURS), FaultCode.OUTSIDE_HOURS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_has_a_code(error: BaseException, code: FaultCode) -> None:
    assert fault_code(error) is code


@pytest.mark.parametrize("kind", [ConfigError, PrivacyError])
def test_what_is_wrong_with_the_site_itself_is_no_fault_of_the_task(kind: type[BrainUNetError]) -> None:
    with pytest.raises(SiteNotReady) as raised, of_this_site():
        raise kind("site.toml", found="hours of no day", expected="hours", remedy="mend them")

    assert fault_code(raised.value) is FaultCode.SITE_NOT_READY
    assert str(raised.value) == "site.toml: hours of no day, but expected hours. Mend them."


def test_other_failures_of_the_site_stay_what_they_are() -> None:
    with pytest.raises(DataError) as raised, of_this_site():
        raise DataError(PATIENT, found="x")

    assert fault_code(raised.value) is FaultCode.NO_USABLE_CASES


def test_a_full_disk_is_told_from_other_failures_also_behind_our_own_error(tmp_path: Path) -> None:
    assert fault_code(disk_full(tmp_path / PATIENT)) is FaultCode.DISK_FULL


def test_a_fault_has_no_room_for_words() -> None:
    assert set(Fault.model_fields) == {"protocol", "run", "round", "kind", "code"}
    with pytest.raises(ValueError, match="extra"):
        Fault.model_validate({"run": "r", "round": 1, "code": "internal", "text": PATIENT})
    with pytest.raises(ValueError, match="code"):
        Fault.model_validate({"run": "r", "round": 1, "code": PATIENT})
