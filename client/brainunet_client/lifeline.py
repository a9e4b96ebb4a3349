"""A process that ends when the one that started it is gone, however that ended."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent() -> None:
    """Watch from a thread; call it first, while the parent is certainly there."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
