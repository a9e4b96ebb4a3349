"""Differential privacy between real processes: a hospital's ledger, the coordinator's memory of it, an earlier copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from brainunet.modelfile import read_model
from brainunet.privacy.spending import read_spending
from tests.support.federation import done, told
from tests.support.running import Federation

pytestmark = pytest.mark.slow

OWN = "\n[privacy]\npublic_cases = 5\nepsilon = 40.0\ndelta = 0.02\n"


def test_what_hospitals_spend_is_known_everywhere_and_an_earlier_copy_of_a_ledger_trains_no_more(
    tmp_path: Path, phantoms: Callable[[int], Path], new_federation: Callable[..., Federation]
) -> None:
    federation = new_federation(
        rounds__count="5", rounds__min_sites="1", privacy__epsilon="30.0", privacy__delta="0.01", privacy__cases_per_step="1"
    )
    for number, site in enumerate(("CRV", "NKDC"), start=1):
        home = federation.enrol(site)
        with home.settings.open("a") as settings:
            settings.write(OWN)
        federation.join(site, phantoms(number))
    server = federation.serve()

    def has_spent(site: str, round: int) -> bool:
        with federation.store() as store:
            return any(row.site == site and row.round >= round for row in store.spends())

    # both ledgers, as a backup of the whole home would: the site itself can't know that there was more
    ledgers = (federation.home("NKDC").privacy, federation.home("NKDC").ledger)
    federation.wait(lambda: has_spent("NKDC", 1), 120, "the first round")
    for ledger in ledgers:
        shutil.copy(ledger, tmp_path / ledger.name)
    federation.wait(lambda: has_spent("NKDC", 2), 120, "the second round")
    done("stop", federation.folder.path)
    federation.wait(lambda: not server.is_alive, 60, "the server ends")
    for ledger in ledgers:
        shutil.copy(tmp_path / ledger.name, ledger)

    federation.wait_completed(federation.serve(), 240)  # a server that was started anew knows the heads

    with federation.store() as store:
        reasons = {(row.site, row.outcome, row.reason) for row in store.site_rounds(federation.run_id)}
        losses = {(row.loss, row.seconds) for row in store.site_rounds(federation.run_id) if row.round <= 5}
    assert ("NKDC", "fault", "privacy_refused") in reasons
    assert ("CRV", "answered", None) in reasons
    assert losses == {(None, None)}
    assert "rolled back or replaced" in federation.home("NKDC").log.read_text()
    spends = told("privacy", federation.folder.path)["spends"]
    crv = [row for row in spends if row["site"] == "CRV"][-1]
    assert crv["epsilon"] <= 30
    assert crv["round"] == 5
    spent = read_spending(federation.home("CRV").privacy)
    assert spent is not None
    assert (spent.head, spent.epsilon(0.02)) == (crv["ledger_head"], crv["total_epsilon"])
    _, card = read_model(federation.model_file(5))
    assert card.spends["CRV"].epsilon == crv["epsilon"]
    facts = json.loads(federation.run_command("brainunet-client", "--home", federation.home("CRV").path, "--privacy", "--json"))
    assert facts["spent"]["epsilon"] == crv["total_epsilon"]
