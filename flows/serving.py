"""The web service around a served model: typed answers, bounded work, every refusal one sentence of JSON."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from flows.served_model import Loaded, ServedModel, review_state
from flows.uploads import FORM, Limits, RefusedError, pixels_of, read_body, uploads

RETRY_AFTER_S = 1
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FILES = {
    "type": "object",
    "properties": {"images": {"type": "array", "minItems": 1, "items": IMAGE["schema"]}},
    "required": ["images"],
}
BODY = {"required": True, "content": {FORM: {"schema": FILES}, "image/*": IMAGE, "application/octet-stream": IMAGE}}


@dataclass(frozen=True)
class Problem:
    """Why there is no answer, and what to do."""

    error: str


@dataclass(frozen=True)
class Prediction:
    """Of one image. ask_a_person: no confidence, or none this low, was shown to be accurate enough."""

    name: str
    y_pred: str
    confidence: float
    ask_a_person: bool
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """In the order of the images; all by the same version."""

    version: str
    candidate: str
    predictions: list[Prediction]


@dataclass(frozen=True)
class Health:
    """status: serving, or behind where what the registry names can't be served; `problem` says why."""

    status: str
    version: str
    candidate: str
    problem: str | None
    looked: str


@dataclass(frozen=True)
class Vote:
    reviewer: str
    role: str
    decision: str
    time: str
    reason: str
    override: str


@dataclass(frozen=True)
class Model:
    """The version that answers now. files: sha256 of each file of its bundle, all checked before it was loaded."""

    name: str
    version: str
    candidate: str
    registered: str
    since: str
    verdict: str
    decision: str
    adopted: str
    review: str
    votes: list[Vote]
    classes: list[str]
    image_px: int
    temperature: float
    ask_below: float | None
    files: dict[str, str]


class Desk:
    """Takes at most `n_at_once` requests in hand; work that outlasts its request keeps its place until it ends."""

    def __init__(self, limits: Limits, n_workers: int) -> None:
        self.limits = limits
        self.pool = ThreadPoolExecutor(n_workers, thread_name_prefix="predict")
        self._places = threading.BoundedSemaphore(limits.n_at_once)

    async def answer(self, request: Request, work: Callable[[bytes], Predictions]) -> Predictions:
        """RefusedError 503 where all places are taken or the work takes too long, 408 where the body does."""
        if not self._places.acquire(blocking=False):
            raise RefusedError(503, "the service is busy; try again after a second")
        future: Future[Predictions] | None = None
        try:
            body = await self._in_time(
                read_body(request, self.limits), RefusedError(408, "the request came too slowly; send it again")
            )
            future = self.pool.submit(work, body)
            future.add_done_callback(lambda _: self._places.release())
            return await self._in_time(
                asyncio.wrap_future(future),
                RefusedError(
                    503, f"the answer took more than {self.limits.timeout_s:g} seconds; try again, or send fewer images"
                ),
            )
        finally:
            if future is None:
                self._places.release()

    async def _in_time(self, waited_for: Any, refusal: RefusedError) -> Any:
        try:
            return await asyncio.wait_for(waited_for, self.limits.timeout_s)
        except TimeoutError:
            raise refusal from None


def make_app(served: ServedModel, limits: Limits, n_workers: int) -> FastAPI:
    """The service. No page of its own: FastAPI's would load scripts from elsewhere."""
    app = FastAPI(title=f"acclimate: {served.wanted.name}", docs_url=None, redoc_url=None, redirect_slashes=False)
    desk = Desk(limits, n_workers)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _no_such_thing)
    app.add_exception_handler(Exception, _failed)
    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 408, 413, 503)}

    @app.post("/predict", responses=refusals, openapi_extra={"requestBody": BODY})
    async def predict(request: Request) -> Predictions:
        """Classifies the images of a form, or the one image that is the body."""
        content_type = request.headers.get("content-type", "")
        return await desk.answer(request, lambda body: predictions(served.current, content_type, body, limits))

    @app.get("/health")
    async def health() -> Health:
        """Says which version serves, and whether it is the one that the registry names."""
        loaded, problem = served.current, served.problem
        status = "behind" if problem else "serving"
        return Health(status, loaded.version.number, loaded.version.candidate, problem, served.looked)

    @app.get("/model")
    async def model() -> Model:
        """Says where the version that serves comes from, and who approved it."""
        return model_facts(served.current)

    return app


def predictions(loaded: Loaded, content_type: str, body: bytes, limits: Limits) -> Predictions:
    """RefusedError where not every image can be read."""
    found, classifier = uploads(content_type, body, limits), loaded.classifier
    rows = []
    for upload, probs_C in zip(found, classifier.probabilities(pixels_of(found, classifier, limits)), strict=True):
        best = int(probs_C.argmax())
        confidence = float(probs_C[best])
        shares = dict(zip(classifier.classes, map(float, probs_C), strict=True))
        rows.append(Prediction(upload.name, classifier.classes[best], confidence, classifier.asks(confidence), shares))
    return Predictions(loaded.version.number, loaded.version.candidate, rows)


def model_facts(loaded: Loaded) -> Model:
    version, description = loaded.version, loaded.classifier.description
    told = ("reviewer", "role", "decision", "time", "reason", "override")
    return Model(
        name=version.name,
        version=version.number,
        candidate=version.candidate,
        registered=version.registered,
        since=loaded.since,
        verdict=loaded.manifest["verdict"],
        decision=loaded.manifest["decision"],
        adopted=loaded.manifest["adopted"],
        review=review_state(loaded),
        votes=[Vote(**{key: getattr(vote, key) for key in told}) for vote in loaded.review.votes],
        classes=loaded.classifier.classes,
        image_px=description["image_px"],
        temperature=loaded.classifier.temperature,
        ask_below=description.get("ask_below"),
        files=loaded.manifest["files"],
    )


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(asdict(Problem(sentence)), status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 503 else None
    return _answer(error.status, error.sentence, headers)


async def _gone(_: Request, error: Exception) -> JSONResponse:
    return _answer(400, "the request ended before all of it came")  # nobody reads it


async def _no_such_thing(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.scope['path'][:200]}"
    told = f"{asked} is not here; there are POST /predict, GET /health, GET /model and GET /openapi.json"
    return _answer(error.status_code, told, dict(error.headers or {}))


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return _answer(500, "the service failed; its log says why")
