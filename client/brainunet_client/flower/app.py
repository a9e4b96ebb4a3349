"""The ClientApp: a message in, a message out, and no exception's text between them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from brainunet.flower_records import from_records, to_records
from brainunet.records import AnyTask, Fault, Reply
from brainunet.wire import pack, unpack
from brainunet_client.faults import fault_code
from brainunet_client.site import Site

log = logging.getLogger(__name__)

Worker = Callable[[AnyTask, Site], Reply]


def client_app(open_site: Callable[[Context], Site], work: Worker) -> ClientApp:
    """A ClientApp that does every train and evaluate message with ``work`` on the site that ``open_site`` gives."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        return Message(_reply_to(message, lambda task: work(task, open_site(context))), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    return app


def _reply_to(message: Message, work: Callable[[AnyTask], Reply]) -> RecordDict:
    run, exchange = "unknown", 0
    try:
        task: AnyTask = unpack(from_records(message.content), AnyTask)
        run, exchange = task.run, task.round
        return to_records(pack(work(task)))
    except Exception as error:
        log.exception("the task of round %s failed; the coordinator is told a code only", exchange)
        return to_records(pack(Fault(run=run, round=exchange, code=fault_code(error))))
