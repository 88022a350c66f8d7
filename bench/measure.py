"""One command as a whole process: wall time, CPU time and peak memory of the process and all it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_EVERY = 0.02
_FAMILY_EVERY = 10


class Failed(Exception):
    """A command did not do what it should; the message shows its last words."""


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        wall: seconds from process start to process end.
        cpu: user and system seconds of the process and its children.
        peak: highest sum of resident bytes of the process tree.
        elsewhere: CPU seconds everything else on the machine used meanwhile, the server among it.
        output: what it wrote to stdout.
    """

    wall: float
    cpu: float
    peak: int
    elsewhere: float
    output: str


def timed(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], limit: float = 1800) -> Cost:
    """Run a command and say what it cost.

    CPU comes from the kernel's own accounts. Memory is sampled every 20 ms; children are looked for every 200 ms, as that
    costs more. (The kernel's own peak would not do: it counts the memory of whoever started the process.)

    Raises:
        Failed: it ended with another code than 0, or ran longer than `limit` seconds.
    """
    out, err = cwd / "stdout", cwd / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        busy, began = _busy(), time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        watch = _Watch(process.pid, began + limit)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            # a process group of its own does not hear the terminal's Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            raise
        wall = time.perf_counter() - began
        busy = _busy() - busy
        process.returncode = os.waitstatus_to_exitcode(status)
        sampled = watch.end()
    if process.returncode != 0:
        why = f"ran longer than {limit:g} s" if watch.late else f"ended with {process.returncode}"
        words = (err.read_text(errors="replace")[-3000:] + out.read_text(errors="replace")[-1000:]).strip()
        raise Failed(f"{' '.join(command)} {why}:\n{words}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, sampled, max(0.0, busy - cpu), out.read_text())


class _Watch:
    """Samples the memory of a process tree until told to end."""

    def __init__(self, pid: int, deadline: float) -> None:
        self.late = False
        self._pid, self._deadline, self._peak = pid, deadline, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak

    def _run(self) -> None:
        try:
            root = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            return
        family, turn = [root], 0
        while not self._ended.wait(_EVERY):
            turn += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                if turn % _FAMILY_EVERY == 0:
                    family = [root, *root.children(recursive=True)]
            self._peak = max(self._peak, sum(_resident(process) for process in family))
            if time.perf_counter() > self._deadline and not self.late:
                self.late = True
                os.killpg(self._pid, signal.SIGKILL)


def _busy() -> float:
    """CPU seconds the machine has used since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0
