"""What a registry tells, after a look at every field: its server is believed no more than any other."""

from __future__ import annotations

from typing import Annotated, Final, Protocol

from pydantic import AwareDatetime, Field, ValidationError

from brainunet.complaints import in_words, one_line
from brainunet.errors import FederationError
from brainunet.modelfile import MAX_MODEL_BYTES
from brainunet.records import Name, Record

_MOST_SAID: Final = 2000  # characters of a note or a reason

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReleaseMessage(Protocol):
    """The fields of the message of this name in ``registry.proto``."""

    name: str
    run: str
    round: int
    size_bytes: int
    sha256: str
    weights_sha256: str
    published_at: str
    notes: str
    withdrawn: bool
    withdrawn_reason: str


class Release(Record):
    """A published model.

    Attributes:
        run, round: what it came from.
        sha256: of the whole file; weights_sha256 is the digest of the weights in it.
        withdrawn: why it is no longer given out; None while it is.
    """

    name: Name
    run: str
    round: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(gt=0, le=MAX_MODEL_BYTES)]
    sha256: Sha256
    weights_sha256: Sha256
    published_at: AwareDatetime
    notes: str = ""
    withdrawn: str | None = None

    @classmethod
    def told(cls, message: ReleaseMessage, where: str) -> Release:
        """The release of a message from the registry at ``where``.

        Raises:
            FederationError: a field that can't be.
        """
        try:
            return cls(
                name=message.name,
                run=one_line(message.run, 100),
                round=message.round,
                size_bytes=message.size_bytes,
                sha256=message.sha256,
                weights_sha256=message.weights_sha256,
                published_at=message.published_at,  # pydantic reads ISO 8601
                notes=one_line(message.notes, _MOST_SAID),
                withdrawn=(one_line(message.withdrawn_reason, _MOST_SAID) or "no reason told") if message.withdrawn else None,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise not_as_agreed(where, f"a release whose {first['loc'][0]} is not valid ({in_words(first)})") from None


class Described(Record):
    """A release, and the text of the signature file that belongs to it."""

    release: Release
    signature: Annotated[str, Field(min_length=1, max_length=16 * 1024)]


def not_as_agreed(where: str, found: str) -> FederationError:
    return FederationError(
        where,
        found=found,
        expected="what a registry says",
        remedy="ask the coordinator which version of brainunet-fl the registry runs, and install that; nothing was kept",
    )
