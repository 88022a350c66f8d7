"""One fault with one seed: a world that was loaded once, then whatever goes wrong, then one clean run, and the counts."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
from truth import ROOT_NAMES

from faults.count import COUNTERS, Ledger, count_peer, leaks
from faults.launch import PYTHONPATH, Job, Launcher, NeverEnds
from faults.points import POINTS
from faults.stranger import Stranger
from sandbox.faults import Fault
from sandbox.server import SandboxServer
from sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VENDORS: Final = ("screendesk", "getscreen", "posthog")
TOKENS: Final = {
    "screendesk": "SOURCES__SCREENDESK__API_TOKEN",
    "getscreen": "SOURCES__GETSCREEN__API_KEY",
    "posthog": "SOURCES__POSTHOG__API_KEY",
}
TABLES: Final = {"screendesk": "recordings", "getscreen": "connections", "posthog": "desktop_recordings"}
NOTES: Final = {"screendesk": "summary", "getscreen": "agent.name", "posthog": "notes"}
CANARIES: Final = {
    "screendesk": "canary-Sd7/x+Q2-screendesk",
    "getscreen": "canary-Gs4=kW9z-getscreen",
    "posthog": "phx_canaryPh3uYt8posthog",
}
"""Credentials that appear nowhere else, with characters that addresses and JSON spell in other ways."""


def tables_of(vendor: str) -> list[str]:
    """The root tables of a vendor."""
    return [name for name in ROOT_NAMES if name.startswith(vendor)]


def small_world(seed: int) -> World:
    """Several pages of everything, quick to load."""
    world = World(seed, recordings=70, users=5, connections=90, meetings=36)
    world.screendesk.settings.page_size = 20
    world.getscreen.settings.max_limit = 40
    for vendor, token in CANARIES.items():
        getattr(world, vendor).token = token
    return world


def spellings() -> list[str]:
    """What every spelling of a credential has in it: plain and percent-encoded, and in base64."""
    encoded = [base64.b64encode(token.encode()).decode()[:20] for token in CANARIES.values()]
    return ["canary-Sd7", "canary-Gs4", "canaryPh3u", *encoded]


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    code: int
    stdout: str
    stderr: str
    memory: int

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed; an empty report where it printed none."""
        try:
            report: dict[str, Any] = json.loads(self.stdout)
        except ValueError:
            return {"tables": [], "problems": [], "exit_code": None}
        return report

    @property
    def receipts(self) -> dict[str, dict[str, Any]]:
        """Receipts by table."""
        return {entry["table"]: entry for entry in self.report["tables"]}

    def reasons(self, vendor: str = "") -> str:
        """Everything the run says about why something is not complete."""
        said = [r["reason"] for name, r in self.receipts.items() if name.startswith(vendor)]
        return " | ".join([*said, *self.report["problems"], self.stderr])


@dataclass
class Site:
    """What cases share in one process: a folder, a port that stays the same, a launcher, loaded warehouses."""

    folder: Path
    launcher: Launcher
    port: int = 0
    loaded: dict[tuple[str, int], Path] = field(default_factory=dict)

    def warehouse(self, subject: str, seed: int) -> Path:
        """The folder of a desk at which this seed's world was loaded once."""
        if (subject, seed) not in self.loaded:
            with Case(self, subject, 0, seed, fresh=True, reading=False) as case:
                run = case.sync()
                if run.code != 0:
                    raise RuntimeError(f"the first load failed: {_short(run)}")
                kept = self.folder / f"loaded-{subject}-{seed}"
                case.desk.rename(kept)
                self.loaded[subject, seed] = kept
        return self.loaded[subject, seed]


class Case:
    """A fault being played. Use as a context manager.

    Attributes:
        ours: whether deskhouse is at work, or the peer.
        rng: the seed's randomness.
        problems: what was not as it should be, in words.
        words: outcome words that were seen.
        counts: the eight counters, once `finish` was called.
    """

    def __init__(
        self,
        site: Site,
        subject: str,
        number: int,
        seed: int,
        *,
        deep: bool = False,
        fresh: bool = False,
        reading: bool = True,
    ) -> None:
        self.site, self.subject, self.ours, self.seed, self.deep = site, subject, subject == "deskhouse", seed, deep
        self.rng = random.Random(f"{number}:{seed}")
        self.folder = site.folder / f"{subject}-{number}-{seed}-{time.monotonic_ns()}"
        self.world = small_world(seed)
        self.ledger = Ledger(self.world)
        self.problems: list[str] = []
        self.words: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.runs: list[Run] = []
        self.environment: dict[str, str] = {}
        self._stack, self._fresh, self._reading = ExitStack(), fresh, reading
        self._server: SandboxServer | None = None
        self._reader: int | None = None
        self._outputs, self._reads = 0, 0

    # -- the place

    @property
    def desk(self) -> Path:
        """The folder in which runs are started."""
        return self.folder / "desk"

    @property
    def warehouse(self) -> Path:
        return Path(self.environment.get("DESKHOUSE__WAREHOUSE_DIR", str(self.desk / "warehouse")))

    @property
    def published(self) -> Path:
        """The file dashboards read."""
        if self.ours:
            return self.warehouse / "current" / "deskhouse.duckdb"
        return self.desk / "peer" / "deskhouse.duckdb"

    @property
    def private(self) -> Path:
        return self.warehouse / "work" / "deskhouse.duckdb" if self.ours else self.published

    def __enter__(self) -> Self:
        for name in ("home", "scratch", "out"):
            (self.folder / name).mkdir(parents=True)
        if self._fresh:
            self.desk.mkdir()
        else:
            shutil.copytree(self.site.warehouse(self.subject, self.seed), self.desk, symlinks=True)
        self.ledger.note()
        self.open_doors()
        self.start_reader()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_reader()
        self.close_doors()
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def enter(self, context: Any) -> Any:
        """Enter a context that ends with the case."""
        return self._stack.enter_context(context)

    # -- vendors

    def open_doors(self) -> None:
        """Serve the world, at the site's port."""
        server = SandboxServer(self.world, self.site.port)
        self.site.port = server.port
        self._server = server.__enter__()

    def close_doors(self) -> None:
        """Stop serving: connections are refused."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @cached_property
    def stranger(self) -> Stranger:
        """Somebody else's server."""
        stranger: Stranger = self.enter(Stranger())
        return stranger

    def fault(self, kind: Any, **options: Any) -> Fault:
        """Arm a fault of the sandbox."""
        return self.world.faults.add(Fault(kind, **options))

    def rewrite(self, change: Callable[[dict[str, Any]], object], **options: Any) -> Fault:
        """Serve replies after `change` has been at them. Numbers, NaN and half surrogate pairs survive."""

        def body(content: bytes) -> bytes:
            reply = json.loads(content)
            changed = change(reply)
            return changed if isinstance(changed, bytes) else json.dumps(reply if changed is None else changed).encode()

        return self.fault("replace", body=body, **{"times": None, **options})

    def meanwhile(self, act: Callable[[], object], **options: Any) -> Fault:
        """Do something while a request is answered."""

        def body(content: bytes) -> bytes:
            act()
            return content

        return self.fault("replace", body=body, **options)

    def change(self, *vendors: str) -> None:
        """A day passes at all vendors, or a little happens at some; the ledger hears of it."""
        with self.noting():
            if not vendors:
                self.world.live_a_day()
            for vendor in vendors:
                table = getattr(getattr(self.world, vendor), TABLES[vendor])
                for key in self.rng.sample(table.keys(), 8):
                    table.update(key, {NOTES[vendor]: f"changed {self.rng.random()}"})
                for _ in range(3):
                    table.insert()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Changes of the world that the ledger is to know."""
        self.ledger.note()
        yield
        self.ledger.note()

    # -- runs

    def start(self, *arguments: str, plan: dict[str, Any] | None = None, **environment: str) -> Started:
        """Start a sync."""
        self._outputs += 1
        output = self.folder / "out" / str(self._outputs)
        plan = plan or {}
        settings = {**self._environment(plan), **environment}
        command = ("sync", "--json", *arguments) if self.ours else arguments
        job = Job("deskhouse" if self.ours else "peer", command, str(self.desk), settings, str(output), plan)
        return Started(self, self.site.launcher.start(job), output)

    def sync(self, *arguments: str, plan: dict[str, Any] | None = None, **environment: str) -> Run:
        """Run a sync to its end."""
        return self.start(*arguments, plan=plan, **environment).wait()

    def kill_at(self, point: str, nth: int = 1, **plan: Any) -> Run:
        """A sync that kills itself at a named moment."""
        assert point in POINTS
        run = self.sync(plan={"at": point, "nth": nth, **plan})
        self.expect(run.code == -signal.SIGKILL, f"the run was to be killed at {point} and ended with {run.code}")
        return run

    def _environment(self, plan: dict[str, Any]) -> dict[str, str]:
        assert self.site.port
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "scratch"),
            "PYTHONPATH": PYTHONPATH,
            **(self._server.environment() if self._server else self._last_environment),
            **self.environment,
        }
        if not self.ours:
            environment |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
            if plan.get("hasten"):
                environment["RUNTIME__REQUEST_BACKOFF_FACTOR"] = "0.02"
        return environment

    @property
    def _last_environment(self) -> dict[str, str]:
        from sandbox.server import environment  # noqa: PLC0415

        return environment(self.world, f"http://127.0.0.1:{self.site.port}")

    # -- readers

    def start_reader(self) -> None:
        """Start a dashboard on the published file, unless this case goes without."""
        if not self._reading:
            return
        out = self.folder / "out" / "reader"
        arguments = (str(self.published), str(self.folder / "stop"), *(() if self.ours else ("peer",)))
        job = Job("reader", arguments, str(self.folder), {"PATH": os.environ["PATH"]}, str(out))
        self._reader = self.site.launcher.start(job)

    def stop_reader(self) -> None:
        """Stop it and take in what it saw."""
        if self._reader is None:
            return
        pid, self._reader = self._reader, None
        (self.folder / "stop").touch()
        try:
            self.site.launcher.wait(pid)
        except NeverEnds as error:
            self.problems.append(f"the reader: {error}")
        out = self.folder / "out" / "reader"
        try:
            told = json.loads(out.read_text())
        except ValueError:
            self.problems.append(f"the reader died: {(out.with_name('reader.err')).read_text()[-300:]}")
            return
        (self.folder / "stop").unlink()
        for kind in ("torn", "blocked"):
            self.counts[kind] += len(told[kind])
            self.problems += [f"{kind}: {text}" for text in sorted(set(told[kind]))[:2]]
        self._reads += told["reads"]

    def digest(self) -> tuple[str, int]:
        """What readers are shown: changes when something is published."""
        resolved = self.published.resolve()
        return str(resolved), resolved.stat().st_mtime_ns if resolved.exists() else 0

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the published file."""
        with duckdb.connect(str(self.published), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql, list(values)).fetchall()

    # -- what should be so

    def expect(self, holds: object, otherwise: str) -> None:
        """Note a problem where something does not hold."""
        if not holds:
            self.problems.append(otherwise)

    def expect_ours(self, holds: object, otherwise: str) -> None:
        """The same, of what only deskhouse promises."""
        if self.ours:
            self.expect(holds, otherwise)

    def recovered(self, run: Run, what: str = "the run") -> None:
        """The run succeeded in spite of all."""
        self.words.add("recover")
        self.expect(run.code == 0, f"{what} was to recover and ended with {run.code}: {_short(run)}")

    def resumed(self, run: Run, *vendors: str, says: str = "") -> None:
        """The run failed cleanly for these vendors and no others, and did not move on; the next one goes on."""
        self.words.add("resume")
        self.expect(run.code not in {0, 2}, f"the run was to fail and ended with {run.code}: {_short(run)}")
        if not self.ours or run.code != 1:
            return
        receipts = run.receipts
        for vendor in VENDORS if receipts else ():
            mine = [receipts[name] for name in tables_of(vendor) if name in receipts]
            failed = [r for r in mine if not r["complete"]]
            self.expect(bool(failed) == (vendor in vendors), f"{vendor}: {[r['reason'] for r in failed] or 'complete'}")
            self.expect(
                all(r["cursor_after"] == r["cursor_before"] and " " in r["reason"] for r in failed),
                f"{vendor}: a cursor moved, or no reason is given",
            )
        self.expect(says in run.reasons(), f"the run does not say {says!r}: {_short(run)}")

    def quarantined(self, run: Run, table: str, at_least: int = 1) -> None:
        """Bad records are kept aside with a reason, and all others are loaded."""
        self.words.add("quarantine")
        self.expect(run.code == 0, f"the run was to succeed with quarantine: {run.code}: {_short(run)}")
        if not self.ours:
            return
        self.expect(
            run.receipts.get(table, {}).get("quarantined", 0) >= at_least,
            f"{table}: {at_least} records were to be in quarantine: {run.receipts.get(table)}",
        )
        rows = self.query("SELECT count(*) FROM ops.quarantine WHERE table_name = ? AND reason <> ''", table)
        self.expect(rows[0][0] >= at_least, f"ops.quarantine holds {rows[0][0]} records of {table}")

    def refused(self, run: Run | None = None, says: str = "") -> None:
        """Nothing was sent where it should not go."""
        self.words.add("refuse")
        if run is not None:
            self.expect(run.code != 0, f"the run was to be refused and ended with {run.code}: {_short(run)}")
            self.expect_ours(says in run.reasons(), f"the run does not say {says!r}: {_short(run)}")

    # -- the end

    def finish(self) -> None:
        """The nemesis stops; one clean run; everything is counted."""
        self.world.faults.clear()
        run = self.sync()
        self.expect(run.code == 0, f"the next good run did not complete: {run.code}: {_short(run)}")
        self.settle()

    def settle(self) -> None:
        """Count."""
        self.stop_reader()
        self.expect(self._reads > 0 or not self._reading, "the reader read nothing")
        if not self.published.exists():
            self.problems.append("nothing was published")
            self.counts["lost"] += 1
        elif self.ours:
            self.counts += self.ledger.count(self.published, self.problems)
            self.expect(not self._half_made(), f"left behind: {self._half_made()[:3]}")
        else:
            self.counts += count_peer(self.world, self.ledger, self.published, self.problems)
        heard = {"the stranger": self.stranger.heard} if "stranger" in self.__dict__ else {}
        found = leaks([self.folder], self.published, spellings(), heard)
        self.counts["leaked"] += len(found)
        self.problems += [f"leaked: {where.replace(str(self.folder), '')}" for where in found[:3]]
        for run in self.runs:
            self.expect_ours("Traceback" not in run.output, f"a traceback was shown: {run.output[-400:]}")
        self.expect(set(self.counts) <= set(COUNTERS), f"unknown counters {self.counts}")

    def _half_made(self) -> list[str]:
        found = [p for p in self.warehouse.rglob("*") if p.name.startswith(".tmp-") or ".wal." in p.name]
        found += [p for p in self.warehouse.glob("work/dlt/*/load/*/*") if p.parent.name in {"new", "normalized"}]
        return [str(p.relative_to(self.warehouse)) for p in found]


@dataclass
class Started:
    """A sync under way."""

    case: Case
    pid: int
    output: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its process group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def wait(self) -> Run:
        """Wait for its end."""
        ended = self.case.site.launcher.wait(self.pid)
        assert ended is not None
        texts = [path.read_text(errors="replace") for path in (self.output, Path(f"{self.output}.err"))]
        run = Run(ended.code, texts[0], texts[1], ended.memory)
        self.case.runs.append(run)
        return run

    def until(self, reached: Callable[[], bool]) -> bool:
        """Wait until something has happened; False when the run ended before."""
        return self.case.site.launcher.wait(self.pid, reached) is None


_CAUSE: Final = re.compile(r"(?:caused an exception|reason given is|with message|deskhouse): *(.{1,300})")


def _short(run: Run) -> str:
    said = " ".join((run.reasons() if run.receipts else run.output).split())
    causes = _CAUSE.findall(said)
    return causes[0] if causes else said[-300:]
