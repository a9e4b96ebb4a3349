"""What was published is listed with its figures, and withdrawn with a reason; its name is never used again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainunet_server.federation import Folder
from brainunet_server.store.rows import DownloadRow
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told
from tests.support.store import NOON


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_models_lists_the_releases_with_figures_and_downloads(trained: Path) -> None:
    assert "nothing is published; next: flower-server publish" in done("models", trained)
    done("publish", trained, "--round", "1", "--name", "africa-1")
    done("publish", trained, "--round", "3", "--name", "africa-2")
    with StoreWriter(Folder(trained).store) as store:
        store.add_download(DownloadRow(release="africa-1", who="lagos", kind="site", at=NOON, n_bytes=9, whole=True))
        store.add_download(DownloadRow(release="africa-1", who="ann", kind="reader", at=NOON, n_bytes=4, whole=False))

    rows = {row["name"]: row for row in told("models", trained)}

    assert rows["africa-1"]["downloads"] == 1
    assert rows["africa-1"]["mean_wt_dice"] == pytest.approx(0.7)
    assert rows["africa-1"]["worst_site"] == {"site": "boston", "wt_dice": pytest.approx(0.65)}
    assert rows["africa-2"]["downloads"] == 0
    shown = done("models", trained)
    assert "africa-2" in shown
    assert "withdrawn" not in shown


@pytest.mark.usefixtures("_narrow")
def test_a_narrow_terminal_takes_nothing_from_a_name(trained: Path) -> None:
    name = "africa-2026.1-for-scanners-of-1.5-tesla"
    done("publish", trained, "--round", "1", "--name", name)

    letters = "".join(re.findall(r"^│ (\S+)", done("models", trained), re.MULTILINE))
    assert letters == name


def test_a_withdrawn_release_says_why_and_its_name_is_never_used_again(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "africa-1")

    done("withdraw", trained, "africa-1", "--reason", "worse at one site")

    [row] = told("models", trained)
    assert row["withdrawn_reason"] == "worse at one site"
    assert "worse at" in done("models", trained)
    assert kinds(trained)[-1] == "model-withdrawn"
    assert "withdrawn on" in refused(4, "withdraw", trained, "africa-1", "--reason", "again")
    assert "no release of this name" in refused(4, "withdraw", trained, "africa-9", "--reason", "x")
    assert "--reason" in refused(2, "withdraw", trained, "africa-1", "--reason", " ")
    assert "a release of this name" in refused(4, "publish", trained, "--round", "2", "--name", "africa-1")
