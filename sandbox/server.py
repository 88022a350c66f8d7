"""Puts a world on a port, in a thread for tests or in the foreground for people."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.app import BASE_PATHS, create_app
from sandbox.front import HANG_UP
from sandbox.world import World

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from starlette.types import ASGIApp, Receive, Scope, Send

_BACKLOG = 512
_START_TIMEOUT = 10.0


class SandboxServer:
    """A world over real HTTP, for as long as the `with` block lasts. Port 0 takes a free one."""

    def __init__(self, world: World, port: int = 0, host: str = "127.0.0.1") -> None:
        self.world = world
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(_config(world))
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://{self.host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The environment variables that point a reader at this server."""
        return environment(self.world, self.url)

    def __enter__(self) -> Self:
        self._thread.start()
        for _ in range(int(_START_TIMEOUT / 0.005)):
            if self._server.started:
                return self
            self._thread.join(0.005)
            if not self._thread.is_alive():
                break
        raise RuntimeError("the sandbox server did not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def serve(self) -> None:
        """Serve in this thread until Ctrl-C or SIGTERM."""
        # uvicorn shuts down in order and then raises the signal again, here as KeyboardInterrupt in both cases
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                self._run()
        finally:
            signal.signal(signal.SIGTERM, before)
            self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def environment(world: World, url: str) -> dict[str, str]:
    """The environment variables that point a reader at a sandbox under `url`."""
    return {
        "SOURCES__SCREENDESK__API_TOKEN": world.screendesk.token,
        "SOURCES__SCREENDESK__BASE_URL": url + BASE_PATHS["screendesk"],
        "SOURCES__GETSCREEN__API_KEY": world.getscreen.token,
        "SOURCES__GETSCREEN__BASE_URL": url + BASE_PATHS["getscreen"],
        "SOURCES__POSTHOG__API_KEY": world.posthog.token,
        "SOURCES__POSTHOG__PROJECT_ID": world.posthog.project_id,
        "SOURCES__POSTHOG__BASE_URL": url + BASE_PATHS["posthog"],
    }


def serve(port: int, seed: int, recordings: int, users: int, connections: int, meetings: int) -> None:  # noqa: PLR0917
    """Serve a new world in the foreground, having said where it is and how to point a reader at it."""
    world = World(seed, recordings=recordings, users=users, connections=connections, meetings=meetings)
    server = SandboxServer(world, port)
    lines = [f"{vendor:<11} {server.url}{path}" for vendor, path in BASE_PATHS.items()]
    lines += ["", *(f"export {name}={value}" for name, value in server.environment().items())]
    print("\n".join(lines), flush=True)  # noqa: T201
    server.serve()


def _config(world: World) -> uvicorn.Config:
    transports: dict[tuple[str, int], asyncio.Transport] = {}
    return uvicorn.Config(
        _lend_connections(create_app(world), transports),
        http=_tracking(transports),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def _lend_connections(app: ASGIApp, transports: dict[tuple[str, int], asyncio.Transport]) -> ASGIApp:
    """Give the application a way to drop the connection it is answering, which ASGI itself has not."""

    async def serve_request(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            transport = transports.get(tuple(scope["client"]))

            def hang_up(abruptly: bool) -> None:  # noqa: FBT001
                if transport is None:
                    return
                if abruptly:
                    connection = transport.get_extra_info("socket")
                    # closing a socket with zero linger sends RST instead of FIN
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    transport.abort()
                else:
                    transport.close()

            scope.setdefault("extensions", {})[HANG_UP] = hang_up
        await app(scope, receive, send)

    return serve_request


def _tracking(transports: dict[tuple[str, int], asyncio.Transport]) -> type[H11Protocol]:
    class Tracked(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[transport.get_extra_info("peername")[:2]] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self.transport.get_extra_info("peername")[:2], None)
            super().connection_lost(exc)

    return Tracked
