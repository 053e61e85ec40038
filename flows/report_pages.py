"""The pages of `acclimate report --serve`: what is known of the candidates, as HTML that needs no script and no network."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.registry import Version
from flows.results import audit_paragraph
from flows.review import REPORT, reviews_folder, subject_of
from flows.review_cli import state_of
from flows.review_form import FIELDS
from tasks.core.bias_words import OUTCOMES, spelled
from tasks.core.files import read_json
from tasks.core.reviews import PENDING, Review, Subject, read_review

TEMPLATE = "report_view.html.jinja"
SHOWN_SHA256 = 12


@dataclass(frozen=True)
class Candidate:
    """A version as it stands: its bundle checked to the byte; `problem` says why nothing can be decided, "" if it can."""

    version: Version
    review: Review | None  # None where a vote is damaged
    subject: Subject | None  # None where the bundle is damaged
    audit: dict[str, Any]
    problem: str

    @property
    def is_open(self) -> bool:
        return not self.problem and self.review is not None and self.review.decision == PENDING


@dataclass(frozen=True)
class Refusal:
    """Why a decision was not taken, and what was typed; the token is never shown again."""

    sentence: str
    typed: Mapping[str, str]


def look_at(version: Version) -> Candidate:
    """What the page of the version shows; damage is told, not raised."""
    review, subject, audit, problems = None, None, {}, []
    try:
        review = read_review(reviews_folder(), version.candidate)
    except (ValueError, OSError) as error:
        problems.append(f"its votes can't be read: {error}")
    try:
        subject = subject_of(version)
        audit = read_json(version.folder / "verdict.json", made_by="audit_bias")
    except (ValueError, OSError) as error:
        problems.append(f"its bundle can't be trusted: {error}")
    return Candidate(version, review, subject, audit, "; ".join(problems))


def report_of(version: Version) -> bytes:
    """The audit page of the checked bundle. ValueError or OSError where a byte of it isn't what was registered."""
    expected, content = subject_of(version).report_sha256, (version.folder / REPORT).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"the report of version {version.number} changes while it is read; restore its bundle")
    return content


def list_page(name: str, known: list[Version]) -> str:
    """All versions, the newest first. Their bundles are not read: that is done when one is opened."""
    rows = [
        {"version": each, "verdict": each.tags.get("verdict", ""), "review": review_words(each.candidate)}
        for each in reversed(known)
    ]
    return render("list", title=f"{name}: candidates", name_of_model=name, rows=rows)


def review_words(candidate: str) -> str:
    try:
        return state_of(read_review(reviews_folder(), candidate))
    except (ValueError, OSError):
        return "damaged"


def candidate_page(found: Candidate, *, has_form: bool, refusal: Refusal | None = None) -> str:
    """One version with its report, votes and the ways to decide."""
    version = found.version
    title = f"{version.name} version {version.number}"
    return render(
        "candidate",
        title=f"Not accepted: {title}" if refusal else title,
        heading=title,
        c=found,
        why=audit_paragraph(found.audit) if found.audit else "",
        state=state_of(found.review) if found.review else "damaged",
        has_form=has_form and found.is_open,
        refusal=refusal,
        typed=dict.fromkeys(("decision", *FIELDS), "") | (dict(refusal.typed) if refusal else {}),
        fields=FIELDS,
        n_shown=SHOWN_SHA256,
    )


def message_page(title: str, sentence: str) -> str:
    return render("message", title=title, sentence=sentence)


def render(page: str, **facts: Any) -> str:
    return _environment().get_template(TEMPLATE).render(page=page, outcomes=OUTCOMES, spelled=spelled, **facts)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
