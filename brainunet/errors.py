"""Every error the project raises on purpose, and the exit code each one ends a command with.

::

    BrainUNetError                 1   the run failed
    ├── ChainBroken                    an append-only log is not as it was written
    ├── UsageError                 2   the command line makes no sense
    ├── DataError                  3   nothing usable in the data
    │   ├── MissingModality            a configured modality has no file
    │   ├── UnreadableVolume           not a NIfTI file, truncated, empty, no permission, NaN, wrong number of axes
    │   ├── GeometryMismatch           the volumes of one case do not share a grid
    │   ├── UnknownLabel               a segmentation holds a number its convention does not know
    │   └── UnsupportedConvention      a data set whose labels cannot be read as BraTS 2021 or 2023+
    ├── ConfigError                4   a configuration, model card or kit does not fit
    ├── PrivacyError               5   a privacy rule forbids it
    └── FederationError            6   the federation could not do its round

0 is success and 130 an interrupt. Only the command lines catch these; everything below lets them pass.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path


class BrainUNetError(Exception):
    """A failure that a person can act on: where it is, what was found, what was expected, what to do.

    >>> print(DataError("scan.nii.gz", found="0 bytes", expected="a NIfTI volume", remedy="copy the file again"))
    scan.nii.gz: 0 bytes, but expected a NIfTI volume. Copy the file again.
    >>> print(UsageError("--rounds", found="0", remedy="give at least 1"))
    --rounds: 0. Give at least 1.
    """

    exit_code = 1

    def __init__(self, where: str | Path, *, found: str, expected: str = "", remedy: str = "") -> None:
        self.where = where.name if isinstance(where, Path) else where
        self.found, self.expected, self.remedy = found, expected, remedy
        sentence = f"{self.where}: {found}" + (f", but expected {expected}." if expected else ".")
        if remedy:
            sentence += f" {remedy[0].upper()}{remedy[1:].rstrip('.')}."
        super().__init__(sentence)

    def __reduce__(self) -> tuple[object, ...]:
        # so that it can come from another process: its arguments have names, which pickle would leave out
        return partial(type(self), found=self.found, expected=self.expected, remedy=self.remedy), (self.where,)


class ChainBroken(BrainUNetError):
    pass


class UsageError(BrainUNetError):
    exit_code = 2


class DataError(BrainUNetError):
    exit_code = 3


class MissingModality(DataError):
    pass


class UnreadableVolume(DataError):
    pass


class GeometryMismatch(DataError):
    pass


class UnknownLabel(DataError):
    pass


class UnsupportedConvention(DataError):
    pass


class ConfigError(BrainUNetError):
    exit_code = 4


class PrivacyError(BrainUNetError):
    exit_code = 5


class FederationError(BrainUNetError):
    exit_code = 6
