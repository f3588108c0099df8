"""The gallery: one file, nothing fetched, the data it draws by hand-checked values."""

import json
import re

import numpy as np
import pytest

from engine_fakes import BrightSquare, Squares, photo
from perpixel.data.loader import test_batches as batches_of
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine.evaluate import evaluate
from perpixel.engine.gallery import GalleryItem, evaluation_items, write_gallery
from perpixel.engine.instances import Instances
from perpixel.errors import InputError
from perpixel.ops.runs import encode
from web_pages import opened


def found(**more) -> Instances:
    box = np.array([[10, 8, 30, 40]], np.float32)
    label = np.zeros(1, np.int64)
    return Instances(box, np.array([0.75], np.float32), label, ("<b>&co",), (60, 80), **more)


def documents(page: str) -> list[dict]:
    return [json.loads(text) for text in re.findall(r'class="item">(.*?)</script>', page)]


def decoded(mask: list[int], size: list[int]) -> np.ndarray:
    """The mask as the page's script decodes it."""
    x, y, width, height, *runs = mask
    out = np.zeros((size[1], size[0]), dtype=bool)
    flat = np.concatenate([np.full(length, i % 2 == 1) for i, length in enumerate(runs)])
    out[y : y + height, x : x + width] = flat.reshape(height, width)
    return out


def test_the_page_is_one_file_that_fetches_nothing(tmp_path):
    item = GalleryItem.make("</script><i>.jpg", found(), image=photo((60, 80), (10, 8, 30, 40)))
    page = write_gallery(tmp_path / "g.html", [item], "Results <1>", notes=["a & b"]).read_text()
    assert "Results &lt;1&gt;" in page and "<p>a &amp; b</p>" in page
    links = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"')]*", page))
    assert links == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|src=[\"']?http|@import|url\(", page)
    (document,) = documents(page)
    assert document["name"] == "</script><i>.jpg"
    assert document["photo"].startswith("data:image/jpeg;base64,")
    assert document["found"] == [{"box": [10.0, 8.0, 30.0, 40.0], "label": 0, "score": 0.75}]
    assert not re.search(r"<!--[A-Z]+-->", page)
    assert [p.name for p in tmp_path.iterdir()] == ["g.html"]


@pytest.mark.parametrize("seed", range(4))
def test_masks_reach_the_page_whole(seed):
    """Photos below the reduced size keep every pixel of the mask."""
    mask = np.random.default_rng(seed).random((60, 80)) > 0.6
    mask[: 5 * seed], mask[:, : 3 * seed] = False, False
    document = GalleryItem.make("m", found(runs=tuple(encode(mask[None]))), image=photo((60, 80), None)).document
    np.testing.assert_array_equal(decoded(document["found"][0]["mask"], document["mask"]), mask)


def test_an_empty_mask_is_no_problem():
    mask = np.zeros((60, 80), dtype=bool)
    document = GalleryItem.make("m", found(runs=tuple(encode(mask[None]))), image=photo((60, 80), None)).document
    assert document["found"][0]["mask"] == [0, 0, 0, 0]


def test_large_photos_are_reduced():
    image = np.zeros((2000, 3000, 3), np.uint8)
    document = GalleryItem.make("big", found(), image=image).document
    assert document["size"] == [3000, 2000] and document["mask"] == [450, 300]
    assert len(document["photo"]) < 60_000


def test_an_evaluation_becomes_a_page(tmp_path):
    dataset = Squares(masks=True)
    data = DataConfig(workers=0, test=Size(120, 200))
    evaluation = evaluate(
        BrightSquare(masks=True), dataset, batches_of(dataset, data, batch_size=2), examples=5, progress=False
    )
    page = write_gallery(tmp_path / "g.html", evaluation_items(dataset, evaluation), "Squares", score=0.3).read_text()
    items = documents(page)
    assert [len(item["truth"]) for item in items] == [0, 1, 1, 1, 1]
    assert [item["group"] for item in items] == ["all"] * 5 and items[1]["note"] == "F1 1.00"
    assert items[1]["truth"][0]["box"] == [10.0, 8.0, 30.0, 40.0]
    np.testing.assert_array_equal(decoded(items[1]["truth"][0]["mask"], [80, 60]), dataset.image(0)[:, :, 0] > 0)
    assert json.loads(re.search(r'id="settings">(.*?)</script>', page).group(1)) == {"score": 0.3}


def test_what_an_item_needs():
    with pytest.raises(InputError, match="photo"):
        GalleryItem.make("x", found())
    with pytest.raises(InputError, match="truth or both"):
        GalleryItem.make("x", image=photo((60, 80), None))


def test_the_page_draws_in_a_browser(browser, tmp_path):
    """Two photos with an object each: the script draws a halo and a box for each of truth and prediction, and counts."""
    dataset, data = Squares(3), DataConfig(workers=0, test=Size(120, 200))
    evaluation = evaluate(BrightSquare(), dataset, batches_of(dataset, data, batch_size=2), examples=3, progress=False)
    page = opened(browser, write_gallery(tmp_path / "g.html", evaluation_items(dataset, evaluation), "Squares"))
    for card in page.query_selector_all(".card"):  # what is not in view is drawn when it comes there
        card.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('rect.box').length == 4")
    assert page.locator("rect.halo").count() == 4
    tally = page.inner_text("#tally")
    assert "2 right · 0 wrong · 0 missed" in tally and "precision 100 %, recall 100 % on these photos" in tally
