"""What a person asked a simulation to do, kept in its folder so that it can be resumed."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.labels import Convention
from brainunet.settings import sha256_of
from brainunet.starter import STARTER
from brainunet_server.store.opening import without_password
from brainunet_sim.scenario import SimulationConfig

RANDOM, STARTER_NAME = "random", "starter"


@dataclass(frozen=True)
class Request:
    """A simulation to run: its settings, and where its files lie. Kept in the output folder, so that it can be resumed.

    Attributes:
        data: folder of cases; None makes phantoms below ``out``.
        init: a model file, "starter" or "random".
        database: path or URL of the store; None keeps it in ``out``.
    """

    run_id: str
    out: Path
    config: SimulationConfig
    data: Path | None
    init: str
    database: str | None = None
    convention: Convention | None = None
    partition_file: Path | None = None

    @property
    def start_file(self) -> Path | None:
        return start_file(self.init)

    @property
    def store(self) -> str | Path:
        return self.database or self.out / "store.sqlite"


def start_file(init: str) -> Path | None:
    """The model file that ``init`` means; None for random weights."""
    return None if init == RANDOM else STARTER if init == STARTER_NAME else Path(init)


def new_run_id() -> str:
    """A name that sorts by time and is not met twice in one store."""
    return f"sim-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def save_request(request: Request) -> None:
    """Keep what was asked, so that a resume needs nothing but the folder, and the database's URL again if it has a password."""
    kept = {
        "run": request.run_id,
        "data": None if request.data is None else str(request.data.resolve()),
        "init": request.init if request.init in (RANDOM, STARTER_NAME) else str(Path(request.init).resolve()),
        "database": None if request.database is None else without_password(request.database),
        "convention": request.convention,
        "partition_file": None if request.partition_file is None else str(request.partition_file.resolve()),
        "config": request.config.model_dump(mode="json"),
        "config_sha256": sha256_of(request.config),
    }
    with writing_aside(request.out / "config.json") as aside:
        aside.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def saved_request(out: Path) -> Request:
    """The simulation that was begun in a folder.

    Raises:
        ConfigError: there is none.
    """
    try:
        kept = json.loads((out / "config.json").read_text(encoding="utf-8"))
        return Request(
            run_id=kept["run"],
            out=out,
            config=SimulationConfig.model_validate(kept["config"]),
            data=None if kept["data"] is None else Path(kept["data"]),
            init=kept["init"],
            database=kept["database"],
            convention=None if kept["convention"] is None else Convention(kept["convention"]),
            partition_file=None if kept["partition_file"] is None else Path(kept["partition_file"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            out, found="no config.json of a simulation", expected="a folder in which one was begun", remedy="start it first"
        ) from None
