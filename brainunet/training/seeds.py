"""One seed for a run, many independent ones derived from it by name: nothing depends on the order in which things run."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A seed of 63 bits for one purpose, such as ``derive(seed, site, round)``.

    >>> derive(1, "CRV", 2) == derive(1, "CRV", 2), derive(1, "CRV", 2) == derive(1, "CRV", 3)
    (True, False)
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
