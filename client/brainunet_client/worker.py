"""One task in a process of its own, the only one that loads torch.

``python -m brainunet_client.worker HOME DATA REPLY --parent PID`` reads the task from the home, leaves the reply in the file
REPLY, and ends: 0 with a reply (which may be a fault), 75 if the hours in which training may run are over and its state is
saved.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from brainunet.errors import BrainUNetError, FederationError
from brainunet.records import AnyTask, Fault, FaultCode, Reply, TrainTask
from brainunet.spool import read_packed, write_packed
from brainunet.wire import pack, unpack
from brainunet_client.answering import OUTSIDE_HOURS_EXIT
from brainunet_client.faults import Stopped, fault_code, of_this_site
from brainunet_client.home import Home
from brainunet_client.lifeline import end_with_parent
from brainunet_client.site_settings import SiteSettings, may_train_at, read_site_settings, stricter
from brainunet_client.telling import tell

log = logging.getLogger(__name__)

SAY_EVERY_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("reply", type=Path)
    parser.add_argument("--seconds", type=int, help="the coordinator waits so long")
    parser.add_argument("--parent", type=int, required=True, help="the process that starts this one, which ends with it")
    given = parser.parse_args()
    home = Home(given.home)
    logging.basicConfig(filename=home.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    end_with_parent(given.parent)
    sys.exit(work(home, given.data, given.reply, given.seconds))


def work(home: Home, data: Path, reply_file: Path, seconds: int | None = None) -> int:
    """Do the kept task and keep its reply; gives the exit code."""
    ends_at = None if seconds is None else time.monotonic() + seconds
    run, exchange = "unknown", 0
    try:
        packed = read_packed(home.received)
        if packed is None:
            raise FederationError(home.received, found="no task in it", expected="the one that was received")
        task: AnyTask = unpack(packed, AnyTask)
        run, exchange = task.run, task.round
        with of_this_site():
            settings = read_site_settings(home)
        limit_to(settings)
        reply = _do(stricter(settings, task), home, data, settings, ends_at)
    except Stopped as stopped:
        if stopped.code is FaultCode.OUTSIDE_HOURS:
            tell(f"round {exchange}: stopped, the hours for training are over; it goes on when they begin again")
            return OUTSIDE_HOURS_EXIT
        reply = Fault(run=run, round=exchange, code=stopped.code)
    except Exception as error:
        log.exception("round %s could not be done; the coordinator is told a code only", exchange)
        code = fault_code(error)
        tell(f"round {exchange} could not be done: {_in_words(error, code)}")
        reply = Fault(run=run, round=exchange, code=code)
    write_packed(reply_file, pack(reply))
    return 0


def _in_words(error: Exception, code: FaultCode) -> str:
    if isinstance(error, BrainUNetError):
        return str(error)
    if code is FaultCode.OUT_OF_MEMORY:
        return (
            "not enough memory. Close other programs, raise memory_gb in site.toml, or ask the coordinator for smaller patches"
        )
    return f"{type(error).__name__}; client.log says more"


def _do(task: AnyTask, home: Home, data: Path, settings: SiteSettings, ends_at: float | None) -> Reply:
    # torch is loaded here, after the number of its threads has been settled
    from brainunet_client.opening import open_site, private_site
    from brainunet_client.tasks import do

    with of_this_site():
        site = open_site(home.path, data, task, in_earnest=True)
    site = replace(site, privacy=private_site(home, settings))
    tell(f"round {task.round}: {len(site.train)} cases to train on, {len(site.validation)} to score on")
    said = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY_S and isinstance(task, TrainTask):
            said = time.monotonic()
            tell(f"round {task.round}: step {step} of {task.train.steps}, loss {loss:.3f}")

    return do(task, site, on_step, _keep_going(task, settings, ends_at))


def _keep_going(task: AnyTask, settings: SiteSettings, ends_at: float | None) -> Callable[[], bool]:
    def keep_going() -> bool:
        if ends_at is not None and time.monotonic() >= ends_at:
            raise Stopped(FaultCode.TOO_LATE)
        return not isinstance(task, TrainTask) or may_train_at(settings, datetime.now(UTC))

    return keep_going


def limit_to(settings: SiteSettings) -> None:
    """Hold this process to the site's limits."""
    if settings.nice:
        os.nice(settings.nice)
    if settings.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(settings.threads)
    if settings.memory_gb:
        most = int(settings.memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))  # what is allocated, not what is mapped from files


if __name__ == "__main__":
    main()
