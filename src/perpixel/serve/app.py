"""The REST API and the page, as one ASGI application."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from perpixel import __version__
from perpixel.data.image import NamedBytes
from perpixel.engine.predict import AnyPredictor
from perpixel.errors import InputError
from perpixel.serve import samples
from perpixel.serve.answers import Answer, Form, Masks, Told, coco, geojson, photo_answer, picture
from perpixel.serve.guard import LOOPBACK, Guard
from perpixel.serve.limits import Limits, Refused
from perpixel.serve.uploads import FIELD, decoded, photos_of, printable
from perpixel.serve.worker import Worker

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/scene.js": ("scene.js", "text/javascript"),
    "/webcam.js": ("webcam.js", "text/javascript"),
}
"""Every file of the page: a path that is not here leads nowhere."""

BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
REQUEST_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": FORM}, "image/*": BINARY, "application/octet-stream": BINARY},
}
REFUSALS = {
    400: "no picture, a broken one, or a wrong option",
    401: "no token",
    404: "no such model",
    408: "the body came too slowly",
    413: "too many bytes, pixels or photos",
    415: "neither a form nor a picture",
    503: "busy; Retry-After says when to come again",
    504: "the answer took too long",
}


class ModelAnswer(BaseModel):
    """A model that the server has."""

    name: str
    classes: list[str]
    stuff: list[str] = Field(description="classes without objects, of a panoptic model")
    keypoints: list[str]
    skeleton: list[tuple[int, int]] = Field(description="pairs of keypoints that a limb joins, counted from 0")


class Models(BaseModel):
    """All models, the first being the one that answers where none is asked for, and what a request may ask for."""

    models: list[ModelAnswer]
    samples: int = Field(description="pictures at /api/samples/0.png and on")
    max_bytes: int
    max_pixels: int
    max_photos: int


def create_app(
    models: Mapping[str, AnyPredictor],
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Sequence[str] | None = LOOPBACK,
) -> Guard:
    """The application that serves `models`.

    Args:
        models: by the name that requests use; at least one.
        limits: what requests may ask for.
        token, hosts: as of `Guard`.
    """
    limits = limits or Limits()
    worker = Worker(limits.places)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        worker.close()

    # The pages of documentation that FastAPI offers load scripts from another host.
    app = FastAPI(
        title="perpixel",
        version=__version__,
        description="Finds objects in photos.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_errors(app)
    _add_page(app)

    @app.get("/api/models")
    async def list_models() -> Models:
        """The models and their classes."""
        answers = [
            ModelAnswer(
                name=name,
                classes=list(predictor.class_names),
                stuff=list(predictor.stuff.names),
                keypoints=list(predictor.keypoint_names),
                skeleton=list(predictor.skeleton),
            )
            for name, predictor in models.items()
        ]
        return Models(
            models=answers,
            samples=samples.COUNT,
            max_bytes=limits.body_bytes,
            max_pixels=limits.pixels,
            max_photos=limits.photos,
        )

    @app.get("/api/samples/{number}.png", response_class=Response)
    def show_sample(number: Annotated[int, Path(ge=0, lt=samples.COUNT)]) -> Response:
        """A generated picture to try a model on."""
        return Response(samples.sample(number), media_type="image/png")

    @app.post(
        "/api/predict",
        response_model=Answer,
        responses={status: {"model": Told, "description": about} for status, about in REFUSALS.items()},
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="a name of /api/models; the first by default")] = None,
        score: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="smallest score kept")] = 0.5,
        form: Annotated[
            Form,
            Query(
                alias="format",
                description="json; coco: results; geojson: pixels as coordinates; png: a picture of the one photo",
            ),
        ] = "json",
        masks: Annotated[Masks, Query(description="how json gives masks")] = "runs",
    ) -> Response:
        """What is in one or several photos: parts named `image` of a form, or one picture as the body."""
        name = next(iter(models)) if model is None else model
        if name not in models:
            raise Refused(404, f"there is no model {printable(name)}: this server has {', '.join(models)}")
        with worker.place() as place:
            photos = await photos_of(request, limits)
            if form == "png" and len(photos) > 1:
                raise InputError(f"format=png answers with one picture, and the request holds {len(photos)} photos")
            content, kind = await place.run(
                lambda: _answer(name, models[name], photos, score, form, masks, limits), limits.answer_seconds
            )
        return Response(content, media_type=kind)

    return Guard(app, token, hosts)


def _answer(
    name: str,
    predictor: AnyPredictor,
    photos: Sequence[NamedBytes],
    score: float,
    form: Form,
    masks: Masks,
    limits: Limits,
) -> tuple[str | bytes, str]:
    """The answer's content and media type; one photo's pixels are held at a time. The worker's thread does this."""
    found, answers = [], []
    for photo in photos:
        one = predictor.predict_frames([decoded(photo, limits)], score)[0]
        if form == "png":
            return picture(one), "image/png"
        if form == "coco":
            found.append(replace(one, image=None))
        else:
            answers.append(photo_answer(one, str(photo), predictor, "polygons" if form == "geojson" else masks))
    if form == "coco":
        return coco(found, [str(photo) for photo in photos], predictor), "application/json"
    if form == "geojson":
        return geojson(answers), "application/geo+json"
    return Answer(model=name, photos=answers).model_dump_json(exclude_none=True), "application/json"


def _add_page(app: FastAPI) -> None:
    """The files of the page, read once: no request reaches the disk."""
    folder = files("perpixel.serve") / "page"
    for path, (name, kind) in PAGE.items():
        answer = Response((folder / name).read_bytes(), media_type=kind)
        app.add_api_route(path, _always(answer), response_class=Response, include_in_schema=False)


def _always(answer: Response) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        return answer

    return show


def _add_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told in one sentence."""

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        if isinstance(error, Refused):
            return JSONResponse({"error": str(error)}, error.status, error.headers)
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def bad_option(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)

    @app.exception_handler(HTTPException)
    async def no_such_thing(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{error.detail}: /api/openapi.json says what there is"}, error.status_code)

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"error": "the server failed at this request: its log says why"}, 500)
