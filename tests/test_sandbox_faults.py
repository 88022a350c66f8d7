"""The switchboard over real sockets, the server's life, and what the request log keeps."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox.app import create_app
from sandbox.credentials import GETSCREEN_KEY, POSTHOG_KEY, SCREENDESK_TOKEN
from sandbox.faults import Fault
from sandbox.server import SandboxServer
from sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENDESK = {"Authorization": f"Bearer {SCREENDESK_TOKEN}"}
RECORDINGS = "/screendesk/api/v2/recordings"
MEETINGS = "/posthog/api/projects/4242/desktop_recordings/"
HISTORY = "/getscreen/v1/history/list"
HEADERS = SCREENDESK | {"X-Api-Key": GETSCREEN_KEY}


@pytest.fixture
def world() -> World:
    return World(recordings=30, connections=10, meetings=5)


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with SandboxServer(world) as server, httpx.Client(base_url=server.url, headers=HEADERS, timeout=5) as client:
        yield client


def get(client: httpx.Client, path: str) -> httpx.Response:
    key = POSTHOG_KEY if path.startswith("/posthog") else SCREENDESK_TOKEN
    return client.get(path, headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (RECORDINGS, 503, {"error": {"message": "Internal Server Error", "code": 503}}),
        (RECORDINGS, 429, {"error": "Too many requests"}),
        (HISTORY, 402, {"error": {"code": 402, "message": "The request limit of your plan is exceeded"}}),
        (
            MEETINGS,
            500,
            {"type": "server_error", "code": "error", "detail": "A server error occurred.", "attr": None},
        ),
    ],
)
def test_status_answers_with_the_vendors_own_body_and_then_recovers(
    world: World, client: httpx.Client, path: str, status: int, body: dict[str, Any]
) -> None:
    world.faults.add(Fault("status", status=status))
    reply = get(client, path)
    assert (reply.status_code, reply.json()) == (status, body)
    assert get(client, path).status_code == 200
    assert [entry.status for entry in world.requests] == [status, 200]


def test_retry_after_is_sent_as_given(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("status", status=429, retry_after="Fri, 20 Nov 2026 18:00:30 GMT"))
    assert get(client, RECORDINGS).headers["retry-after"] == "Fri, 20 Nov 2026 18:00:30 GMT"
    world.faults.add(Fault("status", status=429, retry_after="7"))
    assert get(client, MEETINGS).json()["detail"] == "Request was throttled. Expected available in 7 seconds."


def test_a_fault_strikes_only_what_it_is_for_and_only_so_often(world: World, client: httpx.Client) -> None:
    fault = world.faults.add(Fault("status", vendor="screendesk", path_contains="/recordings", after=1, times=2))
    asked = [RECORDINGS, HISTORY, RECORDINGS, "/screendesk/api/v2/users", RECORDINGS, RECORDINGS]
    assert [get(client, path).status_code for path in asked] == [200, 200, 503, 200, 503, 200]
    assert world.faults.struck(fault) == 2
    world.faults.add(Fault("status", query={"page": "2"}, times=None))
    asked = [RECORDINGS, f"{RECORDINGS}?page=2", f"{RECORDINGS}?page=2"]
    assert [get(client, path).status_code for path in asked] == [200, 503, 503]
    world.faults.clear()
    assert get(client, f"{RECORDINGS}?page=2").status_code == 200


@pytest.mark.parametrize("mid_body", [False, True], ids=["before the reply", "within the body"])
def test_reset_drops_the_connection(world: World, client: httpx.Client, *, mid_body: bool) -> None:
    world.faults.add(Fault("reset", mid_body=mid_body))
    with pytest.raises(httpx.TransportError):
        get(client, RECORDINGS)
    assert [entry.status for entry in world.requests] == [200 if mid_body else 0]
    assert get(client, RECORDINGS).status_code == 200


def test_slow_waits_and_a_client_may_give_up(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("slow", delay=0.15, times=2))
    began = time.monotonic()
    assert get(client, RECORDINGS).status_code == 200
    assert time.monotonic() - began >= 0.15
    with pytest.raises(httpx.ReadTimeout):
        client.get(RECORDINGS, timeout=0.05)


def test_drip_trickles_the_whole_body(world: World, client: httpx.Client) -> None:
    whole = get(client, RECORDINGS).content
    world.faults.add(Fault("drip", chunk=len(whole) // 4, delay=0.03))
    began = time.monotonic()
    assert get(client, RECORDINGS).content == whole
    assert time.monotonic() - began >= 0.12


def test_truncate_breaks_its_promised_length(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("truncate"))
    with pytest.raises(httpx.RemoteProtocolError):
        get(client, RECORDINGS)


def test_truncate_without_a_length_ends_cleanly_in_invalid_json(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("truncate", declared=False))
    reply = get(client, RECORDINGS)
    assert (reply.status_code, "content-length" in reply.headers) == (200, False)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|Invalid"):
        reply.json()


def test_bodies_that_are_not_the_promised_json(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("html"))
    login = get(client, RECORDINGS)
    assert (login.status_code, login.headers["content-type"]) == (200, "text/html; charset=utf-8")
    world.faults.add(Fault("empty"))
    assert (get(client, RECORDINGS).content, world.requests.entries[-1].status) == (b"", 200)
    world.faults.add(Fault("wrong_type"))
    mistyped = get(client, RECORDINGS)
    assert mistyped.headers["content-type"].startswith("text/html")
    assert len(mistyped.json()["records"]) == 30


def test_objects_without_a_list(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("error_object"))
    failed = get(client, HISTORY)
    assert (failed.status_code, list(failed.json())) == (200, ["error"])
    for path, left in ((RECORDINGS, ["pagination"]), (MEETINGS, ["count", "next", "previous"])):
        world.faults.add(Fault("missing_list"))
        assert list(get(client, path).json()) == left


def test_redirect_and_replace(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("redirect", to="https://elsewhere.example/login"))
    moved = get(client, RECORDINGS)
    assert (moved.status_code, moved.headers["location"]) == (302, "https://elsewhere.example/login")
    world.faults.add(Fault("replace", body=lambda body: body.replace(b'"count":30', b'"count":31')))
    assert get(client, RECORDINGS).json()["pagination"]["count"] == 31


async def _send(world: World) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world))) as client:
        await client.get("http://sandbox.test" + RECORDINGS, headers=SCREENDESK)


def test_in_process_a_dropped_connection_is_raised(world: World) -> None:
    world.faults.add(Fault("reset"))
    with pytest.raises(ConnectionResetError):
        asyncio.run(_send(world))
    assert [entry.status for entry in world.requests] == [0]


def test_the_log_says_what_was_asked_and_holds_no_secret(world: World, client: httpx.Client) -> None:
    get(client, f"{RECORDINGS}?page=1&provider=jira")
    client.get(f"{MEETINGS}?personal_api_key={POSTHOG_KEY}", headers={"Authorization": ""})
    client.post(HISTORY)
    first, second, third = world.requests.entries
    assert (first.method, first.path, first.query, first.status) == (
        "GET", RECORDINGS, {"page": "1", "provider": "jira"}, 200,
    )  # fmt: skip
    assert (first.vendor, second.vendor, third.vendor) == ("screendesk", "posthog", "getscreen")
    assert (second.status, second.query) == (200, {"personal_api_key": "<secret>"})
    assert first.at < second.at < third.at
    assert not any(secret in str(world.requests.entries) for secret in world.secrets())
    assert world.requests.count(vendor="screendesk", path_contains="/recordings") == 1
    assert world.requests.non_get() == [third]
    world.requests.clear()
    assert world.requests.entries == []


def test_the_log_counts_requests_in_flight(world: World, client: httpx.Client) -> None:
    world.faults.add(Fault("slow", delay=0.3, times=None))
    readers = [threading.Thread(target=get, args=(client, RECORDINGS)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert world.requests.peak_concurrency == 3


def test_environment_leads_to_all_three_apis(world: World) -> None:
    with SandboxServer(world) as server:
        variables = server.environment()
        assert set(variables) == {
            "SOURCES__SCREENDESK__API_TOKEN", "SOURCES__SCREENDESK__BASE_URL",
            "SOURCES__GETSCREEN__API_KEY", "SOURCES__GETSCREEN__BASE_URL",
            "SOURCES__POSTHOG__API_KEY", "SOURCES__POSTHOG__PROJECT_ID", "SOURCES__POSTHOG__BASE_URL",
        }  # fmt: skip
        index = httpx.get(server.url).json()["base_urls"]
        assert index == {vendor: variables[f"SOURCES__{vendor.upper()}__BASE_URL"] for vendor in index}
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_server_stops_while_a_client_still_holds_a_connection(world: World) -> None:
    with httpx.Client(headers=SCREENDESK) as client:
        with SandboxServer(world) as server:
            assert client.get(server.url + RECORDINGS).status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 2


def test_a_world_may_change_while_it_is_read(world: World) -> None:
    """Catches a table read outside its lock."""
    with SandboxServer(world) as server, httpx.Client(base_url=server.url, headers=SCREENDESK) as client:
        done = threading.Event()

        def change() -> None:
            while not done.is_set():
                world.screendesk.recordings.delete(world.screendesk.recordings.insert())

        changer = threading.Thread(target=change)
        changer.start()
        try:
            counts = {client.get(RECORDINGS).json()["pagination"]["count"] for _ in range(20)}
        finally:
            done.set()
            changer.join()
    assert counts <= {30, 31}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_where_it_serves_and_ends_cleanly(stop: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "--port",
        "0",
        "--recordings",
        "5",
        "--connections",
        "5",
        "--meetings",
        "2",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        lines = [process.stdout.readline() for _ in range(11)]
        variables = dict(re.findall(r"^export (\w+)=(.+)$", "".join(lines), re.MULTILINE))
        url = variables["SOURCES__SCREENDESK__BASE_URL"]
        for _ in range(100):
            try:
                reply = httpx.get(f"{url}/recordings", headers={"Authorization": f"Bearer {SCREENDESK_TOKEN}"})
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert reply.json()["pagination"]["count"] == 5
        process.send_signal(stop)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
