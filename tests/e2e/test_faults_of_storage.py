"""Full disks and a database that goes away: said in words, and no round is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brainunet import chain
from tests.support.fake_site import FakeSite, Received, good_reply, honest
from tests.support.known import assert_answered, assert_books_agree, assert_model, known
from tests.support.rights import full_disk
from tests.support.running import Federation

pytestmark = [
    pytest.mark.faults,
    # a link that is cut in the middle of a request may leave its end to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NewFederation = Callable[..., Federation]
Phantoms = Callable[[int], Path]
ALONE = {"rounds__min_sites": "1", "rounds__count": "1"}


def test_a_full_disk_at_a_site_is_a_fault_that_it_names_and_the_round_is_done_when_there_is_room(
    phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(**ALONE)
    data = phantoms(1)
    with full_disk(1200) as disk:
        home = federation.root / "home-CRV"
        home.symlink_to(disk / "home")
        (disk / "home").mkdir(mode=0o700)
        federation.enrol("CRV")
        server = federation.serve()
        client = federation.join("CRV", data)
        federation.wait(lambda: federation.audit("reply-refused", site="CRV"), 90, "the site says what is wrong")
        assert federation.audit("reply-refused", site="CRV")[0].data["reason"] == "disk_full", federation.logs()
        assert "No space left" in client.said
        federation.wait(lambda: "disk_full" in federation.status()["status"]["message"], 10, "status says why")
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        federation.wait_completed(server, 120)
        assert_answered(federation)
        assert_books_agree(federation, "CRV")
        assert not list((disk / "home").rglob("*.part"))
        client.kill()


@pytest.mark.parametrize("size_kb", [2200, 4000, 6000, 8000])  # full at other moments
def test_a_full_disk_at_the_server_is_said_and_the_round_is_done_when_there_is_room(
    size_kb: int, new_federation: NewFederation
) -> None:
    cases = {"CRV": 10, "NKDC": 30}
    with full_disk(30_000) as disk:
        federation = new_federation(rounds__count="2")
        shutil.move(federation.folder.path, disk / "fed")
        federation.folder.path.symlink_to(disk / "fed")
        homes = {site: federation.enrol(site) for site in cases}
        subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(disk)], check=True)
        server = federation.serve()
        with ExitStack() as stack:
            for site, number in cases.items():
                stack.enter_context(FakeSite(homes[site], honest(known(site), number)))
            federation.wait(lambda: "No space left" in server.said or "is full" in server.said, 60, "the server says so")
            time.sleep(3)
            assert server.is_alive, federation.logs()
            subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
            federation.wait_completed(server, 120)
        assert_model(federation, 2, [cases] * 2)
        assert chain.verify(federation.folder.audit).entries
        assert not list((disk / "fed").rglob("*.part"))


@pytest.fixture
def restart_postgres(postgres_server: Path) -> Iterator[Callable[[float], None]]:
    """Stops the database server, as an update of it does, and starts it again after so many seconds."""
    started: list[subprocess.Popen[bytes]] = []

    def restart(seconds: float) -> None:
        from tests.support.postgres import _programs, _unprivileged, _wait_for

        pid = int((postgres_server / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGINT)
        while (postgres_server / "data" / "postmaster.pid").exists():
            time.sleep(0.1)
        time.sleep(seconds)
        data = str(postgres_server / "data")
        command = [f"{_programs()}/postgres", "-D", data, "-k", str(postgres_server), "-c", "listen_addresses="]
        with (postgres_server / "log").open("ab") as log:
            started.append(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=postgres_server, **_unprivileged(postgres_server))
            )
        _wait_for(started[-1], postgres_server)

    yield restart
    for process in started:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_a_database_that_is_restarted_in_mid_run_loses_no_round(
    postgres_url: str, restart_postgres: Callable[[float], None], new_federation: NewFederation
) -> None:
    from brainunet_server.store.reader import StoreReader

    federation = new_federation(rounds__count="3")
    cases = {"CRV": 10, "NKDC": 30}
    homes = {site: federation.enrol(site) for site in cases}
    may_answer = threading.Event()

    def holds_back(received: Received) -> None:
        if received.task.round == 2:
            received.site.wait(may_answer)
        received.answer(good_reply(received.task, known("NKDC"), cases["NKDC"]))

    server = federation.serve("--database", postgres_url)
    with FakeSite(homes["CRV"], honest(known("CRV"), cases["CRV"])), FakeSite(homes["NKDC"], holds_back) as slow:
        federation.wait(lambda: ("train_task", 2) in slow.tasks, 40, "round 2 is being done")
        before = threading.Timer(1.0, may_answer.set)
        before.start()
        restart_postgres(5.0)
        federation.wait_completed(server, 90)

    assert_model(federation, 3, [cases] * 3)
    with StoreReader(postgres_url) as store:
        assert [model.round for model in store.models(federation.run_id)] == [0, 1, 2, 3]
        assert {row.outcome for row in store.site_rounds(federation.run_id)} == {"answered"}
        assert store.run(federation.run_id).status == "completed"
