"""`acclimate report --serve`, over real sockets: it shows what is registered, and takes a decision from its own form alone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from made_registry import NAME, registered
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flows import review_form
from flows.cli import app as commands
from flows.registry import Version
from flows.report_view import make_view
from flows.review import approved, decide, reviews_folder, subject_of
from flows.serve import listening_at, server_of
from tasks.core.reviews import APPROVE, PENDING, ReviewRules, Vote, read_review

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy
PROJECT = Path(__file__).parents[2]
TOKEN = "sixteen letters."
OWN_PAGE = {"sec-fetch-site": "same-origin"}
HOSTILE = '<script>alert("x")</script>'


@contextmanager
def viewing(token: str | None = TOKEN, *, is_local: bool = True) -> Iterator[httpx.Client]:
    """A client of a real server on a free port; it sends what a browser sends from our own pages."""
    server = server_of(make_view(NAME, token, is_local=is_local))
    with listening_at("127.0.0.1", 0) as (listening, address):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            with httpx.Client(base_url=address, headers=OWN_PAGE, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def filled(version: Version, **changes: str) -> dict[str, str]:
    """The form as somebody fills it in to approve."""
    said = {"decision": "approve", "reviewer": "bob", "role": "owner", "reason": "looks right", "token": TOKEN}
    return said | {"report_sha256": subject_of(version).report_sha256} | changes


def decision(version: Version) -> str:
    return read_review(reviews_folder(), version.candidate).decision


def problem_on(answer: httpx.Response) -> str:
    """The sentence in the page's alert."""
    (told,) = re.findall(r'<p class="alert" role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", "", told))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


class Shape(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.tags if found == tag]

    def fields(self) -> set[str]:
        return {each["name"] for tag in ("input", "textarea") for each in self.all(tag)}


def test_the_list_shows_every_version_the_newest_first(home: Path, tmp_path: Path) -> None:
    with viewing() as client:
        assert f"No version of the model <bdi>{NAME}</bdi> is registered yet" in client.get("/").text
        first, second = registered(tmp_path, "a", verdict="fail"), registered(tmp_path, "bb")
        client.post(f"/versions/{first.candidate}", data=filled(first, decision="reject"))
        page = client.get("/").text
    assert [each["href"] for each in Shape(page).all("a")] == ["#main", "/versions/2", "/versions/1"]
    newest, oldest = page.split("<tbody")[1].split("</tr>")[:2]
    for told in (second.candidate[:12], second.registered, "✓ pass", "pending", "challenger"):
        assert told in newest
    for told in (first.candidate[:12], "✗ fail", "rejected by bob"):
        assert told in oldest


def test_a_page_shows_what_is_to_be_decided_and_how(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a", verdict="fail")
    sha256 = subject_of(version).report_sha256
    with viewing(token=None) as client:
        pages = [client.get(f"/versions/{which}").text for which in ("1", "challenger", version.candidate[:8])]
        assert client.get("/versions/2").status_code == 404
        assert "No version of the model 'digits' has the number" in problem_on(client.get("/versions/2"))
    assert pages[0] == pages[1] == pages[2]
    page = unescape(pages[0])
    for told in (
        "✗ fail</span>: <bdi>1 of 1 required rules broken: gap (site): group a is worse</bdi>",
        "needed: <bdi>the audit's verdict is fail", sha256, version.candidate, "Nobody has voted",
        f'acclimate review approve 1 --reviewer NAME --role ROLE --reason "WHY" --override "WHY ALL THE SAME" '
        f"--report-sha256 {sha256[:12]}", "With ACCLIMATE_REVIEW_TOKEN set",
    ):  # fmt: skip
        assert told in page
    assert page.index("group a is worse") < page.index("<h2")  # the reason comes before all facts
    assert Shape(page).fields() == set()
    assert [each["src"] for each in Shape(page).all("iframe")] == [f"/versions/{version.candidate}/report"]


def test_the_report_is_shown_to_the_byte_and_may_do_nothing(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    with viewing() as client:
        report, page = client.get("/versions/1/report"), client.get("/versions/1")
    assert report.content == (version.folder / "report.html").read_bytes() == b"<p>report on a: pass</p>"
    policy = report.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "sandbox", "form-action 'none'", "frame-ancestors 'self'"} <= set(policy)
    assert not any(part.startswith(("script-src", "connect-src")) for part in policy)
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "form-action 'self'", "frame-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    for answer in (report, page):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert Shape(page.text).all("iframe")[0]["sandbox"] == ""  # no script, no form, no origin of its own


def test_a_decision_of_the_form_is_the_one_of_the_command(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a", verdict="fail")
    said = filled(version, reviewer="  Zoë Müller ", reason="first\r\nsecond", override="three images only")
    with viewing() as client:
        assert Shape(client.get("/versions/1").text).fields() == set(said)
        answer = client.post(f"/versions/{version.candidate}", data=said)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/versions/{version.candidate}")
        page = client.get(answer.headers["location"]).text
        listed = CliRunner().invoke(commands, ["review", "show", "1"]).stdout
        late = client.post("/versions/1", data=said | {"decision": "reject", "reviewer": "ann"})
    (vote,) = read_review(reviews_folder(), version.candidate).votes
    assert (vote.decision, vote.reviewer, vote.role) == (APPROVE, "Zoë Müller", "owner")
    assert (vote.reason, vote.override, vote.n_approvals) == ("first\nsecond", "three images only", 1)
    assert vote.report_sha256 == subject_of(version).report_sha256
    assert approved(version).votes == (vote,)
    assert "review: approved by Zoë Müller" in listed
    for told in ("approved by Zoë Müller", "first</bdi><br><bdi>second", "three images only", "acclimate promote 1"):
        assert told in page
    assert Shape(page).fields() == set()
    assert late.status_code == 409
    assert "was approved by Zoë Müller" in problem_on(late)
    assert "the first decision stands" in problem_on(late)


REFUSED: list[tuple[int, dict[str, str], str]] = [
    (403, {"token": "sixteen letters!"}, "the token is missing or not the one that ACCLIMATE_REVIEW_TOKEN holds"),
    (403, {"token": ""}, "the token is missing"),
    (409, {"report_sha256": "0" * 64}, "the report that you were shown is not the one of version 1; read this one"),
    (400, {"reason": " \n "}, "a decision needs a reason; write one"),
    (400, {"reviewer": ""}, "it is not said who decides; name the reviewer"),
    (
        400,
        {"override": ""},
        "the audit's verdict is fail: to approve it all the same, write why as an override, `--override`",
    ),
    (400, {"decision": ""}, "it is not said whether to approve or to reject; choose one"),
    (400, {"decision": "withdraw"}, "it is not said whether to approve or to reject"),
    (400, {"role": "x" * 201}, "the role has 201 characters; write at most 200"),
    (400, {"reason": "a\x1b[2J"}, "the reason holds control characters; type it anew"),
]


def test_a_mistake_is_told_in_a_sentence_and_what_was_typed_is_kept(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a", verdict="fail")
    said = filled(
        version, reviewer=f"Ann {HOSTILE}", role="its owner", reason="so &\r\n</textarea> it is", override="few images"
    )
    with viewing() as client:
        for status, changes, sentence in REFUSED:
            answer = client.post("/versions/1", data=said | changes)
            assert (answer.status_code, sentence in problem_on(answer)) == (status, True), problem_on(answer)
            assert TOKEN not in answer.text
            assert f'value="{subject_of(version).report_sha256}"' in answer.text
            for name in ("reviewer", "role", "reason", "override"):
                typed = (said | changes)[name].replace("\r\n", "\n").strip()
                assert escape(typed).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in answer.text
            assert HOSTILE not in answer.text
            (chosen,) = [each["value"] for each in Shape(answer.text).all("input") if "checked" in each] or [""]
            assert chosen == ((said | changes)["decision"] if changes.get("decision") != "withdraw" else "")
    assert decision(version) == PENDING
    assert not reviews_folder().exists() or not list(reviews_folder().iterdir())


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://{host}"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://{host}"}, True),
        ({"origin": "http://{host}.evil.example"}, False),
        ({"origin": "http://127.0.0.1:1"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({}, False),
    ],
)
def test_a_decision_comes_from_our_own_page_alone(
    home: Path, tmp_path: Path, headers: dict[str, str], is_ours: bool
) -> None:
    version = registered(tmp_path, "a")
    with viewing() as client:
        del client.headers["sec-fetch-site"]
        sent = {name: value.format(host=client.base_url.netloc.decode()) for name, value in headers.items()}
        answer = client.post("/versions/1", data=filled(version), headers=sent)
    assert answer.status_code == (303 if is_ours else 403)
    assert decision(version) == (APPROVE if is_ours else PENDING)
    if not is_ours:
        assert "from the version's own page only" in problem_on(answer)


def test_without_a_token_nothing_can_be_decided(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    with viewing(token=None) as client:
        for token in (TOKEN, ""):
            answer = client.post("/versions/1", data=filled(version, token=token))
            assert answer.status_code == 403
            assert "ACCLIMATE_REVIEW_TOKEN is not set where this page was started" in problem_on(answer)
    assert decision(version) == PENDING


def test_another_name_for_this_machine_reads_nothing(home: Path, tmp_path: Path) -> None:
    registered(tmp_path, "a")
    with viewing() as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "[", "10.0.0.1", ""):
            for path in ("/", "/versions/1", "/versions/1/report"):
                answer = client.get(path, headers={"host": host})
                assert answer.status_code == 400
                assert "report on a" not in answer.text
        for host in ("localhost", "127.0.0.1:9999", "[::1]:80"):
            assert client.get("/", headers={"host": host}).status_code == 200
    with viewing(is_local=False) as client:
        assert client.get("/", headers={"host": "review.example"}).status_code == 200


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "manifest.json", "verdict.json"])
def test_of_a_damaged_bundle_no_report_is_shown_and_no_decision_taken(home: Path, tmp_path: Path, name: str) -> None:
    version = registered(tmp_path, "a")
    said = filled(version)
    flip(version.folder / name)
    with viewing() as client:
        page, report, answer = (
            client.get("/versions/1"), client.get("/versions/1/report"), client.post("/versions/1", data=said),
        )  # fmt: skip
        shutil.rmtree(version.folder)
        gone = client.get("/versions/1")
    for told in (page.text, answer.text, gone.text):
        assert "Nothing can be decided here:" in told
        assert "its bundle can&#39;t be trusted" in told
        assert Shape(told).fields() == set()
        assert Shape(told).all("iframe") == []
    assert (page.status_code, report.status_code, answer.status_code, gone.status_code) == (200, 409, 409, 200)
    assert "sha256" in problem_on(report)
    assert "version 1 can't be decided on: its bundle can't be trusted" in problem_on(answer)
    assert decision(version) == PENDING


def test_a_damaged_vote_is_told_and_nothing_is_decided_on_top_of_it(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    reviews_folder().mkdir()
    (reviews_folder() / f"{version.candidate}.json").write_text("{")
    with viewing() as client:
        assert "damaged" in client.get("/").text
        page, answer = client.get("/versions/1"), client.post("/versions/1", data=filled(version))
    assert "its votes can&#39;t be read" in page.text
    assert Shape(page.text).fields() == set()
    assert answer.status_code == 409


def test_of_two_people_at_the_same_moment_one_decides(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    ways, start, answers = ("approve", "reject"), threading.Barrier(8), []

    def send(client: httpx.Client, number: int) -> None:
        said = filled(version, decision=ways[number % 2], reviewer=f"person {number}")
        start.wait(30)
        answers.append(client.post("/versions/1", data=said))

    with viewing() as client:
        people = [threading.Thread(target=send, args=(client, number)) for number in range(8)]
        for each in people:
            each.start()
        for each in people:
            each.join()
    (vote,) = read_review(reviews_folder(), version.candidate).votes
    assert sorted(answer.status_code for answer in answers) == [303] + [409] * 7
    assert all(f"by {vote.reviewer} at" in problem_on(answer) for answer in answers if answer.status_code == 409)


def test_four_eyes_hold_for_the_form_too(home: Path, tmp_path: Path) -> None:
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    params["review"]["n_approvals"] = 2
    YAML(typ="safe").dump(params, Path("params.yaml"))
    version = registered(tmp_path, "a")
    with viewing() as client:
        assert client.post("/versions/1", data=filled(version)).status_code == 303
        assert "pending, 1 of 2 approvals" in client.get("/versions/1").text
        again = client.post("/versions/1", data=filled(version, reviewer="BOB"))
        assert again.status_code == 400
        assert "BOB has approved it already; the next approval is another person's" in problem_on(again)
        assert client.post("/versions/1", data=filled(version, reviewer="cleo")).status_code == 303
    assert decision(version) == APPROVE


def test_what_is_no_form_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registered(tmp_path, "a")
    form = {"content-type": "application/x-www-form-urlencoded"}
    with viewing() as client:
        for headers, body, status in (
            ({"content-type": "application/json"}, b"{}", 400),
            (form, b"", 400),
            (form, b"reason=%ff", 400),
            (form, b"\xff=1", 400),
            (form, b"a=1", 400),
            (form, b"decision=approve&decision=reject", 400),
            (form, b"&".join(b"f%d=1" % n for n in range(30)), 400),
            (form, b"reason=" + b"x" * 2**17, 413),
        ):
            answer = client.post("/versions/1", content=body, headers=headers)
            assert (answer.status_code, body[:20]) == (status, body[:20])
            assert len(problem_on(answer)) > 20
        assert client.post("/", data={}).status_code == 405
        assert "GET /nothing is not here" in problem_on(client.get("/nothing"))
        monkeypatch.setattr(review_form, "SEND_S", 0.2)
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as slow:
            slow.settimeout(20)
            slow.sendall(
                b"POST /versions/1 HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 99\r\n\r\nab"
            )
            assert b" 408 " in slow.recv(100)
    assert decision(version) == PENDING


def test_a_registry_that_cannot_be_asked_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with viewing() as client:
        for path in ("/", "/versions/1", "/versions/1/report"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert problem_on(answer).startswith("The registry can't be asked now: ")


def test_what_people_wrote_is_shown_as_text(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    hostile = f"{HOSTILE}\u202egnp"
    vote = Vote(
        version.candidate, APPROVE, hostile, hostile, hostile, hostile, subject_of(version).report_sha256, "2026", 1
    )
    decide(version, vote, ReviewRules(1, allow_starter=True))
    with viewing() as client:
        for path in ("/", "/versions/1"):
            page = client.get(path).text
            assert Shape(page).all("script") == []
            assert "\u202e" not in page
            assert r"alert(&#34;x&#34;)&lt;/script&gt;\u202egnp" in page


def test_every_field_has_a_label_and_the_page_its_headings(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a", verdict="fail")
    with viewing() as client:
        pages = [
            client.get("/").text,
            client.get("/versions/1").text,
            client.post("/versions/1", data=filled(version)).text,
        ]
    for page in pages:
        shape = Shape(page)
        assert shape.all("html") == [{"lang": "en"}]
        assert [tag for tag, _ in shape.tags if tag in ("h1", "main", "title")] == ["title", "h1", "main"]
        shown = [each for tag in ("input", "textarea") for each in shape.all(tag) if each.get("type") != "hidden"]
        ids = {each["id"] for each in shown if each.get("type") != "radio"}
        assert {each["for"] for each in shape.all("label") if each} == ids
        assert page.count('<label><input type="radio"') == sum(each.get("type") == "radio" for each in shown)
        assert all(each.get("title") for each in shape.all("iframe"))
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page)
    assert "Not accepted: " in pages[2].split("</title>")[0]


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_light_and_in_dark() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(
        4.54, abs=0.01
    )  # the lightest grey that passes, as is well known
    style = (PROJECT / "flows/report_view.html.jinja").read_text()
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style)]
    assert len(schemes) == 2
    for colours in schemes:
        for name in ("ink", "soft", "link", "pass", "fail", "open"):
            assert min(contrast(colours[name], colours[ground]) for ground in ("paper", "tint")) >= 4.5, name
        assert contrast(colours["on-link"], colours["link"]) >= 4.5
        assert contrast(colours["edge"], colours["paper"]) >= 3


def acclimate(*arguments: str) -> str:
    done = CliRunner().invoke(commands, ["report", *arguments])
    assert done.exit_code == 1, done.output
    return done.stderr


def test_what_cannot_be_served_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCLIMATE_REVIEW_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "", "127.0.0.1.example"):
        told = acclimate("--serve", "--host", host)
        assert f"others can reach --host {host}: set ACCLIMATE_REVIEW_TOKEN first" in told
    assert "leave out --data and --data-docs" in acclimate("--serve", "--data")
    with listening_at("127.0.0.1", 0) as (listening, address):
        listening.listen()
        port = address.rpartition(":")[2]
        assert f"127.0.0.1:{port} can't be listened on" in acclimate("--serve", "--port", port)
    monkeypatch.setenv("ACCLIMATE_REVIEW_TOKEN", " fifteen letters ")
    told = acclimate("--serve", "--host", "0.0.0.0")
    assert "ACCLIMATE_REVIEW_TOKEN has 15 characters; it needs 16 or more" in told


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": str(PROJECT), "ACCLIMATE_REVIEW_TOKEN": f" {TOKEN}\n"}
    command = [sys.executable, "-m", "flows.cli", "report", "--serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            told = process.stderr.readline()
            address = re.search(r"digits: its candidates are at (http://127\.0\.0\.1:\d+), with a form to decide", told)
            assert address, told
            answer = httpx.post(f"{address[1]}/versions/1", data=filled(version), headers=OWN_PAGE, timeout=60)
            assert answer.status_code == 303
        finally:
            process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert TOKEN not in rest
    assert decision(version) == APPROVE
