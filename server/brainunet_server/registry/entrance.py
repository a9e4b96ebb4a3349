"""Before every call: who calls, may they, and have they asked too often. After it: no word of an error of ours leaves."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import grpc

from brainunet.registry.agreed import RETRY_AFTER
from brainunet_server.record import say
from brainunet_server.registry.door import Caller, Door
from brainunet_server.registry.limits import Counts
from brainunet_server.registry.refusing import Refused

QUESTION_S: Final = 10.0  # patience with the question of a call that was begun
GOODBYE_S: Final = 5.0
HEALTH: Final = "/grpc.health.v1.Health/Check"  # for whoever watches the server: it tells nothing else

CALLER: ContextVar[Caller] = ContextVar("caller")  # of the call that this task answers

T = TypeVar("T")


class Entrance(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """
    Args:
        door: that knows the callers of this port.
        counts: what they have asked so far.
    """

    def __init__(self, door: Door, counts: Counts) -> None:
        self._door, self._counts = door, counts

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming:  # there is none of the latter
            return None
        serializers = (handler.request_deserializer, handler.response_serializer)
        # Each question is read here, with patience of a known length: gRPC itself would wait for it for ever.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._many(details.method, handler.unary_stream), *serializers)
        return grpc.stream_unary_rpc_method_handler(self._one(details.method, handler.unary_unary), *serializers)

    def _one(self, method: str, answer: Any) -> Any:
        async def behave(requests: AsyncIterator[Any], context: Any) -> Any:
            async def work() -> Any:
                return await answer(await self._question(method, requests, context), context)

            return await told(work, context)

        return behave

    def _many(self, method: str, answer: Any) -> Any:
        async def behave(requests: AsyncIterator[Any], context: Any) -> None:
            async def work() -> None:
                await answer(await self._question(method, requests, context), context)

            await told(work, context)

        return behave

    async def _question(self, method: str, requests: AsyncIterator[Any], context: Any) -> Any:
        if method != HEALTH:
            caller = await self._door.caller(context)
            self._counts.call(str(caller))
            CALLER.set(caller)
        try:
            return await asyncio.wait_for(anext(requests), QUESTION_S)
        except (StopAsyncIteration, TimeoutError):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a call without a question") from None


async def told(work: Callable[[], Awaitable[T]], context: Any) -> T:
    """What the work gives; what stops it is told to the caller in our words alone."""
    try:
        return await work()
    except Refused as error:
        refused = error
    except grpc.aio.AbortError:  # of the health service
        raise
    except Exception:  # noqa: BLE001 - gRPC would tell the caller what it says
        say(f"an error of the registry itself:\n{traceback.format_exc()}")
        refused = Refused(grpc.StatusCode.INTERNAL, "an error of the registry itself; tell the coordinator")
    wait = ((RETRY_AFTER, str(refused.wait_s)),) if refused.wait_s is not None else ()
    try:  # a caller who takes nothing does not take a refusal either
        await asyncio.wait_for(context.abort(refused.status, refused.words, wait), GOODBYE_S)
    except TimeoutError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort does not return")
