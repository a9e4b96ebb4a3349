"""The cards of model files in the folder, and whether a release's signature is genuine.

The store says where a file lies, and is not believed: only files below the folder of models are opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brainunet.errors import BrainUNetError
from brainunet.modelfile import SIGNED_AS, ModelCard, card_text
from brainunet.signing import read_public_key, verify_file


@dataclass(frozen=True)
class FoundCard:
    """A card as text, or why there is none; ``signature`` in words."""

    card: ModelCard | None
    problem: str = ""
    signature: str = ""
    is_signed: bool = False


def release_card(folder: Path, file: str) -> FoundCard:
    """The card of a published model, and its signature checked against the federation's key."""
    path = _below(folder / "published", folder / file)
    if path is None:
        return FoundCard(None, "its file is not below the folder of published models")
    found = _read(path)
    if found.card is None:
        return found
    try:
        verify_file(path, read_public_key(folder / "keys" / "signing.pub"), SIGNED_AS)
    except BrainUNetError as error:
        return FoundCard(found.card, signature=str(error))
    return FoundCard(found.card, signature="signed with the federation's key, and unchanged since", is_signed=True)


def round_card(folder: Path, run_id: str, file: str) -> FoundCard | None:
    """The card of a round's model; None where there is no such file."""
    models = folder / "models"
    for path in (models / run_id / file, models / file):
        below = _below(models, path)
        if below is not None and below.is_file():
            return _read(below)
    return None


def _below(folder: Path, path: Path) -> Path | None:
    try:
        real = path.resolve()
        return real if real.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # a name with NUL, a loop of links
        return None


def _read(path: Path) -> FoundCard:
    try:
        return FoundCard(ModelCard.model_validate_json(card_text(path)))
    except BrainUNetError as error:
        return FoundCard(None, str(error))
