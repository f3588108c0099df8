"""Photos out of a request: bounded in bytes, seconds, number and pixels, and never on the disk."""

import asyncio
from collections.abc import AsyncGenerator

from PIL import Image as Pillow
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from perpixel.data.image import NamedBytes, pixel_count, read_image
from perpixel.engine.sources import Frame
from perpixel.errors import InputError
from perpixel.serve.limits import Limits, Refused

FIELD = "image"
"""Name of the parts of a form that hold photos."""


async def photos_of(request: Request, limits: Limits) -> list[NamedBytes]:
    """The photos of a request, not decoded: parts named `image` of a form, or the whole body.

    Raises:
        Refused: 413 too many bytes or photos, 408 too slow, 415 neither a form nor a picture.
        InputError: a broken form, or no photo.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise Refused(
            415,
            f"{printable(kind) or 'no content type'} is no picture: send a form with parts named {FIELD}, or the bytes of one"
            " picture as image/jpeg, image/png … or application/octet-stream",
        )
    body = await _body(request, limits)
    photos = await _parts(request, body, limits) if form else [NamedBytes(body, "photo")]
    if not photos or not body:
        raise InputError(f"the request holds no photo: send a form with parts named {FIELD}, or a picture as the body")
    if len(photos) > limits.photos:
        raise Refused(
            413, f"{len(photos)} photos are more than the {limits.photos} of one request: send them in several"
        )
    return photos


async def _body(request: Request, limits: Limits) -> bytes:
    sentence = f"the request is larger than {limits.body_bytes / 2**20:g} MiB: send fewer or smaller photos"
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.body_bytes:
        raise Refused(413, sentence)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise Refused(413, sentence)
    except TimeoutError as error:
        raise Refused(408, f"the request did not arrive within {limits.upload_seconds:g} s") from error
    except ClientDisconnect as error:
        raise InputError("the request was broken off") from error
    return bytes(body)


async def _parts(request: Request, body: bytes, limits: Limits) -> list[NamedBytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_files=limits.photos + 1, max_fields=0)
    parser.spool_max_size = limits.body_bytes + 1  # larger than any part: no temporary file is ever made
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refused(413, f"a request takes {limits.photos} photos at most: send them in several") from error
        raise InputError(f"the form cannot be read ({error.message}): send files in parts named {FIELD}") from error
    photos = []
    for name, part in form.multi_items():
        if name != FIELD or not isinstance(part, UploadFile):
            raise InputError(f"the form has a part named {printable(name)}: files go into parts named {FIELD}")
        photos.append(NamedBytes(await part.read(), printable(part.filename or "") or "photo"))
    return photos


def printable(text: str) -> str:
    """A text of the request as it may stand in a sentence: one short line."""
    return "".join(letter for letter in text if letter.isprintable())[:100]


def decoded(photo: NamedBytes, limits: Limits) -> Frame:
    """The photo's pixels; its header is looked at before anything is unpacked.

    Raises:
        Refused: 413, too many pixels.
        InputError: not a picture, or a damaged one.
    """
    sentence = f"{photo}: has more than the {limits.pixels / 1e6:g} million pixels a photo may have: make it smaller"
    try:
        pixels = pixel_count(photo)
    except InputError as error:
        if isinstance(error.__cause__, Pillow.DecompressionBombError):
            raise Refused(413, sentence) from error
        raise
    if pixels > limits.pixels:
        raise Refused(413, sentence)
    return Frame(read_image(photo))
