"""A call that is not answered: the status that programs read, and the sentence that people do."""

from __future__ import annotations

import grpc


class Refused(Exception):
    """
    Attributes:
        status: gRPC's.
        words: a sentence of ours that says what to do; names, but nothing of a stranger's making.
        wait_s: after how long asking again may help; None if it won't.
    """

    def __init__(self, status: grpc.StatusCode, words: str, wait_s: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.wait_s = status, words, wait_s


def please_wait(words: str, wait_s: int) -> Refused:
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, words, wait_s)
