"""Damaged requests to the server: an answer, or a refusal with status and one sentence; never a defect or a stack trace."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from mutations import damage_bytes, damage_text
from starlette.testclient import TestClient

from perpixel.serve.app import create_app
from perpixel.serve.limits import Limits
from serve_fakes import picture, predictors

Target = Callable[[Random, Path], str | None]


def request(base: Path) -> Target:
    api = TestClient(
        create_app(predictors(), Limits(body_bytes=100_000, pixels=100_000)),
        base_url="http://127.0.0.1:8000",
        raise_server_exceptions=False,
    )
    photo = picture()
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form = part + photo + b"\r\n" + part + photo + b"\r\n--x--\r\n"

    def case(random: Random, folder: Path) -> str | None:
        body, kind = random.choice(((photo, "image/png"), (form, "multipart/form-data; boundary=x")))
        if random.random() < 0.7:
            body = damage_bytes(body, random)
        if random.random() < 0.3:
            kind = "".join(letter for letter in damage_text(kind, random) if " " <= letter < "\x7f")
        query = random.choice(("", "score=0.5&format=json&masks=polygons", "model=boxes&format=geojson", "format=png"))
        if random.random() < 0.4:
            query = damage_text(query, random).encode("utf-8", "replace").decode()
        answer = api.post("/api/predict", content=body, params=query, headers={"Content-Type": kind.strip() or "x/y"})
        if answer.status_code == 200:
            return None
        if answer.status_code not in (400, 404, 413, 415, 503):
            return f"status {answer.status_code}: {answer.text[:300]}"
        told = answer.json()
        bad = (
            set(told) != {"error"}
            or "\n" in told["error"]
            or "Traceback" in answer.text
            or str(Path.cwd()) in answer.text
        )
        return f"told {answer.text[:300]}" if bad else None

    return case


REQUESTS: dict[str, Callable[[Path], Target]] = {"request": request}
