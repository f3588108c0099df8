"""What one request may ask for, and how it is told that it asked for too much."""

from dataclasses import dataclass

from perpixel.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; its memory stays below about `places` times (`body_bytes` + 3 bytes a pixel).

    Attributes:
        body_bytes: of a request.
        pixels: of a photo.
        photos: of a request.
        places: requests that may be read, wait or be at work at one time.
        upload_seconds: for a request's body to arrive.
        answer_seconds: from there to the answer.
    """

    body_bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    photos: int = 16
    places: int = 16
    upload_seconds: float = 30.0
    answer_seconds: float = 60.0


class Refused(InputError):
    """A request that is refused with an HTTP status of its own.

    Args:
        status: 401, 403, 404, 408, 413, 415, 503 or 504.
        sentence: what is wrong and what mends it.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
