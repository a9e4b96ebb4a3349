"""Figures with their unit, and names as they are: nothing that a store holds is read as markup."""

from __future__ import annotations

import html
import re
import shlex
from datetime import datetime, tzinfo
from typing import Final

from brainunet.moments import duration, local

NOTHING: Final = "—"
NO_FIGURE: Final = (
    "No site tells a figure: each has too few validation cases, or none in which there is anything to score. More cases at a "
    "site change that; the model is trained all the same."
)
START_DIFFERENTLY: Final = (
    "The runs differ at round 0 already: they began with other models, or their validation cases are others, as with another "
    "partition. Compare what each has gained, and not how high it is."
)

_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=])")
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
_SIZES: Final = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def plain(text: str) -> str:
    """For Markdown: every character stands for itself, also those that make colours, icons, formulas and HTML.

    >>> plain("<b>a_b</b>")
    '\\\\<b\\\\>a\\\\_b\\\\</b\\\\>'
    """
    return _MARKDOWN.sub(r"\\\1", visible(text))


def in_chart(text: str) -> str:
    """For plotly, which reads some HTML: <b> would make bold, <a> a link, <br> a line.

    >>> in_chart("<b>north</b>")
    '&lt;b&gt;north&lt;/b&gt;'
    """
    return html.escape(visible(text), quote=False)


def in_shell(text: str) -> str:
    """For a command that somebody copies: one word, whatever is in it.

    >>> in_shell("fed"), in_shell("x; rm -rf ~")
    ('fed', "'x; rm -rf ~'")
    """
    return shlex.quote(visible(text))


def in_spreadsheet(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula.

    >>> in_spreadsheet("=1+1"), in_spreadsheet("7")
    ("'=1+1", '7')
    """
    return f"'{text}" if text.startswith(_FORMULAS) else text


def visible(text: str, most: int = 200) -> str:
    """Without characters that nobody sees or that turn a line around, and not without end.

    >>> visible("north" + chr(0x202E) + "x")
    'north?x'
    """
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def figure(value: float | None, digits: int = 3) -> str:
    """
    >>> figure(0.5), figure(None)
    ('0.500', '—')
    """
    return NOTHING if value is None else f"{value:.{digits}f}"


def apart(difference: float, unit: str = "", digits: int = 3) -> str:
    """
    >>> apart(0.0512), apart(-2.04, "mm", 1), apart(0.0001)
    ('0.051 above', '2.0 mm below', 'equal to')
    """
    amount = f"{abs(difference):.{digits}f}"
    if not float(amount):
        return "equal to"
    return " ".join(part for part in (amount, unit, "above" if difference > 0 else "below") if part)


def size(n_bytes: float) -> str:
    """
    >>> size(999), size(91_300_000)
    ('999 B', '91.3 MB')
    """
    for unit, one in _SIZES:
        if n_bytes >= one:
            return f"{n_bytes / one:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def ago(moment: datetime | None, now: datetime) -> str:
    """
    >>> from datetime import UTC
    >>> ago(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    '1 day ago'
    """
    if moment is None:
        return "never"
    seconds = (now - moment).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else "in the future: a clock was changed"


def when(moment: datetime | None, zone: tzinfo | None = None) -> str:
    return NOTHING if moment is None else local(moment, zone, seconds=False)


def several(number: int, one: str, many: str = "") -> str:
    """
    >>> several(1, "site"), several(0, "site"), several(2, "reply", "replies")
    ('1 site', '0 sites', '2 replies')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
