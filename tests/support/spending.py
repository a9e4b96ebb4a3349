"""A site's ledger of spending: made, looked at, and damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.privacy.accounting import Charge
from brainunet.privacy.purse import open_purse
from brainunet.privacy.spending import Spent, read_spending
from brainunet.privacy.trust import require_trusted

STEP = Charge(noise=1.5, rate=0.2)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "privacy.jsonl"


def spend(path: Path, *, run: str = "glioma-1", round: int = 1, steps: int = 3, at: datetime = NOON) -> Spent:
    with open_purse(path, site="lagos", cases=20, run=run, round=round, at=at) as purse:
        for _ in range(steps):
            purse.pay(STEP, at=at)
        return purse.spent


def trusted(path: Path, **changes: object) -> None:
    asked: dict[str, object] = {"site": "lagos", "cases": 20, "now": NOON, **changes}
    require_trusted(path, read_spending(path), **asked)  # type: ignore[arg-type] # what each test says


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace('"steps":1', '"steps":0', 1))


def another_log(path: Path) -> None:
    path.unlink()
    chain.append(path, "sent", {"bytes": 7})
