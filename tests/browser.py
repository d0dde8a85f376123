"""A headless Chromium over its debugging pipe: real screens and keys, and what a page asks for or says."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
needed = pytest.mark.skipif(FOUND is None, reason=f"needs a browser: {', '.join(NAMES)}")

_KEYS = {"Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
_ASIDE = ("data:", "about:", "blob:")


class Page:
    """One page. `said`: what reached the console; `asked`: every address it wanted but its own."""

    def __init__(self, reader: int, writer: int) -> None:
        self._in, self._out = os.fdopen(reader, "rb"), os.fdopen(writer, "wb")
        self._rest, self._number, self._session, self._seen = b"", 0, None, []
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self._do(f"{part}.enable")

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            more = os.read(self._in.fileno(), 1 << 16)
            if not more:
                raise RuntimeError("the browser has ended")
            self._rest += more
        one, _, self._rest = self._rest.partition(b"\0")
        return json.loads(one)

    def _note(self, event: dict) -> None:
        name, told = event["method"], event.get("params", {})
        self._seen.append(name)
        if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(told))
        if name == "Network.requestWillBeSent" and not told["request"]["url"].startswith(_ASIDE):
            self.asked.append(told["request"]["url"])

    def _do(self, method: str, **params: object) -> dict:
        """Send one command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {} if self._session is None else {"sessionId": self._session}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path, width_px: int, height_px: int = 900) -> None:
        """Load a file on a screen of this size."""
        self._do("Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1,
                 mobile=False)  # fmt: skip
        self._seen.clear()
        self._do("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._note(self._read())
        self.asked.remove(path.as_uri())

    def value(self, script: str) -> object:
        """What an expression is worth in the page."""
        found = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, wherever the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            self._do("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=_KEYS[key])  # fmt: skip


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, which reaches no network; the browser ends with it."""
    (theirs, to_them), (from_them, ours) = os.pipe(), os.pipe()

    def wire() -> None:  # the browser reads from 3 and writes to 4
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, ours)]
        for number, end in zip((3, 4), ends, strict=True):
            os.dup2(end, number)

    process = subprocess.Popen(
        [FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
         f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        close_fds=False, preexec_fn=wire)  # fmt: skip
    os.close(theirs)
    os.close(ours)
    try:
        yield Page(from_them, to_them)
    finally:
        process.terminate()
        process.wait(timeout=30)
