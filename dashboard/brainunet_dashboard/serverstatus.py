"""What a running ``flower-server`` says of itself in ``status.json``; no more of it than the pages show."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

MAX_BYTES: Final = 4_000_000


class ServerStatus(BaseModel):
    """``deadline_at``: until when the round in progress waits for replies, None between rounds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str
    message: str
    run: str
    deadline_at: AwareDatetime | None = None
    updated_at: AwareDatetime


def read_status(path: Path | None, run_id: str) -> ServerStatus | None:
    """What the server said last of this run; None of another run, or where nothing can be read."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            status = ServerStatus.model_validate_json(file.read(MAX_BYTES))
    except (OSError, ValidationError):
        return None
    return status if status.run == run_id else None
