"""A thread that reads list replies into columns, beside the event loop.

Replies that arrive while it is busy are read together when it is free: most of what a reading costs the interpreter is in
the call, whatever it reads. Nothing ever waits for others to arrive. A second thread makes a first load a tenth
slower, as there is always one more that waits for the interpreter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sources._columns import ColumnReader

    Reply = dict[str, Any] | None
    Waiting = tuple[ColumnReader, bytearray, asyncio.Future[Reply]]

TOGETHER_REPLIES: Final = 16
TOGETHER_BYTES: Final = 4 << 20


class ReplyReader:
    """Used in one event loop. The thread is started when it is needed."""

    def __init__(self) -> None:
        # not one of asyncio's own: their end cannot be cancelled
        self._thread = ThreadPoolExecutor(1, "json")
        self._waiting: deque[Waiting] = deque()
        self._busy = False

    async def read(self, reader: ColumnReader, body: bytearray) -> Reply:
        """What `reader.read` makes of a body."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((reader, body, future))
        self._give_out()
        return await future

    def close(self) -> None:
        """Start nothing more; what is being read is dropped when it is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()

    def _give_out(self) -> None:
        if not self._busy and (together := self._next()):
            self._busy = True
            bodies = [body for _, body, _ in together]
            done = asyncio.get_running_loop().run_in_executor(self._thread, together[0][0].read_all, bodies)
            done.add_done_callback(lambda done: self._take(done, together))

    def _next(self) -> list[Waiting]:
        """What waits longest, and what may be read together with it; nothing whose request was given up."""
        together: list[Waiting] = []
        size = 0
        while self._waiting and len(together) < TOGETHER_REPLIES:
            reader, body, future = self._waiting[0]
            if together and (reader is not together[0][0] or size + len(body) > TOGETHER_BYTES):
                break
            self._waiting.popleft()
            if not future.done():
                together.append((reader, body, future))
                size += len(body)
        return together

    def _take(self, done: asyncio.Future[list[Reply]], together: Sequence[Waiting]) -> None:
        self._busy = False
        failure = asyncio.CancelledError() if done.cancelled() else done.exception()
        replies: Sequence[Reply] = [None] * len(together) if failure else done.result()
        for (_, _, future), reply in zip(together, replies, strict=True):
            if future.done():
                continue
            if failure is None:
                future.set_result(reply)
            elif done.cancelled():
                future.cancel()
            else:
                future.set_exception(failure)
        self._give_out()
