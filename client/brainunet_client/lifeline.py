"""A process that ends when the one that started it is gone, however that ended."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent(parent: int) -> None:
    """Watch from a thread; end at once if the parent is gone already. Call it first.

    Args:
        parent: the number of the process that started this one, as that one told it: it may have ended before this call.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
