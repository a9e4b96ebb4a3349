"""What gRPC says of a call that failed, as an error of ours. No word of the other side reaches a screen as it came."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc

from brainunet.complaints import one_line
from brainunet.errors import FederationError
from brainunet.registry.access import Access
from brainunet.registry.agreed import RETRY_AFTER
from brainunet.registry.records import not_as_agreed
from brainunet.registry.way import look

_MOST_SAID: Final = 400  # characters of what the other side says
_LONGEST_WAIT_S: Final = 86_400.0
_TOO_LARGE: Final = "larger than max"  # gRPC's own words on this side, of a message over the limit

# The registry's own refusals; what it says with them is a sentence of ours, unless somebody else answers.
_REFUSALS: Final[Mapping[grpc.StatusCode, str]] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: "the registry does not let {who} in",
        grpc.StatusCode.PERMISSION_DENIED: "the registry does not let {who} in",
        grpc.StatusCode.NOT_FOUND: "the registry does not have it",
        grpc.StatusCode.FAILED_PRECONDITION: "the registry does not give it out",
        grpc.StatusCode.DATA_LOSS: "the registry can't give it out",
        grpc.StatusCode.INVALID_ARGUMENT: "the registry does not understand the question",
        grpc.StatusCode.OUT_OF_RANGE: "the registry does not understand the question",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "the registry asks {who} to wait",
    }
)


class Passing(FederationError):
    """A trouble that time may mend; ``wait_s`` is how long the registry asks to wait, 0 if it says nothing."""

    wait_s: float = 0.0


def explained(error: grpc.RpcError, access: Access, *, began: bool = False) -> FederationError:
    """Why a call failed.

    Args:
        error: what gRPC raised.
        access: with which it was made.
        began: bytes had come already: the line was cut, and there is no need to look at the way.
    """
    code, said = error.code(), one_line(error.details() or "", _MOST_SAID).rstrip(". ")
    refusal = _REFUSALS.get(code)
    wait_s = _wait_of(error)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in said:
        return not_as_agreed(access.server, "an answer larger than any of a registry")
    if refusal is not None:
        found = f"{refusal.format(who=access.who)}: {said or 'it does not say why'}"
        if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            return FederationError(access.server, found=found)
        passing = Passing(access.server, found=found)
        passing.wait_s = wait_s or 0.0
        return passing
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return not_as_agreed(access.server, "a server that does not know this question")
    if began:
        return Passing(access.server, found="the line was cut", remedy="try again")
    if (trouble := look(access.server, access.ca_certificate)) is not None:
        kind = FederationError if trouble.lasting else Passing
        return kind(access.server, found=trouble.found, remedy=trouble.remedy)
    if code is grpc.StatusCode.UNAVAILABLE:
        own = "readers" if access.token else "sites"
        return Passing(
            access.server,
            found=f"the server hangs up on {access.who}",
            remedy=f"ask the coordinator whether the registry is well, and whether this is its port for {own}",
        )
    return Passing(
        access.server, found=f"the registry does not answer ({code.name.lower().replace('_', ' ')})", remedy="try again later"
    )


def _wait_of(error: grpc.RpcError) -> float | None:
    """How long the registry asks to wait; None if it does not say."""
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_AFTER and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 7:
            return min(float(value), _LONGEST_WAIT_S)
    return None
