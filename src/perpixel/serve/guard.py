"""Who may ask, and what every answer says to the browser."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpixel.serve.limits import Refused

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Stands before the application: refuses foreign pages and missing tokens, and sets headers, on errors too.

    Args:
        app: the application.
        token: what requests to ``/api`` must bring as ``Authorization: Bearer …``; None asks for nothing.
        hosts: names under which the server may be addressed; None: any. It keeps a foreign page from reaching a server on
            loopback under a name of its own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None = None, hosts: Sequence[str] | None = LOOPBACK):
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self.check(scope["path"], Headers(scope=scope))
        except Refused as refused:
            headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
            await JSONResponse({"error": str(refused)}, refused.status, headers)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def check(self, path: str, headers: Headers) -> None:
        """Passes a request that may come in.

        Raises:
            Refused: 403 another host's name or page, 401 no token or a wrong one.
        """
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            raise Refused(
                403, "this server does not answer under that name: start it with --host, or ask for 127.0.0.1"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "requests from pages of other servers are refused")
        if self.token is None or not path.startswith("/api"):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.encode("utf-8"), self.token.encode("utf-8"))
        if kind.lower() != "bearer" or not same:
            raise Refused(401, "this server asks for its token: send it as Authorization: Bearer TOKEN")


def _name(host: str) -> str | None:
    """The name in a Host header, without the port; None where there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # a bracket that is never closed
        return None
