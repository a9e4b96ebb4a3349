"""Which models were pulled, in ``models/pulled.json`` of the home: for `brainunet predict`, which needs no network for it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from brainunet import home_folder
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.folders import FolderKind, hold_folder
from brainunet.records import Name, Record

MOST_KEPT: Final = 200  # lines; the files of older ones stay
_MODELS: Final = FolderKind("pull", frozenset(), "", (home_folder.PULLED,), "--home")
_PATIENCE_S: Final = 30.0  # with another pull, which changes the list in a moment
_MAX_BYTES: Final = 1_000_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PulledModel(Record):
    """A model as it was pulled.

    Attributes:
        file: its absolute path.
        sha256: of the whole file.
        run, round: of the federated training that it came from.
        withdrawn: why the federation has withdrawn it, as far as this machine was told; None if it was not.
    """

    name: Name
    file: str
    federation: str
    sha256: Sha256
    run: str = ""
    round: int = 0
    pulled_at: AwareDatetime
    withdrawn: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.file)

    def verified(self) -> Path:
        """The file, after a look at every byte: it still is what was pulled.

        Raises:
            ConfigError: it is gone, can't be read, or was changed.
        """
        again = f"fetch it again: brainunet pull --name {self.name}"
        try:
            with self.path.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            found = error.strerror or "not readable"
            raise ConfigError(self.path, found=found, expected="the model that was pulled", remedy=again) from None
        if sha256 != self.sha256:
            raise ConfigError(
                self.path, found="it was changed since it was pulled", expected="the file that was signed", remedy=again
            )
        return self.path


class _Kept(Record):
    format: Literal["brainunet-pulled-1"] = "brainunet-pulled-1"
    models: tuple[PulledModel, ...] = ()  # in the order in which they were pulled


def last_pulled(home: Path) -> PulledModel | None:
    """The model that was pulled last; None if none was. Its file is looked at by :meth:`PulledModel.verified` only.

    Raises:
        ConfigError: pulled.json can't be read.
    """
    models = all_pulled(home)
    return models[-1] if models else None


def all_pulled(home: Path) -> tuple[PulledModel, ...]:
    """Every model that was pulled, the latest last; none where nothing was.

    Raises:
        ConfigError: pulled.json can't be read.
    """
    path = _place(home)
    try:
        with path.open("rb") as file:
            return _Kept.model_validate_json(file.read(_MAX_BYTES)).models
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValidationError) as error:
        raise ConfigError(
            path,
            found=(error.strerror if isinstance(error, OSError) else None) or "something else than a list of models",
            expected="which models were pulled",
            remedy="remove it and pull again, or name a model by its file; the models beside it stay as they are",
        ) from None


def remember(home: Path, model: PulledModel, aside: Path | None = None) -> None:
    """Put a model down as the one that was pulled last; what had its name before lies at ``aside`` now.

    Raises:
        ConfigError: pulled.json can't be read.
        BrainUNetError: it can't be written.
    """
    with _alone(home):
        others = []
        for other in all_pulled(home):
            if other.file != model.file:
                others.append(other)
            elif other.sha256 != model.sha256 and aside is not None:
                others.append(other.model_copy(update={"file": str(aside)}))
        _write(home, [*others, model][-MOST_KEPT:])


def mark_withdrawn(home: Path, federation: str, reasons: dict[str, str | None]) -> tuple[PulledModel, ...]:
    """Put down which models of a federation it has withdrawn, by SHA-256; gives those that are still here, by name.

    Raises:
        ConfigError: pulled.json can't be read.
        BrainUNetError: it can't be written.
    """

    def marked() -> tuple[PulledModel, ...]:
        return tuple(
            model.model_copy(update={"withdrawn": reasons[model.sha256]})
            if model.federation == federation and model.sha256 in reasons
            else model
            for model in all_pulled(home)
        )

    now = marked()
    if now != all_pulled(home):
        with _alone(home):  # so that a pull beside this one loses no line; for a look alone the home may be read-only
            now = marked()
            _write(home, now)
    here = [model for model in now if model.federation == federation and model.withdrawn is not None and model.path.exists()]
    return tuple(sorted({model.name: model for model in here}.values(), key=lambda model: model.name))


def no_longer_listed(home: Path, federation: str, listed: Collection[str]) -> PulledModel | None:
    """The model of a federation that was pulled last, if its list (of SHA-256) lacks it; None if it does not, or none was.

    Lists keep what was withdrawn, so it is one of before: of a coordinator's backup, or of somebody who hides the newer ones.

    Raises:
        ConfigError: pulled.json can't be read.
    """
    last = next((model for model in reversed(all_pulled(home)) if model.federation == federation), None)
    return None if last is None or last.sha256 in listed else last


def withdrawn_file(home: Path, file: Path) -> PulledModel | None:
    """What is known of a model file of any name that was pulled, by its bytes, if its federation has withdrawn it since.

    None too for a file that can't be read: who opens it says why.

    Raises:
        ConfigError: pulled.json can't be read.
    """
    gone = {model.sha256: model for model in all_pulled(home) if model.withdrawn is not None}
    if not gone or not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            return gone.get(hashlib.file_digest(opened, "sha256").hexdigest())
    except OSError:
        return None


def _alone(home: Path) -> AbstractContextManager[bool]:
    """Nobody else changes the list in the block; what another pull left of one that was killed in the middle is removed."""
    return hold_folder(_place(home).parent, _MODELS, patience_s=_PATIENCE_S)


def _write(home: Path, models: Iterable[PulledModel]) -> None:
    with writing_aside(_place(home)) as aside:
        aside.write_text(_Kept(models=tuple(models)).model_dump_json(indent=1) + "\n", encoding="utf-8")


def _place(home: Path) -> Path:
    return home / home_folder.MODELS / home_folder.PULLED
