"""Which replies count for a round, and what it says when they are too few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.errors import FederationError
from brainunet.records import AnyTask, Fault, FaultCode, Reply
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.round_results import SiteResult, TooFewReplies
from brainunet_server.rounds import rounds
from tests.support.number_sites import SitesOfNumbers, TakesTheMean, adds, made_by, run, says
from tests.support.replies import PLAN, START, evaluate_reply, site_score, train_reply

NAN = Weights.of({name: np.full(shape, np.nan) for name, shape in START.layout})


@pytest.mark.parametrize(
    ("bad", "outcome", "reason"),
    [
        (train_reply(NAN), "refused", "the update holds NaN or infinite values"),
        (train_reply(Weights.of({"kernel": np.zeros(9)})), "refused", "the update's names or shapes are not the model's"),
        (train_reply(1.0, round=2), "refused", "replies to round 2 of run glioma-1, asked was round 1 of run glioma-1"),
        (train_reply(1.0, run="other"), "refused", "replies to round 1 of run other, asked was round 1 of run glioma-1"),
        (evaluate_reply(round=1), "refused", "sent evaluate_reply, asked was train_reply"),
        (train_reply(1.0, cases=0), "refused", "trained on no case"),
        (Fault(run=PLAN.run, round=1, code=FaultCode.OUT_OF_MEMORY), "fault", "out_of_memory"),
        (None, "absent", "no reply in time"),
    ],
)
def test_one_site_s_bad_reply_is_named_and_the_run_goes_on_without_it(bad: Reply | None, outcome: str, reason: str) -> None:
    plan = replace(PLAN, rounds=1)
    exchange = SitesOfNumbers({"BAD": says(bad), "CRV": adds(1.0), "NKDC": adds(3.0)})

    first, last = run(plan, exchange)

    named = first.sites[0]
    assert (named.site, named.outcome, named.reason) == ("BAD", outcome, reason)
    assert (named.cases, named.score, named.loss) == (None, None, None)
    assert made_by(first) == {"kernel": [[3.0, 4.0], [5.0, 6.0]], "bias": [2.5]}
    assert [site.outcome for site in last.sites[1:]] == ["answered", "answered"]


def test_bytes_that_could_not_be_read_are_refused_and_not_called_absent() -> None:
    class Unreadable(SitesOfNumbers):
        def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
            yield Answer("BAD", None, bytes_down=100, problem="message: a header that is not JSON.", unreadable=True)
            yield from super().ask(task, [site for site in sites if site != "BAD"])

    first, _ = run(replace(PLAN, rounds=1), Unreadable({"BAD": says(None), "CRV": adds(1.0)}))

    assert (first.sites[0].outcome, first.sites[0].reason) == ("refused", "message: a header that is not JSON.")


@pytest.mark.parametrize("min_sites", [0, 1, 2, 3])
def test_too_few_usable_replies_end_the_run_and_say_why(min_sites: int, tmp_path: Path) -> None:
    plan = replace(PLAN, min_sites=min_sites)
    fault = Fault(run=PLAN.run, round=2, code=FaultCode.DISK_FULL)

    def fails_later(task: AnyTask) -> Reply | None:
        return adds(1.0)(task) if task.round == 1 else fault

    exchange = SitesOfNumbers({"CRV": fails_later, "LASUTH": fails_later, "NKDC": fails_later})
    steps = rounds(plan, START, 0, exchange, TakesTheMean(), tmp_path)

    assert next(steps).weights is not None  # what was complete was handed out before
    with pytest.raises(FederationError) as raised:
        next(steps)
    message = str(raised.value)
    assert message.startswith("round 2: 0 usable replies of 3 (CRV: disk_full; LASUTH: disk_full; NKDC: disk_full)")
    assert f"expected at least {max(1, min_sites)}." in message
    assert "resume the run" in message
    assert message.count("disk_full means: the disk is full (the site makes room)") == 1  # a code alone teaches nobody


def test_the_number_of_sites_that_are_needed_is_enough() -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0), "LASUTH": adds(1.0), "NKDC": says(None)})

    assert len(run(replace(PLAN, min_sites=2), exchange)) == 3
    with pytest.raises(FederationError, match=r"2 usable replies of 3 .*NKDC: no reply in time.*expected at least 3"):
        run(replace(PLAN, min_sites=3), exchange)


def test_without_any_site_there_is_no_round() -> None:
    with pytest.raises(FederationError, match="no site could be asked"):
        run(PLAN, SitesOfNumbers({}))


def test_an_update_far_longer_than_the_others_is_refused_at_the_end_and_its_figures_are_not_told() -> None:
    sites = {"CRV": adds(1.0), "FAR": adds(25.0, dice=0.99), "LASUTH": adds(1.0), "NKDC": adds(2.0)}

    first, last = run(replace(PLAN, rounds=1), SitesOfNumbers(sites))

    far = first.sites[1]
    assert (far.site, far.outcome, far.score) == ("FAR", "refused", None)
    assert far.reason == "an update of length 55.9, the median is 3.354 and the bound 10 times that"
    assert far.update_norm == pytest.approx(25 * 5**0.5)
    assert made_by(first)["bias"] == pytest.approx([0.5 + 4 / 3])
    assert last.sites[1].outcome == "answered"


def test_refused_updates_do_not_count_for_the_number_of_sites_that_are_needed() -> None:
    sites = {"CRV": adds(1.0), "FAR": adds(25.0), "LASUTH": adds(1.0)}

    assert len(run(replace(PLAN, rounds=1, min_sites=2), SitesOfNumbers(sites))) == 2
    with pytest.raises(TooFewReplies, match=r"2 usable replies of 3 \(FAR: an update of length 55\.9.*expected at least 3"):
        run(replace(PLAN, rounds=1, min_sites=3), SitesOfNumbers(sites))


def test_too_few_replies_carry_what_each_site_did() -> None:
    fault = Fault(run=PLAN.run, round=1, code=FaultCode.DISK_FULL)

    with pytest.raises(TooFewReplies) as raised:
        run(replace(PLAN, min_sites=2), SitesOfNumbers({"NKDC": adds(1.0), "CRV": says(fault), "LASUTH": says(None)}))

    result = raised.value.result
    assert (result.exchange, result.weights) == (1, None)
    assert [(site.site, site.outcome, site.reason) for site in result.sites] == [
        ("CRV", "fault", "disk_full"),
        ("LASUTH", "absent", "no reply in time"),
        ("NKDC", "answered", None),
    ]
    assert isinstance(result.sites[2], SiteResult)
    assert result.sites[2].score == site_score()


def test_a_site_that_was_revoked_after_it_answered_is_not_in_the_mean() -> None:
    class Revoking(SitesOfNumbers):
        def is_member(self, site: str) -> bool:
            return site != "NKDC"

    first, _ = run(replace(PLAN, rounds=1), Revoking({"CRV": adds(1.0), "NKDC": adds(3.0)}))

    assert (first.sites[1].outcome, first.sites[1].reason) == ("refused", "it is no longer a member")
    assert made_by(first) == {"kernel": [[2.0, 3.0], [4.0, 5.0]], "bias": [1.5]}
