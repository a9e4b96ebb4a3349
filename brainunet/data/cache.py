"""Prepared cases on disk, memory-mapped: the second reading of a case costs a hash instead of a decompression.

An entry is keyed by the bytes of its files and by the settings, so an edited file or a changed percentile never meets a stale
entry. It is written under another name and renamed when whole: a crash leaves no entry rather than half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainunet.config import PreprocessConfig, sha256_of
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.errors import BrainUNetError, UnreadableVolume
from brainunet.labels import Modality
from brainunet.records import Case

FORMAT = "1"


@dataclass(frozen=True)
class CaseCache:
    """A folder of prepared cases; it holds patients' images, so it belongs on the site's own disk."""

    folder: Path

    def get(self, case: Case, modalities: Sequence[Modality], config: PreprocessConfig) -> PreparedCase:
        """The prepared case, with arrays mapped from disk (read-only); prepared and kept first where it is new.

        Raises:
            DataError: the case is unusable (see ``preprocess.prepare``).
            BrainUNetError: the disk is full or the folder can't be written.
        """
        key = _key(case, modalities, config)
        entry = self.folder / key[:2] / key
        try:
            return _read(entry)
        except (OSError, ValueError, KeyError):  # not there, or damaged: make it (again)
            shutil.rmtree(entry, ignore_errors=True)
        _write(entry, prepare(case, modalities, config))
        return _read(entry)


def _key(case: Case, modalities: Sequence[Modality], config: PreprocessConfig) -> str:
    sha = hashlib.sha256(f"{FORMAT} {sha256_of(config)} {case.convention} {' '.join(modalities)}".encode())
    for path in [*(case.images[m] for m in modalities), *([case.label] if case.label else [])]:
        try:
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UnreadableVolume(
                path,
                found=error.strerror or "a file that can't be read",
                expected="a NIfTI volume",
                remedy="check that it is there and that you may read it",
            ) from None
    return sha.hexdigest()


def _write(entry: Path, prepared: PreparedCase) -> None:
    aside = entry.with_name(f".{entry.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        np.save(aside / "image.npy", prepared.image)
        if prepared.label is not None:
            np.save(aside / "label.npy", prepared.label)
        facts = {
            "box": prepared.box,
            "affine": prepared.affine.tolist(),
            "shape": prepared.shape,
            "spacing_mm": prepared.spacing_mm,
            "has_label": prepared.label is not None,
        }
        (aside / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        if not entry.exists():
            aside.rename(entry)
    except OSError as error:
        raise BrainUNetError(
            entry.parent.parent,
            found=f"the cache can't be written: {error.strerror}",
            remedy="free space on the disk, or choose another folder for the cache",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read(entry: Path) -> PreparedCase:
    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
    start_stop = [(int(start), int(stop)) for start, stop in facts["box"]]
    return PreparedCase(
        image=np.load(entry / "image.npy", mmap_mode="r"),
        label=np.load(entry / "label.npy", mmap_mode="r") if facts["has_label"] else None,
        box=(start_stop[0], start_stop[1], start_stop[2]),
        affine=np.array(facts["affine"]),
        shape=(facts["shape"][0], facts["shape"][1], facts["shape"][2]),
        spacing_mm=(facts["spacing_mm"][0], facts["spacing_mm"][1], facts["spacing_mm"][2]),
    )
