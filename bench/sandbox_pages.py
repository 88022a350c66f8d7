"""How many list pages a second the sandbox serves, so that it is known never to be what a benchmark measures.

Run: python bench/sandbox_pages.py [--recordings 20000] [--connections 4] [--seconds 8]
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parent.parent
EXPORT = re.compile(r"^export (\w+)=(.+)$")
WANTED = 300
PAGE = 100


def main() -> int:
    """Start a sandbox in a process of its own, read pages, print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--recordings", str(options.recordings)]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            environment = read_environment(process)
            print(f"ready after        {time.perf_counter() - began:8.1f} s  ({options.recordings:,} recordings)")
            rate, bytes_read = measure(environment, options.recordings // PAGE, options.connections, options.seconds)
        finally:
            process.terminate()
    print(f"pages per second   {rate:8.0f}    ({PAGE} recordings each, {options.connections} connections)")
    print(
        f"megabytes a second {bytes_read / 1e6:8.0f}    load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    return 0 if rate >= WANTED else 1


def read_environment(process: subprocess.Popen[str]) -> dict[str, str]:
    """The variables the sandbox prints when it is about to serve."""
    found: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        if match := EXPORT.match(line):
            found[match[1]] = match[2]
        if "SOURCES__POSTHOG__BASE_URL" in found:
            return found
    raise RuntimeError("the sandbox ended before it served")


def measure(environment: dict[str, str], pages: int, connections: int, seconds: float) -> tuple[float, float]:
    """Pages and bytes per second over raw sockets, which cost next to nothing on this side."""
    base = urlsplit(environment["SOURCES__SCREENDESK__BASE_URL"])
    token = environment["SOURCES__SCREENDESK__API_TOKEN"]
    assert base.hostname is not None
    address = (base.hostname, base.port or 80)
    counts = [(0, 0)] * connections
    deadline = time.perf_counter() + seconds

    def read(reader: int) -> None:
        served = received = 0
        with socket.create_connection(address) as connection:
            while time.perf_counter() < deadline:
                page = (served * connections + reader) % pages + 1
                connection.sendall(
                    f"GET {base.path}/recordings?page={page} HTTP/1.1\r\nHost: {base.netloc}\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n".encode()
                )
                received += read_reply(connection)
                served += 1
        counts[reader] = (served, received)

    began = time.perf_counter()
    readers = [threading.Thread(target=read, args=(number,)) for number in range(connections)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    took = time.perf_counter() - began
    return sum(served for served, _ in counts) / took, sum(received for _, received in counts) / took


def read_reply(connection: socket.socket) -> int:
    """Read one reply to its end and return its size; anything but a 200 ends the measurement."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65_536)
        if not part:
            raise RuntimeError("the sandbox closed the connection")
        head += part
    fields, _, body = head.partition(b"\r\n\r\n")
    if b" 200 " not in fields.split(b"\r\n", 1)[0]:
        raise RuntimeError(fields.decode("latin-1"))
    length = int(
        next(line for line in fields.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1]
    )
    left = length - len(body)
    while left > 0:
        left -= len(connection.recv(min(left, 1 << 20)))
    return length


if __name__ == "__main__":
    sys.exit(main())
