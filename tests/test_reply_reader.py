"""Replies read beside the event loop: each gets its own answer, whatever becomes of those it is read with."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import _reply_reader
from sources._reply_reader import ReplyReader


class Echo:
    """Stands for a `ColumnReader`: says what it was given, when it is let."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.calls: list[list[bytes]] = []

    def read_all(self, bodies: list[bytearray]) -> list[dict[str, Any] | None]:
        self.calls.append([bytes(body) for body in bodies])
        assert self.may_go_on.wait(10)
        if bytearray(b"bad") in bodies:
            raise MemoryError
        return [{"body": bytes(body), "by": self} if body != b"odd" else None for body in bodies]


async def begun(reader: ReplyReader, echo: Echo, bodies: list[bytes]) -> list[asyncio.Task[Any]]:
    tasks = []
    for body in bodies:
        tasks.append(asyncio.ensure_future(reader.read(echo, bytearray(body))))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    return tasks


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3 << 20), min_size=1, max_size=40),
    readers=st.lists(st.integers(0, 1), min_size=40, max_size=40),
    given_up=st.sets(st.integers(0, 39)),
)
def test_each_gets_its_own_answer(sizes: list[int], readers: list[int], given_up: set[int]) -> None:
    """A page given the records of another, or one that waits for ever, as the one it was to be read with was given up."""

    async def scene() -> None:
        reader, echoes = ReplyReader(), [Echo(), Echo()]
        bodies = [f"{n} ".encode() + bytes(size) for n, size in enumerate(sizes)]
        tasks = [(await begun(reader, echoes[which], [body]))[0] for body, which in zip(bodies, readers, strict=False)]
        for n in given_up & set(range(len(tasks))):
            tasks[n].cancel()
        for echo in echoes:
            echo.may_go_on.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        for n, (body, answer) in enumerate(zip(bodies, found, strict=True)):
            wanted = {"body": body, "by": echoes[readers[n]]}
            assert isinstance(answer, asyncio.CancelledError) if n in given_up else answer == wanted
        for call in (call for echo in echoes for call in echo.calls):
            assert len(call) <= _reply_reader.TOGETHER_REPLIES
            assert len(call) == 1 or sum(map(len, call)) <= _reply_reader.TOGETHER_BYTES
        reader.close()

    asyncio.run(scene())


def test_what_arrives_while_the_thread_is_busy_is_read_together() -> None:
    """Else each page costs a call of its own, which nothing but a clock would show."""

    async def scene() -> None:
        reader, echo = ReplyReader(), Echo()
        tasks = await begun(reader, echo, [b"1", b"2", b"odd", b"4"])
        echo.may_go_on.set()
        answers = await asyncio.gather(*tasks)
        assert [answer and answer["body"] for answer in answers] == [b"1", b"2", None, b"4"]
        assert echo.calls == [[b"1"], [b"2", b"odd", b"4"]]
        reader.close()

    asyncio.run(scene())


def test_a_failure_is_told_to_all_that_were_read_with_it_and_to_none_that_come_later() -> None:
    """A request that hears of no failure waits until the run's end."""

    async def scene() -> None:
        reader, echo = ReplyReader(), Echo()
        tasks = await begun(reader, echo, [b"1", b"2", b"bad"])
        echo.may_go_on.set()
        assert (await tasks[0])["body"] == b"1"
        for task in tasks[1:]:
            with pytest.raises(MemoryError):
                await task
        (later,) = await begun(reader, echo, [b"5"])
        assert (await later)["body"] == b"5"
        reader.close()

    asyncio.run(scene())
