"""Hosts on the loopback interface: one of files, which can be told to misbehave, and a small Hugging Face hub."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote


@dataclass
class HostedFile:
    """A file and how its host answers.

    Attributes:
        content: all of it.
        tag: its ETag; empty: none.
        cuts: after so many bytes the first, second ... answer breaks off; later ones are whole.
        failures: this many first requests get 503.
        status: of every answer, in place of 200.
        redirect: where requests are sent on to.
        headers: more of them, with every answer.
        length: what Content-Length says in place of the truth.
    """

    content: bytes = b""
    tag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    failures: int = 0
    status: int = 200
    redirect: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class FileHost:
    """A host of files; `asked` keeps each request's path and its Range and If-Range, `sent` counts bytes of content."""

    address: str = ""
    files: dict[str, HostedFile] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    sent: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one GET."""
        path, asked = request.path.lstrip("/"), request.headers.get("Range")
        self.asked.append((path, asked, request.headers.get("If-Range")))
        file = self.files.get(path, HostedFile(status=404))
        if file.failures:
            file.failures -= 1
            request.send_error(503)
            return
        if file.redirect:
            request.send_response(302)
            self._headers(request, file.headers | {"Location": file.redirect, "Content-Length": "0"})
            return
        if file.status != 200:
            request.send_error(file.status)
            return
        same = request.headers.get("If-Range") in (None, file.tag)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same else 0
        if start >= len(file.content) and start:
            request.send_error(416)
            return
        body = file.content[start:]
        headers = file.headers | {"Content-Length": str(len(body) if file.length is None else file.length)}
        if file.tag:
            headers["ETag"] = file.tag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        request.send_response(206 if start else 200)
        self._headers(request, headers)
        if file.cuts:
            body = body[: file.cuts.pop(0)]
        self.sent += len(body)
        request.wfile.write(body)

    @staticmethod
    def _headers(request: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@dataclass
class Hub:
    """Repositories as the hub's API has them; `refused` is the status of an answer to a commit.

    Attributes:
        commits: of each repository, oldest first: its number and all files.
        private: repositories that were made so.
        bad_licences: what the check of a card does not take.
    """

    address: str = ""
    commits: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=lambda: defaultdict(list))
    private: set[str] = field(default_factory=set)
    bad_licences: tuple[str, ...] = ()
    refused: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request of the client."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        parts = unquote(request.path.partition("?")[0]).strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            self._create(request, json.loads(body))
        elif parts[:2] == ["api", "validate-yaml"]:
            wrong = any(f"license: {name}" in json.loads(body)["content"] for name in self.bad_licences)
            message = [{"message": '"license" must be one of [apache-2.0, ...]'}] if wrong else []
            self._json(request, {"errors": message, "warnings": []}, 400 if wrong else 200)
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json(request, {"files": files})
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["commit"]:
            self._commit(request, "/".join(parts[2:4]), body)
        elif parts[2:3] == ["resolve"]:
            self._file(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            request.send_error(404)

    def _create(self, request: BaseHTTPRequestHandler, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.private.add(name)
        known = name in self.commits
        self.commits[name] = self.commits[name]
        self._json(request, {"url": f"{self.address}/{name}", "id": name}, 409 if known else 200)

    def _commit(self, request: BaseHTTPRequestHandler, name: str, body: bytes) -> None:
        if self.refused:
            self._json(request, {"error": "you may not write here"}, self.refused)
            return
        lines = [json.loads(line) for line in body.splitlines()]
        added = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        before = self.commits[name][-1][1] if self.commits[name] else {}
        files = before | {path: base64.b64decode(content) for path, content in added.items()}
        number = hashlib.sha1(body).hexdigest()
        self.commits[name].append((number, files))
        self._json(request, {"commitUrl": f"{self.address}/{name}/commit/{number}", "commitOid": number})

    def _file(self, request: BaseHTTPRequestHandler, name: str, revision: str, path: str) -> None:
        if name not in self.commits:
            self._missing(request, "RepoNotFound")
            return
        found = [c for c in self.commits[name] if revision in ("main", c[0])]
        if not found:
            self._missing(request, "RevisionNotFound")
            return
        number, files = found[-1]
        if path not in files:
            self._missing(request, "EntryNotFound", number)
            return
        content = files[path]
        request.send_response(200)
        headers = {"X-Repo-Commit": number, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        FileHost._headers(request, headers | {"Content-Length": str(len(content)), "Accept-Ranges": "bytes"})
        if request.command == "GET":
            request.wfile.write(content)

    @staticmethod
    def _missing(request: BaseHTTPRequestHandler, code: str, commit: str = "") -> None:
        request.send_response(404)
        FileHost._headers(request, {"X-Error-Code": code, "X-Repo-Commit": commit, "Content-Length": "0"})

    @staticmethod
    def _json(request: BaseHTTPRequestHandler, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        request.send_response(status)
        FileHost._headers(request, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        request.wfile.write(body)


@contextmanager
def serving(host: FileHost | Hub) -> Iterator[None]:
    """The host at work on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            host.answer(self)

        do_GET = do_POST = do_HEAD = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
