"""What happens to machines and lines: no complete round is lost, no mean is wrong, and the status tells the truth."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from brainunet.modelfile import read_model, write_model
from brainunet.signing import sign_file
from brainunet.weights import Weights
from brainunet_server.start_model import PURPOSE
from tests.support.fake_site import FakeSite, honest
from tests.support.known import assert_answered, assert_books_agree, assert_model, known
from tests.support.link import Link
from tests.support.running import Federation

pytestmark = [
    pytest.mark.faults,
    # a link that is cut in the middle of a request may leave its end to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NewFederation = Callable[..., Federation]
Phantoms = Callable[[int], Path]
ALONE = {"rounds__min_sites": "1", "rounds__count": "1"}
CUT_S = 90


def is_training(federation: Federation, site: str) -> bool:
    return " cases to train on" in (federation.root / f"{site}.out").read_text()


def test_a_client_killed_in_training_goes_on_from_its_checkpoint_to_the_same_model(
    phantoms: Phantoms, new_federation: NewFederation
) -> None:
    import torch

    through = new_federation(**ALONE, train__steps="60", train__patch="[48,48,48]")
    through.enrol("CRV")
    server = through.serve()
    through.join("CRV", phantoms(1))
    through.wait_completed(server, 180)
    through.close()

    federation = new_federation(**ALONE, train__steps="60", train__patch="[48,48,48]")
    kept = federation.enrol("CRV").work / "training.ckpt"
    server = federation.serve()
    client = federation.join("CRV", phantoms(1))
    federation.wait(kept.exists, 120, "a checkpoint")
    client.kill()
    state = torch.load(kept, weights_only=True)
    assert 25 <= state["step"] < 60
    state["losses"] = [1000.0] * state["step"]  # what went before is only known from here
    torch.save(state, kept)
    federation.join("CRV", phantoms(1))
    federation.wait_completed(server, 180)

    assert (federation.outcomes(1)["CRV"].loss or 0) > 100
    assert federation.model(1).digest == through.model(1).digest
    assert_answered(federation)
    assert_books_agree(federation, "CRV")


def test_a_client_whose_first_process_alone_is_killed_leaves_no_process_behind(
    phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(**ALONE, train__steps="4000", train__patch="[48,48,48]")
    federation.enrol("CRV")
    federation.serve()
    client = federation.join("CRV", phantoms(1))
    federation.wait(lambda: is_training(federation, "CRV"), 90, "the training begins")
    others = client.family() - {client.process.pid}
    assert len(others) == 2

    client.kill(alone=True)

    federation.wait(lambda: not any(is_running(pid) for pid in others), 10, "its other processes end")


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return b"brainunet_client" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_server_killed_while_clients_train_takes_their_replies_when_it_is_back(
    phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(rounds__count="1", rounds__deadline_s="600", train__steps="15", train__patch="[48,48,48]")
    for site in ("CRV", "NKDC"):
        federation.enrol(site)
    server = federation.serve()
    clients = [federation.join(site, phantoms(number)) for number, site in enumerate(("CRV", "NKDC"), start=1)]
    federation.wait(lambda: is_training(federation, "CRV") and is_training(federation, "NKDC"), 120, "both train")
    server.kill()

    server = federation.serve()
    federation.wait_completed(server, 240)

    assert_answered(federation)
    for client, site in zip(clients, ("CRV", "NKDC"), strict=True):
        assert_books_agree(federation, site)
        assert client.said.count("cases to train on") <= 2, "the training was done once, and the last model scored once"


def test_a_link_cut_for_a_minute_and_a_half_in_training_costs_nothing_but_the_time(
    phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(**ALONE, rounds__deadline_s="400", train__steps="30", train__patch="[48,48,48]")
    with Link(federation.folder, federation.port) as link:
        federation.enrol("CRV", link.address)
        server = federation.serve()
        client = federation.join("CRV", phantoms(1))
        federation.wait(lambda: is_training(federation, "CRV"), 90, "the training begins")
        link.cut(CUT_S)
        began = time.monotonic()
        federation.wait(lambda: "sending train reply" in client.said, 120, "the training is done")
        federation.wait_completed(server, CUT_S + 120)

    print(f"completed {time.monotonic() - began:.0f} s after the beginning of a cut of {CUT_S} s")  # noqa: T201
    assert_answered(federation)
    assert_books_agree(federation, "CRV")
    assert len(federation.audit("task-sent", round=1)) == 1
    assert "waiting: the server can't be reached" in client.said
    assert "connected again" in client.said


@pytest.mark.parametrize(
    ("path", "larger_than"), [("push-object", -1), ("push-messages", -1), ("pull-messages", 200), ("pull-object", -1)]
)
def test_a_lost_reply_of_the_server_costs_no_round(
    path: str, larger_than: int, phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(**ALONE)
    with Link(federation.folder, federation.port) as link:
        federation.enrol("CRV", link.address)
        link.lose_reply(path, larger_than=larger_than)
        server = federation.serve()
        federation.join("CRV", phantoms(1))
        federation.wait_completed(server, 120)
        assert [path in request.path for request in link.seen if request.lost] == [True]

    assert_answered(federation)
    assert_books_agree(federation, "CRV")
    assert len(federation.audit("task-sent", round=1)) == 1
    assert len(federation.audit("reply-accepted", round=1)) == 1


def test_eight_megabytes_go_up_a_line_of_64_kilobytes_a_second_at_the_line_s_rate(
    tmp_path: Path, new_federation: NewFederation
) -> None:
    n_bytes, rate = 8_000_000, 64_000
    federation = new_federation(**ALONE, rounds__deadline_s="900")
    _, card = read_model(federation.folder.start_model)
    weights = Weights.of({"kernel": np.random.default_rng(0).normal(0, 1, (n_bytes // 4,)).astype(np.float32)})
    write_model(federation.folder.start_model, weights, card)
    sign_file(federation.folder.start_model, federation.signing_key, PURPOSE)

    with Link(federation.folder, federation.port, up=rate) as link:
        home = federation.enrol("CRV", link.address)
        server = federation.serve()
        with FakeSite(home, honest(known("CRV")), timeout_s=300):
            federation.wait_completed(server, 300)
        sending = [request for request in link.seen if "push-object" in request.path]
        seconds = sending[-1].at - sending[0].at

    print(f"{n_bytes / 1e6:g} MB in {seconds:.0f} s; the line's rate gives {n_bytes / rate:.0f} s")  # noqa: T201
    assert seconds < 1.15 * n_bytes / rate
    assert_answered(federation)
    assert_model(federation, 1, [{"CRV": 10}])


def test_a_link_cut_again_and_again_in_an_upload_loses_no_round_and_sends_no_object_twice(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(**ALONE)
    with Link(federation.folder, federation.port) as link:
        home = federation.enrol("CRV", link.address)
        link.cut_after(600_000, 1.0)
        server = federation.serve()
        with FakeSite(home, honest(known("CRV"))):
            federation.wait(lambda: link.bytes_up > 600_000, 60, "the first cut")
            link.cut_after(600_000, 1.0)
            federation.wait_completed(server, 60)
        # 1.4 MB of update: beside it only the two objects in which the line was cut, and questions
        assert link.bytes_up < 3_000_000

    assert_answered(federation)
    assert_model(federation, 1, [{"CRV": 10}])


CLOCK = """
import datetime, os, time

SHIFT = float(os.environ["SHIFT_S"])
real_time, real_datetime = time.time, datetime.datetime
time.time = lambda: real_time() + SHIFT


class shifted(real_datetime):
    @classmethod
    def now(cls, tz=None):
        return real_datetime.now(tz) + datetime.timedelta(seconds=SHIFT)

    @classmethod
    def utcnow(cls):
        return real_datetime.utcnow() + datetime.timedelta(seconds=SHIFT)


datetime.datetime = shifted
"""


@pytest.mark.parametrize(("shift_s", "words"), [(10, r"is (9|10|11) s ahead of"), (-600, r"is (9 min 5\d s|10 min) behind")])
def test_a_clock_that_is_wrong_is_named_by_the_check_and_by_the_running_client(
    shift_s: int, words: str, tmp_path: Path, phantoms: Phantoms, new_federation: NewFederation
) -> None:
    federation = new_federation(**ALONE)
    home = federation.enrol("CRV")
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    wrong = {"PYTHONPATH": str(tmp_path / "clock"), "SHIFT_S": str(shift_s)}
    server = federation.serve()

    checked = federation.check(home, phantoms(1), env=wrong)
    client = federation.join("CRV", phantoms(1), env=wrong)
    federation.wait(lambda: "waiting: " in client.said, 40, "the client says what it waits for")

    for said in (checked, client.said):
        assert "this machine's clock is" in said
        assert re.search(words, said), said
        assert "NTP" in said
    assert "Traceback" not in client.said
    assert client.is_alive
    federation.wait(
        lambda: federation.site_state("CRV") == "never seen", 10, "the server tells of a site that it has never seen"
    )
    client.end()
    federation.join("CRV", phantoms(1))
    federation.wait_completed(server, 120)
