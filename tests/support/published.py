"""A federation whose run of two sites is complete: plain numbers, kept as `flower-server run` keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from brainunet.config import StrategyConfig
from brainunet.signing import read_signing_key, sign_file
from brainunet_server.conduct import conduct
from brainunet_server.federation import Folder
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.keeping import Keeping
from brainunet_server.start_model import PURPOSE
from tests.support.replies import PLAN, START
from tests.support.runs import GIVEN, MADE, RUN, Dice, Sites, around

BEST_IS_1 = around(0.2, 0.7, 0.4, 0.5)


def complete_run(fed: Path, dice: Dice | None = None, *, keep_every: int = 1) -> None:
    """Three rounds in the federation's folder; without ``dice`` the best by mean is round 1."""
    folder = Folder(fed)
    key = read_signing_key(folder.signing_key)
    keeping = Keeping(
        folder.store,
        folder.models / RUN.id,
        folder.replies,
        sign=lambda path: sign_file(path, key, PURPOSE),
        keep_every=keep_every,
    )
    sites = Sites(dice=dice or BEST_IS_1)
    plan = replace(PLAN, rounds=3)
    conduct(RUN, plan, lambda: (START, GIVEN), MADE, keeping, sites, strategy_from(StrategyConfig()), lambda result: None)
