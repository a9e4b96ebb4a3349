"""Who may see the pages: this machine alone, or others after they have said who they are."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from brainunet.errors import ConfigError, UsageError

LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"

_AUTH: Final = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
_FEWEST_CHARACTERS: Final = 32  # of the secret that cookies are signed with
_SHAPE: Final = 'a TOML file with [auth] and [dashboard] allowed = ["ann@example.org", "@example.org"]'


@dataclass(frozen=True)
class Access:
    """From where the pages can be reached, and who is let in.

    Attributes:
        listen: address of this machine.
        secrets: the file with the settings of the login, None without one.
        allowed: who may come in after a login: addresses, or "@example.org" for all of a domain.
        scheme, host, path: of the address that people open; the host is empty where it is this machine's own.
    """

    listen: str = LOOPBACK
    secrets: Path | None = None
    allowed: tuple[str, ...] = ()
    scheme: str = "http"
    host: str = ""
    path: str = ""

    @property
    def needs_login(self) -> bool:
        return self.secrets is not None


def access_of(*, public: bool, oidc: Path | None, behind_proxy: str | None) -> Access:
    """What the options mean.

    Raises:
        UsageError: other machines could reach the pages and nobody would ask who it is; or a proxy's address that is none.
        ConfigError: every problem of the login's settings in one message.
    """
    if public and oidc is None and behind_proxy is None:
        raise UsageError(
            "--public",
            found="nothing that asks people who they are",
            expected="--oidc FILE (a login by OpenID Connect) or --behind-proxy URL (a reverse proxy with a login)",
            remedy="without --public the pages are for this machine alone; from another: ssh -L 8501:127.0.0.1:8501 HOST",
        )
    allowed, redirect = _allowed(oidc) if oidc else ((), None)
    scheme, host, path = "http", "", ""
    if behind_proxy:
        scheme, host, path = _address("--behind-proxy", behind_proxy)
    elif public and redirect:
        scheme, host, path = _address(f"{oidc}: redirect_uri", redirect.removesuffix("/oauth2callback"))
    return Access(EVERYWHERE if public else LOOPBACK, oidc and oidc.absolute(), allowed, scheme, host, path)


def may_enter(who: str | None, allowed: tuple[str, ...]) -> bool:
    """Whether an address that a login has vouched for is among those allowed, in any letter case.

    >>> may_enter("Ann@Example.org", ("ann@example.org",)), may_enter("bob@sub.example.org", ("@example.org",))
    (True, False)
    """
    if not who or who.count("@") != 1:
        return False
    address = who.casefold()
    return any(address == one or (one.startswith("@") and address.endswith(one)) for one in (a.casefold() for a in allowed))


def _address(where: str, url: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(url)
        scheme, host, path = parts.scheme, parts.hostname, parts.path.strip("/")
    except ValueError:
        scheme, host, path = "", None, ""
    if not host or scheme not in ("http", "https"):
        expected = "the address that people open, such as https://fl.example.org/dashboard"
        raise UsageError(where, found=repr(url)[:80], expected=expected)
    return scheme, host, path


def _allowed(path: Path) -> tuple[tuple[str, ...], str]:
    """Who is allowed in, and where the login leads back to."""
    told = _read(path)
    auth, more = told.get("auth"), told.get("dashboard")
    problems = [] if isinstance(auth, dict) else ["no part [auth]"]
    if isinstance(auth, dict):
        absent = [name for name in _AUTH if not isinstance(auth.get(name), str) or not auth[name]]
        problems += [f"[auth] lacks {', '.join(absent)}"] if absent else []
        if isinstance(secret := auth.get("cookie_secret"), str) and 0 < len(secret) < _FEWEST_CHARACTERS:
            problems.append(f"cookie_secret has {len(secret)} characters; take {_FEWEST_CHARACTERS} random ones or more")
    allowed = more.get("allowed") if isinstance(more, dict) else None
    if not isinstance(allowed, list) or not allowed or not all(isinstance(one, str) and one.count("@") == 1 for one in allowed):
        problems.append('[dashboard] lacks allowed = ["ann@example.org"]: else everybody with an account there comes in')
    if problems:
        raise ConfigError(path, found="; ".join(problems), expected=_SHAPE)
    if find_spec("authlib") is None:
        raise ConfigError(
            path,
            found="Authlib is not installed",
            expected="it, for the login",
            remedy="install it: pip install 'streamlit[auth]'",
        )
    return tuple(allowed or ()), str((auth or {})["redirect_uri"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(path, found=error.strerror or "not readable", expected=_SHAPE) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, found=f"TOML that does not parse ({error})", expected=_SHAPE) from None
