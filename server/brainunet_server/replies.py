"""The replies of one exchange on disk: written as they come, averaged when all are in.

Memory holds one update at a time however many sites there are, and a server that was killed in mid-round goes on with what
it had: the folder's name says which task the replies belong to.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from brainunet.errors import FederationError
from brainunet.records import TrainReply, TrainTask
from brainunet.spool import read_packed, write_packed
from brainunet.weights import Weights
from brainunet.wire import Packed, pack, unpack
from brainunet_server.answers import Answer

_SUFFIX = ".reply"


class Replies:
    """Those to ``task``, below ``folder``; what earlier tasks left there is removed.

    Args:
        durable: keep them through a power cut (see brainunet.spool).
    """

    def __init__(self, folder: Path, task: TrainTask, *, durable: bool = True) -> None:
        header = replace(pack(task.model_copy(update={"answer_within_s": None})), values=None).header
        key = hashlib.sha256(f"{header} {task.weights.digest if durable else ''}".encode()).hexdigest()
        self._folder, self._durable = folder / key[:16], durable
        if folder.is_dir():
            for other in set(folder.iterdir()) - {self._folder}:
                shutil.rmtree(other, ignore_errors=True)

    def keep(self, answer: Answer, reply: TrainReply) -> None:
        """Put one down.

        Raises:
            BrainUNetError: the disk is full.
        """
        write_packed(self._file(answer.site), pack(reply), durable=self._durable)

    def kept(self) -> Iterator[Answer]:
        """What an earlier process put down for this very task, by site."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            site = unquote(path.name.removesuffix(_SUFFIX))
            packed = read_packed(path)
            with suppress(FederationError):  # damaged: the site will be asked again
                if packed is not None:
                    yield Answer(site, unpack(packed, TrainReply), bytes_up=packed.n_bytes, digest=_digest(packed))

    def drop(self, site: str) -> None:
        """Forget one: the next time that this task is sent, the site is asked again."""
        self._file(site).unlink(missing_ok=True)

    def delta(self, site: str) -> Weights:
        """One site's update, mapped from the disk.

        Raises:
            FederationError: it is no longer there, or damaged.
        """
        packed = read_packed(self._file(site))
        if packed is None:
            found = "it is gone from the disk, or damaged"
            raise FederationError(f"the reply of {site}", found=found, remedy="run the round again")
        reply: TrainReply = unpack(packed, TrainReply)
        return reply.delta

    def _file(self, site: str) -> Path:
        return self._folder / f"{quote(site, safe='')}{_SUFFIX}"


def _digest(packed: Packed) -> str | None:
    return None if packed.values is None else hashlib.sha256(packed.values.data).hexdigest()
