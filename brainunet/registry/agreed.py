"""What both ends of the registry hold to beside ``registry.proto``: sizes, names of headers, signs of life."""

from __future__ import annotations

import os
from typing import Final

# What is lost, at most, where a line is cut in the middle of a chunk. Larger ones are no faster (benchmarks/registry.py).
CHUNK_BYTES: Final = 256 * 1024
MOST_LISTED: Final = 1000  # releases, so that a list fits into one message
MAX_MESSAGE_BYTES: Final = 4 * 2**20  # to the puller; a card has a line for each site
MAX_REQUEST_BYTES: Final = 4096  # to the coordinator: a name, an offset, a digest

AUTHORIZATION: Final = "authorization"  # of a reader: "Bearer TOKEN"
RETRY_AFTER: Final = "retry-after-s"  # with a refusal that time will mend: whole seconds

# A dead line is noticed by both ends: whoever waits for the other asks it for a sign of life.
PING_S: Final = 20
PING_WAIT_S: Final = 20


def prepare_grpc() -> None:
    """Set what gRPC reads from the environment; to be called before it is imported, by a command line.

    gRPC knows a proxy only by names in small letters, while every other program of ours takes capital ones too. And its own
    log would stand between our lines.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for name in ("https_proxy", "no_proxy"):
        if name not in os.environ and name.upper() in os.environ:
            os.environ[name] = os.environ[name.upper()]
