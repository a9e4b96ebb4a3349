"""Where models come from, what was published of them, and who may fetch it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from brainunet_server.store.reader import DownloadRow, Model, ReaderRow, ReleaseRow, Run, SiteSeen


def model_table(
    models: Sequence[Model], means: Mapping[int, float | None], releases: Iterable[ReleaseRow]
) -> list[dict[str, Any]]:
    """A row for each model of a run, the latest first.

    Args:
        means: round -> mean Dice over the regions.
    """
    published: dict[tuple[str, int], list[ReleaseRow]] = {}
    for release in releases:
        published.setdefault((release.run_id, release.round), []).append(release)
    return [
        {
            "round": model.round,
            "made_at": model.made_at,
            "digest": model.digest,
            "n_bytes": model.n_bytes,
            "on_disk": model.removed_at is None,
            "mean_dice": means.get(model.round),
            "releases": ", ".join(sorted(_told(release) for release in of)),
            "withdrawn": bool(of) and all(release.withdrawn_at for release in of),
        }
        for model in sorted(models, key=lambda model: -model.round)
        for of in (published.get((model.run_id, model.round), ()),)
    ]


def _told(release: ReleaseRow) -> str:
    return f"{release.name} (withdrawn)" if release.withdrawn_at else release.name


def lineage(runs: Sequence[Run], models: Mapping[str, Sequence[Model]], releases: Sequence[ReleaseRow]) -> list[dict[str, Any]]:
    """A row for each run, the oldest first: with which model it began, and what was published of it.

    A run's first model is known by the digest of its weights: a release's, another run's, or one from elsewhere.
    """
    rows = []
    for run in runs:
        own = {model.round: model for model in models.get(run.id, ())}
        rows.append(
            {
                "run": run.id,
                "kind": run.kind,
                "began_with": _origin(run, own[0].digest, runs, models, releases) if 0 in own else None,
                "start_digest": own[0].digest if 0 in own else None,
                "rounds": max(own, default=0),
                "releases": [_told(release) for release in reversed(releases) if release.run_id == run.id],
            }
        )
    return rows


def _origin(
    run: Run, digest: str, runs: Sequence[Run], models: Mapping[str, Sequence[Model]], releases: Sequence[ReleaseRow]
) -> str:
    for release in releases:
        if release.weights_sha256 == digest and release.run_id != run.id:
            return f"release {release.name}"
    for other in runs:
        for model in models.get(other.id, ()):
            if model.digest == digest and model.round and other.id != run.id:
                return f"round {model.round} of {other.id}"
    return "a model from outside of this store"


def release_table(
    releases: Iterable[ReleaseRow], downloads: Iterable[DownloadRow], means: Mapping[tuple[str, int], float | None]
) -> list[dict[str, Any]]:
    """A row for each release, the newest first.

    Args:
        means: (run, round) -> mean Dice over the regions.
    """
    whole: dict[str, int] = {}
    for download in downloads:
        whole[download.release] = whole.get(download.release, 0) + download.whole
    return [
        {
            "name": release.name,
            "run": release.run_id,
            "round": release.round,
            "published_at": release.published_at,
            "mean_dice": means.get((release.run_id, release.round)),
            "n_bytes": release.n_bytes,
            "downloads": whole.get(release.name, 0),
            "state": f"withdrawn: {release.withdrawn_reason}" if release.withdrawn_at else "may be fetched",
            "notes": release.notes,
            "sha256": release.sha256,
        }
        for release in releases
    ]


def download_table(downloads: Sequence[DownloadRow], most: int = 500) -> list[dict[str, Any]]:
    """A row for each of the last downloads, the latest first."""
    return [
        {"at": row.at, "release": row.release, "who": row.who, "kind": row.kind, "n_bytes": row.n_bytes, "whole": row.whole}
        for row in reversed(downloads[-most:])
    ]


def who_may_pull(
    sites: Sequence[SiteSeen], readers: Sequence[ReaderRow], downloads: Iterable[DownloadRow], now: datetime
) -> list[dict[str, Any]]:
    """A row for each site and reader, sites first: whether it may fetch releases, until when, and how often it did."""
    whole: dict[tuple[str, str], int] = {}
    for row in downloads:
        whole[row.kind, row.who] = whole.get((row.kind, row.who), 0) + row.whole
    rows = [
        {
            "who": site.name,
            "kind": "site",
            "may": site.state != "revoked" and _not_yet(site.certificate_expires_at, now),
            "until": site.certificate_expires_at,
            "why_not": _why_not(
                site.revoked_at if site.state == "revoked" else None, site.certificate_expires_at, now, "certificate"
            )
            or ("revoked" if site.state == "revoked" else ""),
            "downloads": whole.get(("site", site.name), 0),
        }
        for site in sites
    ]
    rows += [
        {
            "who": reader.name,
            "kind": "reader",
            "may": reader.revoked_at is None and _not_yet(reader.expires_at, now),
            "until": reader.expires_at,
            "why_not": _why_not(reader.revoked_at, reader.expires_at, now, "pass"),
            "downloads": whole.get(("reader", reader.name), 0),
        }
        for reader in readers
    ]
    return rows


def _not_yet(expires: datetime | None, now: datetime) -> bool:
    return expires is None or expires > now


def _why_not(revoked: datetime | None, expires: datetime | None, now: datetime, what: str) -> str:
    if revoked is not None:
        return f"revoked on {revoked:%Y-%m-%d}"
    return "" if _not_yet(expires, now) else f"its {what} expired on {expires:%Y-%m-%d}"
