"""Published weights on this machine: downloaded, converted, kept, and checked at every use."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from huggingface_hub import constants

from perpixel import __version__
from perpixel.config import from_dict
from perpixel.engine.checkpoint import Origin
from perpixel.engine.convert.file import convert_file
from perpixel.engine.files import write_text
from perpixel.engine.weights_download import Stated, Unreachable, digest, download
from perpixel.engine.weights_table import HUB, Published
from perpixel.errors import InputError


def cache_folder() -> Path:
    """Where downloaded and converted weights lie: $PERPIXEL_CACHE, or ``perpixel`` in the user's folder of caches."""
    own = os.environ.get("PERPIXEL_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "perpixel").expanduser()


@dataclass(frozen=True)
class Record:
    """What is known of weights in the cache, so that every later use is checked.

    Attributes:
        address: where the file was said to lie.
        sha256: of the file as it came.
        vouched: who says that it is this one: its publisher, its host, or nobody.
        commit: of the repository it lay in, where the host told.
        converted: SHA-256 of our checkpoint made from it.
        version: of the library that made it; another one makes it anew.
        notes: what the conversion had to say.
    """

    address: str
    sha256: str
    vouched: str
    commit: str
    converted: str
    version: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """The folder of one model in the cache.

    Attributes:
        published: what lies there.
    """

    published: Published

    @property
    def folder(self) -> Path:
        """The folder, which may not exist yet."""
        return cache_folder() / "weights" / self.published.name

    @property
    def original(self) -> Path:
        """The file as published."""
        return self.folder / self.published.file

    @property
    def converted(self) -> Path:
        """Our checkpoint made from it."""
        return self.folder / f"{self.published.name}.safetensors"

    def record(self) -> Record | None:
        """What was noted when the weights came; None before.

        Raises:
            InputError: the note was damaged.
        """
        if not self._note.is_file():
            return None
        try:
            return from_dict(Record, json.loads(self._note.read_text("utf-8")))
        except ValueError as error:  # JSON's, Unicode's, and our own of settings
            raise InputError(
                f"{self._note} was damaged: delete the folder, and its weights are fetched anew"
            ) from error

    def write(self, record: Record) -> None:
        """Notes what is known."""
        write_text(self._note, json.dumps(asdict(record), indent=2) + "\n")

    @property
    def _note(self) -> Path:
        return self.folder / "record.json"


def published_file(published: Published, say: Callable[[str], None] | None = None) -> Path:
    """Our checkpoint of published weights: from the cache, or downloaded and converted here.

    Args:
        published: which.
        say: gets a sentence about terms and about what vouches for the file, once; None writes it to standard error.

    Raises:
        InputError: they cannot be had (the sentence says which file to put where), or are not what they should be.
    """
    place = Place(published)
    if _state(place) == "whole":
        return place.converted
    lock = _lock(place.folder)
    try:
        state = _state(place)  # anew: another process may have worked on it meanwhile
        if state == "changed":
            raise InputError(f"{place.converted} is not what was written there: delete it, and it is made anew")
        if state == "missing":
            _make(place, say or _tell)
        return place.converted
    finally:
        lock.release()


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): name another folder in the variable PERPIXEL_CACHE"
        ) from error
    return lock


def _state(place: Place) -> Literal["missing", "changed", "whole"]:
    """Of the converted file, by its sum."""
    record = place.record()
    if record is None or record.version != __version__ or not place.converted.is_file():
        return "missing"
    return "whole" if digest(place.converted) == record.converted else "changed"


def _make(place: Place, say: Callable[[str], None]) -> None:
    """Downloads what is not here, checks it, converts it and notes what is known.

    Raises:
        InputError: there is no way to the file, or it is not the right one.
    """
    published, known = place.published, place.record()
    if known is None:
        say(f"{published.name}: {published.publisher.terms}")
    stated, commit = "", ""
    if not place.original.is_file():
        came = _fetch(place)
        stated, commit = came.sha256, came.commit
    sha256 = digest(place.original)
    if known is not None:
        if known.sha256 != sha256:
            raise InputError(
                f"{place.original} has the SHA-256 {sha256[:16]}..., on first use it had {known.sha256[:16]}...: where you trust "
                f"the new file, delete {place.folder / 'record.json'}"
            )
        vouched, commit = known.vouched, commit or known.commit
    else:
        vouched = _vouched(place, sha256, stated, say)
    origin = Origin(_address(published), sha256, published.publisher.name, published.publisher.licence)
    settings = (f"name={published.name}", *published.settings)
    notes = tuple(convert_file(place.original, place.converted, settings=settings, origin=origin))
    place.write(Record(origin.address, sha256, vouched, commit, digest(place.converted), __version__, notes))


def _fetch(place: Place) -> Stated:
    """Downloads the original.

    Raises:
        InputError: there is no way to it; the sentence says which file to put where.
    """
    address = _address(place.published)
    try:
        if address.startswith(constants.ENDPOINT) and constants.HF_HUB_OFFLINE:
            raise Unreachable(address, "HF_HUB_OFFLINE is set")
        return download(address, place.original, place.published.sha256)
    except Unreachable as error:
        raise InputError(
            f"the weights of {place.published.name} cannot be downloaded ({error.reason}): get {address} in another way, put it "
            f"there as {place.original}, and say the same again"
        ) from error


def _vouched(place: Place, sha256: str, stated: str, say: Callable[[str], None]) -> str:
    """Who says that a file that is used first is the right one.

    Raises:
        InputError: it is not.
    """
    published = place.published.sha256
    if not sha256.startswith(published):
        raise InputError(
            f"{place.original} has the SHA-256 {sha256[:16]}..., the published one begins with {published}: it is another file "
            "or damaged; delete it"
        )
    if published:
        say(f"{place.published.file}: its SHA-256 begins with {published}, as published")
        return "publisher"
    if stated:
        say(f"{place.published.file}: SHA-256 {sha256}, as its host states; the publisher names none")
        return "host"
    say(
        f"{place.published.file}: nobody publishes its SHA-256; it is {sha256}, and later uses are checked against that"
    )
    return "nobody"


def _address(published: Published) -> str:
    """Where the file lies: on the hub that HF_ENDPOINT names, where it is the hub's."""
    if published.address.startswith(HUB):
        return f"{constants.ENDPOINT}/{published.address.removeprefix(HUB)}"
    return published.address


def _tell(sentence: str) -> None:
    print(f"perpixel: {sentence}", file=sys.stderr, flush=True)
