"""What the running process shows: set once before the server starts, read by every page."""

from __future__ import annotations

from brainunet_dashboard.source import Source

source: Source | None = None
