"""`acclimate serve`, over real sockets: it answers, follows the registry, stays bounded, and no request makes it fail."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from made_models import SURE, champion_model, registered_model
from malformed import requests_of
from PIL import Image
from torch import Tensor, nn

from flows import served_model
from flows.chosen_model import CHAMPION
from flows.registry import Version, move_alias
from flows.serve import make_server
from flows.served_model import Loaded, ServedModel, Wanted, follow
from flows.uploads import Limits
from tasks.core.classifier import Classifier

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy
PROJECT = Path(__file__).parents[2]
WANTED = Wanted("digits", CHAMPION, "cpu", allows_unapproved=False)


def limits(**changes: Any) -> Limits:
    usual = {"image_bytes": 50_000, "image_pixels": 10_000, "n_images": 3, "request_bytes": 100_000}
    return Limits(**(usual | {"n_at_once": 8, "timeout_s": 20.0} | changes))


@contextmanager
def serving(served: ServedModel, bounds: Limits) -> Iterator[str]:
    """The address of a real server on a free port of this machine."""
    server = make_server(served, bounds, 2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def encoded(form: str = "PNG", side: tuple[int, int] = (40, 30)) -> bytes:
    held = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(held, form)
    return held.getvalue()


def test_it_answers_with_the_champion_and_says_where_that_comes_from(home: Path, tmp_path: Path) -> None:
    version = champion_model(tmp_path, "b")
    expected = {"a": 0.1, "b": SURE, "c": 0.1}
    with serving(ServedModel(WANTED), limits()) as url, httpx.Client(base_url=url) as client:
        one = client.post("/predict", content=encoded("JPEG"), headers={"content-type": "image/jpeg"})
        assert one.status_code == 200
        assert (one.json()["version"], one.json()["candidate"]) == ("1", version.candidate)
        files = [("images", ("x.png", encoded())), ("images", ("ÿ.jpg", encoded("JPEG")))]
        two = client.post("/predict", files=files).json()["predictions"]
        assert [row["name"] for row in two] == ["x.png", "ÿ.jpg"]
        for row in (*one.json()["predictions"], *two):
            assert (row["y_pred"], row["ask_a_person"]) == ("b", False)
            assert row["probabilities"] == pytest.approx(expected, abs=1e-6)
            assert row["confidence"] == pytest.approx(SURE, abs=1e-6)
        health = client.get("/health").json()
        assert (health["status"], health["version"], health["problem"]) == ("serving", "1", None)
        model = client.get("/model").json()
        assert (model["candidate"], model["verdict"], model["review"]) == (version.candidate, "pass", "approved")
        assert (model["classes"], model["ask_below"], model["temperature"]) == (["a", "b", "c"], 0.5, 1.0)
        assert model["votes"][0]["reviewer"] == "bob"
        assert model["files"] == json.loads((version.folder / "manifest.json").read_text())["files"]
        described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/health", "/model"}
    answers = described["paths"]["/predict"]["post"]["responses"]
    assert set(answers) == {"200", "400", "408", "413", "503"}
    assert answers["503"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_what_nobody_approved_is_refused_unless_told(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="versions are none"):
        ServedModel(WANTED)
    version = registered_model(tmp_path, "a", is_approved=False)
    with pytest.raises(ValueError, match="no version of 'digits' is champion yet"):
        ServedModel(WANTED)
    move_alias(version, CHAMPION)  # by hand, past the review
    with pytest.raises(ValueError, match=r"version 1 waits for its review: .* say `--unapproved`"):
        ServedModel(WANTED)
    served = ServedModel(Wanted("digits", CHAMPION, "cpu", allows_unapproved=True))
    assert (served.current.version.number, served_model.review_state(served.current)) == ("1", "pending")


def test_a_damaged_bundle_is_refused_and_the_old_model_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion_model(tmp_path, "a")
    served = ServedModel(WANTED)
    assert served.look() is None
    second = registered_model(tmp_path, "b")
    weights = second.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    move_alias(second, CHAMPION)
    told = served.look()
    assert told is not None
    assert "version 1 goes on: " in told
    assert "model.safetensors has sha256" in told
    assert served.look() is None  # said once
    with serving(served, limits()) as url:
        health = httpx.get(f"{url}/health").json()
        assert (health["status"], health["version"], health["problem"]) == ("behind", "1", told)
        answer = httpx.post(f"{url}/predict", content=encoded()).json()
        assert (answer["version"], answer["predictions"][0]["y_pred"]) == ("1", "a")
        weights.write_bytes(whole)
        assert served.look() is None  # not before RETRY_S are over
        assert served.problem == told
        served._refused = (second.candidate, 0.0)
        assert served.look() == f"version 2 serves now, candidate {second.candidate[:12]}"
        assert httpx.get(f"{url}/health").json()["problem"] is None
        assert httpx.post(f"{url}/predict", content=encoded()).json()["predictions"][0]["y_pred"] == "b"
    third = registered_model(tmp_path, "c", is_approved=False)
    move_alias(third, CHAMPION)
    assert "version 3 waits for its review" in str(served.look())
    move_alias(second, CHAMPION)
    assert served.look() == "the registry names the served version again"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "version 2 goes on" in str(served.look())


def test_the_model_is_swapped_under_load_without_a_failed_request(home: Path, tmp_path: Path) -> None:
    first, second = champion_model(tmp_path, "a"), registered_model(tmp_path, "b")
    says = {first.candidate: "a", second.candidate: "b"}
    served, stop, answers, told = ServedModel(WANTED), threading.Event(), [], []
    follower = threading.Thread(target=follow, args=(served, 0.05, stop, told.append))

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                answers.append(client.post("/predict", content=encoded()))

    with serving(served, limits()) as url:
        askers = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for thread in (follower, *askers):
            thread.start()
        for version in (second, first, second):
            move_alias(version, CHAMPION)
            wait_for(lambda version=version: served.current.version.candidate == version.candidate)
            n_before = len(answers)
            wait_for(lambda n=n_before: len(answers) > n + 5)
        stop.set()
        for thread in (follower, *askers):
            thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["candidate"] for answer in answers} == set(says)
    for answer in answers:
        assert answer.json()["predictions"][0]["y_pred"] == says[answer.json()["candidate"]]
    assert [line[:9] for line in told] == ["version 2", "version 1", "version 2"]
    assert len(answers) > 15


def wait_for(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def standing(net: nn.Module | None = None) -> ServedModel:
    """A served model that no registry stands behind."""
    sight = {"image_px": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["a", "b"], "ask_below": 0.6}
    version = Version("digits", "1", "f" * 64, "2026-11-21", (CHAMPION,), {})
    manifest = {"verdict": "pass", "decision": "adopt", "adopted": "shot", "files": {}}
    served = ServedModel.__new__(ServedModel)
    served.wanted, served.problem, served.looked = WANTED, None, "2026-11-21"
    review = served_model.Review(version.candidate, ())
    served.current = Loaded(version, Classifier(net or Even(), sight, "cpu"), manifest, review, "2026-11-21")
    return served


class Even(nn.Module):
    """Both classes are as likely."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return torch.zeros(len(x_NCHW), 2)


class Gated(Even):
    """Waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        self.gate.wait(30)
        return super().forward(x_NCHW)


def test_what_is_too_large_too_many_or_no_image_is_refused_in_one_sentence() -> None:
    names = {
        "big.png": encoded(side=(101, 100)),
        "bomb.png": bomb(60_000, 60_000),
        "text.png": b"text",
        "x.png": encoded(),
    }
    with serving(standing(), limits()) as url, httpx.Client(base_url=url) as client:

        def refused(status: int, sentence: str, *names_of_files: str, **said: Any) -> None:
            files = [("images", (name, names[name])) for name in names_of_files]
            answer = client.post("/predict", **({"files": files} if files else {}), **said)
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
            assert sentence in answer.json()["error"]

        refused(413, "big.png: more than 10000 pixels", "big.png", "x.png")
        refused(413, "big.png, bomb.png: more than 10000 pixels", "big.png", "bomb.png")
        refused(413, "more than 3 images in a request", *["x.png"] * 4)
        refused(413, "image: larger than 50000 bytes", content=bytes(50_001))
        refused(413, "the request is larger than 100000 bytes", content=bytes(100_001))
        refused(413, "the request is larger than 100000 bytes", content=iter([bytes(60_000)] * 2))  # length not told
        refused(400, "can't be read as an image: text.png (UnidentifiedImageError)", "x.png", "text.png")
        refused(400, "the request holds no image")
        refused(400, "no usable boundary", content=b"x", headers={"content-type": "multipart/form-data"})
        refused(400, "is no file; send files only", data={"a": "b"}, files={"c": ("x.png", names["x.png"])})
        cut = b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\nx'
        refused(400, "is damaged", content=cut, headers={"content-type": "multipart/form-data; boundary=b"})
        assert client.get("/predict").status_code == 405
        assert client.post("/nothing").json()["error"].startswith("POST /nothing is not here; there are POST /predict")
        row = client.post("/predict", content=names["x.png"]).json()["predictions"][0]
        assert (row["confidence"], row["ask_a_person"]) == (0.5, True)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is that large."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_no_more_than_so_many_are_in_hand_and_late_work_keeps_its_place() -> None:
    net = Gated()
    with serving(standing(net), limits(n_at_once=1, timeout_s=1.0)) as url, httpx.Client(base_url=url) as client:
        late = client.post("/predict", content=encoded())
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert "took more than 1 seconds" in late.json()["error"]
        busy = client.post("/predict", content=encoded())  # the first one is still worked on
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert busy.json()["error"] == "the service is busy; try again after a second"
        assert client.get("/health").status_code == 200
        net.gate.set()
        wait_for(lambda: client.post("/predict", content=encoded()).status_code == 200)


def test_who_sends_too_slowly_or_goes_away_gives_the_place_back() -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"
    with serving(standing(), limits(n_at_once=1, timeout_s=1.0)) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(place) as slow:
            slow.sendall(head)
            slow.settimeout(20)
            assert b" 408 " in slow.recv(100)
        with socket.create_connection(place) as gone:
            gone.sendall(head)
        wait_for(lambda: httpx.post(f"{url}/predict", content=encoded()).status_code == 200)


def test_two_hundred_malformed_requests_make_nothing_fail() -> None:
    statuses: dict[int, int] = {}
    with serving(standing(), limits(timeout_s=0.3)) as url:
        port = int(url.rpartition(":")[2])
        for number, sent in enumerate(requests_of(200, encoded(), encoded("JPEG"), bomb(60_000, 60_000))):
            status, body = answer_to(port, sent)
            statuses[status] = statuses.get(status, 0) + 1
            assert status < 500, f"request {number} got {status}: {sent[:300]!r}"
            if status >= 400 and not body.startswith(b"Invalid HTTP request"):  # that is said below the service
                assert list(json.loads(body)) == ["error"]
        good = httpx.post(f"{url}/predict", content=encoded())
        assert good.status_code == 200
    assert sum(statuses.values()) == 200
    assert {400, 404, 405, 408, 413} <= set(statuses)
    assert statuses[400] > 60


def answer_to(port: int, sent: bytes) -> tuple[int, bytes]:
    """Status and body; 0 where the connection was closed without an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with suppress(OSError):  # it answers before it has read all
            connection.sendall(sent)
        answer = http.client.HTTPResponse(connection, method=sent[:5].decode("latin-1").split(" ")[0])
        try:
            answer.begin()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


@pytest.mark.slow
def test_a_killed_service_is_there_again_when_it_is_started_again(home: Path, tmp_path: Path) -> None:
    champion_model(tmp_path, "b")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "serve", "--port", str(port), "--follow-every", "0.2"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    for end in (signal.SIGKILL, signal.SIGTERM):
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            wait_for(lambda process=process: answers(port) or process.poll() is not None, 120)
            answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=encoded())
            assert answer.json()["predictions"][0]["y_pred"] == "b"
        finally:
            process.send_signal(end)
            process.wait(30)
    log_lines = (tmp_path / "log").read_text()
    assert f"digits version 1 answers on http://127.0.0.1:{port}" in log_lines
    assert "Traceback" not in log_lines


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False
