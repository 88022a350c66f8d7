"""The second listener: somebody else's server, which records every byte it is sent. And one that speaks TLS."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

REPLY = b'{"count":0,"next":null,"previous":null,"results":[],"records":[],"users":[],"data":[],"total":0}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (
    len(REPLY),
    REPLY,
)


class Stranger:
    """Answers anything with an empty list, and keeps what it was sent. Use as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._heard: list[bytes] = []
        self._connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def heard(self) -> bytes:
        """Every byte that arrived."""
        return b"".join(self._heard)

    @property
    def connections(self) -> int:
        """How often somebody came."""
        return self._connections

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections += 1
            threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            heard = b""
            while b"\r\n\r\n" not in heard and (piece := connection.recv(65536)):
                heard += piece
                self._heard.append(piece)
            connection.sendall(_ANSWER)


class TlsFront:
    """A TLS server with a given certificate in front of a plain one. Use as a context manager."""

    def __init__(self, certificate: Path, behind: int) -> None:
        self.present(certificate)
        self._behind = behind
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.heard: list[bytes] = []
        """What was sent once the certificate had been accepted."""
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def present(self, certificate: Path) -> None:
        """Show this certificate from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._context = context

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(plain, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", self._behind)) as inner,
        ):
            # one thread: a TLS connection must not be read and written at the same time
            while True:
                ready = [outer] if outer.pending() else select.select([outer, inner], [], [], 30)[0]
                if outer in ready:
                    piece = outer.recv(65536)
                    self.heard.append(piece)
                    inner.sendall(piece)
                if inner in ready:
                    piece = inner.recv(65536)
                    outer.sendall(piece)
                if not ready or not piece:
                    return


CERTIFICATES = ("good", "self-signed", "expired", "wrong-host")

_CONFIG = """
[ca]
default_ca = here
[here]
dir = {folder}
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = CA:FALSE
"""


def make_certificates(folder: Path) -> Path:
    """An authority of our own and certificates for `localhost`, made with `openssl`: `<kind>.pem` with its key each.

    Returns:
        The authority's certificate, as SSL_CERT_FILE wants it.
    """
    folder.mkdir(parents=True)
    config = folder / "openssl.cnf"
    config.write_text(_CONFIG.format(folder=folder))
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1000\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", str(config))

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
            "-subj", "/CN=Fault suite", "-extensions", "authority")  # fmt: skip
    for kind in CERTIFICATES:
        name = "somewhere.example" if kind == "wrong-host" else "localhost"
        subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
        if kind == "self-signed":
            openssl("req", "-x509", *key, "-keyout", f"{kind}.key", "-out", f"{kind}.crt", "-days", "30", *subject)
        else:
            dates = (
                ("20200101000000Z", "20210101000000Z") if kind == "expired" else ("20200101000000Z", "20991231000000Z")
            )
            openssl("req", *key, "-keyout", f"{kind}.key", "-out", f"{kind}.csr", *subject)
            openssl("ca", "-batch", "-config", str(config), "-in", f"{kind}.csr", "-out", f"{kind}.crt", "-notext",
                    "-cert", "ca.pem", "-keyfile", "ca.key", "-extensions", "leaf",
                    "-startdate", dates[0], "-enddate", dates[1])  # fmt: skip
        (folder / f"{kind}.pem").write_text((folder / f"{kind}.crt").read_text() + (folder / f"{kind}.key").read_text())
    return folder / "ca.pem"
