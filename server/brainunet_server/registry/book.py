"""What was fetched, written down: each download in the store, and those that came to their end in the audit trail too."""

from __future__ import annotations

from pathlib import Path

from brainunet import chain
from brainunet.errors import BrainUNetError
from brainunet_server.record import say
from brainunet_server.store.rows import DownloadRow
from brainunet_server.store.writer import StoreWriter


class Book:
    """Its calls may block, and may come from several threads.

    Args:
        store: of the federation.
        audit: its audit trail.
    """

    def __init__(self, store: StoreWriter, audit: Path) -> None:
        self._store, self._audit = store, audit

    def note(self, download: DownloadRow, sha256: str) -> None:
        """Write a download down; a disk or database that fails is said, and takes no model from anybody."""
        who = f"{download.kind} {download.who}"
        how = "has fetched" if download.whole else "has fetched a part of"
        say(f"{who} {how} {download.release} ({download.n_bytes / 1e6:.1f} MB)")
        if download.whole:
            self._audited(download, sha256, who)
        try:
            self._store.add_download(download)
        except BrainUNetError as error:
            say(f"a download by {who} could not be counted: {error}")

    def _audited(self, download: DownloadRow, sha256: str, who: str) -> None:
        facts: dict[str, chain.JSON] = {
            "release": download.release,
            "sha256": sha256,
            download.kind: download.who,
            "bytes": download.n_bytes,
        }
        try:
            chain.append(self._audit, "model-downloaded", facts, at=download.at)
        except BrainUNetError as error:
            say(f"a download by {who} is not in the audit trail: {error}")
