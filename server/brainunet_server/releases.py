"""The models that were published, as the store tells of them: found by name, listed with their figures, withdrawn."""

from __future__ import annotations

from typing import Any

from brainunet.chain import append
from brainunet.errors import ConfigError, UsageError
from brainunet.metrics.summary import federation_mean, worst_site
from brainunet_server.federation import Folder, read_settings
from brainunet_server.roster import changing
from brainunet_server.running import database_of
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.rows import ReleaseRow
from brainunet_server.store.writer import StoreWriter


def withdraw(folder: Folder, name: str, reason: str, *, database: str | None = None) -> None:
    """Give a release to nobody any more, and tell those who ask why.

    Raises:
        ConfigError: no such release, or one that was withdrawn before.
        UsageError: no reason.
        BrainUNetError: something can't be written.
    """
    reason = reason.strip()
    if not (0 < len(reason) <= 200 and reason.isprintable()):
        raise UsageError("--reason", found=repr(reason[:40]), expected="1 to 200 characters in one line", remedy="say why")
    config = read_settings(folder)
    where = database_of(folder, config, database)
    with changing(folder.published), StoreWriter(where) as store, StoreReader(where) as reader:
        release = release_of(reader, folder, name)
        if release.withdrawn_at is not None:
            raise ConfigError(
                f"release {name}",
                found=f"withdrawn on {release.withdrawn_at:%Y-%m-%d} ({release.withdrawn_reason})",
                expected="a release that is not withdrawn",
            )
        append(folder.audit, "model-withdrawn", {"release": name, "sha256": release.sha256, "reason": reason})
        store.withdraw_release(name, reason)


def release_of(reader: StoreReader, folder: Folder, name: str) -> ReleaseRow:
    """The release of this name.

    Raises:
        ConfigError: there is none.
    """
    there = reader.releases()
    for release in there:
        if release.name == name:
            return release
    raise ConfigError(
        f"release {name[:64]!r}",
        found="no release of this name",
        expected=f"one of {', '.join(release.name for release in there[:10])}" if there else "one that was published",
        remedy=f"see them: flower-server models {folder.path}",
    )


def release_facts(reader: StoreReader) -> list[dict[str, Any]]:
    """For each release, the newest first: its row, whole downloads, mean whole-tumour Dice and the site it serves worst."""
    counts = reader.download_counts()
    facts = []
    for release in reader.releases():
        scores = site_scores(reader.scores(release.run_id, release.round - 1, metric="dice")).get(release.round, {})
        worst = worst_site(scores).get("WT")
        facts.append(
            {
                "name": release.name,
                "run": release.run_id,
                "round": release.round,
                "bytes": release.n_bytes,
                "sha256": release.sha256,
                "notes": release.notes,
                "mean_wt_dice": federation_mean(scores.values()).get("WT"),
                "worst_site": {"site": worst.site, "wt_dice": worst.value} if worst else None,
                "published_at": release.published_at,
                "downloads": counts.get(release.name, 0),
                "withdrawn_at": release.withdrawn_at,
                "withdrawn_reason": release.withdrawn_reason,
            }
        )
    return facts
