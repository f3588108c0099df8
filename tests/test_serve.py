"""The server's API: answers equal the offline result, everything too much is refused with its status, nothing leaks."""

import json
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import hotcoco.mask
import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import perpixel
from perpixel.cli.main import main
from perpixel.data.image import NamedBytes, read_image
from perpixel.engine.checkpoint import save_checkpoint
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.serve.app import create_app
from perpixel.serve.limits import Limits
from perpixel.serve.run import listen
from perpixel.structures import Batch
from serve_fakes import AREA, BOX, NAME, OUTLINE, picture, pixels, predictors, running

MODELS = predictors()


def client(limits: Limits | None = None, token: str | None = None, models=MODELS) -> TestClient:
    app = create_app(models, limits, token)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def api() -> TestClient:
    return client()


def post(api: TestClient, content: bytes, **options):
    return api.post("/api/predict", content=content, params=options, headers={"Content-Type": "image/png"})


def told(answer, status: int) -> str:
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"} and "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text and " at 0x" not in answer.text and str(Path.cwd()) not in answer.text
    return answer.json()["error"]


def test_models_are_listed(api):
    found = api.get("/api/models").json()
    assert [model["name"] for model in found["models"]] == ["masks", "boxes", "panoptic"]
    assert found["models"][0]["classes"] == [NAME] and found["models"][2]["stuff"] == ["sky"]


def test_a_picture_as_the_body(api):
    """The square of 40x40 at (20, 16): its box, its mask without the corners (`OUTLINE`), its middle (40, 36)."""
    answer = post(api, picture(), masks="polygons").json()
    assert answer["model"] == "masks"
    (one,) = answer["photos"]
    assert (one["name"], one["width"], one["height"]) == ("photo", 120, 90)
    (found,) = one["instances"]
    assert found["box"] == list(BOX) and found["area"] == AREA and found["category_id"] == 7
    assert found["class_name"] == NAME and found["keypoints"] == [[40, 36, 1]]
    assert found["polygons"] == [[[list(corner) for corner in OUTLINE]]]
    assert post(api, picture(), score=0.95).json()["photos"][0]["instances"] == []


def test_equal_to_the_offline_result_of_a_checkpoint(tmp_path):
    """A small CondInst with random weights: every box, score and mask that the server gives is what `perpixel.load` finds."""
    from tiny_exports import MODELS as CONFIGS
    from tiny_exports import TEST_SIZE

    model = CONFIGS["condinst"].build(3)
    recipe = Recipe("condinst", CONFIGS["condinst"])
    recipe = recipe.__class__(recipe.name, recipe.model, recipe.data.__class__(test=TEST_SIZE))
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, model, recipe, ("disc", "ring", "cross"), category_ids=(3, 5, 8))
    predictor = perpixel.load(path, "cpu")
    api = client(models={"tiny": predictor})
    content = api.get("/api/samples/0.png").content
    found = predictor.predict(pixels(content), score=0.0)
    assert len(found) > 0
    results = post(api, content, score=0.0, format="coco").json()
    expected = [result | {"file_name": "photo"} for result in found.to_coco(1, (3, 5, 8))]
    assert results == json.loads(json.dumps(expected))
    answer = post(api, content, score=0.0).json()["photos"][0]["instances"]
    assert [one["runs"] for one in answer] == [dict(run) for run in found.runs]
    assert [one["score"] for one in answer] == found.scores.tolist()
    assert [one["area"] for one in answer] == [float(mask.sum()) for mask in found.masks]
    drawn = post(api, content, score=0.0, format="png")
    assert drawn.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels(drawn.content), np.asarray(found.plot()))


def test_several_photos_of_a_form_come_back_in_order(api):
    """Names are echoed, whatever they are: no file of that name is ever opened."""
    names = ["../../etc/passwd", "b.png", "b.png"]
    parts = [("image", (name, picture(box))) for name, box in zip(names, (BOX, None, (0, 0, 8, 8)), strict=True)]
    photos = api.post("/api/predict", files=parts).json()["photos"]
    assert [photo["name"] for photo in photos] == names
    assert [len(photo["instances"]) for photo in photos] == [1, 0, 1]
    results = api.post("/api/predict", files=parts, params={"format": "coco"}).json()
    assert [(result["image_id"], result["file_name"]) for result in results] == [(1, names[0]), (3, "b.png")]
    assert results[0]["bbox"] == [20, 16, 40, 40]
    assert hotcoco.mask.decode(results[0]["segmentation"]).sum() == AREA
    assert "one picture" in told(api.post("/api/predict", files=parts, params={"format": "png"}), 400)


def test_segments(api):
    one = post(api, picture(), model="panoptic", masks="polygons").json()["photos"][0]
    thing, sky = one["segments"]
    assert (thing["class_name"], thing["thing"], thing["category_id"], thing["area"]) == (NAME, True, 7, 1600)
    assert (sky["class_name"], sky["thing"], sky["category_id"], sky["area"]) == ("sky", False, 9, 90 * 120 - 1600)
    assert len(sky["polygons"]) == 1 and len(sky["polygons"][0]) == 2  # one part with one hole
    runs = post(api, picture(), model="panoptic").json()["photos"][0]["segments"][1]["runs"]
    assert hotcoco.mask.decode(runs).sum() == sky["area"]


def test_geojson(api):
    """Rings are closed, and features carry everything else; without masks, boxes are the polygons."""
    x1, y1, x2, y2 = BOX
    corners = {"masks": OUTLINE, "panoptic": OUTLINE, "boxes": [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]}
    for model in ("masks", "boxes", "panoptic"):
        answer = post(api, picture(), model=model, format="geojson")
        assert answer.headers["content-type"] == "application/geo+json"
        found = answer.json()
        assert found["type"] == "FeatureCollection"
        for feature in found["features"]:
            assert feature["type"] == "Feature" and feature["geometry"]["type"] == "MultiPolygon"
            for part in feature["geometry"]["coordinates"]:
                assert all(len(ring) >= 4 and ring[0] == ring[-1] for ring in part)
        first = found["features"][0]
        ring = [list(corner) for corner in corners[model]]
        assert first["geometry"]["coordinates"] == [[[*ring, ring[0]]]]
        assert first["properties"]["class_name"] == NAME and first["properties"]["photo"] == "photo"
    assert [feature["properties"]["kind"] for feature in found["features"]] == ["instance", "segment", "segment"]


def test_schema(api):
    """OpenAPI names every answer and refusal."""
    schema = api.get("/api/openapi.json").json()
    operation = schema["paths"]["/api/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*", "application/octet-stream"}
    assert {"200", "400", "401", "404", "408", "413", "415", "503", "504"} <= set(operation["responses"])
    assert {"Answer", "PhotoAnswer", "InstanceAnswer", "SegmentAnswer", "Told"} <= set(schema["components"]["schemas"])


def header_of_png(width: int, height: int) -> bytes:
    """A small file that says it is huge."""
    small = BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG")
    content = small.getvalue()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"not a picture", 400, "photo: cannot be read as an image"),
        (picture()[:60], 400, "photo: cannot be read as an image"),
        (b"", 400, "holds no photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "cannot be read as an image"),
        (header_of_png(2000, 2000), 413, "1 million pixels"),
        (header_of_png(100_000, 100_000), 413, "1 million pixels"),
        (bytes(3000), 413, "larger than"),
    ],
    ids=["text", "cut short", "empty", "PostScript", "too large", "bomb", "too many bytes"],
)
def test_broken_and_too_large_photos(content, status, sentence):
    api = client(Limits(body_bytes=2000, pixels=1_000_000))
    assert sentence in told(post(api, content), status)


def test_broken_requests(api):
    assert "no model nothing" in told(post(api, picture(), model="nothing"), 404)
    assert "score" in told(post(api, picture(), score=2), 400)
    assert "score" in told(post(api, picture(), score="nan"), 400)
    assert "format" in told(post(api, picture(), format="xml"), 400)
    assert "no picture" in told(api.post("/api/predict", json={}), 415)
    assert "named other" in told(api.post("/api/predict", files=[("other", picture())]), 400)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "form" in told(api.post("/api/predict", content=b"junk", headers=broken), 400)
    told(api.post("/api/predict", content=b"junk", headers={"Content-Type": "multipart/form-data"}), 400)
    many = [("image", (f"{i}.png", picture())) for i in range(17)]
    assert "photos" in told(api.post("/api/predict", files=many), 413)
    for path in (
        "/nothing",
        "/../pyproject.toml",
        "/page/index.html",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/samples/99.png",
    ):
        assert api.get(path).status_code in (400, 404)


def test_a_defect_leaks_nothing():
    """An exception of the model: its text stays in the server's log."""

    models = predictors()
    models["masks"].prepare = lambda image: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    answer = post(client(models=models), picture())
    assert told(answer, 500) == "the server failed at this request: its log says why"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_comes_too_slowly():
    def drops():
        for _ in range(20):
            time.sleep(0.05)
            yield b"x"

    app = create_app(MODELS, Limits(upload_seconds=0.2))
    with running(app) as address:
        answer = httpx2.post(f"{address}/api/predict", content=drops(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 408 and "did not arrive" in answer.json()["error"]


class Gate:
    """A model that waits at a gate."""

    def __init__(self):
        self.models = predictors()
        self.open, self.begun = threading.Event(), threading.Semaphore(0)
        self.batches: list[Batch] = []
        detect = self.models["masks"].detect

        def wait(batch: Batch, score: float):
            self.begun.release()
            assert self.open.wait(20)
            self.batches.append(batch)
            return detect(batch, score)

        self.models["masks"].detect = wait  # pyright: ignore[reportAttributeAccessIssue]


def test_a_full_queue_says_when_to_come_again():
    """Two places: one at work, one waiting, the third is refused; the event loop answers all the while."""
    gate = Gate()
    with client(Limits(places=2), models=gate.models) as api, ThreadPoolExecutor(3) as threads:
        first = threads.submit(post, api, picture())
        assert gate.begun.acquire(timeout=10)
        second = threads.submit(post, api, picture(None))
        deadline = time.monotonic() + 10
        while (refused := post(api, b"")).status_code != 503:  # until the second has its place
            assert time.monotonic() < deadline
        assert "busy" in told(refused, 503) and int(refused.headers["retry-after"]) >= 1
        assert api.get("/api/models").status_code == 200
        gate.open.set()
        assert [len(f.result().json()["photos"][0]["instances"]) for f in (first, second)] == [1, 0]
        assert post(api, picture()).status_code == 200  # places come back


def test_an_answer_that_takes_too_long():
    """504 to both; the one that waited is never begun, and the places come back."""
    gate = Gate()
    with client(Limits(places=2, answer_seconds=0.2), models=gate.models) as api:
        assert "longer than 0.2 s" in told(post(api, picture()), 504)
        assert "longer than 0.2 s" in told(post(api, picture()), 504)
        assert told(post(api, picture()), 503)  # the two are inside until the first ends
        gate.open.set()
        deadline = time.monotonic() + 10
        while post(api, picture(), model="boxes").status_code != 200:
            assert time.monotonic() < deadline
    assert len(gate.batches) == 1


def test_a_stop_loses_no_request():
    """The server is asked to stop while a request is at work: it is answered first."""
    gate = Gate()
    with ThreadPoolExecutor(1) as threads, running(create_app(gate.models)) as address:
        headers = {"Content-Type": "image/png"}
        waiting = threads.submit(httpx2.post, f"{address}/api/predict", content=picture(), headers=headers)
        assert gate.begun.acquire(timeout=10)
        threading.Timer(0.3, gate.open.set).start()
    assert len(waiting.result().json()["photos"][0]["instances"]) == 1


def test_token():
    api = client(token="geheim")
    assert api.get("/").status_code == 200  # the page asks for it
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic geheim"},
        {"Authorization": "Bearer"},
    ):
        answer = api.get("/api/models", headers=headers)
        assert "token" in told(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
    assert api.get("/api/openapi.json").status_code == 401 and api.get("/api/samples/0.png").status_code == 401
    assert api.get("/api/models", headers={"Authorization": "Bearer geheim"}).status_code == 200


def test_foreign_pages_and_names_are_refused(api):
    for host in ("evil.example", "127.0.0.1.evil.example", "[", ""):
        assert "name" in told(api.get("/api/models", headers={"Host": host}), 403)
    assert api.get("/api/models", headers={"Host": "[::1]:8000"}).status_code == 200
    assert "pages of other servers" in told(api.get("/api/models", headers={"Origin": "null"}), 403)
    assert "pages of other servers" in told(api.get("/api/models", headers={"Origin": "http://evil.example"}), 403)
    assert api.get("/api/models", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    anywhere = TestClient(create_app(MODELS, hosts=None), base_url="http://box.example")
    assert anywhere.get("/api/models").status_code == 200


def test_the_page_needs_no_other_host(api):
    for path in ("/", "/page.js", "/scene.js", "/webcam.js", "/page.css"):
        answer = api.get(path)
        assert answer.status_code == 200 and "no-referrer" in answer.headers["referrer-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text


def test_a_photo_that_was_sent_reads_like_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    np.testing.assert_array_equal(read_image(NamedBytes(picture(), "a.png")), read_image(tmp_path / "a.png"))
    with pytest.raises(InputError, match=r"^bad\.png: cannot be read"):
        read_image(NamedBytes(b"bad", "bad.png"))


def test_the_command(tmp_path, capsys):
    """Bad input is one sentence: a missing file, a negative limit, a port that is taken."""
    assert main(["serve", str(tmp_path / "nowhere.safetensors")]) == 2
    assert main(["serve", "x.safetensors", "--places", "0"]) == 2
    with listen("127.0.0.1", 0) as sock, pytest.raises(InputError, match="choose another port"):
        listen("127.0.0.1", sock.getsockname()[1])
    shown = capsys.readouterr().err
    assert "nowhere.safetensors" in shown and "positive" in shown and "Traceback" not in shown
