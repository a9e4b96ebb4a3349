"""``--public --oidc``: a real login at a real provider, and everything that somebody without one may try."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from brainunet_dashboard.access import LOOPBACK
from brainunet_dashboard.pages import PAGES
from brainunet_dashboard.serving import free_port
from tests.support.browser import browser
from tests.support.openid import fetched, provider, told_by_socket
from tests.support.programs import Program
from tests.support.watched import eventful
from tests.support.watching import address, dashboard_over, handshake, photograph, settled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

SECRETS = (b"fed-1", b"Lagos", b"NKDC", b"africa-2026.1")  # what only the store says
ACCOUNTS = {
    "ann": {"email": "Ann@Example.org", "email_verified": True},
    "bob": {"email": "bob@elsewhere.example", "email_verified": True},
    "eve": {"email": "ann@example.org", "email_verified": False},  # anybody can write that into an account
}
LOGIN = """
[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "dashboard"
client_secret = "secret"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[dashboard]
allowed = ["ann@example.org"]
"""


@dataclass
class Visit:
    """An open page, and all that the server has sent to it over web sockets."""

    page: Page
    told: list[bytes]

    def holds_data(self) -> bool:
        said = b"".join(self.told) + self.page.content().encode()
        return any(secret in said for secret in SECRETS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def dashboard(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    del chromium  # it skips where there is none
    folder = tmp_path_factory.mktemp("public")
    eventful(folder / "store.sqlite")
    with provider(folder, ACCOUNTS) as issuer:
        port = free_port(LOOPBACK, 0)  # the address has to be known before: the login leads back to it
        login = folder / "login.toml"
        login.write_text(LOGIN.format(port=port, provider=issuer))
        with dashboard_over(folder, "--port", str(port), "--public", "--oidc", str(login)) as program:
            yield program


def test_before_a_login_no_page_and_no_web_socket_holds_any_data(dashboard: Program, chromium: Browser) -> None:
    for at in PAGES:
        with_nothing = visit(chromium, f"{address(dashboard)}/{at.path}?run=fed-1")
        with_nothing.page.get_by_role("button", name="Log in").wait_for()
        settled(with_nothing.page)

        assert with_nothing.page.get_by_test_id("stSidebarNav").count() == 0
        assert with_nothing.told
        assert not with_nothing.holds_data(), at.path
        with_nothing.page.context.close()


def test_who_is_allowed_logs_in_sees_the_federation_and_logs_out(dashboard: Program, chromium: Browser) -> None:
    ann = logged_in(chromium, dashboard, "ann")
    ann.page.get_by_text("Dice by round").wait_for()
    settled(ann.page)
    assert ann.holds_data()
    photograph(ann.page, "logged-in")

    ann.page.get_by_role("button", name="Log out").click()
    ann.page.wait_for_url("**/oauth2/end_session?**", wait_until="commit")  # the provider ends its own session too
    ann.told.clear()
    ann.page.goto(address(dashboard))
    ann.page.get_by_role("button", name="Log in").wait_for()

    assert not ann.holds_data()
    ann.page.context.close()


@pytest.mark.parametrize("who", ["bob", "eve"])
def test_who_is_not_allowed_or_not_verified_is_refused_after_the_login(who: str, dashboard: Program, chromium: Browser) -> None:
    visitor = logged_in(chromium, dashboard, who)
    visitor.page.get_by_text("This account is not among those").wait_for()
    settled(visitor.page)

    assert not visitor.holds_data()
    cookies = cookie_header(visitor.page)
    assert not any(secret in told_by_socket(address(dashboard), "scores", cookies) for secret in SECRETS)
    visitor.page.context.close()


def test_a_program_without_a_login_gets_nothing_by_any_page(dashboard: Program, chromium: Browser) -> None:
    at = address(dashboard)
    forged = base64.urlsafe_b64encode(
        json.dumps({"is_logged_in": True, "origin": at, "email": "ann@example.org", "email_verified": True}).encode()
    ).decode()
    tricks = {
        "nothing": {},
        "a cookie that nobody has signed": {"Cookie": f"_streamlit_user={forged}", "Origin": at},
        "a header of other set-ups": {"X-Streamlit-User": forged, "X-Forwarded-Email": "ann@example.org", "Origin": at},
    }
    for trick, headers in tricks.items():
        for page in PAGES:
            told = told_by_socket(at, page.path, headers)
            assert told, trick
            assert not any(secret in told for secret in SECRETS), (trick, page.path)

    ann = logged_in(chromium, dashboard, "ann")
    ann.page.get_by_text("Dice by round").wait_for()
    cookies = cookie_header(ann.page)
    assert SECRETS[0] in told_by_socket(at, "models", cookies | {"Origin": at})  # who has logged in gets them this way
    ann.page.context.close()


def test_no_address_gives_a_stranger_a_figure_a_file_or_a_setting(dashboard: Program) -> None:
    at = address(dashboard)
    paths = [page.path for page in PAGES] + [
        *("", "_stcore/health", "_stcore/host-config", "_stcore/metrics", "_stcore/script-health-check", "_stcore/message"),
        *("media/", "media/audit.csv", "app/static/store.sqlite", "static/..%2f..%2fstore.sqlite", "..%2fstore.sqlite"),
        *(
            "store.sqlite",
            "login.toml",
            "component/x/../../login.toml",
            "_stcore/upload_file/x/y",
            "auth/logout",
            "oauth2callback",
        ),
    ]
    for path in paths:
        status, body = fetched(f"{at}/{path}", {})
        assert not any(secret in body for secret in (*SECRETS, b"0123456789abcdef", b"SQLite format")), (path, status)


def test_a_page_of_elsewhere_gets_no_connection_by_a_name_that_it_lets_point_here(dashboard: Program) -> None:
    at = address(dashboard)
    own = at.removeprefix("http://")

    assert handshake(at, host=own, origin=at) == 101
    for host in (
        "evil.example",
        f"evil.example:{own.rpartition(':')[2]}",
        f"{own}.evil.example",
        "127.0.0.1.evil.example",
        "[::]",
    ):
        assert handshake(at, host=host, origin=f"http://{host}") == 403, host
    assert handshake(at, host=own, origin="http://evil.example") == 403
    assert handshake(at, host=own, origin="null") == 403
    assert handshake(at, host=own, origin="http://localhost:3000") == 403


def visit(chromium: Browser, url: str) -> Visit:
    page = chromium.new_context(viewport={"width": 1366, "height": 768}).new_page()
    page.set_default_timeout(40_000)
    told: list[bytes] = []
    page.on(
        "websocket",
        lambda line: line.on("framereceived", lambda frame: told.append(frame if isinstance(frame, bytes) else frame.encode())),
    )
    page.goto(url)
    return Visit(page, told)


def logged_in(chromium: Browser, dashboard: Program, who: str) -> Visit:
    """After the way to the provider and back."""
    there = visit(chromium, f"{address(dashboard)}/")
    there.page.get_by_role("button", name="Log in").click()
    there.page.get_by_role("button", name=who, exact=True).click()  # the provider's own page
    there.page.wait_for_url(f"{address(dashboard)}/**")
    there.page.get_by_role("button", name="Log out").wait_for()
    return there


def cookie_header(page: Page) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())}
