"""The command line: `deskhouse sync`, `check`, `status`, `dashboard`, `query`, `export`, `demo`, `sandbox`.

Commands import what they need when they run, so that `--help` answers at once.
"""

import atexit
import json
import logging
import os
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from pipelines.interrupt import interruption_behind, signals_ignored, signals_interrupt
from pipelines.left_out import leave_out
from pipelines.memory import importing, share_between_threads
from pipelines.settings import SettingsError, configure_dlt

if TYPE_CHECKING:
    from collections.abc import Callable

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


quarantine = typer.Typer(no_args_is_help=True, help="Show, and try again, records that had no usable key.")
app.add_typer(quarantine, name="quarantine")


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
QuarantinedTable = Annotated[
    str | None, typer.Option("--table", metavar="SCHEMA.TABLE", help="Only this table; all of them if left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of tables.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="How much to log on standard error; never secrets.")]


def main() -> None:
    """Run the command line; the process ends with one of the documented exit codes."""
    configure_dlt()
    leave_out()
    # Arrow's own pool keeps what it once had, a hundred megabytes more in a long load
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    share_between_threads()
    try:
        with signals_interrupt():
            try:
                app(standalone_mode=True)
            finally:
                # the outcome is decided: a signal while the interpreter ends must not contradict it
                signals_ignored()
    except SettingsError as error:
        sys.exit(_fail(str(error), 2))
    except BaseException as error:
        interruption = interruption_behind(error)
        if interruption is None:
            _exit_if_locked(error)
            raise
        name = signal.Signals(interruption.signal).name
        sys.exit(_fail(f"interrupted ({name}); nothing is lost, run again to go on", 128 + interruption.signal))


def start() -> None:
    """Run the command line as a process of its own, which ends at once.

    Taking the interpreter apart after a load, module by module, takes a fifth of a second and does nothing for anybody.
    """
    for name in ("stdout", "stderr"):
        # None where it was closed before the process began, as with `>&-`
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    try:
        main()
        code: object = 0
    except SystemExit as end:
        code = end.code or 0
    if isinstance(code, int) and _flushed():
        atexit._run_exitfuncs()  # noqa: SLF001 - what ending in the usual way runs as well, temporary folders among it
        os._exit(code)
    sys.exit(str(code) if not isinstance(code, int) else code)


def _flushed() -> bool:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        # whoever read it has gone; the interpreter has its own way of saying so
        return False
    return True


def _exit_if_locked(error: BaseException) -> None:
    from pipelines.database import DatabaseLocked  # noqa: PLC0415

    if isinstance(error, DatabaseLocked):
        sys.exit(_fail(str(error), 1))


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
    with importing("pipelines.sync"):
        import pipelines.summary  # noqa: PLC0415
        import pipelines.sync  # noqa: F401, PLC0415
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
    from pipelines.privacy import load_privacy, reload_line, unapplied_names  # noqa: PLC0415
    from pipelines.settings import warehouse_dir  # noqa: PLC0415
    from pipelines.status import read_status, show_status  # noqa: PLC0415

    found = read_status(warehouse_dir())
    unapplied = unapplied_names(found.generation.database, load_privacy()) if found.generation else []
    if as_json:
        _print_json({**found.as_json(), "privacy": {"to_be_reloaded": unapplied}})
    else:
        show_status(found, _console(sys.stdout))
        if unapplied:
            _console(sys.stdout).print(reload_line(unapplied), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def dashboard(
    *,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)] = 2718,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    token: Annotated[
        bool, typer.Option(help="Put a secret into the address, so that nobody else on this machine can look.")
    ] = True,
) -> None:
    """Show the dashboard in the browser, served on this machine alone, until Ctrl-C."""
    from pipelines.dashboard import serve  # noqa: PLC0415
    from pipelines.settings import warehouse_dir  # noqa: PLC0415

    serve(warehouse_dir(), port, browser=browser, token=token)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SQL statement that reads, e.g. 'FROM analytics.tickets LIMIT 5'.")],
    *,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option("--format", help="How to write; if left out, as FILE ends, else a table."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write into this file, replacing it.")] = None,
) -> None:
    """Ask the published warehouse one SQL question; read-only, and other files are out of reach."""
    from pipelines.query import Format, QueryError, run_query  # noqa: PLC0415
    from pipelines.settings import warehouse_dir  # noqa: PLC0415

    console = Console()
    try:
        width = console.width if console.is_terminal and output is None else None
        run_query(sql, warehouse_dir(), Format(form) if form else None, output, width=width)
    except QueryError as error:
        raise typer.Exit(_fail(str(error), error.code)) from None


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go: DIR/schema/table.parquet.")],
    *,
    form: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="What the files are.")] = "parquet",
    excel: Annotated[
        bool, typer.Option("--excel", help="CSV as Excel opens it: marked as UTF-8, local times, no formulas.")
    ] = False,
) -> None:
    """Write the analytics tables and the vendors' tables into files, all of one published version."""
    from pipelines.export import ExportFormat  # noqa: PLC0415
    from pipelines.export import export as write_all  # noqa: PLC0415
    from pipelines.query import QueryError  # noqa: PLC0415
    from pipelines.settings import warehouse_dir  # noqa: PLC0415

    try:
        written = write_all(warehouse_dir(), directory, ExportFormat(form), excel=excel)
    except QueryError as error:
        raise typer.Exit(_fail(str(error), error.code)) from None
    console = _console(sys.stdout)
    for one in written:
        console.print(f"{one.path}: {one.rows:,} rows", highlight=False, markup=False, soft_wrap=True)


@quarantine.command("list")
def quarantine_list(
    table: QuarantinedTable = None,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show the records themselves, which may hold personal data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which records had no usable key, since when, and why; from the published file."""
    from pipelines.quarantine import NothingStored, check_table, listing, show_listing  # noqa: PLC0415
    from pipelines.settings import warehouse_dir  # noqa: PLC0415

    check_table(table)
    try:
        found = listing(warehouse_dir(), table)
    except NothingStored as nothing:
        raise typer.Exit(_fail(str(nothing), 1)) from None
    if as_json:
        _print_json(found.as_json(raw=raw))
    else:
        show_listing(found, _console(sys.stdout), raw=raw)


@quarantine.command("retry")
def quarantine_retry(
    table: QuarantinedTable = None, *, as_json: AsJson = False, log_level: Level = LogLevel.WARNING
) -> None:
    """Read the records in quarantine again, as after an upgrade: load what has a usable key now, and publish.

    They are tried as they were stored, without what is never stored; the next sync brings whatever the vendor has. A row
    the warehouse holds in a version that is as new stays as it is. Needs no token, and asks no vendor.
    """
    from pipelines import quarantine as replay  # noqa: PLC0415
    from pipelines.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    replay.check_table(table)
    _log_to_stderr(settings, log_level)

    def run() -> int:
        result, replayed = replay.retry(settings, _reporter(as_json=as_json), table=table)
        if as_json:
            _print_json(replay.as_dict(result, replayed, settings))
        else:
            replay.print_retry(result, replayed, settings, _console(sys.stdout))
        return result.exit_code

    try:
        raise typer.Exit(_explained(settings, run))
    except replay.NothingStored as nothing:
        raise typer.Exit(_fail(str(nothing), 1)) from None


@app.command()
def forget(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The person's e-mail, in any letter case.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be erased, and touch nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before erasing.")] = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Erase one person from the warehouse and all its copies, and keep the person out of later syncs.

    Asks no vendor and needs no token. What vendors still hold is recognised by a keyed hash and left out when it is read.
    """
    from pipelines import forget as erasing  # noqa: PLC0415
    from pipelines.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    email = erasing.check_email(email)
    _log_to_stderr(settings, log_level)
    console = _console(sys.stdout)

    def run() -> int:
        if dry_run or not yes:
            erasing.show(erasing.look_up(settings, email), console, done=False)
        if dry_run:
            return 0
        if not yes:
            if not sys.stdin.isatty():
                raise SettingsError("Nothing was erased: to erase without being asked, add --yes.")
            if not typer.confirm("Erase this person? It cannot be undone"):
                return 1
        result, found = erasing.forget(settings, email, _reporter(as_json=False))
        erasing.show(found, console, done=True)
        for problem in result.problems:
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        return result.exit_code

    raise typer.Exit(_explained(settings, run))


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
    from pipelines.summary import as_dict, print_summary  # noqa: PLC0415
    from pipelines.sync import sync as run_sync  # noqa: PLC0415

    _log_to_stderr(settings, log_level)

    def run() -> int:
        result = run_sync(settings, chosen, _reporter(as_json=as_json), full=full)
        if as_json:
            _print_json(as_dict(result, settings))
        else:
            print_summary(result, settings, _console(sys.stdout))
        return result.exit_code

    return _explained(settings, run)


def _explained(settings: "Settings", run: "Callable[[], int]") -> int:
    """What a run returns, or the exit code of what stopped it, which is told in one line."""
    import duckdb  # noqa: PLC0415

    from pipelines.database import DatabaseLocked  # noqa: PLC0415
    from pipelines.lock import LockHeld  # noqa: PLC0415
    from pipelines.warehouse import PublishError  # noqa: PLC0415

    try:
        return run()
    except LockHeld as held:
        return _fail(str(held), 3)
    except PublishError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"the warehouse folder {settings.warehouse_dir} cannot be used: {error.strerror or error}", 1)
    except DatabaseLocked:
        raise
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        return _fail(f"the private database in {settings.warehouse_dir}/work cannot be used: {first}", 1)


def _reporter(*, as_json: bool) -> "Reporter":
    from pipelines.progress import BarReporter, PlainReporter, SilentReporter  # noqa: PLC0415

    console = _console(sys.stderr)
    if as_json:
        return SilentReporter()
    return BarReporter(console) if console.is_terminal else PlainReporter(console)


def _log_to_stderr(settings: "Settings", level: LogLevel) -> None:
    from pipelines.settings import exposed_secrets  # noqa: PLC0415
    from sources._redact import Redactor, guard_process  # noqa: PLC0415

    guard_process(Redactor(settings.secrets))
    if exposed := exposed_secrets():
        files = " ".join(shlex.quote(str(file)) for file in exposed)
        _say(f"warning: other users of this machine may read your tokens; to stop that, run: chmod 600 {files}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("deskhouse")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(level.value.upper())
    if level is LogLevel.DEBUG:
        os.environ["RUNTIME__LOG_LEVEL"] = "DEBUG"


def _console(stream: Any) -> Console:
    console = Console(file=stream)
    # away from a terminal rich assumes 80 columns and cuts tables
    return console if console.is_terminal else Console(file=stream, width=PLAIN_WIDTH)


def _print_json(content: dict[str, Any]) -> None:
    # not typer.echo, which may go round a guarded stream
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def _print_skipped(console: Console, skipped: tuple[str, ...]) -> None:
    from pipelines.summary import skipped_lines  # noqa: PLC0415

    for line in skipped_lines(skipped):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fail(message: str, code: int) -> int:
    _say(message)
    return code


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"deskhouse: {message}", markup=False, highlight=False)


if __name__ == "__main__":
    start()
