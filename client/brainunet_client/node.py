"""The process that stays connected to the coordinator: ``python -m brainunet_client.node HOME DATA``.

Light on purpose: it waits between rounds for hours. Its supervisor restarts it (see ``brainunet_client.supervisor``).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
from pathlib import Path

from brainunet.flower_environment import prepare_flower
from brainunet_client.answering import Desk
from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home
from brainunet_client.lifeline import end_with_parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    home = Home(given.home)
    logging.basicConfig(filename=home.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each of a thousand chunks
    end_with_parent()
    prepare_flower(home.work / "flower")
    identity = load_identity(home)
    desk = Desk(home, given.data, identity.kit)

    # after the environment is set, for Flower reads it on import
    from flwr.app import RecordDict

    from brainunet.flower_records import from_records, to_records
    from brainunet_client.flower.node import hear_flower, run_node

    def answer(content: RecordDict) -> RecordDict:
        try:
            return to_records(desk.answer(from_records(content)))
        except BaseException as error:
            # most likely the ledger can't be written: then nothing may leave, not even a fault
            logging.getLogger(__name__).exception("no reply was sent")
            desk.say(f"nothing is sent: {error}")
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    hear_flower(desk.say)
    run_node(identity.kit, identity.private_key, answer)


if __name__ == "__main__":
    main()
