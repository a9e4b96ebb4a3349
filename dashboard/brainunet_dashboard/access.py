"""Who may see the pages: this machine alone, or others after they have said who they are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
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
        takes_unverified: also if the login doesn't say that it has verified somebody's address.
        scheme, host, port, path: of the address that people open; the host is empty where it is this machine's own, the port
            None where it is the scheme's.
    """

    listen: str = LOOPBACK
    secrets: Path | None = None
    allowed: tuple[str, ...] = ()
    takes_unverified: bool = False
    scheme: str = "http"
    host: str = ""
    port: int | None = None
    path: str = ""

    @property
    def origin(self) -> str:
        """What a browser calls the place where its pages come from; empty where that is this machine's own."""
        if not self.host:
            return ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")

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
    login = _login(oidc) if oidc else _Login()
    opened: tuple[str, str, int | None, str] = ("http", "", None, "")
    if behind_proxy is not None:
        opened = _address("--behind-proxy", behind_proxy)
    elif public and login.redirect_uri:
        opened = _address(f"{oidc}: redirect_uri", login.redirect_uri.removesuffix("/oauth2callback"))
    listen = EVERYWHERE if public else LOOPBACK
    return Access(listen, oidc and oidc.absolute(), login.allowed, login.takes_unverified, *opened)


def may_enter(told: Mapping[str, Any], allowed: tuple[str, ...], *, takes_unverified: bool = False) -> bool:
    """Whether what a login tells of somebody holds an address that is allowed, in any letter case.

    The login has to say that the address is verified: elsewhere people write themselves which one they have. Some never say
    so, though none but the institution gives addresses there; ``takes_unverified`` is for these.

    >>> may_enter({"email": "Ann@Example.org", "email_verified": True}, ("ann@example.org",))
    True
    >>> may_enter({"email": "bob@sub.example.org", "email_verified": True}, ("@example.org",))
    False
    """
    who = told.get("email")
    if not isinstance(who, str) or who.count("@") != 1 or not (takes_unverified or told.get("email_verified") is True):
        return False
    address = who.casefold()
    return any(address == one or (one.startswith("@") and address.endswith(one)) for one in (a.casefold() for a in allowed))


def _address(where: str, url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        scheme, host, port, path = parts.scheme, parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:
        scheme, host, port, path = "", None, None, ""
    if not host or scheme not in ("http", "https"):
        expected = "the address that people open, such as https://fl.example.org/dashboard"
        raise UsageError(where, found=repr(url)[:80], expected=expected)
    return scheme, host, port, path


def _is_readable_on_the_way(url: str) -> bool:
    """
    >>> [_is_readable_on_the_way(f"{at}/oauth2callback") for at in ("http://10.0.0.7", "http://localhost:80", "https://x.org")]
    [True, False, False]
    """
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname not in (LOOPBACK, "localhost", "::1")
    except ValueError:
        return False  # what it is instead is said where it is taken apart


@dataclass(frozen=True)
class _Login:
    """Who is allowed in, and where the login leads back to."""

    allowed: tuple[str, ...] = ()
    takes_unverified: bool = False
    redirect_uri: str = ""


def _login(path: Path) -> _Login:
    told = _read(path)
    auth, more = told.get("auth"), told.get("dashboard")
    problems = [] if isinstance(auth, dict) else ["no part [auth]"]
    if isinstance(auth, dict):
        absent = [name for name in _AUTH if not isinstance(auth.get(name), str) or not auth[name]]
        problems += [f"[auth] lacks {', '.join(absent)}"] if absent else []
        if isinstance(back := auth.get("redirect_uri"), str) and _is_readable_on_the_way(back):
            problems.append("redirect_uri is http: whoever shares the line could take the login; put https before the pages")
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
    unverified = isinstance(more, dict) and more.get("takes_unverified") is True
    return _Login(tuple(allowed or ()), unverified, str((auth or {})["redirect_uri"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(path, found=error.strerror or "not readable", expected=_SHAPE) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, found=f"TOML that does not parse ({error})", expected=_SHAPE) from None
