"""Calls that end by themselves, whatever becomes of who asked."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Finishing(Protocol):
    """Holds its running calls, so that it can wait for them at its end."""

    calls: set[asyncio.Task[Any]]


S = TypeVar("S", bound=Finishing)


def finished(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Lets the method go on when its caller is cancelled.

    Cut off in the middle, a driver may leave a transaction open on a connection that nobody holds any more: on SQLite that
    is the one write lock. A call is short and has its own time limits, so it is let run to its end.
    """

    @wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.get_running_loop().create_task(method(self, *args, **kwargs))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        # Read here once: with its caller gone, nobody else would, and the loop would complain.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    return call
