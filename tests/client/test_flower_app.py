"""What leaves a hospital through Flower, whatever comes in and whatever goes wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainunet.data.cache import CaseCache
from brainunet.errors import UnreadableVolume
from brainunet.flower_records import from_records, to_records
from brainunet.records import AnyTask, CaseScore, Fault, FaultCode, Reply, TrainReply
from brainunet.wire import Packed, pack, unpack
from brainunet_client.faults import fault_code
from brainunet_client.flower.app import Worker, client_app
from brainunet_client.site import Site
from brainunet_client.tasks import do
from tests.support.nets import weights
from tests.support.sites import evaluate_task, made_up_site, train_task

PATIENT = "Jane_Doe-19800101"
FOLDER = f"/hospital/radiology/{PATIENT}"
SITE = Site("CRV", (), (), CaseCache(Path(FOLDER)), Path(FOLDER))


@pytest.fixture(autouse=True)
def _in_a_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def sent(records: RecordDict, kind: str = "train") -> Message:
    return Message(records, dst_node_id=5, message_type=kind)


def context() -> Context:
    return Context(run_id=1, node_id=5, node_config={"data": FOLDER}, state=RecordDict(), run_config={})


def answer(message: Message, work: Worker = do, open_site: Callable[[Context], Site] = lambda context: SITE) -> Reply:
    """The reply as the coordinator reads it, after a look through every byte of it for the patient."""
    reply = client_app(open_site, work)(message, context())
    for stored in get_all_nested_objects(reply).values():
        for word in (PATIENT.encode(), b"hospital", b"Traceback", b"Error", b".nii"):
            assert word not in stored.deflate()
    assert not reply.has_error()
    return unpack(from_records(reply.content), TrainReply | Fault)


def failing(error: BaseException) -> Worker:
    def work(task: AnyTask, site: Site) -> Reply:
        raise error

    return work


class OddError(Exception):
    """An exception that can't even be shown."""

    def __str__(self) -> str:
        raise ValueError(PATIENT)


@pytest.mark.parametrize(
    "error",
    [
        UnreadableVolume(f"{FOLDER}/t1c.nii.gz", found="0 bytes", expected="a volume"),
        FileNotFoundError(2, "No such file or directory", f"{FOLDER}/t1c.nii.gz"),
        MemoryError(PATIENT),
        AssertionError(PATIENT),
        RecursionError(PATIENT),
        ExceptionGroup(PATIENT, [ValueError(PATIENT)]),
        type(PATIENT, (Exception,), {})(PATIENT),
        OddError(PATIENT),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_no_word_of_an_exception_leaves_the_site(error: Exception, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    reply = answer(sent(to_records(pack(train_task(weights()))), kind), failing(error))

    assert isinstance(reply, Fault)
    assert (reply.run, reply.round) == ("glioma-1", 3)
    assert reply.code is fault_code(error)
    assert PATIENT in caplog.text or isinstance(error, OddError)  # the site's own log has it all


def test_a_site_that_cannot_be_opened_is_a_fault_too() -> None:
    def open_site(context: Context) -> Site:
        raise PermissionError(13, "Permission denied", FOLDER)

    reply = answer(sent(to_records(pack(train_task(weights())))), open_site=open_site)

    assert isinstance(reply, Fault)
    assert reply.code is FaultCode.INTERNAL


def test_only_replies_get_out_however_the_work_goes_wrong() -> None:
    reply = answer(
        sent(to_records(pack(train_task(weights())))),
        lambda task, site: CaseScore(PATIENT, ()),  # type: ignore[return-value, arg-type] # the mistake that is tested
    )

    assert isinstance(reply, Fault)
    assert reply.code is FaultCode.INTERNAL


def test_a_task_is_done_on_the_site_that_the_context_opens(tmp_path: Path) -> None:
    site = made_up_site(tmp_path / "elsewhere", train=1, validation=1)
    task = train_task(weights(), steps=1)

    reply = answer(sent(to_records(pack(task))), open_site=lambda context: site)

    assert isinstance(reply, TrainReply)
    assert reply.delta.digest == do(task, replace(site, work=tmp_path)).delta.digest  # type: ignore[union-attr] # a TrainReply


def npy(header: str) -> bytes:
    encoded = header.encode()
    return b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded


def an_archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, values=np.zeros(3, np.float32))
    return stream.getvalue()


GOOD = to_records(pack(train_task(weights())))
HEADER = from_records(GOOD).header
HOSTILE_ARRAYS = {
    "nothing": b"",
    "noise": b"\x00\x01\x02",
    "a pickle": b"\x80\x04\x95",
    "an archive": an_archive(),
    "half an archive": b"PK\x03\x04",
    "more than any memory": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000,), }\n"),
    "more than any number": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }\n"),
    "objects": npy("{'descr': 'O', 'fortran_order': False, 'shape': (3,), }\n"),
    "an open bracket": npy("((((((\n"),
    "too few values": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n"),
    "other names": npy("{[]: 1}\n"),
}


def with_array(array: Array) -> RecordDict:
    return RecordDict({"header": ConfigRecord({"header": HEADER}), "values": ArrayRecord({"values": array})})


def as_received(data: bytes, *, dtype: str = "float32", stype: str = "numpy.ndarray") -> Array:
    return Array(dtype=dtype, shape=(3,), stype=stype, data=data)


GARBAGE = {
    "an empty message": RecordDict(),
    "a header alone": RecordDict({"header": ConfigRecord({"header": HEADER})}),
    "a header that is a number": RecordDict({"header": ConfigRecord({"header": 7})}),
    "a header that is no JSON": RecordDict({"header": ConfigRecord({"header": "{"})}),
    "a header of lists": RecordDict({"header": ConfigRecord({"header": "[" * 100_000})}),
    "a header too long": RecordDict({"header": ConfigRecord({"header": " " * 1_000_001 + HEADER})}),
    "a header with a surrogate": RecordDict({"header": ConfigRecord({"header": '{"kind": "\ud800"}'})}),
    "another record": RecordDict({**GOOD, "extra": MetricRecord({"n": 1})}),
    "another key": RecordDict({"header": ConfigRecord({"header": HEADER, "path": FOLDER}), "values": GOOD["values"]}),
    "two arrays": RecordDict({**GOOD, "more": ArrayRecord([np.zeros(2, np.float32)])}),
    "doubles": with_array(Array(np.zeros(3))),
    "a tensor": with_array(as_received(b"", stype="torch.Tensor")),
    "a table of values": with_array(Array(np.zeros((2, 2), np.float32))),
    "too few": with_array(Array(np.zeros(3, np.float32))),
    **{f"values of {name}": with_array(as_received(data)) for name, data in HOSTILE_ARRAYS.items()},
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_task_not_understood(name: str) -> None:
    reply = answer(sent(GARBAGE[name]))

    assert isinstance(reply, Fault)
    assert reply.code is FaultCode.TASK_NOT_UNDERSTOOD
    assert (reply.run, reply.round) == ("unknown", 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(json.loads(HEADER))), value=json_values)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_task_with_any_field_replaced_is_done_or_not_understood(field: str, value: object) -> None:
    header = json.dumps({**json.loads(HEADER), field: value})
    packed = Packed(header, from_records(GOOD).values)

    def work(task: AnyTask, site: Site) -> Reply:
        return Fault(run=task.run, round=task.round, code=FaultCode.DISK_FULL)  # stands for any work

    reply = answer(sent(to_records(packed)), work)

    assert isinstance(reply, Fault)
    assert reply.code in (FaultCode.TASK_NOT_UNDERSTOOD, FaultCode.DISK_FULL)


def test_an_evaluation_is_answered_as_one(tmp_path: Path) -> None:
    site = made_up_site(tmp_path, train=1, validation=1)
    app = client_app(lambda context: site, do)

    reply = app(sent(to_records(pack(evaluate_task(weights()))), "evaluate"), context())

    assert json.loads(from_records(reply.content).header)["kind"] == "evaluate_reply"
    assert reply.metadata.message_type == "evaluate"
