"""One file over HTTP: streamed, with a progress bar, taken up again where it broke off."""

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from stylebot.errors import StylebotError

_CHUNK = 1 << 18
_TIMEOUT_SEC = 60
_ATTEMPTS = 4


def shown(source: str) -> str:
    """A source as it may be printed and recorded: an address without user, password and query."""
    if not source.startswith(("https://", "http://")):
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _received(address: str, partial: Path, progress: Progress) -> None:
    """Append what `partial` lacks. Raises OSError or HTTPException when the connection fails."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "stylebot", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SEC) as answer:
        part = answer.headers.get("Content-Range", "")
        resumed = answer.status == 206 and part.startswith(f"bytes {start}-")
        if answer.status == 206 and not resumed:
            raise StylebotError(f"the server answered with the wrong part, {part!r}")
        start = start if resumed else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        task = progress.add_task(Path(urlsplit(address).path).name, total=total, completed=start)
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
        if total is not None and partial.stat().st_size < total:
            raise http.client.IncompleteRead(b"", total - partial.stat().st_size)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected} bytes early"
    return str(getattr(error, "reason", error)) or type(error).__name__


def download(address: str, out: Path, partial: Path) -> bool:
    """Bring what `address` holds to `out`, by way of `partial`, which outlives a failure to be continued.

    Broken connections are tried again at once as long as bytes still come. Whether they are the right ones is
    for the caller to check. Returns whether an earlier part was continued. Raises StylebotError.
    """
    continued = partial.exists()
    partial.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, transient=True) as progress:
        for attempt in range(_ATTEMPTS):
            before = partial.stat().st_size if partial.exists() else 0
            try:
                _received(address, partial, progress)
                break
            except urllib.error.HTTPError as error:
                if error.code != 416 or not before:  # 416: nothing lies beyond what is here
                    raise StylebotError(_reason(error)) from None
                partial.unlink()
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                after = partial.stat().st_size if partial.exists() else 0
                if after == before or attempt == _ATTEMPTS - 1:
                    raise StylebotError(_reason(error)) from None
        else:
            raise StylebotError("the server never sent the whole file")
    shutil.copyfile(partial, out)
    partial.unlink()
    return continued
