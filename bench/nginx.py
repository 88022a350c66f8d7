"""nginx with the pages of all data sets, as a process of its own with a folder of its own.

`/now/<set>/...` answers at once, `/slow/<set>/...` after 100 ms: nginx's echo module lets each request wait on a timer
before the page is sent, so the delay costs no CPU and requests wait side by side. A page laid into the overlay folder
is served instead of the set's own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from dataset import LIST_PATHS, WORK, Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY_SECONDS = 0.1
_NEEDED = "The benchmark needs nginx with its echo module: apt-get install nginx-light (Debian, Ubuntu), as root."
_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")


class Server:
    """A running nginx."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port

    def address(self, data: Dataset, *, slow: bool = False) -> str:
        """The base address of a set's API."""
        return f"http://127.0.0.1:{self._port}/{'slow' if slow else 'now'}/{data.name}"

    def lay_over(self, data: Dataset, pages: dict[int, bytes]) -> None:
        """Serve these pages of recordings instead of the set's own, and no others."""
        overlay = self._folder / "overlay" / data.name
        shutil.rmtree(overlay, ignore_errors=True)
        (overlay / "recordings").mkdir(parents=True)
        for number, body in pages.items():
            (overlay / f"recordings/{number}.json").write_bytes(body)

    def refusals(self) -> list[str]:
        """Requests answered otherwise than with 200 since the last call."""
        log = self._folder / "refused.log"
        lines = log.read_text().splitlines()
        # nginx appends, so an emptied file is simply continued
        log.write_text("")
        return lines


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Start nginx on a free port of loopback, and stop it.

    Raises:
        SystemExit: nginx or its echo module is not installed, or it does not start.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    module = next((m for m in (Path(d, "ngx_http_echo_module.so") for d in _MODULES) if m.exists()), None)
    if program is None or module is None:
        raise SystemExit(_NEEDED)
    with tempfile.TemporaryDirectory(prefix="nginx-", dir=WORK) as name, socket.socket() as probe:
        folder = Path(name)
        (folder / "overlay").mkdir()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        (folder / "nginx.conf").write_text(_configuration(folder, port, module))
        command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
        with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
            try:
                _wait_until_up(process, port, folder)
                yield Server(folder, port)
            finally:
                process.terminate()


def _configuration(folder: Path, port: int, module: Path) -> str:
    posthog = LIST_PATHS["posthog"]
    return f"""
load_module {module};
worker_processes 1;
{"user root;" if os.geteuid() == 0 else ""}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  sendfile on;
  tcp_nopush on;
  keepalive_requests 10000000;
  keepalive_timeout 600;
  default_type application/json;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $status $odd {{ 200 0; default 1; }}
  log_format odd '$status $request';
  access_log {folder}/refused.log odd if=$odd;
  map $arg_page $number {{ "" 1; default $arg_page; }}
  map $arg_offset $from {{ "" 0; default $arg_offset; }}
  map $arg_limit $size {{ "" 100; default $arg_limit; }}
  server {{
    listen 127.0.0.1:{port};
    root {WORK}/data;
    location = /up {{ return 200 "up"; }}
    location ~ ^/slow(?<rest>/.*)$ {{ echo_sleep {DELAY_SECONDS}; echo_exec /now$rest $args; }}
    location ~ ^/now/(?<set>[a-z0-9-]+)/(?<list>recordings|users)$ {{
      root {WORK};
      try_files /{folder.name}/overlay/$set/$list/$number.json /data/$set/$list/$number.json =404;
    }}
    location ~ ^/now/(?<set>[a-z0-9-]+){posthog}$ {{
      try_files /$set/desktop_recordings/$size/$from.json =404;
    }}
  }}
}}
"""


def _wait_until_up(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"nginx did not start: {(folder / 'error.log').read_text()[-2000:]}")
