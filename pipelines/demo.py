"""`deskhouse demo`: a first load and an incremental one from the sandbox, in a folder of the demo's own."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from pipelines import settings as config
from pipelines.warehouse import Warehouse
from sandbox.server import SandboxServer
from sandbox.world import World

MARKER: Final = ".deskhouse-demo"
SyncWith = Callable[[config.Settings, list[str]], int]

TRY_NEXT: Final = """
Now look inside:

  DESKHOUSE__WAREHOUSE_DIR={folder} {deskhouse} status

  DESKHOUSE__WAREHOUSE_DIR={folder} {deskhouse} dashboard

  {python} -c "import duckdb; duckdb.connect('{database}', read_only=True).sql('''
      SELECT metadata__recording_type AS type, count(*) AS recordings, round(avg(metadata__duration)) AS seconds
      FROM screendesk.recordings GROUP BY type ORDER BY recordings DESC''').show()"

For real data, copy .dlt/secrets.example.toml to .dlt/secrets.toml, fill in a token, and run:

  {deskhouse} check
  {deskhouse} sync
"""


def run_demo(folder: Path, sync_with: SyncWith, console: Console) -> int:
    """Load the sandbox, let a day pass there, load again.

    Args:
        folder: the demo's warehouse; replaced.
        sync_with: runs one sync with the given settings and vendors, returning its exit code.
        console: where the story is told.

    Returns:
        The exit code.

    Raises:
        SettingsError: the folder holds something that is not a demo.
    """
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise config.SettingsError(
            f"{folder} is not a demo's folder, so the demo leaves it alone. Name another: --dir NEW."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    world = World()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with (
        SandboxServer(world) as server,
        _environment({**server.environment(), "DESKHOUSE__WAREHOUSE_DIR": str(folder)}),
    ):
        settings = config.load_settings()
        chosen = config.choose(settings, [])
        say(f"Three vendor APIs with made-up data now run at {server.url}.\n\nFirst load:")
        code = sync_with(settings, chosen)
        if code == 0:
            changes = world.live_a_day()
            total = sum(changes.values())
            say(
                f"\nA day passes at the vendors: {total} records are new or changed. Second load, of what changed alone:"
            )
            code = sync_with(settings, chosen)
    if code == 0:
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        database = Warehouse(shown).published_database
        say(
            TRY_NEXT.format(
                folder=shown, database=database, deskhouse=_as_typed(sys.argv[0]), python=_as_typed(sys.executable)
            )
        )
    return code


def _as_typed(program: str) -> str:
    """A program as a person types it: by name where the shell finds it, else by the shortest path."""
    path = Path(program).absolute()
    found = shutil.which(path.name)
    if found and Path(found).absolute() == path:
        return path.name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Settings for the demo alone: a person's own tokens and folders must not reach it."""
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith(("SOURCES__", "DESKHOUSE__"))]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
