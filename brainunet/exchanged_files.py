"""The files that coordinator, sites and readers send each other: which one a file is, where another one was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Exchanged: TypeAlias = Literal["request", "kit", "reader pass", "key"]

# what marks the file, what it is, what to do with it
_FILES: Final[Mapping[Exchanged, tuple[re.Pattern[bytes], str, str]]] = MappingProxyType(
    {
        "request": (
            re.compile(rb"-----BEGIN (NEW )?CERTIFICATE REQUEST-----"),
            "a site's request to join",
            "it goes to the coordinator, where flower-server enrol DIR NAME.request makes the kit; "
            "brainunet-client --kit KIT installs the kit when it comes back",
        ),
        "kit": (
            re.compile(rb'"format"\s*:\s*"brainunet-kit-'),
            "a kit, which the coordinator has made for a site",
            "it goes to that site, where brainunet-client --kit KIT installs it; flower-server enrol takes the NAME.request "
            "that a site has sent",
        ),
        "reader pass": (
            re.compile(rb'"format"\s*:\s*"brainunet-reader-'),
            "a reader's pass, with which published models are fetched",
            "it holds a secret: only the reader it was made for keeps it, and brainunet pull takes it; if others have seen it, "
            "ask the coordinator to revoke it and to make another",
        ),
        "key": (
            re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
            "a private key",
            "a key never leaves the machine that made it: if this one did, remove the copy and make a new one, at a site by "
            "brainunet-client --enrol NAME --server HOST:PORT --new-key",
        ),
    }
)


def another(content: bytes, wanted: Exchanged) -> tuple[str, str] | None:
    """What a file is that is not the one wanted, and what to do with it; None if it is none of these.

    >>> another(b"-----BEGIN CERTIFICATE REQUEST-----", "kit")[0], another(b"hello", "kit")
    ("a site's request to join", None)
    """
    others = (known for name, known in _FILES.items() if name != wanted)
    return next(((what, remedy) for mark, what, remedy in others if mark.search(content)), None)
