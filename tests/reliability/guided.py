"""Bad input guided by coverage: libFuzzer keeps every input that reaches new lines of the readers and goes on from there.

    uv pip install --target /tmp/atheris atheris
    PYTHONPATH=/tmp/atheris python tests/reliability/guided.py coco --seconds 300
    PYTHONPATH=/tmp/atheris python tests/reliability/guided.py image --seconds 300

It ends at the first fault, with its traceback and the input in a file `crash-...`; without one, with the number of inputs. What
counts as a fault is the same as in bad_input.py. atheris is no dependency of this project: it is needed here alone.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import atheris  # noqa: E402  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["perpixel.data", "PIL"]):
    from PIL import Image

    Image.init()  # loads the readers of all forms

    from bad_annotations import _missing, coco_document, make_images, use

    from perpixel.data.image import NamedBytes, image_size, read_image
    from perpixel.errors import InputError

from bad_files import pictures  # noqa: E402
from mutations import damage_bytes, damaged_json  # noqa: E402

SECONDS, MEBIBYTES = 20, 6144
"""Longer is a hang, more is too much memory."""


def read_document(folder: Path) -> Callable[[bytes], str | None]:
    """Opens a COCO file, looks at all of it, makes batches; nothing may be lost without a word."""
    make_images(folder / "images")

    def read(content: bytes) -> str | None:
        (folder / "a.json").write_bytes(content)
        return _missing(content, use(str(folder / "a.json"), folder / "images", Random(len(content))))

    return read


def read_photo(folder: Path) -> Callable[[bytes], str | None]:
    """Reads a photo from a file and from memory: the same pixels, of the size that its header says."""
    path = folder / "photo.png"

    def read(content: bytes) -> str | None:
        path.write_bytes(content)
        pixels = read_image(path)
        same = (read_image(NamedBytes(content, "sent")) == pixels).all() and image_size(path) == pixels.shape[:2]
        return None if same else "a photo in memory is another than in its file"

    return read


def mutated_document(content: bytes, most: int, seed: int) -> bytes:
    """A document changed as a document in most cases; libFuzzer's own changes in the others."""
    random = Random(seed)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if document is None or random.random() < 0.3:
        return atheris.Mutate(content, most)
    return damaged_json(document, random)[:most]


def mutated_photo(content: bytes, most: int, seed: int) -> bytes:
    random = Random(seed)
    return atheris.Mutate(content, most) if random.random() < 0.5 else damage_bytes(content, random)[:most]


READERS = {
    "coco": (read_document, mutated_document, lambda: [json.dumps(coco_document()).encode()]),
    "image": (read_photo, mutated_photo, lambda: list(pictures().values())),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="0 takes another one each time")
    arguments = parser.parse_args()
    make, mutate, seeds = READERS[arguments.reader]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="perpixel-guided-") as temporary:
        folder = Path(temporary)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(seed)
        read = make(folder)

        def one(content: bytes) -> None:
            try:
                wrong = read(content)
            except InputError as error:
                wrong = None if str(error) and "\n" not in str(error) else f"no one sentence: {str(error)!r}"
            assert wrong is None, wrong

        limits = [f"-max_total_time={arguments.seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEBIBYTES}"]
        options = [*limits, f"-seed={arguments.seed}", "-max_len=20000", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
