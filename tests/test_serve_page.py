"""The page in a real browser: upload, layers, threshold, hiding, downloads, two models, samples, a broken file, a token."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright import sync_api as playwright

from perpixel.serve.app import create_app
from serve_fakes import BOX, NAME, OUTLINE, picture, predictors, running

FILE = {"name": "<i>a</i>.png", "mimeType": "image/png", "buffer": picture()}
SHAPE = "svg .instance:not(.out)"


@pytest.fixture(scope="module")
def address():
    with running(create_app(predictors())) as found:
        yield found


@pytest.fixture
def page(browser, address):
    """The page, opened; every request goes to the server, and nothing is written to the console."""
    context = browser.new_context(viewport={"width": 900, "height": 700})
    opened = context.new_page()
    said, hosts = [], set()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "http" in request.url[:4] else None)
    opened.goto(address)
    opened.wait_for_selector("#samples img >> nth=5")
    yield opened
    context.close()
    assert hosts == {address.removeprefix("http://")}
    assert [text for text in said if "status of 4" not in text] == []  # chromium notes refused requests itself


def upload(page, file=FILE):
    page.set_input_files("#file", file)
    page.wait_for_selector(".view", timeout=60_000)


def kept(page, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def test_upload_threshold_layers_and_downloads(page):
    upload(page)
    shape = page.locator(SHAPE)
    assert shape.count() == 1 and page.locator(".box").get_attribute("width") == "40"
    assert page.locator(".mask").get_attribute("d") == "M" + "L".join(f"{x} {y}" for x, y in OUTLINE) + "Z"
    # Names are text, never markup.
    assert NAME in page.inner_text(".list") and "<i>a</i>.png" in page.inner_text("#status")
    assert page.locator(".list b, #status i").count() == 0

    # Layers go and come; the downloaded picture shows what the page shows, enlarged 8 times (90 pixels become 720).
    assert page.is_visible(".mask") and page.is_visible(".joint")
    page.uncheck("[data-layer=masks]")
    page.uncheck("[data-layer=keypoints]")
    page.uncheck("[data-layer=boxes]")
    assert not page.is_visible(".mask") and not page.is_visible(".joint") and not page.is_visible(".box")
    plain = np.asarray(Image.open(BytesIO(kept(page, ".save-picture"))).convert("RGB"))
    assert plain.shape == (720, 960, 3) and (plain[30 * 8, 30 * 8] == 255).all()
    page.check("[data-layer=masks]")
    drawn = np.asarray(Image.open(BytesIO(kept(page, ".save-picture"))).convert("RGB"))
    assert not (drawn[30 * 8, 30 * 8] == 255).all() and (drawn[80 * 8, 100 * 8] == 0).all()

    # The threshold works without a request: the square has 0.9.
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.fill("#threshold", "0.95")
    assert shape.count() == 0 and "0 of 1 objects" in page.inner_text("#status")
    page.fill("#threshold", "0.85")
    assert shape.count() == 1
    found = json.loads(kept(page, ".save-json"))
    assert found["photos"][0]["instances"][0]["box"] == list(BOX)
    assert [url for url in asked if not url.startswith("blob:")] == []


def test_hover_and_hide(page):
    """With the mouse and with the keyboard."""
    upload(page)
    page.hover(".mask")
    assert page.inner_text("#tip") == f"{NAME} 0.90, 1,596 px"
    page.click(".mask")
    assert page.locator(SHAPE).count() == 0 and not page.is_visible("#tip")
    assert json.loads(kept(page, ".save-json"))["photos"][0]["instances"] == []
    page.focus(".list input")
    page.keyboard.press("Space")
    assert page.locator(SHAPE).count() == 1
    page.focus(SHAPE)
    assert page.is_visible("#tip")
    page.keyboard.press("Enter")
    assert page.locator(SHAPE).count() == 0
    page.click("#show-all")
    assert page.locator(SHAPE).count() == 1 and page.is_checked(".list input")


def test_two_models_and_a_sample(page):
    page.select_option("#model", "panoptic")
    page.select_option("#other", "boxes")
    page.click("#samples button >> nth=2")
    page.wait_for_selector(".view >> nth=1")
    assert page.locator(".view h2").all_inner_texts() == ["panoptic", "boxes"]
    first = page.locator(".view >> nth=0")
    assert (
        first.locator(".segment .mask").count() == 2 and page.locator(".view >> nth=1").locator(".segment").count() == 0
    )
    page.uncheck("[data-layer=segments]")
    assert not first.locator(".segment >> nth=1").is_visible()
    page.select_option("#other", "")
    playwright.expect(page.locator(".view")).to_have_count(1)


def test_a_broken_file(page):
    upload(page)
    page.set_input_files("#file", {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"not a picture"})
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("broken.jpg: cannot be read as an image")
    assert page.locator(".view").count() == 0
    upload(page)  # and the page goes on
    assert not page.is_visible("#error")


def test_a_photo_chosen_before_the_models_are_known(browser, address):
    """It waits for them, and is answered."""
    context = browser.new_context()
    opened = context.new_page()
    late = []

    def keep(route):
        late.append(route)

    opened.route("**/api/models", keep)
    opened.goto(address)
    opened.set_input_files("#file", FILE)
    opened.wait_for_function("document.getElementById('file').value === ''")
    late[0].continue_()
    opened.wait_for_selector(".view")
    context.close()


def test_phone_and_dark(browser, address):
    """On a phone's width nothing is wider than the screen; in dark mode the letters are light on dark paper."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    opened = context.new_page()
    opened.goto(address)
    upload(opened)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    colors = opened.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    ink, paper = (sum(int(value) for value in color[4:-1].split(",")) for color in colors)
    assert ink > 600 > 150 > paper
    context.close()


def test_token_and_webcam(browser):
    """The page asks for the token and goes on with it; one in the address is taken and removed from it."""
    with running(create_app(predictors(), token="geheim")) as address:
        context = browser.new_context()
        opened = context.new_page()
        opened.goto(address)
        opened.wait_for_selector("#token-form:not([hidden])")
        opened.fill("#token", "geheim")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("#samples img >> nth=5")
        assert not opened.is_visible("#token-form") and not opened.is_visible("#error")
        opened.goto("about:blank")
        opened.goto(f"{address}/#token=geheim")
        opened.wait_for_selector("#samples img >> nth=5")
        assert opened.url == f"{address}/"
        # A camera is asked for only now, and its absence is said.
        opened.click("#webcam")
        opened.wait_for_selector("#error:not([hidden])")
        assert "webcam" in opened.inner_text("#error")
        context.close()
