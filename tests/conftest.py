"""A sandbox to serve worlds from, and a desk to run `deskhouse` at: an empty folder, an empty home, nothing inherited."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.settings import DLT_ENVIRONMENT, NO_LOG
from sandbox.server import SandboxServer
from sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DESKHOUSE = Path(sys.executable).with_name("deskhouse")
PATIENCE = 120.0


@dataclass(frozen=True)
class Finished:
    """A run of the command line that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return self.stdout + self.stderr

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed."""
        report: dict[str, Any] = json.loads(self.stdout)
        return report

    def receipt(self, table: str) -> dict[str, Any]:
        """One table of the report."""
        return next(entry for entry in self.report["tables"] if entry["table"] == table)


@dataclass
class Started:
    """A run of the command line that goes on, in a process group of its own."""

    process: subprocess.Popen[str]

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self, number: int) -> None:
        """Send a signal to the whole process group, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self) -> Finished:
        """Wait for its end; a traceback is a failure wherever it happens."""
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        finished = Finished(self.process.returncode, stdout, stderr)
        assert "Traceback" not in finished.output, finished.output
        return finished


@dataclass
class Desk:
    """Where somebody runs `deskhouse`, with these environment variables and no others."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (str(DESKHOUSE),)
    started: list[Started] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (self.cwd, self.home, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def cwd(self) -> Path:
        return self.root / "desk"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def scratch(self) -> Path:
        """Where TMPDIR points."""
        return self.root / "scratch"

    @property
    def warehouse(self) -> Path:
        return self.cwd / "warehouse"

    @property
    def published(self) -> Path:
        """The file dashboards read."""
        return self.warehouse / "current" / "deskhouse.duckdb"

    def start(self, *arguments: str) -> Started:
        """Start `deskhouse`."""
        process = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(Started(process))
        return self.started[-1]

    def run(self, *arguments: str) -> Finished:
        """Run `deskhouse` to its end."""
        return self.start(*arguments).wait()

    def sync(self, *arguments: str, code: int = 0) -> Finished:
        """Run `deskhouse sync --json` and insist on its exit code, in the process and in the report."""
        finished = self.run("sync", "--json", *arguments)
        assert finished.code == code, finished.output
        assert finished.report["exit_code"] == code
        return finished

    def files(self) -> set[str]:
        """Every file below the folder it runs in."""
        return {str(path.relative_to(self.cwd)) for path in self.cwd.rglob("*") if not path.is_dir()}

    def leftovers(self) -> list[str]:
        """Half-made things that a run which ended well must not leave behind."""
        found = [path for path in self.warehouse.rglob("*") if path.name.startswith(".tmp-") or ".wal." in path.name]
        found += [
            path for path in self.warehouse.glob("work/dlt/*/load/*/*") if path.parent.name in {"new", "normalized"}
        ]
        found += [path for path in self.warehouse.glob("work/dlt/*/normalize/*/*") if path.name != ".version"]
        return [str(path.relative_to(self.warehouse)) for path in found]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            **self.environment,
        }

    def run_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process run at the desk, as the command line does: whatever dlt was told by a test before."""
        here = {**DLT_ENVIRONMENT, "RUNTIME__LOG_LEVEL": NO_LOG, "DESKHOUSE__WAREHOUSE_DIR": str(self.warehouse)}
        for name, value in {**here, **self.environment}.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def serve() -> Iterator[Callable[[World], SandboxServer]]:
    """Serves worlds until the test ends; no reader may have sent anything but GET."""
    worlds: list[World] = []
    with contextlib.ExitStack() as stack:

        def start(world: World) -> SandboxServer:
            worlds.append(world)
            return stack.enter_context(SandboxServer(world))

        yield start
    assert [entry for world in worlds for entry in world.requests.non_get()] == []


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk; whatever runs there may write to its warehouse and nowhere else."""
    desk = Desk(tmp_path)
    brought = {".dlt"}
    yield desk
    for one in desk.started:
        if one.running:
            one.kill(signal.SIGKILL)
            one.process.communicate()
    assert {path.name for path in desk.cwd.iterdir()} <= {"warehouse"} | brought
    assert list(desk.home.rglob("*")) == []
    assert list(desk.scratch.rglob("*")) == []


def small_world(seed: int = 7) -> World:
    """A world with every kind of record in it, quick to load."""
    return World(seed, recordings=150, users=12, connections=300, meetings=15)


@pytest.fixture
def world() -> World:
    """A small world."""
    return small_world()


@pytest.fixture
def sandboxed(desk: Desk, world: World, serve: Callable[[World], SandboxServer]) -> Desk:
    """A desk whose environment points at the small world, and holds nothing else."""
    desk.environment = serve(world).environment()
    return desk
