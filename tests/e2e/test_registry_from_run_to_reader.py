"""From a run's best round to a reader far away: every step as a person types it, and nothing but what the steps hand on."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from brainunet.registry.pulled import last_pulled
from brainunet_client.enrolment import install_kit, make_request
from brainunet_client.home import open_home
from tests.support.federation import NAME, done, told
from tests.support.postgres import postgres_server, postgres_url
from tests.support.programs import Program
from tests.support.published import complete_run
from tests.support.running import BIN, free_port

__all__ = ["postgres_server", "postgres_url"]

pytestmark = pytest.mark.slow


def pull(*words: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [str(BIN / "brainunet"), "pull", *map(str, words)]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """As given to --database; empty for the federation's own file."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


def test_a_release_travels_from_the_coordinator_to_a_site_and_a_reader(tmp_path: Path, database: str) -> None:
    fed = tmp_path / "fed"
    there = ("--database", database) if database else ()
    done("init", fed, "--name", NAME, "--host", "127.0.0.1")
    ports = free_port(), free_port()
    settings = (fed / "federation.toml").read_text()
    at = f"[registry]\nport = {ports[0]}\nreaders_port = {ports[1]}\n"
    (fed / "federation.toml").write_text(settings.replace("[registry]\n", at))
    complete_run(fed, database=database)
    home = open_home(tmp_path / "lagos")
    make_request(home, "lagos", "127.0.0.1:8443")
    done("enrol", fed, home.request_of("lagos"), "-o", tmp_path / "lagos.kit")
    install_kit(home, tmp_path / "lagos.kit", lambda kit, numbers: True)
    done("publish", fed, "--round", "best", "--name", "africa-1", "--notes", "for 1.5 T scanners", *there)
    done("reader", "add", fed, "jane", "-o", tmp_path / "jane.pass.json", *there)

    command = [str(BIN / "flower-server"), "registry", str(fed), "--listen", "127.0.0.1", *there]
    registry = Program("registry", command, tmp_path, {})
    with closing(registry):
        while registry.said.count(" is served to ") < 2:
            assert registry.is_alive, registry.said

        by_site = pull("--home", home.path)
        by_reader = pull("--kit", tmp_path / "jane.pass.json", "--home", tmp_path / "jane")
        assert (by_site.returncode, by_reader.returncode) == (0, 0), (by_site.stderr, by_reader.stderr)
        pulled = last_pulled(tmp_path / "jane")
        assert pulled is not None
        assert (pulled.name, pulled.federation, pulled.round) == ("africa-1", NAME, 1)
        published = (fed / "published" / "africa-1.safetensors").read_bytes()
        assert pulled.verified().read_bytes() == (home.path / "models" / "africa-1.safetensors").read_bytes() == published
        show = [str(BIN / "brainunet"), "model", "show", str(pulled.path), "--json"]
        shown = json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)
        assert shown["signature"]["state"] == "genuine"
        assert shown["card"]["release"]["name"] == "africa-1"

        done("withdraw", fed, "africa-1", "--reason", "left and right were swapped", *there)
        done("reader", "revoke", fed, "jane", *there)
        again = pull("--home", home.path)
        assert again.returncode == 6
        assert "withdrawn: africa-1, which was pulled to" in again.stderr
        assert "every release was withdrawn" in again.stderr
        revoked = pull("--kit", tmp_path / "jane.pass.json", "--home", tmp_path / "jane")
        assert revoked.returncode == 6
        assert "the pass of jane was revoked" in revoked.stderr
        assert registry.end() == 0

    (row,) = told("models", fed, *there)
    assert row["downloads"] == 2
    kinds = [line.split()[2] for line in done("audit", fed).splitlines() if "model-downloaded" in line]
    assert len(kinds) == 2
