"""A process that makes training batches: ``python -m brainunet.training.batch_worker``, started by ``batches``.

It reads a recipe from stdin and then numbers of steps, and answers each on stdout with a batch or with what went wrong. It ends
when stdin does: when the training that started it is gone, however that ended, so is it.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import IO, Any

import torch

from brainunet.errors import BrainUNetError
from brainunet.training.batches import READY


def main() -> None:
    # whatever prints, prints to stderr: stdout belongs to the batches
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        work(sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # the training is gone, maybe in the middle of a word
        os._exit(0)  # without flushing to a reader that is gone


def work(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until ``asked`` ends.

    Raises:
        EOFError, pickle.UnpicklingError: it has ended.
        BrokenPipeError: nobody reads the answers.
    """
    torch.set_num_threads(1)
    recipe = pickle.loads(asked.read(pickle.load(asked)))
    _say(READY, answers)
    while True:
        step = pickle.load(asked)
        try:
            images, labels = recipe.make(step)
            made: Any = images.numpy(), labels.numpy()  # which pickle writes without a copy
        except Exception as error:  # noqa: BLE001 # told to the training, which raises it
            made = portable(error)
        _say((step, made), answers)


def portable(error: Exception) -> Exception:
    """The error itself, or what it says where it can't be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 # whatever a class does when it is pickled
        return BrainUNetError("training patches", found=f"{type(error).__name__}: {error}")
    return error


def _say(what: Any, answers: IO[bytes]) -> None:
    pickle.dump(what, answers, protocol=5)
    answers.flush()


if __name__ == "__main__":
    main()
