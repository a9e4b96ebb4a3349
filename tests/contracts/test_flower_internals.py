"""What we use of Flower that its documentation does not promise: a claim for each name, so that an upgrade fails here first."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, FedYogi, MultiKrum
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True)
def _no_identity_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


def in_a_task() -> None:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def a_message(kind: str = MessageType.TRAIN) -> Message:
    in_a_task()
    return Message(RecordDict({"header": ConfigRecord({"header": "x"})}), dst_node_id=5, message_type=kind)


def a_context() -> Context:
    return Context(run_id=1, node_id=5, node_config={"site": "CRV"}, state=RecordDict(), run_config={})


def test_task_identity_is_unset_until_all_three_of_its_numbers_are_given() -> None:
    assert TaskIdentity._run_id is None
    with pytest.raises(RuntimeError, match="run_id is not set"):
        Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)

    in_a_task()

    assert (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id) == (1, 1, 1)
    Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)


def test_node_info_has_a_name_beside_its_number() -> None:
    node = NodeInfo(node_id=2**64 - 1, name="CRV", status="online")

    assert (node.node_id, node.name) == (2**64 - 1, "CRV")


def test_an_array_comes_back_as_it_went_and_never_by_pickle() -> None:
    values = np.array([0.1, -0.0, np.nan], np.float32)

    back = Array(values).numpy()

    assert back.dtype == np.float32
    assert back.tobytes() == values.tobytes()
    stored = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=b"\x80\x04\x95")
    with pytest.raises(ValueError, match="pickled"):
        stored.numpy()


def test_a_record_dict_keeps_its_three_kinds_of_record_apart() -> None:
    records = RecordDict(
        {
            "header": ConfigRecord({"header": "x"}),
            "values": ArrayRecord({"values": Array(np.zeros(2))}),
            "n": MetricRecord({"n": 1}),
        }
    )

    assert (list(records.config_records), list(records.array_records), list(records.metric_records)) == (
        ["header"],
        ["values"],
        ["n"],
    )


def test_the_kinds_of_message_are_the_decorators_of_a_client_app() -> None:
    assert (MessageType.TRAIN, MessageType.EVALUATE) == ("train", "evaluate")
    app, called = ClientApp(), []

    def answer(message: Message, context: Context) -> Message:
        called.append((message.metadata.message_type, context.node_config["site"]))
        return Message(RecordDict(), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        app(a_message(kind), a_context())

    assert called == [("train", "CRV"), ("evaluate", "CRV")]


def test_a_server_app_runs_its_main_when_it_is_called() -> None:
    app, called = ServerApp(), list[object]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        called.append(grid)

    grid = object()
    app(grid, a_context())  # type: ignore[arg-type] # stands for any grid

    assert called == [grid]


def test_a_reply_names_the_message_it_answers_whose_name_is_given_on_receipt() -> None:
    message = a_message()
    message.metadata.__dict__["_message_id"] = "message-1"

    reply = Message(RecordDict(), reply_to=message)

    assert message.metadata.message_id == "message-1"
    assert reply.metadata.reply_to_message_id == "message-1"
    assert not reply.has_error()


def test_a_reply_with_an_error_has_its_code_and_no_content() -> None:
    reply = Message(Error(code=7, reason="x"), reply_to=a_message())

    assert reply.has_error()
    assert reply.error.code == 7
    with pytest.raises(ValueError, match="content is None"):
        _ = reply.content


def test_one_record_dict_may_go_to_many_nodes() -> None:
    in_a_task()
    records = RecordDict({"values": ArrayRecord({"values": Array(np.zeros(2))})})

    messages = [Message(records, dst_node_id=node, message_type=MessageType.TRAIN) for node in (1, 2)]

    assert messages[0].content is messages[1].content is records


def test_a_grid_has_the_methods_that_the_local_one_writes() -> None:
    assert Grid.__abstractmethods__ == {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }
    assert callable(Grid.get_nodes)
    assert inspect.isclass(Run)


def replies_of(*sites: tuple[Sequence[float], float]) -> list[Message]:
    """Replies made by hand: the values of each site's one array, and its number of cases."""
    in_a_task()
    return [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"arrays": Array(np.array(values, np.float32))}),
                    "metrics": MetricRecord({"num-examples": cases}),
                }
            ),
            dst_node_id=0,
            message_type=MessageType.TRAIN,
        )
        for values, cases in sites
    ]


def made_by(strategy: FedAvg, exchange: int, *sites: tuple[Sequence[float], float]) -> list[float]:
    arrays, _ = strategy.aggregate_train(exchange, replies_of(*sites))
    assert arrays is not None
    values: list[float] = arrays["arrays"].numpy().tolist()
    return values


OURS: dict[str, Any] = {"fraction_evaluate": 0.0, "weighted_by_key": "num-examples", "arrayrecord_key": "arrays"}


@pytest.mark.parametrize("kind", [FedAvg, FedProx])
def test_a_strategy_takes_replies_made_by_hand_and_names_its_arrays_as_they_were(kind: type[FedAvg]) -> None:
    assert made_by(kind(**OURS), 1, ([1.0], 3.0), ([5.0], 1.0)) == [2.0]  # (3 * 1 + 1 * 5) / 4


@pytest.mark.parametrize("kind", [FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedMedian, FedTrimmedAvg, MultiKrum])
def test_every_strategy_takes_our_three_settings_by_name(kind: type[FedAvg]) -> None:
    strategy = kind(**OURS)

    assert {name: getattr(strategy, name) for name in OURS} == OURS


class TwoNodes:
    def get_node_ids(self) -> list[int]:
        return [1, 2]


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_adaptive_strategies_keep_the_model_sent_as_arrays_by_name_and_two_moments(kind: type[FedAdam] | type[FedYogi]) -> None:
    strategy = kind(**OURS, eta=0.5, beta_1=0.5, beta_2=0.75, tau=1.0)
    assert (strategy.current_arrays, strategy.m_t, strategy.v_t) == (None, None, None)
    in_a_task()

    sent = ArrayRecord({"arrays": Array(np.array([1.0, 2.0], np.float32))})
    strategy.configure_train(1, sent, ConfigRecord(), TwoNodes())  # type: ignore[arg-type] # all of a grid that it asks
    assert strategy.current_arrays is not None
    assert {name: array.tolist() for name, array in strategy.current_arrays.items()} == {"arrays": [1.0, 2.0]}
    made_by(strategy, 1, ([3.0, 2.0], 1.0))

    assert strategy.m_t is not None
    assert strategy.v_t is not None
    assert (strategy.m_t["arrays"].tolist(), strategy.v_t["arrays"].tolist()) == ([1.0, 0.0], [1.0, 0.0])
    assert {moment["arrays"].dtype for moment in (strategy.m_t, strategy.v_t)} == {np.dtype(np.float32)}


def test_fedadam_corrects_its_rate_as_if_it_were_one_round_further() -> None:
    strategy = FedAdam(**OURS, eta=1.0, beta_1=0.5, beta_2=0.5, tau=1.0)
    strategy.current_arrays = {"arrays": np.zeros(1, np.float32)}

    made = made_by(strategy, 1, ([2.0], 1.0))

    assert made == pytest.approx([np.sqrt(1 - 0.5**2) / (1 - 0.5**2) * 1.0 / (np.sqrt(2.0) + 1.0)])


def test_fedavgm_keeps_its_momentum_as_a_list_of_arrays_with_the_sign_of_a_gradient() -> None:
    strategy = FedAvgM(**OURS, server_learning_rate=0.5, server_momentum=0.5)
    assert (strategy.current_arrays, strategy.momentum_vector) == (None, None)
    assert strategy.server_opt

    for exchange in (1, 2):
        strategy.current_arrays = ArrayRecord({"arrays": Array(np.array([1.0], np.float32))})
        made = made_by(strategy, exchange, ([3.0], 1.0))

    assert strategy.momentum_vector is not None
    assert [array.tolist() for array in strategy.momentum_vector] == [[-3.0]]  # 0.5 * -2 - 2
    assert strategy.momentum_vector[0].dtype == np.float32
    assert made == [2.5]  # 1 + 0.5 * 3


def test_the_comparing_strategies_take_their_numbers_by_name() -> None:
    sites = [([value], 1.0) for value in (0.0, 1.0, 2.0, 3.0, 100.0)]

    assert made_by(FedMedian(**OURS), 1, *sites) == [2.0]
    assert made_by(FedTrimmedAvg(**OURS, beta=0.2), 1, *sites) == [2.0]
    krum = MultiKrum(**OURS, num_malicious_nodes=1)
    krum.num_nodes_to_select = 2  # may be changed between two rounds
    assert made_by(krum, 1, *sites) == [1.5]


def test_fedprox_takes_its_mu_by_name() -> None:
    assert FedProx(proximal_mu=0.25).proximal_mu == 0.25


def test_all_bytes_of_a_message_can_be_looked_through() -> None:
    """Our tests search them for a patient's name; a name that is there must be found."""
    message = a_message()
    message.content["values"] = ArrayRecord({"values": Array(np.frombuffer(b"Jane Doe", np.uint8))})
    message.content["header"] = ConfigRecord({"header": "John Roe"})

    stored = b"".join(part.deflate() for part in get_all_nested_objects(message).values())

    assert b"Jane Doe" in stored
    assert b"John Roe" in stored
