"""``flower-server registry`` in a process of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Final

from tests.support.programs import Program
from tests.support.registries import Publisher
from tests.support.running import BIN

_SERVED: Final = re.compile(r"served to (sites|readers) at 127\.0\.0\.1:(\d+)")


class RegistryProcess:
    """It listens on two free ports once it is made.

    Args:
        publisher: whose models it gives out.
        program: the words before its own; another than ``flower-server`` for measurements.
    """

    def __init__(self, publisher: Publisher, program: Sequence[str] = (str(BIN / "flower-server"),)) -> None:
        command = [*program, "registry", str(publisher.folder.path), "--listen", "127.0.0.1"]
        command += ["--port", "0", "--readers-port", "0"]
        self.program = Program("registry", command, publisher.root, {})
        self.program.log.write_text("")
        ends_at = time.monotonic() + 30
        while len(found := dict(_SERVED.findall(self.program.said))) < 2:
            assert self.program.is_alive, self.program.said
            assert time.monotonic() < ends_at, self.program.said
            time.sleep(0.05)
        self.sites, self.readers = int(found["sites"]), int(found["readers"])
