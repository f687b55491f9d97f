"""Fetching a file over HTTP. A cut connection costs only what had not yet arrived."""

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from fairseq_scl.errors import UserError
from fairseq_scl.files import sha256 as file_sha256

TRIES = 4  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second try, doubled before each further one
TIMEOUT = 30  # seconds in which nothing arrives
CHUNK = 1 << 20


class InterruptedTransfer(Exception):
    """The server, or the way to it, failed; another try may do better."""


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Fetch `url` to `path`, which appears when it is complete; return at once if it exists.

    Until then the bytes lie in `.NAME.part` beside it, from where this and later calls go on.

    Args:
        sha256: what the file's checksum must be, if it is known.

    Raises:
        UserError: if the server cannot be reached, refuses, sends less than it announces or
            another file.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    tries = 0
    while True:
        before = size(part)
        try:
            receive(url, part, path.name)
            break
        except InterruptedTransfer as error:
            tries = 1 if size(part) > before else tries + 1
            if tries == TRIES:
                raise UserError(f"{url}: {error} ({TRIES} tries)") from None
            time.sleep(PAUSE * 2 ** (tries - 1))
    if sha256 is not None and (found := file_sha256(part)) != sha256:
        part.unlink()
        raise UserError(f"{url}: the sha256 is {found}, it must be {sha256}")
    part.rename(path)


def size(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def receive(url: str, part: Path, name: str) -> None:
    """Add to `part` what it lacks of `url`, or begin anew if the server cannot go on from there.

    Raises:
        InterruptedTransfer: if that does not come to its end.
        UserError: if the server refuses.
    """
    have = size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{have}":
            return  # nothing is lacking
        if error.code == 416:  # the file is another one by now
            part.unlink()
        elif error.code < 500:
            raise UserError(f"{url}: HTTP {error.code} {error.reason}") from None
        raise InterruptedTransfer(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise InterruptedTransfer(f"the server cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise InterruptedTransfer(f"the server does not answer: {error!r}") from None
    with response:
        go_on = response.headers["Content-Range"] or ""
        have = have if response.status == 206 and go_on.startswith(f"bytes {have}-") else 0
        announced = response.headers["Content-Length"]
        total = have + int(announced) if announced else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(
                total=total, initial=have, desc=name, unit="B", unit_scale=True, file=sys.stderr
            ) as progress,
        ):
            for chunk in chunks(response):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and size(part) != total:
        raise InterruptedTransfer(f"{size(part):,} of {total:,} bytes arrived")


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body of a response; a failure to read it is not mistaken for one to write a file."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise InterruptedTransfer(f"the connection was cut: {error!r}") from None
