"""``brainunet-dashboard``: what it shows, who may see it, and what it never does."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.errors import ConfigError, UsageError
from brainunet_dashboard import serving
from brainunet_dashboard.access import EVERYWHERE, LOOPBACK, Access, access_of, may_enter
from brainunet_dashboard.cli import main
from brainunet_dashboard.source import Source, where_to_look
from brainunet_server.store.writer import StoreWriter
from tests.support.simulation import run

LOGIN = """
[auth]
redirect_uri = "https://fl.example.org/watch/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "dashboard"
client_secret = "secret"
server_metadata_url = "https://login.example.org/.well-known/openid-configuration"

[dashboard]
allowed = ["ann@example.org", "@hospital.example"]
"""


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("brainunet_dashboard.access.find_spec", lambda name: object())
    path = tmp_path / "login.toml"
    path.write_text(LOGIN)
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Source, Access, int | None]]:
    """What would be served."""
    calls: list[tuple[Source, Access, int | None]] = []
    monkeypatch.setattr(serving, "serve", lambda source, access, port, debug: calls.append((source, access, port)))
    return calls


def test_a_folder_has_its_store_and_its_audit_trail(tmp_path: Path) -> None:
    where, folder = where_to_look(str(tmp_path))

    assert where == tmp_path / "store.sqlite"
    assert Source(where, folder).audit == tmp_path / "audit.jsonl"
    assert Source(where).audit is None


def test_a_folders_store_is_where_its_run_or_its_settings_put_it(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text('database = "postgresql://fl@db.example/a"')
    assert where_to_look(str(tmp_path))[0] == "postgresql://fl@db.example/a"

    (tmp_path / "run.json").write_text(json.dumps({"said": {"database": "postgresql://fl@db.example/b"}}))
    assert where_to_look(str(tmp_path))[0] == "postgresql://fl@db.example/b"
    assert where_to_look(str(tmp_path), "other.sqlite") == ("other.sqlite", tmp_path)


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", "null", '{"said": 7}', '{"said": {"database": 7}}', "[" * 100_000, "\ud800"]
)
def test_settings_that_are_damaged_leave_the_store_where_it_always_is(damaged: str, tmp_path: Path) -> None:
    for name in ("run.json", "config.json", "federation.toml"):
        (tmp_path / name).write_bytes(damaged.encode("utf-8", "surrogatepass"))

    assert where_to_look(str(tmp_path))[0] == tmp_path / "store.sqlite"


def test_a_simulations_folder_knows_its_database(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"run": "x", "database": "elsewhere.sqlite"}))

    assert where_to_look(str(tmp_path))[0] == "elsewhere.sqlite"


def test_a_stores_own_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "some.sqlite").touch()

    assert where_to_look(str(tmp_path / "some.sqlite")) == (tmp_path / "some.sqlite", None)


def test_without_options_it_is_for_this_machine_alone(served: list[tuple[Source, Access, int | None]], tmp_path: Path) -> None:
    StoreWriter(tmp_path / "store.sqlite").close()
    assert run(main, tmp_path).code == 0

    source, access, port = served[0]
    assert (access.listen, access.needs_login, port) == (LOOPBACK, False, None)
    assert (source.folder, source.refresh_s) == (tmp_path, 10)


def test_a_database_alone_has_no_folder(served: list[tuple[Source, Access, int | None]]) -> None:
    ended = run(main, "--database", "postgresql://fl:secret@127.0.0.1:1/fl")

    assert ended.code == 0
    assert (served[0][0].database, served[0][0].folder) == ("postgresql://fl:secret@127.0.0.1:1/fl", None)
    assert "The pages look again every 10 s." in ended.err  # nobody answers there now
    assert "secret" not in ended.err


@pytest.mark.parametrize("named", ["nowhere", "nowhere/store.sqlite", "empty"])
@pytest.mark.parametrize("way", ["folder", "database"])
def test_a_place_where_nothing_is_is_refused_and_not_waited_for(
    named: str, way: str, served: list[tuple[Source, Access, int | None]], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    if (way, named) == ("database", "empty"):
        named = "empty/fl.sqlite"
    ended = run(main, *(["--database"] if way == "database" else []), tmp_path / named)

    assert (ended.code, served) == (4, [])
    assert str(tmp_path / named) in ended.err
    assert "a federation's or a simulation's folder, or its store" in ended.err
    assert "--wait" in ended.err


@pytest.mark.parametrize("beginning", ["federation.toml", "config.json", "run.json"])
def test_the_store_of_a_federation_or_simulation_that_has_not_begun_is_waited_for(
    beginning: str, served: list[tuple[Source, Access, int | None]], tmp_path: Path
) -> None:
    (tmp_path / beginning).write_text("")
    ended = run(main, tmp_path)

    assert (ended.code, len(served)) == (0, 1)
    assert f"No run has begun at {tmp_path} yet. The pages look again every 10 s." in ended.err


def test_a_run_that_is_about_to_begin_is_waited_for_when_asked_to(
    served: list[tuple[Source, Access, int | None]], tmp_path: Path
) -> None:
    ended = run(main, tmp_path / "soon", "--wait", "--refresh", "5")

    assert (ended.code, served[0][0].waits) == (0, True)
    assert "The pages look again every 5 s." in ended.err


def test_a_store_of_another_version_is_said_on_the_terminal_too(
    served: list[tuple[Source, Access, int | None]], tmp_path: Path
) -> None:
    (tmp_path / "store.sqlite").touch()
    ended = run(main, tmp_path)

    assert (ended.code, len(served)) == (0, 1)
    assert "a database that is no store" in ended.err


@pytest.mark.parametrize("url", ["mysql://fl:secret@db.example/fl", "sqlite://"])
def test_an_address_of_no_store_is_refused(url: str, served: list[tuple[Source, Access, int | None]]) -> None:
    ended = run(main, url)

    assert (ended.code, served) == (4, [])
    assert "secret" not in ended.err


def test_a_store_that_is_named_twice_is_refused() -> None:
    ended = run(main, "postgresql://a@b/c", "--database", "x.sqlite")

    assert ended.code == 2
    assert "--database names one too" in ended.err


def test_public_without_a_login_is_refused_with_what_to_do() -> None:
    ended = run(main, "--public")

    assert ended.code == 2
    assert "--oidc FILE" in ended.err
    assert "--behind-proxy URL" in ended.err
    assert "ssh -L" in ended.err


def test_public_with_a_login_listens_everywhere_and_lets_the_allowed_in(
    served: list[tuple[Source, Access, int | None]], login: Path
) -> None:
    assert run(main, login.parent, "--wait", "--public", "--oidc", login).code == 0

    source, access, _ = served[0]
    assert (access.listen, access.host, access.path) == (EVERYWHERE, "fl.example.org", "watch")
    assert source.needs_login
    assert source.allowed == ("ann@example.org", "@hospital.example")


def test_behind_a_proxy_only_its_address_is_answered_to() -> None:
    access = access_of(public=True, oidc=None, behind_proxy="https://fl.example.org/watch/")
    chosen = serving.options(access, 8501)

    assert chosen["server.allowedHosts"] == [LOOPBACK, "localhost", "fl.example.org"]
    assert chosen["server.corsAllowedOrigins"] == ["https://fl.example.org"]
    assert chosen["server.baseUrlPath"] == "watch"
    assert serving.address(access, 8501) == "https://fl.example.org/watch"


def test_an_address_with_a_port_keeps_it() -> None:
    access = access_of(public=True, oidc=None, behind_proxy="https://fl.example.org:8443/watch")
    chosen = serving.options(access, 8501)

    assert serving.address(access, 8501) == "https://fl.example.org:8443/watch"
    assert chosen["server.corsAllowedOrigins"] == ["https://fl.example.org:8443"]
    assert chosen["browser.serverPort"] == 8443
    assert access_of(public=True, oidc=None, behind_proxy="http://[fd00::1]:80").origin == "http://[fd00::1]:80"


@pytest.mark.parametrize(
    "url", ["fl.example.org", "https://fl.example.org:port", "ftp://fl.example.org", "https://", "https://[", ""]
)
def test_a_proxys_address_is_one_that_people_open(url: str) -> None:
    with pytest.raises(UsageError):
        access_of(public=True, oidc=None, behind_proxy=url)


@pytest.mark.parametrize(
    ("from_", "to", "found"),
    [
        ('client_id = "dashboard"\n', "", "lacks client_id"),
        ("0123456789abcdef0123456789abcdef", "short", "cookie_secret has 5 characters"),
        ('allowed = ["ann@example.org", "@hospital.example"]', "", "lacks allowed"),
        ('["ann@example.org", "@hospital.example"]', '["ann"]', "lacks allowed"),
        ("[auth]", "[other]", "no part"),
        ("https://fl.example.org/watch", "http://fl.example.org/watch", "redirect_uri is http"),
        ("[auth]", "[auth", "does not parse"),
    ],
)
def test_every_problem_of_a_login_is_said(from_: str, to: str, found: str, login: Path) -> None:
    login.write_text(LOGIN.replace(from_, to))

    with pytest.raises(ConfigError, match=found):
        access_of(public=True, oidc=login, behind_proxy=None)


def test_a_login_needs_authlib(tmp_path: Path, login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainunet_dashboard.access.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'streamlit\[auth\]'"):
        access_of(public=True, oidc=login, behind_proxy=None)


@pytest.mark.parametrize(
    ("told", "may"),
    [
        ({"email": "ann@example.org", "email_verified": True}, True),
        ({"email": "anyone@hospital.example", "email_verified": True}, True),
        ({"email": "ann@example.org", "email_verified": False}, False),
        ({"email": "ann@example.org"}, False),
        ({"email": "ann@example.org", "email_verified": "true"}, False),
        ({"email": "ann@example.org.evil.example", "email_verified": True}, False),
        ({"email": "x@hospital.example@evil.example", "email_verified": True}, False),
        ({"email": "x@nothospital.example", "email_verified": True}, False),
        ({"email": None, "email_verified": True}, False),
        ({"email": ["ann@example.org"], "email_verified": True}, False),
        ({}, False),
    ],
)
def test_who_may_enter(told: dict[str, object], may: bool) -> None:
    assert may_enter(told, ("ann@example.org", "@hospital.example")) is may


def test_an_address_that_no_login_verifies_enters_only_where_that_was_said(login: Path) -> None:
    login.write_text(LOGIN + "takes_unverified = true\n")
    access = access_of(public=True, oidc=login, behind_proxy=None)

    assert access.takes_unverified
    assert may_enter({"email": "ann@example.org"}, access.allowed, takes_unverified=access.takes_unverified)
    assert not may_enter({"email": "bob@example.org"}, access.allowed, takes_unverified=True)


def test_the_settings_of_streamlit_exist_and_win() -> None:
    from streamlit import config
    from streamlit.web import bootstrap

    chosen = serving.options(replace(Access(), host="fl.example.org", scheme="https"), 1234)
    try:
        bootstrap.load_config_options(chosen)
        assert {name: config.get_option(name) for name in chosen} == chosen
    finally:
        bootstrap.load_config_options({})
    assert chosen["browser.gatherUsageStats"] is False
    assert chosen["client.toolbarMode"] == "minimal"
    assert chosen["server.fileWatcherType"] == "none"


def test_streamlit_still_has_what_would_ask_the_internet_for_our_address() -> None:
    from streamlit import net_util
    from streamlit.web.server import server_util

    # serving takes the place of these two; should they be renamed, another way has to be found
    assert callable(net_util.get_external_ip)
    assert vars(server_util)["net_util"] is net_util


def test_streamlit_still_asks_one_function_which_other_origins_may_connect() -> None:
    from streamlit.web.server.starlette import starlette_websocket

    # serving takes its place too
    assert vars(starlette_websocket)["is_url_from_allowed_origins"].__module__ == "streamlit.web.server.server_util"
    assert "is_url_from_allowed_origins" in starlette_websocket._is_origin_allowed.__code__.co_names


def test_a_port_that_is_taken_is_refused_and_the_next_one_is_found_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="is taken"):
            serving.free_port(LOOPBACK, port)
        monkeypatch.setattr(serving, "FIRST_PORT", port)
        assert serving.free_port(LOOPBACK, None) > port
    assert serving.free_port(LOOPBACK, 0) > 0
