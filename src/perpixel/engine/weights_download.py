"""One file from one address, resumed where it broke off, put in place only when it is whole and what it should be."""

import hashlib
import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from perpixel import __version__
from perpixel.engine.bar import counting_bar
from perpixel.errors import InputError

BLOCK = 1 << 20
MEGABYTE = 1e6
RETRIES = 4
"""Attempts in a row that bring nothing new; one that does starts the count again."""
TIMEOUT = 30.0
"""Seconds without a byte after which an attempt is given up."""


class Unreachable(InputError):
    """An address did not give its file: no network, no such host, or an answer that is an error; `reason` says which."""

    def __init__(self, address: str, reason: str):
        super().__init__(f"{address} cannot be read: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Stated:
    """What the host says of a file.

    Attributes:
        size: bytes; None where it does not say.
        sha256: the file's SHA-256, where the host states one (the Hugging Face hub does); else empty.
        validator: tells this version of the file from another; empty: resuming is not safe.
        commit: of the repository; empty elsewhere.
    """

    size: int | None
    sha256: str
    validator: str
    commit: str


def download(address: str, target: Path, sha256: str = "", pause: float = 1.0) -> Stated:
    """Fetches `address` into `target`; what an earlier call left half done is continued.

    Args:
        address: http or https.
        target: the file; while it comes it is called ``NAME.part``, beside it ``NAME.part.version``.
        sha256: what the file's SHA-256 begins with; empty where nobody published it.
        pause: seconds before the second attempt; doubled each time.

    Raises:
        Unreachable: there is no way to the file; says which.
        InputError: what came is not the file: another size or SHA-256; or the disk cannot take it.
    """
    _check_scheme(address, address)
    part, version = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.version")
    failures, most, answered = 0, _size(part), False
    while True:
        try:
            stated = _attempt(address, part, version)
            break
        except _Cut as cut:
            gained = _size(part) > most  # than ever before: what is fetched again is no progress
            failures, most = 0 if gained else failures + 1, max(most, _size(part))
            answered = answered or cut.answered
            if failures > RETRIES or not answered:  # what never answered at all will not in a second either
                raise Unreachable(address, str(cut)) from cut
            time.sleep(pause * 2 ** max(failures - 1, 0))
    came = digest(part)
    for wanted, whose in ((sha256, "published"), (stated.sha256, "stated by the host")):
        if not came.startswith(wanted):
            _discard(part, version)
            raise InputError(
                f"what came from {address} has the SHA-256 {came}, the one {whose} begins with {wanted[:16]}: thrown away; "
                "try again, and if it happens twice do not trust the address"
            )
    _keep(part, target)
    version.unlink(missing_ok=True)
    return stated


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Cut(Exception):
    """An attempt that ended early; `answered`: the host had said something."""

    def __init__(self, reason: str, answered: bool):
        super().__init__(reason)
        self.answered = answered


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but to http and https alone and never from https to http; keeps what the hub says on the way."""

    def __init__(self):
        self.headers: dict[str, str] = {}

    def http_error_302(self, req: Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Checks where a redirect leads before it is followed."""
        self.headers |= {name.lower(): value for name, value in headers.items()}
        _check_scheme(headers.get("location", ""), req.full_url)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_scheme(to: str, origin: str) -> None:
    scheme = urlsplit(to).scheme.lower() or urlsplit(origin).scheme.lower()  # a relative address keeps the scheme
    if scheme not in ("http", "https"):
        raise InputError(f"{origin} leads to {to}: only http and https addresses are read")
    if scheme == "http" and urlsplit(origin).scheme.lower() == "https":
        raise InputError(f"{origin} leads to {to}, which is not encrypted any more: it is not followed")


def _attempt(address: str, part: Path, version: Path) -> Stated:
    """Appends to the part what is missing; raises `_Cut` where the connection ends before it is whole."""
    have, validator = _size(part), version.read_text("utf-8") if version.is_file() else ""
    headers = {"User-Agent": f"perpixel/{__version__}"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with _answer(Request(address, headers=headers), part, version) as (response, on_the_way):
        resumed = response.status == 206
        start = _range_start(response) if resumed else 0
        if resumed and start != have:
            _discard(part, version)
            raise _Cut(f"the host went on at byte {start} in place of {have}", answered=True)
        stated = _stated(response, on_the_way, start)
        _write_text(version, stated.validator)
        _receive(response, part, start, stated.size)
    return stated


@contextmanager
def _answer(request: Request, part: Path, version: Path) -> Iterator[tuple[http.client.HTTPResponse, dict[str, str]]]:
    """The open answer and the headers of the redirects before it."""
    redirects = _Redirects()
    try:
        response = build_opener(redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code == 416:  # the part is longer than the file: another file's
                _discard(part, version)
                raise _Cut("the half that was here belonged to another file", answered=True) from error
            if error.code == 429 or error.code >= 500:
                raise _Cut(f"HTTP {error.code} {error.reason}", answered=True) from error
            raise Unreachable(request.full_url, f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        raise _Cut(str(error.reason), answered=False) from error
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(f"{type(error).__name__} {error}".strip(), answered=False) from error
    with response:
        yield response, redirects.headers


def _stated(response: http.client.HTTPResponse, on_the_way: dict[str, str], start: int) -> Stated:
    headers = on_the_way | {name.lower(): value for name, value in response.headers.items()}
    length = response.headers.get("Content-Length")
    size = None if length is None or not length.isdecimal() else start + int(length)
    linked = headers.get("x-linked-size", "")
    if linked.isdecimal() and size is not None and int(linked) != size:
        raise InputError(f"{response.url} sends {size} bytes, the host states {linked}: it is not that file")
    # A weak validator ("W/...") may be shared by files that differ in bytes.
    tag = response.headers.get("ETag") or ""
    validator = "" if tag.startswith("W/") else tag or response.headers.get("Last-Modified") or ""
    hub = re.fullmatch(r'"?([0-9a-f]{64})"?', headers.get("x-linked-etag", ""))
    return Stated(size, hub[1] if hub else "", validator, headers.get("x-repo-commit", ""))


def _receive(response: http.client.HTTPResponse, part: Path, start: int, size: int | None) -> None:
    total = None if size is None else size / MEGABYTE
    try:
        with (
            part.open("ab" if start else "wb") as file,
            counting_bar(part.name.removesuffix(".part"), total, unit="MB", done=start / MEGABYTE) as bar,
        ):
            while block := _read(response):
                file.write(block)
                bar.advance(len(block) / MEGABYTE)
    except OSError as error:
        raise InputError(f"{part} cannot be written: {error.strerror}") from error
    have = _size(part)
    if size is not None and have < size:
        raise _Cut(f"the connection ended after {have} of {size} bytes", answered=True)


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; those that came before a connection broke are not lost."""
    try:
        return response.read1(BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(f"{type(error).__name__} {error}".strip(), answered=True) from error


def _range_start(response: http.client.HTTPResponse) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _keep(part: Path, target: Path) -> None:
    try:
        part.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from error


def _discard(part: Path, version: Path) -> None:
    part.unlink(missing_ok=True)
    version.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
