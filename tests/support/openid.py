"""A provider of OpenID Connect on this machine, as a process of its own, and what a stranger's program can ask a dashboard."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.programs import Program
from tests.support.watching import wait_until

XSRF = "_streamlit_xsrf"

# Everybody who is in the list of accounts can log in with a click; any client is taken, and the tokens are signed (RS256).
PROVIDER = """
import json, sys, threading, warnings
warnings.simplefilter("ignore")
from oidc_provider_mock import User, run_server_in_thread
accounts = [User(sub=name, claims=claims) for name, claims in json.loads(sys.argv[1]).items()]
with run_server_in_thread(user_claims=accounts) as server:
    print("provider", server.server_port, flush=True)
    threading.Event().wait()
"""


@contextmanager
def provider(folder: Path, accounts: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Its address. Skips where it is not installed."""
    for name in ("oidc_provider_mock", "authlib"):
        if find_spec(name) is None:
            pytest.skip(f"no {name} here: pip install -e '.[dev]'")
    program = Program("provider", [sys.executable, "-c", PROVIDER, json.dumps(accounts)], folder, {})
    try:
        wait_until(lambda: "provider " in program.said or not program.is_alive, "its port")
        assert program.is_alive, program.said
        yield f"http://localhost:{program.said.split('provider ')[1].split()[0]}"
    finally:
        program.close()


def told_by_socket(address: str, page: str, headers: Mapping[str, str], seconds: float = 6.0) -> bytes:
    """All that the server sends to a program that opens a web socket and asks for a page, until it says that it is done.

    It behaves as Streamlit's own page does: a cookie counts only beside the token that the server gives to everybody.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    cookies = SimpleCookie(headers.get("Cookie", ""))
    if XSRF not in cookies:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as answer:
            cookies.load(answer.headers["Set-Cookie"])
    sent = {**headers, "Cookie": "; ".join(f"{name}={one.value}" for name, one in cookies.items())}
    protocols = [Subprotocol("streamlit"), Subprotocol(cookies[XSRF].value)]
    told = b""
    url = f"{address.replace('http', 'ws')}/_stcore/stream"
    with connect(url, additional_headers=sent, subprotocols=protocols, max_size=None, open_timeout=seconds) as line:
        wanted = BackMsg()
        wanted.rerun_script.page_name = page
        wanted.rerun_script.query_string = "run=fed-1"
        line.send(wanted.SerializeToString())
        while True:
            try:
                message = line.recv(timeout=seconds)
            except TimeoutError:
                return told
            assert isinstance(message, bytes)
            told += message
            if ForwardMsg.FromString(message).WhichOneof("type") == "script_finished":
                return told


def fetched(url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
