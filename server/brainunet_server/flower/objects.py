"""Flower's objects (the chunks of weights that travel), their contents in files and not in memory."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store import NoObjectInStoreError


class Objects(InMemoryObjectStore):
    """Contents lie in ``folder``, one file each; ``held`` objects stay until they are let go.

    Twenty replies of a 90 MB model are 1.8 GB: too much for the coordinator's memory. What was in the folder is removed:
    the state that knew it is gone with its process.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self.held: set[str] = set()

    def put(self, object_id: str, object_content: bytes) -> None:
        """
        Raises:
            NoObjectInStoreError: nobody has announced it.
            ValueError: other bytes than its id says.
            OSError: the disk is full.
        """
        if object_id != get_object_id(object_content):
            raise ValueError(f"Object ID {object_id} does not match content hash")
        validate_object_content(content=object_content)
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None:
                raise NoObjectInStoreError(f"Object with ID '{object_id}' was not pre-registered.")
            if not entry.is_available:
                self._file(object_id).write_bytes(object_content)
                entry.is_available = True

    def get(self, object_id: str) -> bytes | None:
        """None for one that nobody has announced, empty for one that has not arrived."""
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None or not entry.is_available:
                return None if entry is None else b""
            return self._file(object_id).read_bytes()

    def delete(self, object_id: str) -> None:
        """As Flower's, but for those that are held, and without recursion: senders decide how deep their objects hang."""
        waiting = [object_id]
        with self.lock_store:
            while waiting:
                one = waiting.pop()
                entry = self.store.get(one)
                # a node confirms a task as soon as it has it, long before it has done it, and Flower deletes it then
                if entry is None or entry.ref_count > 0 or one in self.held:
                    continue
                del self.store[one]
                with suppress(OSError):
                    self._file(one).unlink()
                for run in entry.runs:
                    self.run_objects_mapping.get(run, set()).discard(one)
                for child in entry.child_object_ids:
                    if child in self.store:
                        self.store[child].ref_count -= 1
                        waiting.append(child)

    def clear(self) -> None:
        with self.lock_store:
            for object_id in self.store:
                with suppress(OSError):
                    self._file(object_id).unlink(missing_ok=True)
            super().clear()
            self.held.clear()

    def below(self, root: str) -> list[str]:
        """``root`` and all that it refers to, each once; nothing of one that is not known."""
        found: dict[str, None] = {}
        waiting = [root]
        while waiting:
            object_id = waiting.pop()
            entry = self.store.get(object_id)
            if entry is not None and object_id not in found:  # a hostile tree may name one object a thousand times
                found[object_id] = None
                waiting.extend(entry.child_object_ids)
        return list(found)

    def is_whole(self, root: str) -> bool:
        """Whether the object and all that it refers to have arrived."""
        with self.lock_store:
            ids = self.below(root)
            return bool(ids) and all(self.store[object_id].is_available for object_id in ids)

    def _file(self, object_id: str) -> Path:
        return self._folder / object_id  # 64 hexadecimal digits: Flower has checked that before it announces an object
