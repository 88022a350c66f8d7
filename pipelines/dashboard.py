"""`deskhouse dashboard`: the notebook `support_overview` as a page, served on this machine alone."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.settings import SettingsError

if TYPE_CHECKING:
    from typing import NoReturn

HOST: Final = "127.0.0.1"
NOTEBOOK: Final = "support_overview.py"
_MARIMO: Final = (
    "import altair, pyarrow, pipelines.opening, runpy; runpy.run_module('marimo', run_name='__main__', alter_sys=True)"
)
"""marimo, with what the page needs already imported: the first visitor does not wait for it."""
_HERE: Final = Path(__file__).resolve().parent
_PLACES: Final = (_HERE / "notebooks", _HERE.parent / "notebooks")
"""In an installed package, and in the repository."""


def notebook() -> Path:
    """Where the dashboard is.

    Raises:
        SettingsError: it is nowhere.
    """
    for place in _PLACES:
        if (place / NOTEBOOK).is_file():
            return place / NOTEBOOK
    raise SettingsError(
        f"the dashboard {NOTEBOOK} is neither in {_PLACES[0]} nor in {_PLACES[1]}:"
        " install deskhouse again, or run it from its repository"
    )


def serve(folder: Path, port: int, *, browser: bool, token: bool) -> NoReturn:
    """Become marimo, serving the dashboard until Ctrl-C; the address is printed first.

    Args:
        folder: the warehouse; it may be empty so far.
        port: on 127.0.0.1; 0 takes a free one.
        browser: whether to open it there.
        token: whether the address holds a secret, without which other users of this machine see nothing.

    Raises:
        SettingsError: the port is taken, or there is no notebook.
    """
    file = notebook()
    port = _free(port)
    secret = secrets.token_urlsafe(16) if token else ""
    address = f"http://{HOST}:{port}" + (f"?access_token={secret}" if token else "")
    print(f"The dashboard is at {address}\nCtrl-C ends it.", flush=True)  # noqa: T201 - the command's output
    arguments = [
        *(sys.executable, "-c", _MARIMO, "--quiet", "--yes", "run", str(file)),
        *("--host", HOST, "--port", str(port), "--no-sandbox", "--no-check"),
        *(() if browser else ("--headless",)),
        *(("--token", "--token-password-file", "-") if token else ("--no-token",)),
    ]
    _on_standard_input(secret)
    os.execve(sys.executable, arguments, {**os.environ, "DESKHOUSE__WAREHOUSE_DIR": str(folder)})  # noqa: S606


def _free(port: int) -> int:
    with socket.socket() as probe:
        # as the server will: a port that only lingers from the last dashboard is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise SettingsError(
                f"port {port} is taken, perhaps by another dashboard: name another with --port, 0 for any that is free"
            ) from None
        return int(probe.getsockname()[1])


def _on_standard_input(secret: str) -> None:
    """Where marimo reads it from: a command line would show it to every user of this machine."""
    reading, writing = os.pipe()
    os.write(writing, secret.encode())
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
