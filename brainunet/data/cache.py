"""Prepared cases on disk, memory-mapped: the second reading of a case costs a hash instead of a decompression.

An entry is keyed by the bytes of its files and by the settings, so an edited file or a changed percentile never meets a stale
entry. It is written under another name and renamed when whole: a crash leaves no entry rather than half of one. Each says
whose it is and how it was prepared, so that the copies that may not or need not be kept can be found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainunet.config import PreprocessConfig
from brainunet.data.preprocess import PreparedCase, files_of, prepare
from brainunet.errors import BrainUNetError, UnreadableVolume
from brainunet.files import flush
from brainunet.labels import Modality
from brainunet.records import Case
from brainunet.settings import sha256_of

FORMAT = "2"  # of a copy, and of what may become one: 2 has no heads

log = logging.getLogger(__name__)


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
        if _is_there(entry):
            try:
                return _read(entry)
            except (OSError, ValueError, LookupError, TypeError):
                log.warning("%s: its cached copy is damaged and is made again", case.case_id)
                shutil.rmtree(entry, ignore_errors=True)
        _write(entry, case.case_id, settings_digest(modalities, config), prepare(case, modalities, config))
        return _read(entry)

    def clear_unfinished(self) -> int:
        """Remove copies that processes that were killed left half-written; gives how many went.

        Only for who knows that nobody else writes here now.
        """
        left = list(self.folder.glob("??/.*.part"))
        for entry in left:
            shutil.rmtree(entry, ignore_errors=True)
        return len(left)

    def keep_only(self, case_ids: Collection[str], modalities: Sequence[Modality], config: PreprocessConfig) -> int:
        """Remove every copy that is not of one of these cases, prepared like this, or does not say so; gives how many went.

        What can't be removed is named in the log, to be tried again the next time.
        """
        gone, settings = 0, settings_digest(modalities, config)
        for entry in sorted(self.folder.glob("??/*")):  # those that were never finished too: they hold images
            case_id, prepared_by = _whose(entry)
            if case_id in case_ids and prepared_by == settings:
                continue
            try:
                shutil.rmtree(entry)
                gone += 1
            except OSError as error:
                log.warning("%s: a copy that is not used, and can't be removed: %s", entry, error.strerror or error)
        return gone


def settings_digest(modalities: Sequence[Modality], config: PreprocessConfig) -> str:
    """How a case is prepared, in 64 hex digits: equal exactly when modalities, their order and every setting are equal."""
    return hashlib.sha256(f"{FORMAT} {sha256_of(config)} {' '.join(modalities)}".encode()).hexdigest()


def _key(case: Case, modalities: Sequence[Modality], config: PreprocessConfig) -> str:
    sha = hashlib.sha256(f"{FORMAT} {sha256_of(config)} {case.convention} {' '.join(modalities)}".encode())
    for path in files_of(case, modalities):
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


def _write(entry: Path, case_id: str, settings: str, prepared: PreparedCase) -> None:
    facts = {
        "case": case_id,
        "settings": settings,
        "box": prepared.box,
        "affine": prepared.affine.tolist(),
        "shape": prepared.shape,
        "spacing_mm": prepared.spacing_mm,
        "has_label": prepared.label is not None,
    }
    aside: Path | None = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".part", dir=entry.parent))
        # first, so that there is no image without a word of whose it is
        (aside / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        np.save(aside / "image.npy", prepared.image)
        if prepared.label is not None:
            np.save(aside / "label.npy", prepared.label)
        for path in aside.iterdir():
            flush(path)
        aside.rename(entry)
    except OSError as error:
        if not _is_there(entry):  # else another process made the same entry first: just as good
            raise BrainUNetError(
                entry.parent.parent,
                found=f"the cache can't be written: {error.strerror or error}",
                remedy="free space on the disk, or choose another folder for the cache",
            ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    for left in entry.parent.glob(f".{entry.name}.*.part"):  # by processes that were killed, or that are too late
        shutil.rmtree(left, ignore_errors=True)


def _is_there(entry: Path) -> bool:
    return os.access(entry, os.F_OK)  # False, where Path.is_dir raises, in a folder that may not be entered


def _whose(entry: Path) -> tuple[str, str] | tuple[None, None]:
    """The case of a copy and the settings that it was prepared by; nothing where it doesn't say both."""
    try:
        facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
        case_id, settings = facts["case"], facts["settings"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None, None
    return (case_id, settings) if isinstance(case_id, str) and isinstance(settings, str) else (None, None)


def _read(entry: Path) -> PreparedCase:
    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
    start_stop = [(int(start), int(stop)) for start, stop in facts["box"]]
    image = np.lib.format.open_memmap(entry / "image.npy", mode="r")
    label = np.lib.format.open_memmap(entry / "label.npy", mode="r") if facts["has_label"] else None
    sides = tuple(stop - start for start, stop in start_stop)
    is_label = label is None or (label.dtype == np.uint8 and label.shape == sides)
    if image.dtype != np.float16 or image.shape[1:] != sides or not is_label:
        raise ValueError("arrays that are not those of the facts")
    return PreparedCase(
        image=image,
        label=label,
        box=(start_stop[0], start_stop[1], start_stop[2]),
        affine=np.array(facts["affine"]),
        shape=(facts["shape"][0], facts["shape"][1], facts["shape"][2]),
        spacing_mm=(facts["spacing_mm"][0], facts["spacing_mm"][1], facts["spacing_mm"][2]),
    )
