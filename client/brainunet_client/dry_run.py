"""What would leave the hospital, to be looked at before anything does: a task's work without the sending."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from brainunet.config import PrivacyConfig, TrainConfig
from brainunet.errors import FederationError
from brainunet.modelfile import ModelCard, read_model
from brainunet.records import AnyTask, EvaluateReply, EvaluateTask, SiteScore, TrainReply, TrainTask
from brainunet.spool import read_packed
from brainunet.starter import STARTER
from brainunet.weights import Weights
from brainunet.wire import Packed, pack, unpack
from brainunet_client.home import Home
from brainunet_client.kept_norm import kept_norm_file
from brainunet_client.opening import open_site, private_site
from brainunet_client.site import PrivateSite
from brainunet_client.site_settings import SitePrivacy, SiteSettings, read_site_settings, stricter
from brainunet_client.tasks import OnStep, do

STARTER_STEPS: Final = 5
OF_NO_RUN: Final = "dry-run"
STAYS: Final = (
    "Images, segmentations, file names, folders, case ids, the list of which cases are used, "
    "and the text of any error stay here."
)
BESIDES: Final = (
    "Flower's envelope adds numbers for the message, the run and this node, and the time; "
    "the connection shows this machine's network address."
)

log = logging.getLogger(__name__)


def dry_run(
    home: Home,
    data: Path,
    *,
    task: AnyTask | None = None,
    steps: int | None = None,
    on_step: OnStep = lambda step, loss: None,
) -> dict[str, Any]:
    """Do a task on the cases below ``data`` and tell what its reply would carry, as plain values for JSON.

    Neither a training that waits to go on nor what the site keeps for its next round is touched.

    Args:
        task: the task; None takes the last one received, and before there is one a short training of the starter model.
        steps: train so many steps instead of as many as the task says.
        on_step: told the number of steps done and the last loss.

    Returns:
        ``site``; ``task`` (source, kind, run, round); ``header`` (field -> its value, and how many bytes of the message it
        takes; the layout's value is ``shapes``); ``arrays`` (number, values, bytes, shapes); ``bytes`` in all;
        ``update_norm`` (None if nothing was trained); ``figures`` (cases, rows, whether they are withheld, and which single
        figures are); ``stays`` and ``besides``, sentences.

    Raises:
        BrainUNetError: what would make the site answer with a fault, in words (see ``open_site`` and ``tasks.do``).
    """
    settings = read_site_settings(home) if home.settings.exists() else SiteSettings()
    task, source = (task, "the task given") if task is not None else _task_at_hand(home, settings.privacy)
    if steps is not None and isinstance(task, TrainTask):
        task = task.model_copy(update={"train": task.train.model_copy(update={"steps": steps})})
    task = stricter(settings, task)
    site = open_site(home.path, data, task)
    with tempfile.TemporaryDirectory(prefix="dry-run-", dir=site.work) as work:
        with suppress(FileNotFoundError):
            shutil.copy(kept_norm_file(site, task.run), work)
        privacy = _with_ledger_in(Path(work), private_site(home, settings), copied=task.run != OF_NO_RUN)
        reply = do(task, replace(site, work=Path(work), privacy=privacy), on_step)
    return {
        "site": site.name,
        "task": {"source": source, "kind": task.kind, "run": task.run, "round": task.round},
        **_contents(pack(reply), reply),
        "stays": STAYS,
        "besides": BESIDES,
    }


def _with_ledger_in(work: Path, privacy: PrivateSite | None, *, copied: bool) -> PrivateSite | None:
    """Nothing leaves, so nothing is spent: the steps are written into a copy.

    Args:
        copied: False begins a new one, for a task that asks nothing of the budget.
    """
    if privacy is None:
        return None
    ledger = work / privacy.ledger.name
    if not copied:
        return replace(privacy, ledger=ledger, least_entries=0)
    with suppress(FileNotFoundError):
        shutil.copy(privacy.ledger, ledger)
    return replace(privacy, ledger=ledger)


def _task_at_hand(home: Home, own: SitePrivacy | None) -> tuple[AnyTask, str]:
    packed = read_packed(home.received)
    if packed is not None:
        try:
            task: AnyTask = unpack(packed, AnyTask)
            if isinstance(task, TrainTask):
                return task, "the last task received"
            # a run ends with a scoring, which sends far less than the training that the next one asks for
            told = {
                "validation": task.validation,
                "local": task.local,
                "demo": task.demo,
            }  # what is told of the scores, and what stays here
            return _training(task.weights, task, own).model_copy(update=told), "a short training of the last model received"
        except FederationError as error:
            log.warning("the last task received is left alone: %s", error)
    weights, card = read_model(STARTER)
    # which federation it will be is not known yet, so made-up cases are none of its business
    return _training(weights, card, own).model_copy(update={"demo": True}), "the starter model"


def _training(weights: Weights, of: ModelCard | EvaluateTask, own: SitePrivacy | None) -> TrainTask:
    """As short as can be, and private where the hospital allows no other."""
    privacy = None
    if own is not None:
        privacy = PrivacyConfig(epsilon=own.epsilon, delta=own.counted_at, rounds=1, cases_per_step=1)
    return TrainTask(
        run=OF_NO_RUN,
        round=1,
        model=of.model,
        preprocess=of.preprocess,
        train=TrainConfig(steps=STARTER_STEPS),
        privacy=privacy,
        seed=0,
        weights=weights,
    )


def _contents(packed: Packed, reply: TrainReply | EvaluateReply) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(packed.header)
    delta = reply.delta if isinstance(reply, TrainReply) else Weights.of({})
    return {
        "header": {
            name: {
                "value": value if name != "layout" else "the names and shapes below",
                "bytes": len(f"{json.dumps(name)}: {json.dumps(value)}".encode()),
            }
            for name, value in header.items()
        },
        "arrays": {
            "number": len(delta.names),
            "values": 0 if packed.values is None else packed.values.size,
            "bytes": 0 if packed.values is None else packed.values.nbytes,
            "shapes": {name: list(shape) for name, shape in delta.layout},
        },
        "bytes": packed.n_bytes,
        "update_norm": delta.norm if isinstance(reply, TrainReply) else None,
        "figures": figures_shown(reply.score),
    }


def figures_shown(score: SiteScore) -> dict[str, Any]:
    """The figures of a score as they leave, and the names of the single ones that too few cases have a value for."""
    return {
        "cases": score.cases,
        "withheld": score.withheld,
        "rows": [row.model_dump(mode="json") for row in score.rows],
        "withheld_rows": [f"{row.structure} {row.metric}" for row in score.rows if row.mean is None and row.n > 0],
    }
