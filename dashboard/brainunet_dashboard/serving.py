"""Streamlit's server with our settings: no usage statistics, no Deploy button, nothing fetched from anywhere."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from brainunet.errors import UsageError
from brainunet_dashboard import opened
from brainunet_dashboard.access import EVERYWHERE, LOOPBACK, Access
from brainunet_dashboard.source import Source

SCRIPT: Final = Path(__file__).with_name("script") / "dashboard_script.py"
FIRST_PORT: Final = 8501
PORTS_TRIED: Final = 50

# Light or dark as the browser asks for; red is left to what is wrong.
THEME: Final = {
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#2A85C0",
    "theme.metricValueFontSize": "1.3rem",
    "theme.headingFontSizes": ["1.8rem", "1.3rem", "1.1rem"],
}


def serve(source: Source, access: Access, port: int | None, *, debug: bool = False) -> None:
    """Serve the pages until the process is asked to end.

    Raises:
        UsageError: the port that was asked for is taken.
    """
    from streamlit import net_util
    from streamlit.web import bootstrap
    from streamlit.web.server.starlette import starlette_websocket

    # Beside a page's own origin Streamlit lets those of every port of this machine in: another program's pages.
    vars(starlette_websocket)["is_url_from_allowed_origins"] = lambda origin: origin == access.origin
    # Streamlit would ask the Internet for this machine's address whenever a browser comes from an origin that it doesn't know.
    net_util.get_external_ip = net_util.get_internal_ip = lambda: None
    chosen = options(access, free_port(access.listen, port), debug=debug)
    opened.source = source
    bootstrap.load_config_options(chosen)
    sys.stdout.write(f"open {address(access, chosen['server.port'])} in a browser; Ctrl-C ends it\n")
    sys.stdout.flush()
    # Streamlit says "Stopping..." before it stops: where nobody reads that any more (`... | head -1`) it would never stop.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        bootstrap.run(str(SCRIPT), False, [], chosen)


def options(access: Access, port: int, *, debug: bool = False) -> dict[str, Any]:
    """Streamlit's settings; these win over any config.toml and environment variable that lies around."""
    chosen: dict[str, Any] = {
        "server.address": access.listen,
        "server.port": port,
        "server.headless": True,  # opens no browser, asks for no e-mail address
        "server.baseUrlPath": access.path,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        # a page of elsewhere can't reach us by a name of its own that it lets point here
        "server.allowedHosts": [LOOPBACK, "localhost", *([access.host] if access.host else [])],
        "server.maxUploadSize": 1,  # MB; there is nothing to upload
        "server.disconnectedSessionTTL": 120,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",  # without the Deploy button
        "client.showErrorDetails": "full" if debug else "none",
        "client.showErrorLinks": False,  # these would search for an error's text on the Internet
        "logger.hideWelcomeMessage": True,  # which would ask the Internet for this machine's address
        "logger.level": "debug" if debug else "error",
        "runner.magicEnabled": False,
        "secrets.files": [str(access.secrets)] if access.secrets else [],
    }
    chosen |= THEME
    if access.host:
        chosen["browser.serverAddress"] = access.host
        chosen["browser.serverPort"] = access.port or (443 if access.scheme == "https" else 80)
        chosen["server.corsAllowedOrigins"] = [access.origin]
    return chosen


def free_port(listen: str, asked: int | None) -> int:
    """The port asked for (0: any that is free), or the first free one from 8501 on.

    Raises:
        UsageError: it is taken.
    """
    for port in [asked] if asked is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listen, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    found = f"{asked} is taken, or not allowed" if asked is not None else "8501 and those after it are taken"
    raise UsageError("--port", found=found, expected="a free port", remedy="choose another; 0 takes any that is free")


def address(access: Access, port: int) -> str:
    """Where people open the pages.

    >>> address(Access(), 8501)
    'http://127.0.0.1:8501'
    """
    if access.host:
        return "/".join(part for part in (access.origin, access.path) if part)
    return f"http://{socket.getfqdn() if access.listen == EVERYWHERE else access.listen}:{port}"
