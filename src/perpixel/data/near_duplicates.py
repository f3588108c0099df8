"""Images that are nearly the same: copies in another size or quality, and frames of a camera that stood still.

An image is known by 64 signs, each of which says whether one of 9 x 8 grey values is brighter than its right neighbour (a
difference hash: N. Krawetz, "Kind of Like That", 2013), and by a grey picture of 16 x 16, which tells apart what the signs alone
take for the same: dark images with little in them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import networkx
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Dataset, Image
from perpixel.errors import InputError

MOST_SIGNS = 6
"""Signs in which two near duplicates differ at most."""
MOST_GREY = 5.0
"""Grey values, of 255, in which their small pictures differ in the mean at most."""
_THREADS = 4


def signature(image: Image) -> tuple[UInt8[ndarray, " 64"], Float32[ndarray, " 256"]]:
    """The signs of an image, 0 or 1, and its small picture."""
    grey = Pillow.fromarray(image).convert("L")
    small = np.asarray(grey.resize((9, 8), Pillow.Resampling.BOX), dtype=np.int16)
    picture = np.asarray(grey.resize((16, 16), Pillow.Resampling.BOX), dtype=np.float32)
    return (small[:, 1:] > small[:, :-1]).astype(np.uint8).ravel(), picture.ravel()


def near_duplicates(dataset: Dataset, advance: Callable[[], None] = lambda: None) -> list[list[int]]:
    """The images of a data set in groups of near duplicates, each row in one group; most groups hold one image.

    What is near joins: a chain of frames is one group. An image that cannot be read stands alone.

    Args:
        dataset: the images.
        advance: is called after each of them.
    """

    def read(row: int) -> tuple[ndarray, ndarray] | None:
        try:
            return signature(dataset.image(row))
        except InputError:
            return None  # `perpixel check` names it
        finally:
            advance()

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(read, range(len(dataset))))
    rows = [row for row, known in enumerate(found) if known is not None]
    signs = np.array([known[0] for known in found if known is not None], dtype=np.uint8).reshape(-1, 64)
    pictures = np.array([known[1] for known in found if known is not None], dtype=np.float32).reshape(-1, 256)
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(dataset)))
    graph.add_edges_from((rows[a], rows[b]) for a, b in _near_pairs(signs, pictures))
    return sorted(sorted(group) for group in networkx.connected_components(graph))


def _near_pairs(signs: UInt8[ndarray, "n 64"], pictures: Float32[ndarray, "n 256"]) -> set[tuple[int, int]]:
    """All pairs of near duplicates.

    Two rows that differ in at most k of their signs agree wholly in one of k + 1 stretches of them: only such are compared.
    """
    pairs: set[tuple[int, int]] = set()
    for stretch in np.array_split(np.arange(64), MOST_SIGNS + 1):
        keys = signs[:, stretch] @ (1 << np.arange(len(stretch), dtype=np.int64))
        order = np.argsort(keys, kind="stable")
        ends = np.flatnonzero(np.diff(keys[order], append=-1)) + 1
        for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
            members = order[begin:end]
            for at, one in enumerate(members[:-1].tolist()):
                others = members[at + 1 :]
                others = others[(signs[others] != signs[one]).sum(1) <= MOST_SIGNS]
                others = others[np.abs(pictures[others] - pictures[one]).mean(1) <= MOST_GREY]
                pairs.update((min(one, other), max(one, other)) for other in others.tolist())
    return pairs
