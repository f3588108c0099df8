"""The application on a port, until it is asked to stop."""

import socket

import uvicorn

from perpixel.errors import InputError
from perpixel.serve.guard import Guard
from perpixel.serve.limits import Limits


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        InputError: the port is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(f"--host {host} --port {port} cannot be listened on ({error}): choose another port") from error


def server_of(app: Guard, limits: Limits) -> uvicorn.Server:
    """A server whose stop (SIGTERM, Ctrl-C) lets requests under way end."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.places + 100,  # connections; those beyond the places get 503 from the worker
            timeout_keep_alive=5,
            timeout_graceful_shutdown=int(limits.upload_seconds + limits.answer_seconds) + 1,
        )
    )
