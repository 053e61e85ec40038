"""`acclimate report --serve`: the registry's candidates as pages to read and, where a token is set, a form to decide."""

import hmac
import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

import typer
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from flows.registry import Version, find, versions
from flows.registry_cli import model_name, now
from flows.report_pages import Candidate, Refusal, candidate_page, list_page, look_at, message_page, report_of
from flows.review import decide
from flows.review_cli import close_forms, review_rules
from flows.review_form import CONTENT, FIELDS, MIN_TOKEN, check_site, form_bytes, form_of, form_problems
from flows.serve import listening_at, say, server_of
from flows.uploads import RefusedError
from tasks.core.reviews import Vote, closed

TOKEN = "ACCLIMATE_REVIEW_TOKEN"
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none at all a browser would hide where a form was sent from
    "X-Content-Type-Options": "nosniff",
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox"
)
WHICH = {
    "name": "which", "in": "path", "required": True, "schema": {"type": "string"},
    "description": "A version's number, an alias, or the first 8 letters of a candidate id.",
}  # fmt: skip
WRONG_TOKEN = (403, f"the token is missing or not the one that {TOKEN} holds; ask who started this page")


def serve_view(host: str, port: int, *, is_opened: bool) -> None:
    """Serves until it is told to stop. ValueError where others could reach it without a token, or the port is taken."""
    token = review_token()
    if token is None and not is_loopback(host):
        raise ValueError(
            f"others can reach --host {host}: set {TOKEN} first, or leave --host out for this machine alone"
        )
    name = model_name()
    server = server_of(make_view(name, token, is_local=is_loopback(host)))
    with listening_at(host, port) as (listening, address):
        listening.listen()
        ways = "with a form to decide" if token else f"to read; with {TOKEN} set they have a form to decide"
        say(f"{name}: its candidates are at {address}, {ways}")
        if is_opened:
            typer.launch(address)
        server.run(sockets=[listening])


def review_token() -> str | None:
    """The token of the environment, None where none is set. ValueError where it is too short to keep anybody out."""
    token = os.environ.get(TOKEN, "").strip()
    if token and len(token) < MIN_TOKEN:
        raise ValueError(
            f"{TOKEN} has {len(token)} characters; it needs {MIN_TOKEN} or more: "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` prints one"
        )
    return token or None


def is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_view(name: str, token: str | None, *, is_local: bool) -> FastAPI:
    """The service. is_local: it is asked for by this machine's own names only."""

    async def check_host(request: Request) -> None:  # else a site whose name is made to point here could read the pages
        if is_local and not is_loopback(host_name(f"//{request.headers.get('host', '')}")):
            raise RefusedError(400, "this page is for this machine's browsers: open it as 127.0.0.1 or localhost")

    app = FastAPI(
        title=f"acclimate: candidates of {name}", docs_url=None, redoc_url=None, redirect_slashes=False,
        dependencies=[Depends(check_host)], default_response_class=HTMLResponse,
    )  # fmt: skip
    for kind, handler in (
        (RefusedError, _refused),
        (HTTPException, _no_such_page),
        (ClientDisconnect, _gone),
        (Exception, _failed),
    ):
        app.add_exception_handler(kind, handler)
    parameters = {"parameters": [WHICH]}
    body = {"requestBody": {"required": True, "content": CONTENT}}

    @app.get("/", responses=pages(400, 503))
    def candidates() -> Response:
        """Shows every registered version with its verdict and review."""
        return page(list_page(name, known_versions(name)))

    @app.get("/versions/{which}", responses=pages(400, 404, 503), openapi_extra=parameters)
    def candidate(request: Request) -> Response:
        """Shows one version: verdict, votes, its report, and how to decide."""
        return page(candidate_page(look_at(wanted(name, request)), has_form=token is not None))

    @app.get("/versions/{which}/report", responses=pages(400, 404, 409, 503), openapi_extra=parameters)
    def report(request: Request) -> Response:
        """Shows the audit report of the checked bundle as it is."""
        return report_answer(wanted(name, request))

    @app.post(
        "/versions/{which}", status_code=303, response_class=RedirectResponse, openapi_extra=parameters | body,
        responses=pages(400, 403, 404, 408, 409, 413, 503) | {303: {"description": "Decided: the version's page"}},
    )  # fmt: skip
    async def decision(request: Request) -> Response:
        """Takes a decision, as `acclimate review approve | reject` do."""
        if token is None:
            raise RefusedError(403, f"nothing can be decided here: {TOKEN} is not set where this page was started")
        check_site(request)
        said = form_of(request.headers.get("content-type", ""), await form_bytes(request))
        return await run_in_threadpool(decided, name, token, request, said)

    return app


def decided(name: str, token: str, request: Request, said: dict[str, str]) -> Response:
    """The way back to the version's page, or that page with what speaks against the decision."""
    version, given = wanted(name, request), said.pop("token", "")
    found = look_at(version)
    status, sentence = refusal_of(found, said) if hmac.compare_digest(given.encode(), token.encode()) else WRONG_TOKEN
    if not sentence:
        try:
            rules = review_rules()
            texts = {key: said.get(key, "") for key in ("decision", "report_sha256", *FIELDS)}
            vote = Vote(candidate=version.candidate, time=now(), n_approvals=rules.n_approvals, **texts)
            decide(version, vote, rules)
        except (ValueError, OSError) as error:
            found = look_at(version)  # somebody else may have decided meanwhile
            status, sentence = (400 if found.is_open else 409), str(error)
    if sentence:
        return page(candidate_page(found, has_form=True, refusal=Refusal(sentence, said)), status)
    headers = HEADERS | {"Content-Security-Policy": PAGE_POLICY}
    return RedirectResponse(f"/versions/{version.candidate}", 303, headers, BackgroundTask(close_forms))


def refusal_of(found: Candidate, said: dict[str, str]) -> tuple[int, str]:
    """The status and why the form can't be taken, (0, "") if the review may look at it."""
    number = found.version.number
    if found.problem or found.review is None or found.subject is None:
        return 409, f"version {number} can't be decided on: {found.problem}"
    if not found.is_open:
        return 409, closed(found.review)
    if said.get("report_sha256") != found.subject.report_sha256:
        return 409, f"the report that you were shown is not the one of version {number}; read this one"
    if problems := form_problems(said):
        return 400, "; ".join(problems)
    return 0, ""


def report_answer(version: Version) -> Response:
    """The report as it lies in the bundle. RefusedError 409 where a byte isn't what it was."""
    try:
        content = report_of(version)
    except (ValueError, OSError) as error:
        raise RefusedError(409, f"the report can't be shown: {error}") from None
    return HTMLResponse(content, headers=HEADERS | {"Content-Security-Policy": REPORT_POLICY})


def host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def known_versions(name: str) -> list[Version]:
    """RefusedError 503 where the registry can't be asked."""
    try:
        return versions(name)
    except Exception as error:
        raise not_asked(error) from error


def wanted(name: str, request: Request) -> Version:
    """The version that the path names. RefusedError 404 where there is none, 503 where the registry can't be asked."""
    try:
        return find(name, request.path_params["which"])
    except ValueError as error:
        raise RefusedError(404, str(error)) from None
    except Exception as error:
        raise not_asked(error) from error


def not_asked(error: Exception) -> RefusedError:
    """Whatever the registry's client or database raised, the pages wait for it."""
    told = " ".join(str(error).split())[:300]
    return RefusedError(503, f"the registry can't be asked now: {type(error).__name__}: {told}")


def page(content: str, status: int = 200) -> Response:
    return HTMLResponse(content, status, HEADERS | {"Content-Security-Policy": PAGE_POLICY})


def pages(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the description: each of these is a page with one sentence on what is wrong."""
    html = {"text/html": {"schema": {"type": "string"}}}
    return {status: {"content": html, "description": "A page that says why, and what to do"} for status in statuses}


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return page(message_page("Not possible", error.sentence), error.status)


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.scope['path'][:200]} is not here; begin with the list of all candidates"
    answer = page(message_page("No such page", told), error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _gone(_: Request, error: Exception) -> Response:
    return page(message_page("Not possible", "the form ended before all of it came"), 400)  # nobody reads it


async def _failed(_: Request, error: Exception) -> Response:
    return page(message_page("Failed", "the page failed; the log of the command says why"), 500)
