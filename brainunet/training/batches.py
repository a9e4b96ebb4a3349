"""The batches of a training, in order: made by the training itself, or ahead of it by processes of their own.

A batch depends on the seed and its step only, so who makes it changes nothing but the time that it takes. Hence workers are no
setting of a federation: how many help is for each machine to say, and a worker that is lost, or not there yet, is made up for
by the training itself. Why processes and not threads: docs/adr/0018.
"""

from __future__ import annotations

import io
import logging
import math
import mmap
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brainunet.config import AugmentConfig, TrainConfig
from brainunet.data.augment import augment_from
from brainunet.data.patches import PatchSource, draw_batch, whole_case
from brainunet.training.seeds import derive

log = logging.getLogger(__name__)

Batch: TypeAlias = tuple[Tensor, Tensor]  # images (B, C, X, Y, Z) float32, labels (B, X, Y, Z) uint8

MAX_WORKERS: Final = 16
READY: Final = "ready"  # what a worker says once it has its recipe
AHEAD: Final = 2  # batches that each worker has in hand; a slow one (motion) is made while quick ones are used up
# The start of a worker costs some seconds of a core; below this many patches of 64^3 a training has not got them back.
WORTH_A_WORKER: Final = 200
SLOW: Final = ("affine", "motion", "ghosting", "bias", "blur", "anisotropy")  # see benchmarks/augmentation.py
LIGHT_SHARE: Final = 0.35  # as many slow changes per patch as the light preset makes need no help


@dataclass(frozen=True)
class Recipe:
    """All that a batch depends on but its step.

    Attributes:
        whole: a case as it is for each batch, in place of patches; each comes once in a turn.
    """

    sources: Sequence[PatchSource]
    config: TrainConfig
    seed: int
    whole: bool = False

    def make(self, step: int) -> Batch:
        images, labels = whole_case(self.sources[self._whose_turn(step)]) if self.whole else self._patches(step)
        return augment_from(self.config.augment)(images, labels, derive(self.seed, "augment", step))

    def _patches(self, step: int) -> Batch:
        config = self.config
        return draw_batch(
            self.sources,
            np.random.default_rng(derive(self.seed, "patches", step)),
            size=config.batch_size,
            patch=config.patch,
            foreground_probability=config.foreground_probability,
        )

    def _whose_turn(self, step: int) -> int:
        turn, place = divmod(step, len(self.sources))
        rng = np.random.default_rng(derive(self.seed, "whole", turn))
        return int(rng.permutation(len(self.sources))[place])

    @property
    def voxels(self) -> float:
        """Of a batch, on average."""
        if self.whole:
            return sum(source.voxels for source in self.sources) / len(self.sources)
        return self.config.batch_size * math.prod(self.config.patch)


def batches(
    sources: Sequence[PatchSource],
    config: TrainConfig,
    *,
    seed: int,
    start: int = 0,
    stop: int | None = None,
    workers: int | None = None,
    whole: bool = False,
) -> Generator[Batch, None, None]:
    """The batches of the steps ``start`` to ``stop`` (left out: all of ``config.steps``).

    Workers end when the iterator does: run it to its end, close it, or drop it.

    Args:
        workers: processes that make batches ahead; 0 makes each when it is asked for, None decides (:func:`workers_for`).
        whole: of whole cases, in place of patches.

    Raises:
        Exception: what the making of a batch raised, in a worker too.
    """
    stop = config.steps if stop is None else stop
    recipe = Recipe(sources, config, seed, whole)
    if workers is None:
        workers = workers_for(config, stop - start, recipe.voxels)
    if not workers:
        yield from map(recipe.make, range(start, stop))
        return
    crew: list[_Worker] = []
    try:
        for number in range(1, min(workers, MAX_WORKERS, stop - start) + 1):
            try:
                crew.append(_Worker(recipe, number))
            except OSError as error:  # no memory for it, or no more processes allowed
                log.warning("no worker %d for training patches: %s", number, error.strerror or error)
                break
        yield from _made_ahead(recipe, crew, start, stop)
    finally:
        for worker in crew:
            worker.end()


def workers_for(config: TrainConfig, steps: int, voxels: float | None = None) -> int:
    """How many workers help a training of so many steps on this machine: none or one.

    None where they would not pay (little augmentation, few patches, one core), and none where the threads or the memory of
    this process have been limited: a process beside it would go beyond what its owner allows.

    Args:
        voxels: of a batch, where they are not those of its patches.
    """
    limited = "OMP_NUM_THREADS" in os.environ or _memory_is_limited() or _cores() < 2
    patches = steps * (config.batch_size * math.prod(config.patch) if voxels is None else voxels) / 64**3
    return int(not limited and patches >= WORTH_A_WORKER and slow_changes(config.augment) > LIGHT_SHARE)


def slow_changes(augment: AugmentConfig) -> float:
    """How many of the slow augmentations a patch meets on average."""
    return sum(float(getattr(augment, f"{name}_probability")) for name in SLOW)


def _made_ahead(recipe: Recipe, crew: Sequence[_Worker], start: int, stop: int) -> Iterator[Batch]:
    given: dict[int, _Worker] = {}
    next_free = start
    for step in range(start, stop):
        if step not in given:
            next_free = max(next_free, step + 1)  # this one is ours: no worker was ready for it
        for _ in range(AHEAD):
            for worker in crew:
                if next_free < stop and worker.has_room():
                    worker.ask(next_free)
                    given[next_free] = worker
                    next_free += 1
        made = given.pop(step).wait_for(step) if step in given else None
        yield recipe.make(step) if made is None else made


# What ends a conversation: the worker has ended, or what is to be sent can't be pickled or brought back.
_LOST: Final = (EOFError, OSError, MemoryError, pickle.PickleError, AttributeError, ImportError, TypeError)


class _Worker:
    """A process that makes batches, and the thread that reads them from it as they come."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self._number, self._asked = number, set[int]()
        self._made: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]] | Exception] = {}
        self._ready, self._lost, self._n_made = False, False, 0
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # away from the terminal's group: Ctrl-C is for the training, whose end ends its workers
        apart = {"process_group": 0} if os.name == "posix" else {"creationflags": 0x200}  # CREATE_NEW_PROCESS_GROUP
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "brainunet.training.batch_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            **apart,  # type: ignore[call-overload] # one of the two, by system
        )
        self._thread = threading.Thread(target=self._listen, args=(recipe,), daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        while not self._said.empty():
            self._take(self._said.get())
        return self._ready and not self._lost and len(self._asked) < AHEAD

    def ask(self, step: int) -> None:
        self._asked.add(step)
        with suppress(OSError):  # it is gone, which the thread will say
            pickle.dump(step, self._stdin)
            self._stdin.flush()

    def wait_for(self, step: int) -> Batch | None:
        """The batch of a step that it was asked for; None if the worker is lost.

        Raises:
            Exception: what went wrong with this step.
        """
        while step not in self._made and not self._lost:
            self._take(self._said.get())
        self._asked.discard(step)
        made = self._made.pop(step, None)
        if isinstance(made, Exception):
            raise made
        return None if made is None else (torch.from_numpy(made[0]), torch.from_numpy(made[1]))

    def end(self) -> None:
        """End the process whatever it is doing: it holds nothing that anyone needs."""
        log.debug("worker %d for training patches made %d batches", self._number, self._n_made)
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # of a step that it has not read
                pipe.close()

    @property
    def _stdin(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    def _listen(self, recipe: Recipe) -> None:
        assert self._process.stdout is not None
        try:
            send_recipe(recipe, self._stdin)
            self._said.put(pickle.load(self._process.stdout))
            log.debug("worker %d for training patches has begun", self._number)
            while True:
                self._said.put(pickle.load(self._process.stdout))
        except _LOST as error:
            log.debug("worker %d for training patches: %r", self._number, error)
        finally:
            self._said.put(None)  # whatever happened here, nobody waits for ever

    def _take(self, said: Any) -> None:
        if said is None:
            self._lost = True
            try:
                end = _end_in_words(self._process.wait(timeout=5))
            except subprocess.TimeoutExpired:  # it runs, and what it says can't be understood
                end = "can't be talked to"
            log.warning(
                "worker %d for training patches %s; the training makes its patches itself from here on", self._number, end
            )
        elif said == READY:
            self._ready = True
        else:
            step, made = said
            self._made[step] = made
            self._n_made += 1


def _end_in_words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely because memory ran out"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def send_recipe(recipe: Recipe, pipe: IO[bytes]) -> None:
    """Write a recipe for a worker. Arrays that are mapped from a file go as its name: every process then shares their pages.

    Raises:
        OSError: the worker is gone.
    """
    content = io.BytesIO()
    _MappedByName(content, protocol=5).dump(recipe)
    pickle.dump(content.getbuffer().nbytes, pipe)
    pipe.write(content.getbuffer())
    pipe.flush()


class _MappedByName(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        # only the whole of a mapped file knows where in it it lies; a part of one is copied
        if type(value) is np.memmap and isinstance(value.base, mmap.mmap) and value.flags.c_contiguous:
            return np.memmap, (value.filename, value.dtype, "r", value.offset, value.shape)
        return NotImplemented


def _memory_is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
