"""Whether a ledger of spending may be gone on with.

Who can write the file can put an earlier copy in its place, and no chain shows that. So the site tells the head with each
reply, the coordinator returns it with each task, and a ledger without that head is not gone on with until a person decides.
Why two memories outside of the file: docs/adr/0026.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from brainunet.errors import PrivacyError
from brainunet.privacy.spending import SETTLE, Spent, stopped

CLOCKS_DIFFER: Final = timedelta(minutes=5)  # so far a clock may be put right without a question


def require_trusted(
    path: Path,
    spent: Spent | None,
    *,
    site: str,
    cases: int,
    now: datetime,
    expected_head: str = "",
    least_entries: int = 0,
) -> None:
    """Pass if this ledger may be gone on with.

    Args:
        cases: the public number of cases that the site's settings declare.
        expected_head: the last one that the coordinator has; empty if it has none.
        least_entries: so many the site itself has told of before.

    Raises:
        PrivacyError: another site's, lost, rolled back, written in the future, or for another number of cases.
    """
    if spent is None:
        if expected_head or least_entries:
            raise stopped(path, "no ledger, and yet this site has trained privately before: it was lost")
        return
    if spent.site != site:
        raise stopped(path, f"the ledger of another site ({spent.site})", f"that of {site}")
    if spent.at > now + CLOCKS_DIFFER:
        raise PrivacyError(
            path,
            found=f"its last entry is of {spent.at:%Y-%m-%d %H:%M} UTC, and this machine says it is {now:%Y-%m-%d %H:%M} UTC",
            expected="a clock that only goes forward",
            remedy=f"set the clock right; if it was wrong when the entry was written: {SETTLE} none",
        )
    if spent.entries < least_entries:
        raise stopped(path, f"{spent.entries} entries, though {least_entries} were told of before: it was rolled back")
    if expected_head and expected_head not in spent.heads:
        raise stopped(path, "no entry with the digest that the coordinator was told last: it was rolled back or replaced")
    if spent.cases != cases:
        raise PrivacyError(
            "privacy.public_cases in site.toml",
            found=f"{cases}",
            expected=f"{spent.cases}, which was declared first: a number that follows the cases would tell of them",
            remedy=f"put it back; to declare another one: {SETTLE} none",
        )
