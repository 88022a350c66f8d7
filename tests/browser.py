"""Debian's Chromium, driven over its own DevTools protocol: no other package, no driver."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_HELPERS = """
window.deep = (root, selector) => {
    const found = [...root.querySelectorAll(selector)];
    for (const element of root.querySelectorAll('*'))
        if (element.shadowRoot) found.push(...deep(element.shadowRoot, selector));
    return found;
};
window.cells = id => deep(document.getElementById(id), 'tbody tr')
    .map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText.trim()))
    // where columns have widths, an empty cell fills the rest
    .map(row => row.at(-1) === '' ? row.slice(0, -1) : row);
"""


class Page:
    """One page of the browser, and everything it asked for and complained about."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Network", "Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_HELPERS)
        self.call("Emulation.setDeviceMetricsOverride", width=1366, height=900, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; what happens meanwhile is noted."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if value := self.evaluate(script):
                return value
            time.sleep(0.05)
        text = self.evaluate("document.body.innerText.slice(0, 2000)")
        raise AssertionError(f"never true: {script}\non the page: {text}\ncomplaints: {self.complaints}")

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])
            case "Network.webSocketCreated":
                self.asked.append(parameters["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in {"error", "assert"}:
                self.complaints.append(json.dumps(parameters["args"]))
            case "Runtime.consoleAPICalled" if "STDERR" in json.dumps(parameters["args"]):
                # what a cell of the notebook wrote to standard error: a traceback, unless it only waits for another cell
                if "ancestor-stopped" not in json.dumps(parameters["args"]):
                    self.complaints.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(json.dumps(parameters["entry"]))


class Browser:
    """A running Chromium."""

    def __init__(self, host: str) -> None:
        self._host = host

    @contextlib.contextmanager
    def open(self, url: str) -> Iterator[Page]:
        """A new page."""
        request = urllib.request.Request(f"http://{self._host}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            target = json.load(answer)
        with connect(target["webSocketDebuggerUrl"], max_size=None, compression=None) as socket:
            page = Page(socket)
            page.call("Page.navigate", url=url)
            yield page
        urllib.request.urlopen(f"http://{self._host}/json/close/{target['id']}", timeout=PATIENCE).close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a new, empty profile."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # a pipe nobody empties would stop it in the end
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Browser(_address(process, Path(profile) / "DevToolsActivePort"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(process: subprocess.Popen[bytes], note: Path) -> str:
    """Where it listens, which it writes into its profile once it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        lines = note.read_text().splitlines() if note.exists() else []
        if lines:
            return f"127.0.0.1:{lines[0]}"
        time.sleep(0.05)
    raise AssertionError(f"Chromium did not start (exit code {process.poll()})")
