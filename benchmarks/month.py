"""A month in the life of a model, played on the embedded sample with real servers on loopback, by the commands that a user has.

    python benchmarks/month.py [--keep DIR] [--pictures DIR]

1. The first model is trained, approved, promoted and served; from here to the end the service is asked 4 times a second.
2. Writers who lean further arrive through another scanner: `acclimate monitor` finds it, its event starts retraining on Prefect.
3. The new labels are wrong for one slant. The challenger is better over all and worse for that slant: a rule of the audit
   catches it, approving it without an override is refused, the reviewer rejects it.
4. With mended labels another challenger is trained, approved by Prefect's form (after a wrong input) and promoted.
5. `acclimate registry rollback`; the service followed each time; history and `at DATE` tell all of it.

It stops where a step comes out otherwise. All happens in a clone of this repository's last commit in a temporary folder
(--keep: in that one, which stays), with an MLflow server, a Prefect server and an ACCLIMATE_HOME of its own. To be shorter than
the sample as it ships it takes two candidates, 600 source images, 30 epochs for 120 and no label-free method. All target labels
count, images are grouped by sheet, not by writer, and the audit's limits of 5 points are 10: three test writers can't decide 5
(month_world.py). --pictures writes what headless Chromium shows of Prefect's form, MLflow's registry and the audit's page.
Writes benchmarks/results/month.json.
"""

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from month_world import (
    GROUP,
    IMAGES,
    TABLE,
    Requests,
    Workplace,
    careless,
    change_params,
    picture,
    wait_for,
    write_deliveries,
)  # fmt: skip
from pipeline import ROOT, machine

PER_S = 4.0
FIRST, CARELESS, MENDED = "1", "2", "3"  # the versions


class Month:
    """The workplace, the images, and what happened so far."""

    def __init__(self, place: Workplace, pictures: Path | None) -> None:
        self.place, self.pictures = place, pictures
        self.delivered = place.folder / "delivered"
        self.rows = write_deliveries(self.delivered)
        self.steps: list[dict[str, Any]] = []
        self.moments: list[tuple[str, str]] = []  # a moment, and the version that was champion then
        self._start = time.monotonic()

    def tell(self, step: str, happened: str, **facts: Any) -> None:
        """Notes and prints what happened, with the seconds since the last note."""
        now = time.monotonic()
        self.steps.append({"step": step, "happened": happened, "seconds": round(now - self._start), **facts})
        self._start = now
        print(f"{step}: {happened}", flush=True)

    def note_champion(self, version: str) -> None:
        """Nothing; the log counts in whole seconds, so that each moment stands a second away from what comes before and after."""
        time.sleep(1.1)
        self.moments.append((datetime.now(UTC).isoformat(timespec="seconds"), version))
        time.sleep(1.1)

    def take(self, rows: pd.DataFrame) -> None:
        """Nothing; the team's folder holds these images, and its table these rows."""
        for path in rows["path"]:
            (self.place.path / IMAGES / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.delivered / path, self.place.path / IMAGES / path)
        rows.drop(columns="is_later").to_csv(self.place.path / TABLE, index=False)

    def show(self, name: str, address: str, **how: Any) -> None:
        if self.pictures:
            picture(address, self.pictures / f"{name}.png", **how)

    def commit(self, message: str) -> None:
        self.place.git("add", "--all")
        self.place.git("commit", "--quiet", "--message", message)


def main(folder: Path, pictures: Path | None) -> None:
    with ExitStack() as running:
        month = Month(Workplace(folder, running), pictures)
        first_model(month)
        requests = Requests(month.place.service, images_of(month, is_later=False), PER_S)
        with requests:
            drift(month, requests)
            careless_challenger(month)
            mended_challenger(month)
            way_back(month)
            whole_story(month)
    answered = summary(requests.answers)
    require(answered["failed"] == 0, f"no request failed, but {answered['problems']}")
    require(answered["versions"] == [FIRST, MENDED, FIRST], f"the service swapped twice, but {answered['versions']}")
    for step in month.steps:
        print(f"{step['step']:16s}{step['seconds']:5d} s  {step['happened'][:110]}")
    print(f"{answered['n']} requests, {answered['failed']} failed, longest {answered['longest_ms']:.0f} ms")
    result = {"machine": machine(), "steps": month.steps, "requests": answered}
    (ROOT / "benchmarks/results/month.json").write_text(json.dumps(result, indent=1) + "\n")


def first_model(month: Month) -> None:
    place = month.place
    change_params(place.path / "params.yaml")
    month.take(month.rows[~month.rows["is_later"]])
    month.commit("The team's images and parameters")
    month.tell("servers", "MLflow and Prefect answer on loopback")
    place.start_process("runner", ["-m", "flows.cli", "deploy", "--serve"])
    month.note_champion("none")
    place.acclimate("run")
    place.acclimate("registry", "sync")
    month.tell("first model", "trained and registered as version 1", **figures(month, FIRST))
    place.acclimate(
        "review", "approve", FIRST, "--reviewer", "ann", "--role", "product owner", "--reason", "far above source-only"
    )
    told = place.acclimate("promote", FIRST, "--by", "ann")
    month.commit("Version 1 is the champion")
    month.note_champion(FIRST)
    place.start(
        "service", ["-m", "flows.cli", "serve", "--follow-every", "1"], int(place.service.rpartition(":")[2]), "/health"
    )
    month.tell("served", last_line(told))


def drift(month: Month, requests: Requests) -> None:
    place = month.place
    wait_for(lambda: "retrain on drift" in automations(place), "the trigger on Prefect's server")
    month.take(careless(month.rows))
    requests.images = requests.images + images_of(month, is_later=True)
    told = place.acclimate("monitor", str(month.delivered / "later"), "--out", str(place.folder / "monitor"), code=1)
    require("event acclimate.drift sent to Prefect" in told, told)
    found = json.loads((place.folder / "monitor/monitor.json").read_text())
    month.tell(
        "drift", f"{len(found['reasons'])} limits passed, the event sent: {'; '.join(found['reasons'])}",
        checks=found["checks"], estimated_accuracy=found["estimate"],
    )  # fmt: skip


def automations(place: Workplace) -> list[str]:
    """The names of what Prefect does by itself."""
    return [each["name"] for each in place.ask("automations/filter", {})]


def careless_challenger(month: Month) -> None:
    place = month.place
    (run,) = wait_for(lambda: place.runs_of("retrain", "COMPLETED"), "retraining by the event")
    require(run["created_by"]["type"] == "AUTOMATION", f"the event started it: {run['created_by']}")
    facts = figures(month, CARELESS)
    require(facts["accuracy"]["adopted"] > facts["accuracy"]["champion"], f"better over all: {facts}")
    require(facts["against_champion_by_slant"][GROUP]["change"] < 0, f"worse for {GROUP}: {facts}")
    require(facts["verdict"] != "pass", f"the rules catch it: {facts}")
    month.tell("careless labels", f"version 2 by the event, {facts['verdict']}: {facts['reason']}", **facts)
    wait_for(lambda: place.runs_of("review", "PAUSED"), "the form of version 2")
    refused = place.acclimate("review", "approve", CARELESS, "--reviewer", "bob", "--reason", "better over all", code=1)
    require(f"the audit's verdict is {facts['verdict']}" in refused, refused)
    why = f"worse than the champion for slant {GROUP}: its labels must be looked at"
    rejected = place.acclimate(
        "review", "reject", CARELESS, "--reviewer", "bob", "--role", "product owner", "--reason", why
    )
    closed = place.runs_of("review", "COMPLETED")
    require(len(closed) == 1 and "rejected by bob" in closed[0]["state"]["message"], f"the form is closed: {closed}")
    unpromoted = place.acclimate("promote", CARELESS, "--by", "bob", code=1)
    month.tell("rejected", rejected.splitlines()[0], approval=last_line(refused), promotion=last_line(unpromoted))


def mended_challenger(month: Month) -> None:
    place = month.place
    month.take(month.rows)
    (deployment,) = [each for each in place.ask("deployments/filter", {}) if each["schedules"]]
    place.ask(f"deployments/{deployment['id']}/create_flow_run", {})
    wait_for(lambda: len(place.runs_of("retrain", "COMPLETED")) == 2, "retraining on mended labels")
    facts = figures(month, MENDED)
    require(facts["verdict"] == "pass", f"it passes: {facts}")
    month.tell("mended labels", f"version 3 by Prefect's button, {facts['verdict']}: {facts['reason']}", **facts)
    (form,) = wait_for(lambda: place.runs_of("review", "PAUSED"), "the form of version 3")
    month.show("form", f"{place.prefect}/runs/flow-run/{form['id']}", press="Resume")
    month.show("registry", f"{place.registry}/#/models/acclimate-sample", press="Try it now")
    month.show("report", (bundle(month, MENDED) / "report.html").as_uri(), height=1600)
    answer = {"decision": "approve", "reviewer": "ann", "role": "product owner", "reason": ""}
    wrong = place.ask(f"flow_runs/{form['id']}/resume", {"run_input": answer})
    require(wrong["status"] == "REJECT" and len(place.runs_of("review", "PAUSED")) == 1, f"still pending: {wrong}")
    answer["reason"] = "better for every slant and for both pens"
    right = place.ask(f"flow_runs/{form['id']}/resume", {"run_input": answer})
    require(right["status"] == "ACCEPT", str(right))
    done = wait_for(lambda: place.runs_of("review", "COMPLETED")[1:], "the decision")
    month.tell("form", done[0]["state"]["message"], refused_input=wrong["details"]["reason"])
    told = place.acclimate("promote", MENDED, "--by", "ann")
    seconds = followed(month, MENDED)
    place.git("merge", "--quiet", f"acclimate/{bundle(month, MENDED).name[:12]}")
    month.commit("Version 3 is the champion")
    month.note_champion(MENDED)
    month.tell("swapped", f"{last_line(told)}; served {seconds:.1f} s after the command's end")


def way_back(month: Month) -> None:
    told = month.place.acclimate("registry", "rollback", "--by", "ann", "--reason", "the later office complains")
    seconds = followed(month, FIRST)
    month.note_champion(FIRST)
    month.tell("rolled back", f"{last_line(told)}; served {seconds:.1f} s after the command's end")


def whole_story(month: Month) -> None:
    """Nothing; history and `at` were compared with what was noted while it happened."""
    place = month.place
    history = place.acclimate("registry", "history")
    events = re.findall(r"│ +(promoted|rolled back) +│ +(\d) +│", history)
    require(events == [("promoted", FIRST), ("promoted", MENDED), ("rolled back", FIRST)], history)
    at = {
        moment: place.acclimate("registry", "at", moment, code=version == "none") for moment, version in month.moments
    }
    for moment, version in month.moments:
        wanted = "had no champion" if version == "none" else f"version {version},"
        require(wanted in at[moment], f"{moment}: {at[moment]}")
    print(history)
    month.tell(
        "on record", "history and `at` name every champion", at={key: last_line(text) for key, text in at.items()}
    )


def followed(month: Month, version: str) -> float:
    """Seconds until the service answers with the version."""
    start = time.monotonic()
    wait_for(
        lambda: httpx.get(f"{month.place.service}/model").json()["version"] == version, f"version {version} is served"
    )
    return time.monotonic() - start


def bundle(month: Month, version: str) -> Path:
    candidate = re.search(r"candidate ([0-9a-f]{64})", month.place.acclimate("review", "show", version))
    assert candidate, version
    return month.place.home / "bundles" / candidate[1]


def figures(month: Month, version: str) -> dict[str, Any]:
    """Verdict and accuracies on the test images, from the version's bundle."""
    folder = bundle(month, version)
    verdict, metrics = (json.loads((folder / name).read_text()) for name in ("verdict.json", "metrics.json"))
    accuracy = {name: metrics[name]["accuracy"] for name in ("source_only", "champion", "adopted") if name in metrics}
    changes = pd.read_csv(folder / "changes.csv")
    by_slant = changes[(changes["baseline"] == "champion") & (changes["column"] == "slant")].set_index("group")
    named = ["n", "baseline_accuracy", "accuracy", "change", "change_low", "change_high", "is_hidden_loss"]
    return {
        "verdict": verdict["verdict"], "reason": verdict["reason"], "accuracy": accuracy,
        "against_champion_by_slant": json.loads(by_slant[named].to_json(orient="index")),
        "rules": {rule["name"]: rule["verdict"] for rule in verdict["rules"]},
    }  # fmt: skip


def images_of(month: Month, *, is_later: bool) -> list[tuple[Path, str]]:
    rows = month.rows[(month.rows["is_later"] == is_later) & (month.rows["split"] == "test")]
    return [(month.delivered / path, label) for path, label in zip(rows["path"], rows["label"], strict=True)]


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """How many were answered, by which versions in which order, how fast and how rightly."""
    table = pd.DataFrame(answers)
    good, seconds = table[table["status"] == 200], np.quantile(table["ms"], (0.5, 0.99, 1)).round(1)
    shares = good.assign(delivery=np.where(good["is_later"], "later", "first")).groupby(["version", "delivery"])
    rightly = shares["is_right"].agg(["size", "mean"]).round(3).reset_index()
    return {
        "n": len(table), "failed": len(table) - len(good), "per_s": PER_S,
        "problems": [each for each in answers if each["status"] != 200][:5],
        "versions": list(good["version"][good["version"] != good["version"].shift()]),
        **dict(zip(("p50_ms", "p99_ms", "longest_ms"), seconds.tolist(), strict=True)),
        "accuracy_of_answers": rightly.to_dict("records"),
    }  # fmt: skip


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def require(is_so: bool, what: str) -> None:
    if not is_so:
        raise RuntimeError(f"the month went another way: {what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    with tempfile.TemporaryDirectory() as temporary:
        main(given.keep or Path(temporary), given.pictures)
