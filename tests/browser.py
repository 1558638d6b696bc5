"""A headless Chromium that tests steer: pages, mouse, pictures, and what the console says."""

import asyncio
import base64
import itertools
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
QUIET = [  # without connections to anywhere
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="needs chromium (Debian's package), which is not installed"
)


class Browser:
    """A page of a browser, through Chromium's own protocol. Use it as a context manager."""

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False):
        self.said: list[str] = []  # errors and warnings on the console, and failed requests
        self._size, self._dark = (width, height), dark
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *QUIET]
        command += [f"--user-data-dir={self._profile.name}", "--remote-debugging-port=0"]
        self._process = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._loop = asyncio.new_event_loop()
        port = next(
            found[1]
            for line in self._process.stderr or []
            if (found := re.search(r"DevTools listening on ws://[^:]*:(\d+)", line))
        )
        self._loop.run_until_complete(self._connect(port))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(*self._size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        return self

    async def _connect(self, port: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            (page,) = [one for one in await answer.json() if one["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            await self._socket.close()
            await self._session.close()

        self._loop.run_until_complete(close())
        self._loop.close()
        self._process.terminate()
        self._process.communicate()
        self._profile.cleanup()

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        return self._loop.run_until_complete(self._call(method, words))

    async def _call(self, method: str, words: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": words})
        while True:
            answer = await self._socket.receive_json(timeout=60)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer.get("method"), answer.get("params", {}))

    def _hear(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            thrown = about["exceptionDetails"]
            self.said.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.said.append(" ".join(str(one.get("value")) for one in about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.said.append(about["entry"]["text"])

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window, in pixels; a narrow one is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        """Open a page; it need not be complete when this returns."""
        self.call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression, which may be a promise."""
        words = {"returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", expression=expression, **words)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                if value := self.ask(expression):
                    return value
            except AssertionError:  # the page is not there yet
                pass
            assert time.monotonic() < end, (expression, self.said)
            time.sleep(0.05)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag with the left button from one place of the window to another, in pixels."""
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        (x, y), (u, v) = start, end
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **held)
        for part in (0.25, 0.5, 0.75, 1):
            place = {"x": x + part * (u - x), "y": y + part * (v - y)}
            self.call("Input.dispatchMouseEvent", type="mouseMoved", **place, **held)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=u, y=v, **held)

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window, in pixels."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
