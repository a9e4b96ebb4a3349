"""Updates that a test can make again from a site's name and a round, and the models that they must lead to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from brainunet import chain
from brainunet.records import TrainTask
from brainunet.weights import FloatArray, Weights
from tests.support.running import Federation


def change(site: str, number: int, weights: Weights) -> Weights:
    """A site's update in a round, as it can be made again by whoever knows its name."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{site} {number}".encode()).digest()[:8], "big"))
    return Weights.from_flat(weights.layout, random.normal(0, 1e-3, weights.flat().size).astype(np.float32))


def known(site: str) -> Callable[[TrainTask], Weights]:
    return lambda task: change(site, task.round, task.weights)


def expected(start: Weights, rounds: Sequence[Mapping[str, int]]) -> FloatArray:
    """The last model by plain arithmetic: each round adds the mean of its sites' changes, by their cases."""
    model = start.flat().astype(np.float64)
    for number, cases in enumerate(rounds, start=1):
        total = sum(cases.values())
        model += sum(change(site, number, start).flat().astype(np.float64) * n / total for site, n in cases.items())
    return model.astype(np.float32)


def assert_model(federation: Federation, number: int, rounds: Sequence[Mapping[str, int]]) -> None:
    got = federation.model(number).flat()
    np.testing.assert_allclose(got, expected(federation.start(), rounds), rtol=0, atol=1e-6)


def assert_books_agree(federation: Federation, site: str) -> None:
    """Every reply that the coordinator took is one that the site's ledger names, with its digest and bytes."""
    sent = {
        (entry.data["round"], entry.data["bytes"], entry.data["sha256"])
        for entry in chain.entries(federation.home(site).ledger)
        if entry.kind == "sent"
    }
    taken = federation.audit("reply-accepted", site=site)
    assert taken
    for entry in taken:
        if "sha256" in entry.data:
            assert (entry.data["round"], entry.data["bytes"], entry.data["sha256"]) in sent


def assert_answered(federation: Federation, rounds: int = 1) -> None:
    for number in range(1, rounds + 2):
        assert {row.outcome for row in federation.outcomes(number).values()} == {"answered"}, federation.outcomes(number)
