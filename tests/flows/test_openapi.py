"""Requests drawn from each service's own description: none makes it fail, and every answer is as described."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from made_registry import NAME, registered
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_serve import limits, standing

from flows.report_view import make_view
from flows.review import reviews_folder, subject_of
from flows.serving import make_app

pytest_plugins = ("registry_fixtures",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),  # its own use of SQLAlchemy
]
HERE = "http://127.0.0.1"
TOKEN = "a token of some length"
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    """So that nothing is kept beside the tests."""
    set_hypothesis_home_dir(tmp_path / "hypothesis")


def answers(app: FastAPI, n: int, mended: dict[str, Any] | None = None) -> Counter[tuple[str, int]]:
    """(operation, status) of n requests per operation that takes anything, as described and against it, each answer checked.

    mended: path and form fields that are put right in two of three, else hardly one would get past the door.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for found in schemathesis.openapi.from_asgi(
        "/openapi.json", app, headers={"host": "127.0.0.1"}
    ).get_all_operations():
        operation = found.ok()
        takes_anything = bool(operation.body or operation.path_parameters)
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if takes_anything else [GenerationMode.POSITIVE]

        @settings(
            max_examples=n, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.one_of([operation.as_strategy(mode) for mode in modes]), st.sampled_from([False, True, True]))
        def ask(case: Case, is_mended: bool) -> None:
            headers = put_right(case, mended) if is_mended and mended else {}
            answer = case.call(base_url=HERE, headers=headers)
            seen[case.operation.label, answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS if headers else [*CHECKS, negative_data_rejection])
            if answer.status_code == 303:
                shutil.rmtree(reviews_folder())  # the next one finds an open review again

        ask()
    return seen


def put_right(case: Case, mended: dict[str, Any]) -> dict[str, str]:
    """The headers of a browser; path and form are changed in place."""
    if "which" in case.path_parameters:
        case.path_parameters["which"] = mended["which"]
    if isinstance(case.body, dict):
        case.body |= mended["body"]
    return {"sec-fetch-site": "same-origin"}


def test_the_model_service_answers_as_it_describes_itself() -> None:
    seen = answers(make_app(standing(), limits(), 2), 250)
    assert sum(seen.values()) >= 250
    assert {("POST /predict", 200), ("POST /predict", 400), ("GET /health", 200), ("GET /model", 200)} <= set(seen)


def test_the_candidates_view_answers_as_it_describes_itself(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    known = {"token": TOKEN, "report_sha256": subject_of(version).report_sha256, "reviewer": "ann", "reason": "so"}
    mended = {"which": "1", "body": known}
    seen = answers(make_view(NAME, TOKEN, is_local=True), 75, mended)
    assert sum(seen.values()) >= 200
    assert {("GET /", 200), ("GET /versions/{which}", 200), ("GET /versions/{which}", 404)} <= set(seen)
    assert {("GET /versions/{which}/report", 200), ("GET /versions/{which}/report", 404)} <= set(seen)
    assert {("POST /versions/{which}", status) for status in (303, 400, 403)} <= set(seen)


def faulty(kind: str) -> FastAPI:
    """A service that does for one word what it should never do."""
    app = FastAPI()

    @app.get("/{word}")
    async def answer(word: str) -> dict[str, str]:
        if kind == "fails":
            return JSONResponse({}, 500)  # type: ignore[return-value]
        return JSONResponse({"a": 1}, 418 if kind == "undescribed" else 200)  # type: ignore[return-value]

    return app


@pytest.mark.parametrize("kind", ["fails", "undescribed", "another shape"])
def test_a_wrong_answer_is_seen(kind: str) -> None:
    with pytest.raises(BaseExceptionGroup):
        answers(faulty(kind), 5)
