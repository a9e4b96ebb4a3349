"""The process that stays connected to the coordinator: ``python -m brainunet_client.node HOME DATA --parent PID``.

Light on purpose: it waits between rounds for hours. Its supervisor restarts it (see ``brainunet_client.supervisor``).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from brainunet.allocation import return_memory_at_once
from brainunet.errors import FederationError
from brainunet.flower_environment import prepare_flower
from brainunet_client.answering import Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home
from brainunet_client.lifeline import end_with_parent

if TYPE_CHECKING:
    from flwr.app import RecordDict


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parent", type=int, required=True, help="the process that starts this one, which ends with it")
    given = parser.parse_args()
    home = Home(given.home)
    logging.basicConfig(filename=home.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("httpx", "alembic"):  # a line for each of a thousand chunks; Flower's database, of which a node has none
        logging.getLogger(name).setLevel(logging.WARNING)
    end_with_parent(given.parent)
    return_memory_at_once()
    prepare_flower(home.work / "flower")
    identity = load_identity(home)
    desk = Desk(home, given.data, identity.kit)

    # after the environment is set, for Flower reads it on import
    from brainunet_client.flower.node import hear_flower, run_node

    hear_flower(desk.say)
    run_node(identity.kit, identity.private_key, answer_from(desk), desk.note_refused_bundle)


def answer_from(desk: Desk) -> Callable[[RecordDict], RecordDict]:
    """What the desk answers, between Flower's records."""
    from brainunet.flower_records import from_records, to_records

    def answer(content: RecordDict) -> RecordDict:
        try:
            try:
                packed = from_records(content)
            except FederationError as error:
                return to_records(desk.refuse(error), unlike_any_other=True)
            return to_records(desk.answer(packed), unlike_any_other=True)
        except BaseException as error:
            # most likely the ledger can't be written: then nothing may leave, not even a fault
            desk.say(f"nothing is sent: {error}")
            raise

    return answer


if __name__ == "__main__":
    main()
