"""Runs as processes of their own, in a process group each.

A warm start forks from an interpreter that has imported everything and done nothing; a cold one starts an interpreter.
Both are real processes, with their own memory, files and locks, and are killed like any other; a fork is one second
faster. What is run is `pipelines.cli`, the peer, or the reader.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TESTS: Final = Path(__file__).absolute().parents[1]
PYTHONPATH: Final = f"{TESTS}{os.pathsep}{TESTS.parent}"
MODULES: Final = {"deskhouse": "pipelines.cli", "peer": "faults.peer", "reader": "faults.reader"}
IMPORTED: Final = (
    "pipelines.cli", "pipelines.sync", "pipelines.summary", "_strptime", "anyio._backends._asyncio", "certifi", "h11",
    "httpcore", "pandas", "dlt.destinations.impl.duckdb.factory", "dlt.destinations.impl.duckdb.duck",
    "dlt.destinations.impl.duckdb.sql_client", "dlt.extract.extract", "dlt.load.load", "dlt.load.utils",
    "dlt.normalize.normalize", "dlt.normalize.worker", "dlt.common.libs.pyarrow", "dlt.sources.rest_api",
    "dlt.common.libs.pydantic", "pyarrow.compute", "pyarrow.parquet",
)  # fmt: skip
"""What a run imports on its way, those that are installed."""
PATIENCE: Final = 90.0
"""Seconds after which a run counts as one that never ends."""


class NeverEnds(Exception):
    """A process that is still at work when nobody would wait any longer."""


@dataclass(frozen=True)
class Job:
    """A process to be started: what, with which arguments, where, and what is to happen in it."""

    what: str
    arguments: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    output: str
    """Path of the file for standard output; with `.err` behind it for standard error."""
    plan: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def of(cls, text: str) -> Job:
        values = json.loads(text)
        return cls(**values | {"arguments": tuple(values["arguments"])})


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, minus the signal that killed it; and the most memory it held, in bytes."""

    code: int
    memory: int


class Launcher:
    """Starts jobs. Use as a context manager; whatever still runs at its end is killed."""

    def __init__(self, *, cold: bool = False, patience: float = PATIENCE) -> None:
        self._cold, self._patience = cold, patience
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._pids: set[int] = set()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "faults.launch"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._server.communicate()

    def start(self, job: Job) -> int:
        """Start a job and return its process id, which is also its process group."""
        if self._cold and job.what != "reader":
            child = subprocess.Popen(
                [sys.executable, "-m", "faults.launch", job.as_json()],
                cwd=TESTS,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH},
            )
            self._children[child.pid] = child
            pid = child.pid
        else:
            pid = self._ask("start", job.as_json())
        self._pids.add(pid)
        return pid

    def ended(self, pid: int) -> Ended | None:
        """How a job ended, or None while it runs."""
        child = self._children.get(pid)
        if child is None:
            answer = self._ask("poll", pid)
            ended = None if answer is None else Ended(*answer)
        else:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            ended = Ended(os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10) if found else None
            if ended:
                child.returncode = ended.code
        if ended is not None:
            self._pids.discard(pid)
        return ended

    def wait(self, pid: int, until: Callable[[], bool] = lambda: False) -> Ended | None:
        """Wait for a job's end, or until something is so.

        Raises:
            NeverEnds: neither happened in good time; the job is killed.
        """
        deadline = time.monotonic() + self._patience
        while (ended := self.ended(pid)) is None and not until():
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGABRT)
                time.sleep(0.5)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                raise NeverEnds(f"a run was still at work after {self._patience:.0f} s, and was killed")
            time.sleep(0.01)
        return ended

    def _ask(self, verb: str, argument: str | int) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps([verb, argument])}\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def _serve() -> None:
    """Fork a process for each job that is asked for."""
    from faults import points, reader  # noqa: PLC0415
    from pipelines.settings import configure_dlt  # noqa: PLC0415

    del points, reader
    configure_dlt()
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    ended: dict[int, tuple[int, int]] = {}
    for line in sys.stdin:
        verb, argument = json.loads(line)
        answer: Any = None
        if verb == "start":
            answer = os.fork()
            if answer == 0:
                _become(Job.of(argument))
        else:
            while True:
                with contextlib.suppress(ChildProcessError):
                    pid, status, usage = os.wait4(-1, os.WNOHANG)
                    if pid:
                        ended[pid] = (os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10)
                        continue
                break
            answer = ended.pop(argument, None)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _become(job: Job) -> None:
    """Turn this process, a fork, into the job; never returns."""
    code = 70
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        code = _run(job)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(job: Job) -> int:
    from faults.points import prepare  # noqa: PLC0415

    for number, path in ((1, job.output), (2, f"{job.output}.err")):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    # a run that never ends is asked where it stands before it is killed
    faulthandler.enable(file=2)
    os.environ.clear()
    os.environ.update(job.environment)
    os.chdir(job.cwd)
    if job.what != "reader":
        prepare(job.plan)
    sys.argv = [job.what, *job.arguments]
    if job.what == "deskhouse":
        from pipelines.cli import main  # noqa: PLC0415

        main()
    else:
        return int(importlib.import_module(MODULES[job.what]).main() or 0)
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(_run(Job.of(sys.argv[1])))
    _serve()
