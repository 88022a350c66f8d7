"""The command line: `deskhouse sync`, `check`, `status`, `demo`, `sandbox`.

Commands import what they need when they run, so that `--help` answers at once.
"""

import json
import logging
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.interrupt import Interrupted, signals_ignored, signals_interrupt
from pipelines.settings import SettingsError, configure_dlt

if TYPE_CHECKING:
    from pipelines.progress import Reporter
    from pipelines.settings import Settings

PLAIN_WIDTH = 140

app = typer.Typer(
    name="deskhouse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 complete and published; 1 something failed or is incomplete, the rest is published; "
    "2 wrong use or setting, nothing touched; 3 another run is at work; 130, 143 interrupted, safe to run again.",
)


class LogLevel(StrEnum):
    """How much goes to the log on standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Vendors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[screendesk|getscreen|posthog]...", help="Sources to use; all that have a token if left out."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of tables.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="How much to log on standard error; never secrets.")]


def main() -> None:
    """Run the command line; the process ends with one of the documented exit codes."""
    configure_dlt()
    # Arrow's own pool keeps what it once had, a hundred megabytes more in a long load
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        with signals_interrupt():
            try:
                app(standalone_mode=True)
            finally:
                # the outcome is decided: a signal while the interpreter ends must not contradict it
                signals_ignored()
    except SettingsError as error:
        sys.exit(_fail(str(error), 2))
    except Interrupted as interruption:
        name = signal.Signals(interruption.signal).name
        sys.exit(_fail(f"interrupted ({name}); nothing is lost, run again to go on", 128 + interruption.signal))


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature for an option's callback
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"deskhouse {version('deskhouse')}")
        raise typer.Exit


@app.callback()
def deskhouse(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Keep a local DuckDB warehouse in step with Screendesk, Getscreen.me and PostHog desktop recordings.

    First time here: `deskhouse demo` needs no account. With tokens in .dlt/secrets.toml or the environment, run
    `deskhouse check`, then `deskhouse sync`; on a schedule, `deskhouse sync` alone.
    """


@app.command()
def sync(
    vendors: Vendors = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every list whole, whatever was read before.")] = False,
    as_json: AsJson = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Read what changed at the vendors, load it, and publish the warehouse.

    Safe to run at any time and as often as you like: only new and changed rows are written, a run that was cut off is
    finished by the next one, and dashboards keep reading the last complete version meanwhile.
    """
    from pipelines import settings as config  # noqa: PLC0415

    settings = config.load_settings()
    chosen = config.choose(settings, vendors or [])
    raise typer.Exit(_sync(settings, chosen, full=full, as_json=as_json, log_level=log_level))


@app.command()
def check(vendors: Vendors = None, *, as_json: AsJson = False, log_level: Level = LogLevel.WARNING) -> None:
    """Ask each source one cheap question: is it there, is the token good, what can it see."""
    from pipelines import settings as config  # noqa: PLC0415
    from pipelines.reach import check_all  # noqa: PLC0415

    settings = config.load_settings()
    chosen = config.choose(settings, vendors or [])
    _log_to_stderr(settings, log_level)
    answers = check_all([settings.sources[v] for v in chosen])
    if as_json:
        _print_json({"sources": [vars(a) for a in answers], "skipped": list(settings.skipped)})
    else:
        console = _console(sys.stdout)
        for answer in answers:
            mark = "[green]✓[/]" if answer.ok else "[red]✗[/]"
            console.print(f"{mark} {answer.name}: ", end="", highlight=False)
            console.print(answer.text, markup=False, highlight=False, soft_wrap=True)
        _print_skipped(console, settings.skipped if not vendors else ())
    raise typer.Exit(0 if all(a.ok for a in answers) else 1)


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show what the published warehouse holds, how fresh it is, and how the last run ended."""
    from pipelines.settings import warehouse_dir  # noqa: PLC0415
    from pipelines.status import read_status, show_status  # noqa: PLC0415

    found = read_status(warehouse_dir())
    if as_json:
        _print_json(found.as_json())
    else:
        show_status(found, _console(sys.stdout))
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo keeps its own warehouse; replaced at each demo.")
    ] = Path("demo-warehouse"),
    *,
    as_json: AsJson = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Load three sandbox vendors over HTTP, let a day pass, load again; no account needed."""
    from pipelines.demo import run_demo  # noqa: PLC0415

    def sync_with(settings: "Settings", chosen: list[str]) -> int:
        return _sync(settings, chosen, full=False, as_json=as_json, log_level=log_level)

    raise typer.Exit(run_demo(directory, sync_with, _console(sys.stderr if as_json else sys.stdout)))


@app.command()
def sandbox(
    *,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.")] = 8765,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 7,
    recordings: Annotated[int, typer.Option(help="Screendesk recordings.")] = 500,
    users: Annotated[int, typer.Option(help="Screendesk users.")] = 25,
    connections: Annotated[int, typer.Option(help="Getscreen.me connections.")] = 300,
    meetings: Annotated[int, typer.Option(help="PostHog meetings.")] = 60,
) -> None:
    """Serve the three vendor APIs on this machine, with made-up data, until Ctrl-C.

    Prints the environment variables that point deskhouse at it.
    """
    from sandbox.server import serve  # noqa: PLC0415

    serve(port, seed, recordings, users, connections, meetings)


def _sync(settings: "Settings", chosen: list[str], *, full: bool, as_json: bool, log_level: LogLevel) -> int:
    import duckdb  # noqa: PLC0415

    from pipelines.lock import LockHeld  # noqa: PLC0415
    from pipelines.publish import PublishError  # noqa: PLC0415
    from pipelines.summary import as_dict, print_summary  # noqa: PLC0415
    from pipelines.sync import sync as run_sync  # noqa: PLC0415

    _log_to_stderr(settings, log_level)
    try:
        result = run_sync(settings, chosen, _reporter(as_json=as_json), full=full)
    except LockHeld as held:
        return _fail(str(held), 3)
    except PublishError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"the warehouse folder {settings.warehouse_dir} cannot be used: {error.strerror or error}", 1)
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        return _fail(f"the private database in {settings.warehouse_dir}/work cannot be used: {first}", 1)
    if as_json:
        _print_json(as_dict(result, settings))
    else:
        print_summary(result, settings, _console(sys.stdout))
    return result.exit_code


def _reporter(*, as_json: bool) -> "Reporter":
    from pipelines.progress import BarReporter, PlainReporter, SilentReporter  # noqa: PLC0415

    console = _console(sys.stderr)
    if as_json:
        return SilentReporter()
    return BarReporter(console) if console.is_terminal else PlainReporter(console)


def _log_to_stderr(settings: "Settings", level: LogLevel) -> None:
    from sources._redact import Redactor  # noqa: PLC0415

    redacting = Redactor(settings.secrets).filter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(redacting)
    ours = logging.getLogger("deskhouse")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(level.value.upper())
    logging.getLogger("dlt").addFilter(redacting)
    if level is LogLevel.DEBUG:
        os.environ["RUNTIME__LOG_LEVEL"] = "DEBUG"


def _console(stream: Any) -> Console:
    console = Console(file=stream)
    # away from a terminal rich assumes 80 columns and cuts tables
    return console if console.is_terminal else Console(file=stream, width=PLAIN_WIDTH)


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=2, default=str))


def _print_skipped(console: Console, skipped: tuple[str, ...]) -> None:
    from pipelines.summary import skipped_lines  # noqa: PLC0415

    for line in skipped_lines(skipped):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True).print(f"deskhouse: {message}", markup=False, highlight=False)
    return code


if __name__ == "__main__":
    main()
