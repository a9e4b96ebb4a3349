"""One reply of Flower's as an answer."""

from __future__ import annotations

from flwr.app import Message

from brainunet.errors import FederationError
from brainunet.flower_records import from_records
from brainunet.records import EvaluateReply, Fault, Reply, TrainReply
from brainunet.wire import unpack
from brainunet_server.answers import Answer


def read_answer(site: str, message: Message, bytes_down: int) -> Answer:
    """What ``site`` replied; whatever can't be read is an answer with its problem, never an exception."""
    if message.has_error():
        return Answer(site, None, bytes_down, problem=f"Flower error {message.error.code}")
    try:
        packed = from_records(message.content)
        reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    except FederationError as error:
        return Answer(site, None, bytes_down, problem=str(error), unreadable=True)
    return Answer(site, reply, bytes_down, packed.n_bytes)
