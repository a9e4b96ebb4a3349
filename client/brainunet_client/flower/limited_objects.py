"""How much a server may put into the node's memory: Flower takes any number of objects of any size, before anybody looks.

A task comes as a tree of objects, the pieces of its weights among them. What is refused here is dropped, and its memory freed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import httpx
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

from brainunet.wire import MAX_WEIGHTS_BYTES

MOST_OBJECTS: Final = 2_100  # the largest weights come in 1,908 pieces of a MiB; the rest of a message is a few objects
MOST_BYTES: Final = MAX_WEIGHTS_BYTES + 10_000_000
MOST_RESPONSE_BYTES: Final = 10_000_000  # one object, or the tree of a message


class Refused(ValueError):
    """More than a message of this protocol can be."""


class LimitedObjectStore(InMemoryObjectStore):
    """Holds one message at a time, a task or its reply, and refuses what no such message needs."""

    def __init__(self, most_objects: int = MOST_OBJECTS, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._most_objects, self._most_bytes = most_objects, most_bytes

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Flower's own, of so many objects, those that are here included.

        Raises:
            Refused: more, of which none is registered; or an id that is none.
        """
        with self.lock_store:
            room = self._most_objects - len(self.store)
            if len(list(islice(iterate_object_tree(object_tree), room + 1))) > room:
                raise Refused(f"a message of more than {room} objects; {self._most_objects} are allowed in all")
            try:
                return super().preregister(run_id, object_tree)
            except ValueError:
                raise Refused("an object under a name that is no digest") from None

    def put(self, object_id: str, object_content: bytes) -> None:
        """Flower's own, of so many bytes, those that are here included.

        Raises:
            Refused: more; nothing of the message is kept.
            ValueError: content of another id.
        """
        with self.lock_store:
            held = sum(len(entry.content) for other, entry in self.store.items() if other != object_id)
            if held + len(object_content) > self._most_bytes:
                self.clear()  # Flower would delete what the message's tree says, which a hostile one does not say
                raise Refused(f"objects of more than {self._most_bytes} bytes")
            super().put(object_id, object_content)


def pull_limited(
    object_ids: list[str], pull_object_fn: Callable[[str], bytes], *, most_bytes: int = MOST_BYTES, **named: Any
) -> dict[str, bytes]:
    """Flower's ``pull_objects``, which holds all objects in memory before the first of them is put into the store.

    Raises:
        Refused: more than ``most_bytes`` came; what had come is dropped.
    """
    lock, pulled = threading.Lock(), 0

    def pull(object_id: str) -> bytes:
        nonlocal pulled
        content = pull_object_fn(object_id)
        with lock:
            pulled += len(content)
            if pulled > most_bytes:
                raise Refused(f"objects of more than {most_bytes} bytes")
        return content

    return pull_objects(object_ids, pull, **named)


def limit_responses(client: httpx.Client, most_bytes: int = MOST_RESPONSE_BYTES) -> None:
    """Make reading a response of more than ``most_bytes``, or a compressed one, raise :class:`Refused`."""

    def limit(response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Refused("a compressed response, which nobody asked for")  # it may grow to a thousand times its size
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _LimitedStream(response.stream, most_bytes)

    client.headers["accept-encoding"] = "identity"
    client.event_hooks["response"].append(limit)


class _LimitedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, most_bytes: int) -> None:
        self._stream, self._most_bytes = stream, most_bytes

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for piece in self._stream:
            read += len(piece)
            if read > self._most_bytes:
                raise Refused(f"a response of more than {self._most_bytes} bytes")
            yield piece

    def close(self) -> None:
        self._stream.close()
