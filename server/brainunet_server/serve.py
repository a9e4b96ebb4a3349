"""``flower-server run``: from the command line to a federation that is served, and its end in order."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack, suppress
from logging.handlers import RotatingFileHandler
from types import FrameType
from typing import Final

from brainunet.allocation import return_memory_at_once
from brainunet.flower_environment import prepare_flower
from brainunet.signing import read_signing_key
from brainunet_server.addresses import server_address
from brainunet_server.federation import FederationConfig, Folder, ServeOptions, read_settings
from brainunet_server.membership import Membership
from brainunet_server.patience import Stop
from brainunet_server.presence import Board, Ticking
from brainunet_server.record import Record, say
from brainunet_server.running import Said, is_complete, remembered, take_up_run
from brainunet_server.served import Served
from brainunet_server.start_model import signed_start_model
from brainunet_server.status import hold_lock
from brainunet_server.store.opening import without_password
from brainunet_server.store.writer import StoreWriter

NOTICE_WAIT_S: Final = 3.0  # who is connected is told again soon: no need to wait for a database that is away


def serve(folder: Folder, options: ServeOptions) -> None:
    """Serve until the run is complete, or SIGTERM, Ctrl-C or ``flower-server stop`` ends it.

    Raises:
        ConfigError: no federation in the folder, settings, model or run that don't fit.
        FederationError: another server serves this folder, or the address can't be had.
        KeyboardInterrupt: Ctrl-C.
    """
    return_memory_at_once()
    options = remembered(folder, options)
    config = _settings(folder, options)
    key = read_signing_key(folder.signing_key)
    _, start = signed_start_model(folder.start_model, key.public, demo=options.demo)
    with hold_lock(folder), ExitStack() as stack:
        prepare_flower(folder.flower)
        # after the environment is set, for Flower reads it on import
        from brainunet_server.flower.strategies import strategy_from
        from brainunet_server.flower.superlink import SuperLink, listening

        _hear_flower(folder)  # after its import has set up a log of its own
        strategy_from(config.strategy, sites=config.rounds.min_sites)  # refuses what can't be, before a run is begun with it
        said = Said(
            database=without_password(options.database) if options.database else None,
            demo=options.demo,
            overrides=options.overrides,
        )
        run = take_up_run(folder, config, start, new_run=options.new_run, said=said)
        database = options.database or config.database or folder.store
        store = stack.enter_context(StoreWriter(database, wait_s=NOTICE_WAIT_S))
        if is_complete(database, run):
            say(f"run {run.id} is complete; its models are in {folder.models / run.id}")
            say(f"begin the next with: flower-server run {folder.path} --new-run")
            return
        superlink = SuperLink(folder.flower / "objects", config.name)
        membership = Membership(folder, superlink, config.rounds.silence_s)
        membership.follow()
        port = stack.enter_context(
            listening(superlink, config.listen, config.port, folder.server_certificate, folder.server_key)
        )
        board = Board(folder, run.id, run.settings.rounds, config.rounds.min_sites, server_address(config.host, port))
        served = Served(folder, config, key, run, start, membership, board, store, database, Record(folder.audit, run.id))
        stack.enter_context(Ticking(served.tick, served.trouble))
        signal.signal(signal.SIGTERM, _stop)
        say(f"{config.name} is served at {board.address}; run {run.id}")
        with suppress(Stop):
            served.conduct(superlink)


def _settings(folder: Folder, options: ServeOptions) -> FederationConfig:
    overrides = list(options.overrides)
    if options.port is not None:
        overrides.append(f"port={options.port}")
    if options.listen is not None:
        overrides.append(f'listen="{options.listen}"')
    return read_settings(folder, overrides)


def _hear_flower(folder: Folder) -> None:
    """Flower's log, which speaks of nodes and of every refused request, goes to a file and not among the rounds."""
    folder.flower.mkdir(exist_ok=True)
    logging.raiseExceptions = False  # a full disk is said by what it stops, not by a traceback for each line of a log
    file = RotatingFileHandler(folder.flower / "flower.log", maxBytes=5_000_000, backupCount=1, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("flwr", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [file], False


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stop
