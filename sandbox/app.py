"""The ASGI application: three APIs, each under its own path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, Router

from sandbox.front import Front
from sandbox.getscreen.api import GetscreenApi
from sandbox.posthog.api import PosthogApi
from sandbox.screendesk.api import ScreendeskApi

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from sandbox.world import World

BASE_PATHS = {"screendesk": "/screendesk/api/v2", "getscreen": "/getscreen/v1", "posthog": "/posthog"}


def create_app(world: World) -> Starlette:
    """Serve a world. Mount it with httpx's ASGITransport, or on a port with `SandboxServer`."""
    screendesk, getscreen, posthog = ScreendeskApi(world), GetscreenApi(world), PosthogApi(world)
    return Starlette(
        routes=[
            Route("/", _index),
            Mount(BASE_PATHS["screendesk"], _router(screendesk.routes(), screendesk.refuse)),
            Mount(BASE_PATHS["getscreen"], _router(getscreen.routes(), getscreen.refuse)),
            Mount(BASE_PATHS["posthog"], _router(posthog.routes(), posthog.refuse)),
        ],
        middleware=[Middleware(Front, world=world)],
    )


async def _index(request: Request) -> Response:
    base = str(request.base_url).rstrip("/")
    return JSONResponse(
        {
            "what": "deskhouse sandbox: made-up data behind the APIs of three support tools",
            "base_urls": {vendor: base + path for vendor, path in BASE_PATHS.items()},
        }
    )


def _router(routes: list[Route], refuse: Callable[[Request], Response]) -> ASGIApp:
    """A router whose every dead end is the vendor's own refusal."""

    async def dead_end(scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(Request(scope))(scope, receive, send)

    return Router(routes=routes, redirect_slashes=False, default=dead_end)
