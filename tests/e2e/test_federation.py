"""A federation from the command lines to the last model: over TLS, between processes, with every file that it leaves."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from brainunet import chain
from tests.support.fake_site import Behaviour, FakeSite, Received, good_reply, honest, never
from tests.support.federation import done, told
from tests.support.known import assert_model, change, known
from tests.support.running import Federation

pytestmark = pytest.mark.slow

NewFederation = Callable[..., Federation]


def test_two_hospitals_train_together_from_the_command_lines_alone(
    tmp_path: Path, phantoms: Callable[[int], Path], new_federation: NewFederation
) -> None:
    federation = new_federation()
    sites = ("CRV", "NKDC")
    for site in sites:
        home = federation.home(site).path
        federation.run_command("brainunet-client", "--home", home, "--enrol", site, "--server", federation.address)
        federation.run_command(
            "flower-server", "enrol", federation.folder.path, federation.root / f"{site}.request", "-o", f"{site}.kit"
        )
        numbers = told(
            "enrol", federation.folder.path, federation.root / f"{site}.request", "-o", federation.root / "again.kit"
        )
        federation.run_command(
            "brainunet-client", "--home", home, "--kit", f"{site}.kit", "--fingerprint", numbers["federation_fingerprint"]
        )
        with federation.home(site).settings.open("a") as settings:
            settings.write("\nmin_cases = 1\n")

    server = federation.serve()
    clients = [federation.join(site, phantoms(number)) for number, site in enumerate(sites, start=1)]
    federation.wait_completed(server, 240)  # torch is loaded six times

    for number in (1, 2):
        rows = federation.outcomes(number)
        assert {site: row.outcome for site, row in rows.items()} == dict.fromkeys(sites, "answered")
        assert all(row.bytes_up > 1_000_000 and row.bytes_down > 1_000_000 for row in rows.values())
    with federation.store() as store:
        assert {(row.round, row.site) for row in store.scores(federation.run_id)} == {(n, s) for n in (0, 1, 2) for s in sites}
        assert [model.round for model in store.models(federation.run_id)] == [0, 1, 2]
        assert store.run(federation.run_id).status == "completed"
    digests = {federation.model(number).digest for number in (0, 1, 2)}  # their signatures are checked
    assert len(digests) == 3
    assert chain.verify(federation.folder.audit).entries == len(federation.audit())
    assert len(federation.audit("reply-accepted")) == 6
    for client, site in zip(clients, sites, strict=True):
        sent = [entry.data for entry in chain.entries(federation.home(site).ledger) if entry.kind == "sent"]
        heard = [entry.data for entry in federation.audit("reply-accepted", site=site)]
        trained = [(data["round"], data["bytes"], data["sha256"]) for data in sent if data["message"] == "train_reply"]
        assert trained == [(data["round"], data["bytes"], data["sha256"]) for data in heard if "sha256" in data]
        assert [data["bytes"] for data in sent] == [data["bytes"] for data in heard]
        assert client.is_alive
        assert client.end() == 0
        assert "Traceback" not in client.said
    assert "Traceback" not in server.said


def test_the_global_model_is_the_mean_by_cases_of_what_the_sites_sent(new_federation: NewFederation) -> None:
    federation = new_federation(rounds__count="3")
    cases = {"CRV": 10, "LASUTH": 25, "NKDC": 65}
    homes = {site: federation.enrol(site) for site in cases}

    server = federation.serve()
    with ExitStack() as stack:
        for site, number in cases.items():
            stack.enter_context(FakeSite(homes[site], honest(known(site), number)))
        federation.wait_completed(server, 60)

    for number in (1, 2, 3):
        assert_model(federation, number, [cases] * number)
        digests = {entry.data["site"]: entry.data["sha256"] for entry in federation.audit("reply-accepted", round=number)}
        assert digests == {
            site: hashlib.sha256(change(site, number, federation.start()).flat().data).hexdigest() for site in cases
        }


def test_a_server_killed_in_mid_round_goes_on_with_that_round_and_asks_nobody_twice(new_federation: NewFederation) -> None:
    federation = new_federation(rounds__count="3")
    cases = {"CRV": 10, "NKDC": 30}
    homes = {site: federation.enrol(site) for site in cases}
    may_answer = threading.Event()

    def holds_back(received: Received) -> None:
        if received.task.round == 2:
            received.site.wait(may_answer)
        received.answer(good_reply(received.task, known("NKDC"), cases["NKDC"]))

    server = federation.serve()
    with FakeSite(homes["CRV"], honest(known("CRV"), cases["CRV"])) as quick, FakeSite(homes["NKDC"], holds_back) as slow:
        kept = federation.folder.replies
        federation.wait(lambda: ("train_task", 2) in slow.tasks and list(kept.glob("*/CRV.reply")), 40, "CRV's reply is kept")
        federation.wait(lambda: federation.status()["status"]["message"] == "round 2: waiting for NKDC", 5, "status says so")
        assert (federation.site_state("CRV"), federation.site_state("NKDC")) == ("connected", "working")
        server.kill()
        told_dead = federation.status()
        assert not told_dead["served"]
        run = federation.run_id

        server = federation.serve()
        may_answer.set()
        federation.wait_completed(server, 60)

    assert federation.run_id == run
    assert federation.audit("run-resumed", run=run)
    assert [task for task in quick.tasks if task == ("train_task", 2)] == [("train_task", 2)]
    assert_model(federation, 3, [cases] * 3)
    assert {row.outcome for row in federation.outcomes(2).values()} == {"answered"}
    with federation.store() as store:
        assert [model.round for model in store.models(run)] == [0, 1, 2, 3]


def test_a_server_that_was_stopped_goes_on_with_the_next_run_of_it(new_federation: NewFederation) -> None:
    federation = new_federation()
    home = federation.enrol("CRV")
    federation.settings |= {"rounds.min_sites": "1"}
    holding: Behaviour = never

    with FakeSite(home, lambda received: holding(received)) as site:
        first = federation.serve()
        federation.wait(lambda: site.tasks, 30, "CRV is asked")
        done("stop", federation.folder.path)
        federation.wait(lambda: not first.is_alive, 10, "the server stops")
        assert federation.status()["status"]["state"] == "stopped"
        holding = honest(known("CRV"))

        federation.wait_completed(federation.serve(), 40)

    assert_model(federation, 2, [{"CRV": 10}] * 2)
    assert [entry.kind for entry in federation.audit() if entry.kind.startswith("run-")] == [
        "run-started",
        "run-stopped",
        "run-resumed",
        "run-completed",
    ]


def test_a_site_that_is_revoked_while_it_runs_is_shut_out_and_the_run_goes_on_without_it(
    phantoms: Callable[[int], Path], new_federation: NewFederation
) -> None:
    federation = new_federation(rounds__min_sites="2", rounds__gather_s="30")
    cases = {"CRV": 10, "LASUTH": 20}
    homes = {site: federation.enrol(site) for site in (*cases, "NKDC")}
    first_round = threading.Event()

    def waits_for_it(received: Received) -> None:
        received.site.wait(first_round)
        received.answer(good_reply(received.task, known("CRV"), cases["CRV"]))

    server = federation.serve()
    client = federation.join("NKDC", phantoms(3))
    with FakeSite(homes["CRV"], waits_for_it), FakeSite(homes["LASUTH"], honest(known("LASUTH"), cases["LASUTH"])):
        federation.wait(lambda: federation.audit("task-sent"), 40, "round 1 begins")
        assert federation.audit("task-sent")[0].data["sites"] == ["CRV", "LASUTH", "NKDC"]
        done("revoke", federation.folder.path, "NKDC", "--reason", "left us")
        federation.wait(lambda: federation.site_state("NKDC") == "revoked", 10, "the server follows the roster")
        federation.wait(lambda: "revoked" in client.said, 60, "the client says that it may be revoked")
        first_round.set()
        federation.wait_completed(server, 60)
        assert client.is_alive

    assert federation.outcomes(2).keys() == set(cases)
    assert federation.audit("site-revoked", site="NKDC")
    assert federation.outcomes(1)["NKDC"].outcome == "absent"
    assert_model(federation, 2, [cases] * 2)


def test_a_site_that_never_answers_costs_the_deadline_and_no_more_and_its_late_reply_is_dropped(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__deadline_s="8", rounds__min_sites="1")
    homes = {site: federation.enrol(site) for site in ("CRV", "NKDC")}
    late = threading.Event()

    def late_once(received: Received) -> None:
        if received.task.round == 1:
            received.site.wait(late)
        received.answer(good_reply(received.task, known("NKDC"), 30))

    server = federation.serve()
    with FakeSite(homes["CRV"], honest(known("CRV"), 10)), FakeSite(homes["NKDC"], late_once) as slow:
        federation.wait(lambda: federation.audit("task-sent", round=1), 20, "round 1 begins")
        began = time.monotonic()
        federation.wait(lambda: federation.audit("model-saved", round=1), 20, "round 1 ends")
        assert 6 < time.monotonic() - began < 13
        late.set()
        federation.wait_completed(server, 60)
        assert slow.tasks.count(("train_task", 1)) == 1

    assert federation.audit("reply-missing", round=1, site="NKDC", reason="no reply in time")
    assert federation.audit("reply-late", round=1, site="NKDC")
    assert federation.outcomes(1)["NKDC"].outcome == "late"
    assert_model(federation, 1, [{"CRV": 10}])
    asked = {entry.data["round"]: entry.data["sites"] for entry in federation.audit("task-sent")}
    second = {site: n for site, n in (("CRV", 10), ("NKDC", 30)) if site in asked[2]}
    assert_model(federation, 2, [{"CRV": 10}, second])
