"""The world of the scripted month: its images, a clone of the project with servers of its own, who asks for answers, pictures.

Axes: H height, W width. The images are the sample's writers in two deliveries. First: 8 of the 14, as the sample has them.
Later: the other 6, who lean further to their side, read by a scanner whose ground is grey. The office labelled the later ones; on
the sheets of one slant somebody took each digit for the next. So are the labels that a model learns; the test was labelled by
another person, rightly.
"""

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import cv2
import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pipeline import ROOT
from ruamel.yaml import YAML
from websockets.sync.client import connect

sys.path.insert(0, str(ROOT))
from tasks.core.runtime import TELEMETRY_OFF, address_rng
from tasks.core.sample import write_images

SEED = 0
SPLITS = {
    "block_03": "train",
    "block_04": "train",
    "block_05": "train",
    "block_11": "test",
    "block_12": "test",
    "block_13": "test",
}
SHEET = 13  # images in a row; a writer filled ten of them
SHEAR = {"left": 0.3, "upright": 0.0, "right": -0.3}  # points to the side per point downwards
GROUP = "right"  # the slant whose sheets were labelled carelessly
GROUND, GAIN = 110, 0.45  # of the later scanner, grey values 0..255
NEXT = {str(digit): str((digit + 1) % 10) for digit in range(10)}
TABLE, IMAGES = Path("data/digits/images.csv"), Path("data/digits/images")
PATIENCE_S = 1200

Pixels = NDArray[np.uint8]  # (H, W, 3)


def write_deliveries(images: Path) -> pd.DataFrame:
    """The rows of all images, written below the folder; those of the later delivery say `is_later`, in a folder of their own."""
    images.mkdir(parents=True)
    rows = write_images(images, n_source_images=600, seed=SEED)
    is_hand = rows["domain"] == "handwriting"
    rows["group"] = rows["group"].mask(
        is_hand, rows["group"] + "_" + (rows.groupby("group").cumcount() // SHEET).astype(str)
    )
    rows["is_later"] = rows["inferred_block"].isin(SPLITS)
    rows["split"] = rows["inferred_block"].map(SPLITS).fillna(rows["split"])
    (images / "later").mkdir()
    for row in rows[rows["is_later"]].itertuples():
        with Image.open(images / row.path) as picture:
            changed = other_hand(np.asarray(picture), row.path, row.slant)
        (images / row.path).unlink()
        Image.fromarray(changed).save(images / later_path(row.path))
    return rows.assign(path=rows["path"].mask(rows["is_later"], rows["path"].map(later_path)))


def later_path(path: str) -> str:
    return f"later/{Path(path).name}"


def other_hand(pixels: Pixels, path: str, slant: str) -> Pixels:
    """The same digit leaning further, from a scanner with a grey ground, less contrast and some noise."""
    shear, middle = SHEAR[slant], len(pixels) / 2
    leaning = cv2.warpAffine(pixels, np.array([[1, shear, -shear * middle], [0, 1, 0]]), pixels.shape[1::-1])
    noise = address_rng(SEED, "month", "scanner", path).normal(0, 6, pixels.shape[:2])[:, :, None]
    return np.rint(np.clip(GROUND + GAIN * leaning.astype(np.float32) + noise, 0, 255)).astype(np.uint8)


def careless(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the office delivered them."""
    is_wrong = rows["is_later"] & (rows["slant"] == GROUP) & (rows["split"] == "train")
    return rows.assign(label=rows["label"].mask(is_wrong, rows["label"].map(NEXT)))


def change_params(path: Path) -> None:
    """Nothing; the file names the month's data, fewer candidates, methods and epochs."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    params = yaml.load(path.read_text(encoding="utf-8"))
    params["build_manifest"] |= {"root": str(IMAGES), "table": str(TABLE)}
    params["validate_data"]["target_labels_per_class"] = None
    params["zoo"]["candidates"] = ["digits_lowres", "textures"]
    params["make_sample"] |= {
        "zoo_images": {"digits_lowres": 2000, "letters_lowres": 100, "digits_paper": 100, "textures": 500},
        "zoo_epochs": {"digits_lowres": 6, "letters_lowres": 1, "digits_paper": 1, "textures": 1},
    }
    params["extract_features"] |= {"n_views": 2, "max_images": {"source": 500, "target": 500}}
    params["explain_errors"] |= {"n_per_group": 3, "max_groups": 3}
    tuning = params["finetune_model"]
    tuning["plans"] = {"full": tuning["plans"]["full"]}
    for phases, n_epochs in ((tuning["source"], 5), (tuning["plans"]["full"]["phases"], 30), (tuning["scratch"], 30)):
        phases[0]["n_epochs"] = n_epochs
    tuning["methods"] = dict.fromkeys(tuning["methods"])
    for rule in params["audit_bias"]["rules"]:
        rule["limit"] = {0.05: 0.1}.get(rule["limit"], rule["limit"])
    with path.open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)


class Workplace:
    """A clone of the project with servers of its own on loopback, and what a person can do there: commands and HTTP."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.folder, self.running, self.path, self.home = folder, running, folder / "digits", folder / "home"
        ports = [free_port() for _ in range(3)]
        self.registry, self.prefect, self.service = (f"http://127.0.0.1:{port}" for port in ports)
        self.api = f"{self.prefect}/api"
        self.environment = TELEMETRY_OFF | os.environ | {
            "ACCLIMATE_HOME": str(self.home), "PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": self.registry, "PREFECT_API_URL": self.api, "PREFECT_HOME": str(folder / "prefect"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # six more processes, none of them for the registry
        }  # fmt: skip
        said(["git", "clone", "--quiet", str(ROOT), str(self.path)], folder, self.environment)
        self.git("config", "user.name", "month")
        self.git("config", "user.email", "month@localhost")
        store, files = f"sqlite:///{folder / 'mlflow.db'}", str(folder / "files")
        registry = ["--workers", "1", "--backend-store-uri", store, "--artifacts-destination", files]
        self.start("mlflow", ["-m", "mlflow", "server", *registry], ports[0], "/health")
        self.start("prefect", ["-m", "prefect", "server", "start", "--host", "127.0.0.1"], ports[1], "/api/health")

    def start(self, name: str, command: list[str], port: int, health: str) -> None:
        """Nothing, once it answers there; its process group is ended with the month."""
        self.start_process(name, [*command, "--port", str(port)])
        wait_for(lambda: answers(f"http://127.0.0.1:{port}{health}"), f"{name}, see {self.folder / name}.log")

    def start_process(self, name: str, command: list[str]) -> None:
        self.running.enter_context(
            process([sys.executable, *command], self.path, self.environment, self.folder / f"{name}.log")
        )

    def git(self, *arguments: str) -> str:
        return said(["git", *arguments], self.path, self.environment)

    def acclimate(self, *arguments: str, code: int = 0) -> str:
        """What the command says. RuntimeError where it ends with another exit code."""
        return said([sys.executable, "-m", "flows.cli", *arguments], self.path, self.environment, code)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Prefect's answer; a POST where there is a body."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}/{path}", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs_of(self, flow: str, *kinds: str) -> list[dict[str, Any]]:
        """The flow's runs in these states, the oldest first. RuntimeError where one of them failed."""
        found = self.ask("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"})
        for run in found:
            if run["state"]["type"] in ("FAILED", "CRASHED"):
                raise RuntimeError(f"{flow}: {run['state']['message']}")
        return [run for run in found if run["state"]["type"] in kinds]


def said(command: list[str], folder: Path, environment: dict[str, str], code: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


@contextmanager
def process(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process group that is told to end with the block, and killed where it doesn't."""
    with log.open("ab") as handle:
        group = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=handle, stderr=handle, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(group.pid, signal.SIGTERM)
        try:
            group.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(group.pid, signal.SIGKILL)
            group.wait()


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """What `look` returns, as soon as it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.5)
    raise RuntimeError(f"{what}: not within {PATIENCE_S} s")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


class Requests:
    """One request after the other, so many a second, from its start to its end; every answer is kept."""

    def __init__(self, service: str, images: list[tuple[Path, str]], per_s: float) -> None:
        self.service, self.images, self.per_s = service, images, per_s
        self.answers: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            for number in itertools.count():
                path, label = self.images[number % len(self.images)]
                start = time.perf_counter()
                answer = asked(client, f"{self.service}/predict", path) | {"is_later": path.parent.name == "later"}
                seconds = time.perf_counter() - start
                self.answers.append(answer | {"ms": 1000 * seconds, "is_right": answer.get("y_pred") == label})
                if self._stop.wait(max(0.0, 1 / self.per_s - seconds)):
                    return


def asked(client: httpx.Client, address: str, path: Path) -> dict[str, Any]:
    """Status, and version and guess of a good answer; status 0 where there was none."""
    try:
        answer = client.post(address, content=path.read_bytes(), headers={"content-type": "image/png"})
    except httpx.TransportError as error:
        return {"status": 0, "problem": repr(error)}
    if answer.status_code != 200:
        return {"status": answer.status_code, "problem": answer.text}
    content = answer.json()
    return {"status": 200, "version": content["version"], "y_pred": content["predictions"][0]["y_pred"]}


def picture(address: str, path: Path, *, press: str = "", height: int = 1000) -> None:
    """Nothing; the page as headless Chromium shows it, after the button of that name was pressed."""
    port = free_port()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    own = [
        f"--user-data-dir={path.parent / 'profile'}",
        f"--remote-debugging-port={port}",
        f"--window-size=1300,{height}",
    ]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = ["chromium", *options, *own, offline, address]
    with process(command, path.parent, dict(os.environ), path.with_suffix(".log")):
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/json/version"), "Chromium")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as listed:
            (page,) = [each for each in json.load(listed) if each["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=None) as line:
            time.sleep(15)
            if press:
                button = f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === {json.dumps(press)}).click()"
                devtools(line, "Runtime.evaluate", {"expression": button})
                time.sleep(5)
            shown = devtools(line, "Page.captureScreenshot", {"format": "png"})
    path.write_bytes(base64.b64decode(shown["data"]))


def devtools(line: Any, method: str, params: dict[str, Any]) -> Any:
    """What Chromium answers to the call."""
    line.send(json.dumps({"id": 1, "method": method, "params": params}))
    while (answer := json.loads(line.recv())).get("id") != 1:
        pass
    return answer["result"]
