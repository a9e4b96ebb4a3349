"""What a dishonest site may send: it is refused with a reason, and the honest sites' mean stays exact."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id

from brainunet.flower_records import HEADER, VALUES, to_records
from brainunet.records import TrainTask
from brainunet.weights import Weights
from brainunet.wire import pack
from brainunet_server.flower.linkstate import MAX_OBJECTS_A_REPLY
from tests.support.fake_site import Behaviour, FakeSite, Parcel, Received, good_reply, honest
from tests.support.known import assert_model, known
from tests.support.messages import train_task
from tests.support.replies import evaluate_reply, train_reply
from tests.support.running import FLOWER_WARNINGS, Federation

pytestmark = [pytest.mark.slow, *FLOWER_WARNINGS]

NewFederation = Callable[..., Federation]
HONEST = {"CRV": 10, "NKDC": 30}


def trained(received: Received, **fields: Any) -> Any:
    """An honest reply but for these fields."""
    task: Any = received.task
    given: dict[str, Any] = {"run": task.run, "round": task.round, "change": known("evil")(task), "cases": 10}
    return train_reply(**given | fields)


def with_header(received: Received, **fields: Any) -> RecordDict:
    """The records of an honest reply, with other things in its header."""
    records = to_records(pack(trained(received)))
    header = json.loads(str(records.config_records[HEADER][HEADER])) | fields
    records[HEADER] = ConfigRecord({HEADER: json.dumps(header)})
    return records


def with_values(received: Received, values: Any) -> RecordDict:
    records = to_records(pack(trained(received)))
    records[VALUES] = ArrayRecord({VALUES: values if isinstance(values, Array) else Array(values)})
    return records


def filled(received: Received, value: float) -> Weights:
    return Weights.of({name: np.full(shape, value, np.float32) for name, shape in received.task.weights.layout})


def renamed(received: Received) -> Weights:
    delta = known("evil")(received.task)  # type: ignore[arg-type]
    return Weights(("another", *delta.names[1:]), delta.arrays)


def extra_metrics(received: Received) -> RecordDict:
    return RecordDict({**to_records(pack(trained(received))), "metrics": MetricRecord({"num-examples": 1e9})})


def other_shapes(received: Received) -> Weights:
    return Weights.of({"one": np.zeros(5, np.float32)})


# A site's name, the content of its reply to a training, and a part of the reason with which it is refused.
CONTENTS: dict[str, tuple[Callable[[Received], Any], str]] = {
    "NAN": (lambda r: trained(r, change=filled(r, np.nan)), "NaN or infinite"),
    "INF": (lambda r: trained(r, change=filled(r, np.inf)), "NaN or infinite"),
    "HUGE": (lambda r: trained(r, change=filled(r, 1e20)), "an update of length"),
    "LONG": (lambda r: trained(r, change=filled(r, 2e-2)), "the median is"),
    "NAMES": (lambda r: trained(r, change=renamed(r)), "names or shapes"),
    "SHAPES": (lambda r: trained(r, change=other_shapes(r)), "names or shapes"),
    "HALF": (lambda r: with_values(r, np.zeros(r.task.weights.flat().size, np.float16)), "weights as float16"),
    "PICKLE": (
        lambda r: with_values(r, Array("float32", (1,), "numpy.ndarray", b"\x80\x04cos\nsystem\n")),
        "values that can't be read",
    ),
    "METRICS": (extra_metrics, "other records than"),
    "EMPTY": (lambda r: RecordDict(), "other records than"),
    "PROTOCOL": (lambda r: with_header(r, protocol=99), "protocol 99"),
    "FIELD": (lambda r: with_header(r, patient="Jane Doe"), "patient"),
    "REPLAY": (lambda r: trained(r, round=r.task.round - 1), "replies to round"),
    "OTHERRUN": (lambda r: trained(r, run="another-run"), "another-run"),
    "KIND": (lambda r: evaluate_reply(run=r.task.run, round=r.task.round), "asked was train_reply"),
    "CASES": (lambda r: trained(r, cases=9_999_999), "are not believed"),
}


def sends(content_of: Callable[[Received], Any]) -> Behaviour:
    return lambda r: r.answer(content_of(r) if isinstance(r.task, TrainTask) else good_reply(r.task, known("evil")))


def with_dishonest(
    federation: Federation, behaviours: Mapping[str, Behaviour], seconds: float = 90
) -> tuple[dict[str, FakeSite], dict[str, Any]]:
    """A whole run of the honest sites and these; gives the dishonest sites and what the store says of round 1."""
    homes = {site: federation.enrol(site) for site in (*HONEST, *behaviours)}
    with ExitStack() as stack:
        evil = {site: stack.enter_context(FakeSite(homes[site], does)) for site, does in behaviours.items()}
        for site, cases in HONEST.items():
            stack.enter_context(FakeSite(homes[site], honest(known(site), cases)))
        federation.wait_completed(federation.serve(), seconds)
    return evil, {site: (row.outcome, row.reason) for site, row in federation.outcomes(1).items()}


def test_whatever_dishonest_sites_put_into_a_reply_is_refused_and_the_mean_is_that_of_the_honest(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="30", rounds__deadline_s="60")

    _, outcomes = with_dishonest(federation, {site: sends(content) for site, (content, _) in CONTENTS.items()})

    for site, (_, reason) in CONTENTS.items():
        outcome, told = outcomes[site]
        assert outcome == "refused", (site, outcome, told)
        assert told is not None
        assert reason in told, (site, told)
        assert [entry.data["reason"] for entry in federation.audit("reply-refused", round=1, site=site)] == [told]
        assert "Jane Doe" not in told
    assert {entry.data["site"] for entry in federation.audit("reply-accepted", round=1)} == set(HONEST)
    assert_model(federation, 1, [HONEST])


def raw(received: Received, root: bytes, *others: bytes) -> Parcel:
    """A reply whose objects are these very bytes."""
    honest_one = received.parcel(trained(received))
    objects = {get_object_id(content): content for content in (root, *others)}
    ids = list(objects)
    tree = ObjectTree(object_id=ids[0], children=[ObjectTree(object_id=id_) for id_ in ids[1:]])
    honest_one.message.metadata.__dict__["_message_id"] = ids[0]
    return Parcel(honest_one.message, tree, objects)


def is_no_message(received: Received) -> None:
    """What stands where the message should be is a record."""
    received.site.push(raw(received, b"ConfigRecord  0\x00"))


def refers_to_nothing(received: Received) -> None:
    """A message whose content is not among the objects that it announced."""
    parcel = received.parcel(trained(received))
    body = b""
    received.site.push(raw(received, b"Message %s 0\x00" % parcel.root.encode() + body))


def is_garbage_inside(received: Received) -> None:
    """A message whose body is no message."""
    received.site.push(raw(received, b"Message  8\x00\xff\xff\xff\xff\xff\xff\xff\xff"))


def is_half_here(received: Received) -> None:
    """Announces a reply and sends half of it."""
    parcel = received.parcel(trained(received))
    received.site.push(parcel, only=lambda object_id: object_id != parcel.root)


def replies_twice(received: Received) -> None:
    """A second, different reply to the same task."""
    received.answer(good_reply(received.task, known("evil")))
    received.answer(good_reply(received.task, known("worse")))


def speaks_for_another(received: Received) -> None:
    received.answer(good_reply(received.task, known("evil")), src_node_id=4711)


def leaves_at_once(received: Received) -> None:
    """Has said goodbye when the last of its reply arrives."""
    parcel = received.parcel(good_reply(received.task, known("leaves")))
    received.site.push(parcel, before_last=received.site.deactivate)


def has_no_time(received: Received) -> None:
    """Its reply is no longer good when the last of it arrives."""
    parcel = received.parcel(good_reply(received.task, known("evil")), ttl=1.0, created_at=time.time())
    received.site.push(parcel, before_last=lambda: time.sleep(1.5))


def claims_too_much(received: Received) -> None:
    """Announces more objects than any reply has."""
    parcel = received.parcel(trained(received))
    for number in range(MAX_OBJECTS_A_REPLY):
        parcel.tree.children.append(ObjectTree(object_id=f"{number:064x}"))
    received.site.push(parcel)


def claims_itself_over_and_over(received: Received) -> None:
    """A few objects that refer to each other so often that following each way would take for ever."""
    parcel = received.parcel(trained(received))
    ids = [f"{number:064x}" for number in range(1, 31)]
    for below, above in pairwise(ids):
        parcel.tree.children.append(ObjectTree(object_id=above, children=[ObjectTree(object_id=below)] * 20))
    received.site.push(parcel)


def is_late_of_an_odd_round(group: str) -> Behaviour:
    def behave(received: Received) -> None:
        received.answer(good_reply(received.task, known("evil")), reply_to_message_id="ab" * 32, group_id=group)

    return behave


OBJECTS: dict[str, Behaviour] = {
    "NOMESSAGE": is_no_message,
    "NOTHING": refers_to_nothing,
    "GARBAGE": is_garbage_inside,
    "HALF": is_half_here,
    "FORGED": speaks_for_another,
    "CLAIMS": claims_too_much,
    "AGAIN": claims_itself_over_and_over,
    "SQUARED": is_late_of_an_odd_round("²"),
    "FAROFF": is_late_of_an_odd_round("9" * 30),
    "NEGATIVE": is_late_of_an_odd_round("-1"),
}


def test_replies_that_break_the_transport_s_rules_cost_their_sites_the_round_and_nobody_else(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="13", rounds__deadline_s="14")

    evil, outcomes = with_dishonest(federation, OBJECTS, 90)

    for site in OBJECTS:
        assert outcomes[site][0] in ("refused", "absent", "late"), (site, outcomes[site])
        assert outcomes[site][1], site
    assert 403 in evil["FORGED"].refusals
    assert {entry.data["site"] for entry in federation.audit("reply-accepted", round=1)} == set(HONEST)
    assert_model(federation, 1, [HONEST])


def test_the_first_of_two_replies_counts_and_one_that_is_here_counts_whatever_its_site_does_next(
    new_federation: NewFederation,
) -> None:
    federation = new_federation(rounds__count="1", rounds__gather_s="7", rounds__deadline_s="8")
    odd: dict[str, Behaviour] = {"TWICE": replies_twice, "LEAVES": leaves_at_once, "EXPIRES": has_no_time}

    _, outcomes = with_dishonest(federation, odd, 60)

    assert outcomes == dict.fromkeys((*HONEST, *odd), ("answered", None))
    task = train_task(federation.start()).model_copy(update={"round": 1})
    changes = [(known(site), cases) for site, cases in HONEST.items()] + [
        (known(name), 10) for name in ("evil", "leaves", "evil")
    ]
    total = sum(cases for _, cases in changes)
    mean = sum(change(task).flat().astype(np.float64) * (cases / total) for change, cases in changes)
    np.testing.assert_allclose(federation.model(1).flat(), federation.start().flat() + mean, rtol=0, atol=1e-6)
