"""Serve a page for the browser that follows a sweep: progress, curves, comparisons, log.

    python -m analysis.watch runs/demo      # http://127.0.0.1:5050, until Ctrl-C

The page asks every few seconds for what is new, and the folder is read only then. Nothing is loaded
from the internet. geosweep watch serves the same page, also of a sweep on a cluster.
"""

import argparse
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from analysis.errors import ResultsError
from analysis.measures.following import Follower
from analysis.measures.markup import visible
from analysis.scripts import filled, parser, refuse, script, tell
from analysis.targets import is_folder
from scoring import places, storage
from scoring.storage import StoreError

PAGES = Path(__file__).with_name("pages")
FILES = {  # what is served besides the data; charts.js shows texts from the folder as text
    "/": ("watch.html", "text/html; charset=utf-8"),
    "/charts.css": ("charts.css", "text/css; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/echarts.min.js": ("echarts.min.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    # The charts set styles of their own; scripts come from these files alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
EVERY = {True: 0.5, False: 4.0}  # seconds between two looks at a folder on this machine, and away
SOON = 0.1  # seconds until a page asks again that was told what was read before


class Server(ThreadingHTTPServer):
    """The page of one folder.

    Args:
        root: the sweep's folder, a path or a URI.
        host: address to listen on.
        port: 0 for any that is free.

    Raises:
        ResultsError: there is no such folder, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, root: str, host: str = "127.0.0.1", port: int = 0):
        if not is_folder(root):
            like = "give the folder of a sweep, like runs/demo"
            raise ResultsError(f"{root}: no such folder; {like}")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.follower = Follower(root)
        self.asked = time.monotonic()
        self._run = secrets.token_hex(8)  # a page that another server has served begins anew
        self._every = EVERY[storage.is_local(root)]
        self._looked = -self._every
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise ResultsError(f"{host}:{port}: {error.strerror}; choose another --port") from error
        self.names = (
            {"localhost"} if _is_loopback(host) else {"localhost", socket.gethostname().lower()}
        )

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self.server_address[:2]
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else str(host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def news(self, run: str, version: int) -> str:
        """What is new since a version that a page has, which may be another server's, as JSON.

        A page that has nothing yet gets at once what was read before, and asks again soon.
        """
        with self._lock:
            old = time.monotonic() - self._looked >= self._every
            if old and (run == self._run or not self.follower.version):
                self.follower.look()
                self._looked, old = time.monotonic(), False
            wait = SOON if old else max(2.0, self._every)
            more = {"run": self._run, "now": time.time(), "every": wait}
            return self.follower.text(version if run == self._run else 0, **more)

    def begin(self) -> None:
        """Read the folder before a page asks; what is wrong with it is told to that."""
        with suppress(StoreError, OSError):
            self.news("", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless a browser has just gone away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers GET for the page, its files and the data."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer, unless the address is a name of somebody else's, as after DNS rebinding."""
        self.server.asked = time.monotonic()
        asked = urlsplit(self.path)
        if not self._is_ours(self.headers.get("Host", "")):
            self._answer(403, b"open the page by its address, not by a name", "text/plain")
        elif asked.path == "/data":
            words = parse_qs(asked.query)
            version = words.get("since", ["0"])[-1]
            known = re.fullmatch(r"[0-9]{1,18}", version)
            self._data(words.get("run", [""])[-1], int(version) if known else 0)
        elif asked.path in FILES:
            name, kind = FILES[asked.path]
            self._answer(200, (PAGES / name).read_bytes(), kind)
        else:
            self._answer(404, b"no such page", "text/plain")

    def _data(self, run: str, version: int) -> None:
        try:
            status, text = 200, self.server.news(run, version)
        except (StoreError, OSError) as error:
            status, text = 503, json.dumps({"error": visible(str(error))})
        self._answer(status, text.encode(), "application/json")

    def _is_ours(self, given: str) -> bool:
        """Whether the header ``Host`` is an IP address or a name of this machine."""
        name = ""
        try:
            name = urlsplit(f"//{given}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.server.names if given.isascii() else False
        return True

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing about requests."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError("should be from 0 to 65535")
    return int(text)


def end_if_idle(server: Server, seconds: float) -> None:
    """Stop a server that nobody has asked anything for so long."""
    while time.monotonic() - server.asked < seconds:
        time.sleep(min(1.0, seconds))
    server.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C.

    Returns:
        Exit status: 130 after Ctrl-C; 2, with one message, if it cannot be served.
    """
    reader = parser("watch", __doc__)
    add = reader.add_argument
    add("folder", type=filled, metavar="DIR", help="a sweep's folder, like runs/demo, or its URI")
    add(
        "--host",
        type=filled,
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, which only this machine reaches). The page "
        "has no password",
    )
    add("--port", type=_port, default=5050, help="port of the page (default: 5050; 0: any)")
    add("--idle", type=float, metavar="SECONDS", help="end when nobody has looked for so long")
    given = reader.parse_args(arguments)
    root = given.folder if "://" in given.folder else os.path.abspath(given.folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Server(root, given.host, given.port) as server:
            threading.Thread(target=server.begin, daemon=True).start()
            tell(f"{server.url}  ({visible(places.redact(root))}; Ctrl-C to stop)")
            if given.idle:
                threading.Thread(target=end_if_idle, args=(server, given.idle), daemon=True).start()
            server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        return 130
    except (ResultsError, StoreError, OSError) as error:
        return refuse("watch", error)
    return 0


if __name__ == "__main__":
    script(main)
