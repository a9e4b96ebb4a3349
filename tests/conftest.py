"""One thread for tests: on networks this small more threads wait for each other, and far longer when the machine is busy."""

from __future__ import annotations

import os

# Before torch is imported, and passed on to the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
