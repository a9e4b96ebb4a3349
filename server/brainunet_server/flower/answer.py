"""One reply of Flower's as an answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flwr.app import Message
from flwr.common.constant import ErrorCode

from brainunet.errors import FederationError
from brainunet.flower_records import from_records
from brainunet.records import EvaluateReply, Fault, Reply, TrainReply
from brainunet.wire import unpack
from brainunet_server.answers import Answer

PROBLEMS: Final[Mapping[int, str]] = MappingProxyType(
    {ErrorCode.INVALID_FAB: "it refused the app bundle: its kit is older than the signing key, or its version is another"}
)


def read_answer(site: str, message: Message, bytes_down: int) -> Answer:
    """What ``site`` replied; whatever can't be read is an answer with its problem, never an exception."""
    if message.has_error():
        code = message.error.code
        return Answer(site, None, bytes_down, problem=PROBLEMS.get(code, f"Flower error {code}"))
    try:
        packed = from_records(message.content)
        reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    except FederationError as error:
        return Answer(site, None, bytes_down, problem=str(error), unreadable=True)
    return Answer(site, reply, bytes_down, packed.n_bytes)
