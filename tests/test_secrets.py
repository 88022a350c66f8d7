"""Tokens go to their vendor and nowhere else: not into a file, a table, a log or a message, in no spelling."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import sys
import time
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import duckdb
import pytest
import typer
from truth import ROOTS, query

from pipelines.cli import app
from sandbox.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click
    from conftest import Desk, Finished

    from sandbox.server import SandboxServer
    from sandbox.world import World

    Serve = Callable[[World], SandboxServer]

# characters that each way of writing a URL or JSON spells in a way of its own
PLANTED = {
    "screendesk": "sd/Tok+en=7f3a\"q'x&9\\c%41z",
    "getscreen": "GS:key~8d2b#h?v;1,e<f>|w",
    "posthog": "phx_Planted!0c9e@k$5^g*(r)",
}
LIVE_ACCESS = "live-access-0d1f"


@pytest.fixture
def planted(desk: Desk, world: World, serve: Serve) -> Desk:
    """A desk whose tokens are unmistakable."""
    for vendor, token in PLANTED.items():
        getattr(world, vendor).token = token
    desk.environment = serve(world).environment()
    return desk


@cache
def spellings(secret: str) -> frozenset[bytes]:
    """A secret raw and as URLs, JSON and Python write it, in lower case."""
    percent = quote(secret, safe="")
    forms = {
        secret,
        percent,
        percent.replace("%2F", "/"),
        quote(secret),
        quote_plus(secret),
        "".join(f"%{byte:02X}" for byte in secret.encode()),
        secret.replace("\\", "\\\\").replace('"', '\\"'),
        repr(secret)[1:-1],
    }
    return frozenset(form.encode().lower() for written in forms for form in (written, written.lower()))


def found_in(data: bytes, secrets: Iterator[str] | list[str]) -> list[str]:
    lowered = data.lower()
    return [s for s in secrets if any(form in lowered for form in spellings(s))]


def unpacked(data: bytes) -> Iterator[bytes]:
    """A file's bytes, and what it says once unzipped."""
    yield data
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            yield unpack(data)
        except (OSError, EOFError, zlib.error):
            continue


def leaks(desk: Desk, outputs: list[Finished], secrets: list[str]) -> list[str]:
    """Where a secret is found: in files, in rows of databases (whose files may be compressed), in what was printed."""
    found = []
    for path in desk.root.rglob("*"):
        if found_in(str(path).encode(), secrets):
            found.append(f"name of {path}")
        if path.is_file() and not path.is_symlink():
            found += [f"{path}: {s}" for data in unpacked(path.read_bytes()) for s in found_in(data, secrets)]
            if path.suffix == ".duckdb":
                found += [f"{path}: {place}" for place in leaks_in_rows(path, secrets)]
    for output in outputs:
        found += [f"printed: {s}" for s in found_in(output.output.encode(), secrets)]
    return found


def leaks_in_rows(database: Path, secrets: list[str]) -> Iterator[str]:
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE NOT internal"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f"SELECT row_text::VARCHAR FROM {table} AS row_text").fetchall()
            yield from (f"{table}: {s}" for s in found_in("\n".join(str(row) for (row,) in rows).encode(), secrets))


def test_tokens_are_nowhere_after_a_run_with_debug_logs(planted: Desk, world: World) -> None:
    """A token in a log, in dlt's state or trace, or in the warehouse."""
    outputs = [planted.run("sync", "--log-level", "debug")]
    world.live_a_day(deletes=2)
    outputs.append(planted.run("sync", "--full", "--json", "--log-level", "debug"))
    outputs.append(planted.run("check", "--log-level", "debug"))
    outputs.append(planted.run("status"))
    assert [output.code for output in outputs] == [0, 0, 0, 0], outputs
    # without a log there is nothing to be found in it
    assert "deskhouse.http" in outputs[0].stderr
    assert len(list(planted.warehouse.rglob("*.duckdb"))) == 3
    assert leaks(planted, outputs, list(PLANTED.values())) == []


def test_the_search_itself_finds_what_is_planted(planted: Desk, world: World) -> None:
    """A search that would not notice a leak."""
    world.screendesk.recordings.update(world.screendesk.recordings.keys()[0], {"title": PLANTED["getscreen"]})
    outputs = [planted.sync()]
    (planted.warehouse / "note").write_bytes(gzip.compress(quote(PLANTED["posthog"]).encode()))
    found = leaks(planted, outputs, list(PLANTED.values()))
    assert any("screendesk.recordings" in place for place in found)
    assert any("note" in place for place in found)


def echo(token: str) -> Callable[[bytes], bytes]:
    """An error body that quotes the credential in all the ways a careless server might."""
    text = f"bad credential {token} at https://x.example/?apikey={quote(token, safe='')}&t={quote_plus(token)}"
    return lambda _: json.dumps({"error": text, "detail": {token: [token]}}).encode()


def test_vendors_that_repeat_the_token_in_their_errors_do_not_get_it_printed(planted: Desk, world: World) -> None:
    """An error body, a redirect or a broken reply that quotes the request, passed on into logs, receipts or drift."""
    planted.sync()
    outputs = []
    for echoing in (
        lambda token, body: Fault("replace", times=None, body=body),
        lambda token, body: Fault("replace", times=None, body=lambda data: body(data)[:-4]),
        lambda token, body: Fault("redirect", times=None, to=f"https://x.example/{quote(token)}?k={quote(token, safe='')}"),
        lambda token, body: Fault("redirect", times=None, to=f"https://{quote(token, safe='')}.example/"),
    ):  # fmt: skip
        for vendor, token in PLANTED.items():
            world.faults.add(replace(echoing(token, echo(token)), vendor=vendor))
        outputs.append(planted.run("sync", "--log-level", "debug"))
        world.faults.clear()
    # a true refusal, with the token in its body
    for vendor, token in PLANTED.items():
        getattr(world, vendor).token = "another"
        world.faults.add(Fault("replace", vendor=vendor, times=None, body=echo(token)))
    outputs.append(planted.run("sync", "--json", "--log-level", "debug"))
    outputs.append(planted.run("check", "--json", "--log-level", "debug"))
    assert [output.code for output in outputs] == [1] * len(outputs), outputs
    assert leaks(planted, outputs, list(PLANTED.values())) == []


def test_live_access_links_and_signed_queries_are_not_stored(sandboxed: Desk, world: World) -> None:
    """A link that lets whoever reads the warehouse into a device, a call or a video file."""
    connections, meetings = world.getscreen.connections, world.posthog.desktop_recordings
    signed = f"https://st.getscreen.example/v.mp4?apikey={LIVE_ACCESS}#{LIVE_ACCESS}"
    ids = connections.keys()
    links = dict.fromkeys(
        ("connect_url", "invite_url", "invite_code", "permanent_url", "preview_url", "client_preview_url"),
        f"https://go.example/{LIVE_ACCESS}",
    )
    connections.update(ids[0], {**links, "url": f"/{LIVE_ACCESS}", "agent.permanent_url": LIVE_ACCESS})
    connections.update(ids[1], {"client": [{"login": "a", **links, "geo": links}], "video": signed})
    connections.update(ids[2], {"sessions": {"last": [links, {"deep": links}]}, "video": {"url": signed, "size": 1}})
    connections.update(ids[3], {"id": "no key", **links})
    connections.update(ids[4], {"video": [signed], "client": links, "agent": [links]})
    connections.update(ids[5], {"video_url": signed, "videoPreview": {"url": [signed]}, "connectUrl": LIVE_ACCESS})
    meetings.update(meetings.keys()[0], {"video_url": signed, "connect_url": LIVE_ACCESS})
    people = [{"display_name": "A", **links}, links, None]
    calls = world.screendesk.recordings
    calls.update(calls.keys()[0], {"room_insights": {"participants_insights": people}, **links})
    output = sandboxed.run("sync", "--log-level", "debug")
    assert output.code == 0, output.output
    assert leaks(sandboxed, [output], [LIVE_ACCESS]) == []


def test_the_key_travels_in_a_header_of_its_own_vendor_only(planted: Desk, world: World) -> None:
    """A token in a query, where proxies log it, or sent to another vendor."""
    seen: list[tuple[str, bytes]] = []
    pick = world.faults.pick

    def listen(method: str, path: str, vendor: str, query: dict[str, str]) -> Fault | None:
        seen.append((vendor, f"{path} {query}".encode()))
        return pick(method, path, vendor, query)

    world.faults.pick = listen  # type: ignore[method-assign]
    planted.sync()
    assert {vendor for vendor, _ in seen} == {table.schema for table in ROOTS}
    assert [entry for _, entry in seen if found_in(entry, list(PLANTED.values()))] == []


def test_a_token_inside_a_record_reaches_neither_quarantine_nor_drift_nor_what_they_print(
    planted: Desk, world: World
) -> None:
    """A vendor that repeats the request in its records; what is kept aside is kept as it came, and shown on a screen."""
    token, encoded = PLANTED["screendesk"], quote(PLANTED["screendesk"], safe="")
    recordings = world.screendesk.recordings
    recordings.insert(uuid=None, title=f"GET /?key={encoded}", token=token, **{token: [token, {"deep": token}]})
    recordings.update(recordings.keys()[0], {token: "a new field"})
    outputs = [
        planted.run("sync", "--log-level", "debug"),
        planted.run("quarantine", "retry", "--log-level", "debug"),
        planted.run("quarantine", "list", "--raw"),
        planted.run("quarantine", "list", "--raw", "--json"),
    ]
    assert [output.code for output in outputs] == [0] * 4, outputs
    assert [place for output in outputs for place in found_in(output.output.encode(), [token])] == []
    ((raw,),) = query(planted.published, "SELECT raw::VARCHAR FROM ops.quarantine")
    assert json.loads(raw)["token"] == "[redacted]"
    for table in ("quarantine", "drift", "runs", "receipts"):
        rows = query(planted.published, f"SELECT row_text::VARCHAR FROM ops.{table} AS row_text")
        assert [row for row in rows if found_in(str(row[0]).encode(), [token])] == []


def test_a_run_that_dies_leaves_no_token_in_dlts_folder(planted: Desk, world: World) -> None:
    """A trace, a state or a schema that only a run that ends well clears away."""
    world.faults.add(Fault("slow", vendor="posthog", times=None, delay=30))
    running = planted.start("sync", "--log-level", "debug")
    deadline = time.monotonic() + 60
    while not list(planted.warehouse.glob("work/dlt/*/state.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill(signal.SIGKILL)
    finished = running.wait()
    assert list(planted.warehouse.glob("work/dlt/*/**/*"))
    assert leaks(planted, [finished], list(PLANTED.values())) == []


# ---- command lines, and the file that holds tokens


def options_of(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    for parameter in command.params:
        yield f"{command.name} {parameter.name}", parameter
    for inner in getattr(command, "commands", {}).values():
        yield from options_of(inner)


def test_no_option_or_argument_takes_a_token() -> None:
    """A command line is in the shell's history, and every user of the machine can read it while it runs."""
    offered = dict(options_of(typer.main.get_command(app)))
    assert len(offered) > 20
    secretive = [
        name
        for name, parameter in offered.items()
        if any(word in name.lower() for word in ("token", "key", "secret", "password", "credential", "auth"))
        and not getattr(parameter, "is_flag", False)
    ]
    assert secretive == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_process_shows_a_token_on_its_command_line(planted: Desk) -> None:
    """A child process started with the token as an argument."""
    # nobody reads what it prints until it has ended, so not too much of that
    running = planted.start("sync")
    seen = set()
    while running.running:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(process.name)) == running.process.pid:
                    seen.add((process / "cmdline").read_bytes())
        time.sleep(0.01)
    assert running.wait().code == 0
    assert any(b"sync" in line for line in seen)
    assert [line for line in seen if found_in(line, list(PLANTED.values()))] == []


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o640, 0o604])
def test_a_secrets_file_that_others_may_read_draws_one_warning(mode: int, sandboxed: Desk) -> None:
    """Tokens that every user of the machine can read, unnoticed; or a warning with no way to end it, or a run that stops."""
    files = [folder / ".dlt" / "secrets.toml" for folder in (sandboxed.cwd, sandboxed.home)]
    for file in files:
        file.parent.mkdir()
        file.write_text("")
        file.chmod(mode)
    for command in (["sync"], ["check"], ["sync", "--json"], ["quarantine", "retry"]):
        finished = sandboxed.run(*command)
        assert finished.code == 0, finished.output
        warnings = [line for line in finished.stderr.splitlines() if "warning" in line]
        if mode & 0o077:
            assert len(warnings) == 1
            assert warnings[0].endswith(f"chmod 600 {files[0]} {files[1]}")
        else:
            assert warnings == []
        if "--json" in command:
            json.loads(finished.stdout)
    for file in files:
        assert file.stat().st_mode & 0o777 == mode
        file.unlink()
        file.parent.rmdir()
