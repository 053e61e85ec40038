"""The form on a candidate's page: what it may hold, and what a browser sent of it."""

import asyncio
import unicodedata
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from flows.uploads import RefusedError
from tasks.core.reviews import APPROVE, REJECT

KIND = "application/x-www-form-urlencoded"
DECISIONS = (APPROVE, REJECT)
MAX_NAME, MAX_TEXT = 200, 4000  # letters, as in the form on Prefect's server
FIELDS = {"reviewer": MAX_NAME, "role": MAX_NAME, "reason": MAX_TEXT, "override": MAX_TEXT}
MIN_TOKEN = 16  # characters
MAX_FORM_BYTES = 2**17  # both long fields full of letters that travel as twelve bytes
SEND_S = 10.0
TEXTS = {name: {"type": "string", "maxLength": most} for name, most in FIELDS.items()}
BODY: dict[str, Any] = {
    "type": "object",
    "properties": TEXTS
    | {name: TEXTS[name] | {"pattern": r"\S"} for name in ("reviewer", "reason")}
    | {"decision": {"enum": list(DECISIONS)}, "token": {"type": "string", "minLength": MIN_TOKEN}}
    | {"report_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
    "required": ["decision", "reviewer", "reason", "report_sha256", "token"],
    "additionalProperties": False,
}
CONTENT = {KIND: {"schema": BODY}}


def form_of(content_type: str, body: bytes) -> dict[str, str]:
    """Field → what was typed, without blanks at its ends. RefusedError 400 where it is no form."""
    if content_type.split(";")[0].strip().lower() != KIND:
        raise RefusedError(400, f"a decision is sent as {KIND}, by the form on the version's page")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20
        )
    except ValueError:  # also of letters that aren't UTF-8
        pairs = []
    said = {name: text.replace("\r\n", "\n").strip() for name, text in pairs}
    if not pairs or len(said) < len(pairs) or not said.keys() <= BODY["properties"].keys():
        raise RefusedError(400, "the form is damaged; send it from the version's page")
    return said


def form_problems(said: dict[str, str]) -> list[str]:
    """Sentences on what the form itself forbids; who may decide, and on what grounds, is the review's to say."""
    problems = []
    if said.get("decision") not in DECISIONS:
        problems.append("it is not said whether to approve or to reject; choose one")
    for name, most in FIELDS.items():
        text = said.get(name, "")
        if len(text) > most:
            problems.append(f"the {name} has {len(text)} characters; write at most {most}")
        if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in text):
            problems.append(f"the {name} holds control characters; type it anew")
    return problems


async def form_bytes(request: Request) -> bytes:
    """RefusedError 413 as soon as there is too much, 408 where it comes too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(SEND_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM_BYTES:
                    raise RefusedError(413, f"the form is larger than {MAX_FORM_BYTES} bytes; write less")
    except TimeoutError:
        raise RefusedError(408, "the form came too slowly; send it again") from None
    return bytes(body)


def check_site(request: Request) -> None:
    """Nothing. RefusedError 403 unless the browser says that the form stood on our own page.

    Sec-Fetch-Site is the browser's own word; where it sends none (no TLS, not this machine), Origin names the page's place.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "")
    is_ours = (
        site == "same-origin" if site is not None else place(origin) == request.headers.get("host", "").lower() != ""
    )
    if not is_ours:
        raise RefusedError(
            403, "a decision is taken from the version's own page only, not from another site or program"
        )


def place(address: str) -> str:
    """Host and port, in small letters; "" where the address is none."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""
