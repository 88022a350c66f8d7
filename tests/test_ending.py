"""How the process ends: at once, and with everything said and cleaned up."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STARTED = (
    "import atexit, sys, tempfile, pathlib\n"
    "folder = tempfile.TemporaryDirectory()\n"
    "pathlib.Path('folder').write_text(folder.name)\n"
    "print('said ' * 50_000)\n"
    "from pipelines.cli import start\n"
    "start()\n"
    "print('the interpreter went on')\n"
)


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--wrong", 2)])
def test_what_was_said_arrives_and_what_was_made_is_removed(tmp_path: Path, argument: str, code: int) -> None:
    """Leaving without a word to the interpreter loses what is still in a buffer, and leaves temporary folders behind."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED, argument], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.count("said ") == 50_000
    assert ("deskhouse " in done.stdout) is (code == 0)
    assert "the interpreter went on" not in done.stdout
    assert not (tmp_path / (tmp_path / "folder").read_text()).exists()


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--wrong", 2)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_do_not_change_the_exit_code(closed: str, argument: str, code: int) -> None:
    """A scheduler that closes an output would take a complete run for a failed one."""
    command = f"'{sys.executable}' -m pipelines.cli {argument} {closed}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


FOUND = """
import sys
from pipelines.left_out import leave_out
leave_out()
import dlt
from dlt import destinations
assert dlt.destinations is destinations
others = [name for name in sys.modules if name.startswith("dlt.destinations.impl.snowflake")]
print(len(others), destinations.filesystem("/tmp").destination_name, hasattr(destinations, "nowhere"))
"""


def test_dlts_other_destinations_are_imported_when_asked_for_and_not_before(tmp_path: Path) -> None:
    """Twenty databases imported by every run that loads; or dlt left without those it knows."""
    done = subprocess.run([sys.executable, "-c", FOUND], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "filesystem", "False"], done.stderr
