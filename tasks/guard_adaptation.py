"""guard_adaptation: adopts the adapted model only where labels that nothing else read prove it better than source-only.

reads   data/manifest_valid.csv, data/gate.json, data/guard_labels.csv, data/given/labels.csv, data/model (held_out.csv,
        decision.json, model.json), the images
writes  data/adoption.json, data/to_label.csv, data/to_label.png

No network runs here: what the models say of the held-out target images was written when they were trained, so new labels
are weighed in seconds, and could not have been learnt from.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.files import read_json, read_table, text_sha256, whole_file, write_json, write_table
from tasks.core.guard import ADOPT, KEEP, UNLABELLED, GuardSettings, by_part, decide, evidence_of, shares_gate, to_label
from tasks.core.images import ImageFiles
from tasks.core.labels import asked_labels, read_labels
from tasks.core.manifest import HELD_OUT, part, read_valid_manifest
from tasks.core.method_choice import SOURCE_ONLY, Gate, adoption_gates, scored_of
from tasks.core.numbered_sheet import numbered_sheet
from tasks.core.predictions import CHAMPION, of_model
from tasks.core.runtime import run_stage
from tasks.core.stated_shares import stated_shares
from tasks.params import Params, read_params

MODEL = Path("data/model")
TO_LABEL_COLUMNS = ["path", "label", "source_only", "adapted", "asked_of"]
ASKED_OF_LENGTH = 16
THUMBNAIL_PX = 96


def main() -> None:
    params = read_params()
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    decision = read_json(MODEL / "decision.json", made_by="finetune_model")
    classes = read_json(MODEL / "model.json", made_by="finetune_model")["classes"]
    held_out = read_table(MODEL / "held_out.csv", made_by="finetune_model")
    rows = part(manifest, "target", *HELD_OUT)
    method = decision["method"]["chosen"]
    pair = pair_of(held_out, method)
    guess = {name: guesses(held_out, name, rows, classes) for name in held_out["model"].unique()}
    said = {name: np.array(classes)[guess[name]] for name in (SOURCE_ONLY, method)}
    rows = rows.assign(label="", source_only=said[SOURCE_ONLY], adapted=said[method], asked_of=pair)
    drawn, answers = labels_of_guard(rows, classes, pair)
    lists = Lists.of(rows, drawn, answers, n=params.guard_adaptation.n_to_label, seed=params.seed)
    source_labels = part(manifest, "source", "train", "val")["label"]
    stated_C = stated_shares(params.guard_adaptation.class_shares, classes, list(source_labels))
    gates = [] if method == SOURCE_ONLY else gates_of(decision["method"], held_out, classes, stated_C)
    adoption = judged(rows, guess, lists, decision, gates, params)
    if gates and stated_C is not None:
        adoption["guard"]["class_shares"] = dict(zip(classes, stated_C.round(4).tolist(), strict=True))
    asked = lists.waiting[TO_LABEL_COLUMNS]
    if void := void_answers(pair):
        adoption["guard"]["void_answers"] = void
        print(void)  # noqa: T201  news
    write_json(Path("data/adoption.json"), decision | adoption)
    write_table(Path("data/to_label.csv"), asked)
    write_sheet(Path("data/to_label.png"), asked, params)
    guard = adoption["guard"]
    for name, why in decision["not_run"].items():
        print(f"{name} was not run: {why}")  # noqa: T201  news
    print(f"guard: {guard['decision']}; {guard['reason']}")  # noqa: T201  news


def pair_of(held_out: pd.DataFrame, method: str) -> str:
    """Names the two models by what they say: labels asked for one pair are no fair draw for another."""
    guesses = [of_model(held_out, name)[["image_id", "y_pred"]].to_csv(index=False) for name in (SOURCE_ONLY, method)]
    return text_sha256("\n".join(guesses))[:ASKED_OF_LENGTH]


def void_answers(pair: str) -> str:
    """A sentence on answers that were given for other models than this pair; "" where there are none."""
    given = asked_labels(read_labels(Path("data/given/labels.csv")))
    n = int((given["asked_of"] != pair).sum())
    if not n:
        return ""
    return (
        f"{n} answer(s) in data/given/labels.csv don't count: they were asked of two models that said other things than these, "
        "and are no fair draw of what these differ on; answer data/to_label.csv as it is now, or take back what was changed "
        "since they were asked"
    )


@dataclass(frozen=True)
class Lists:
    """Held-out disagreements in addressed order, in lists of n_to_label: what was answered, and what still waits.

    Labels count list by list: were they looked at one by one, somebody could stop at the lucky moment. A list counts once
    all of its images are answered.
    """

    n_whole: int
    labels: pd.DataFrame  # the drawn ones, and those of whole lists: image_id, label, is_asked, number
    n_waiting_answers: int  # of the list that is not whole yet
    waiting: pd.DataFrame  # the images of that list that still need an answer

    @classmethod
    def of(cls, rows: pd.DataFrame, drawn: pd.DataFrame, answers: pd.DataFrame, *, n: int, seed: int) -> "Lists":
        free = rows[rows["split"] == "holdout"]
        both = free["adapted"].to_numpy(str), free["source_only"].to_numpy(str)
        order = to_label(list(free["image_id"]), *both, n=len(free), seed=seed)
        known = set(answers["image_id"])
        lists = [order[start : start + n] for start in range(0, len(order), n)]
        n_whole = next((k for k, ids in enumerate(lists) if not known.issuperset(ids)), len(lists))
        counted = {name for ids in lists[:n_whole] for name in ids}
        current = lists[n_whole] if n_whole < len(lists) else []
        left = [name for name in current if name not in known]
        labels = pd.concat([drawn, answers[answers["image_id"].isin(counted)]])
        return cls(n_whole, labels, len(current) - len(left), free.set_index("image_id").loc[left])


def labels_of_guard(rows: pd.DataFrame, classes: list[str], pair: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """image_id, label, is_asked, number: the labels held back for the guard, and those that a person gave for this pair.

    Only images that are still held out count; a label that is no class of the source counts as one that no model gets.
    """
    drawn = read_table(Path("data/guard_labels.csv"), made_by="validate_data").assign(is_asked=False)
    given = asked_labels(read_labels(Path("data/given/labels.csv")))
    given = given[(given["asked_of"] == pair) & (given["label"] != "")]
    free = rows[rows["split"] == "holdout"]
    asked = free[["image_id", "path"]].merge(given[["path", "label"]], on="path")[["image_id", "label"]]
    index = {name: number for number, name in enumerate(classes)}

    def numbered(labels: pd.DataFrame) -> pd.DataFrame:
        return labels.assign(number=[index.get(label, len(classes)) for label in labels["label"]])

    return numbered(drawn), numbered(asked.assign(is_asked=True))


def judged(
    rows: pd.DataFrame, guess: dict[str, np.ndarray], lists: Lists, decision: dict[str, Any], gates: list[Gate], params: Params
) -> dict[str, Any]:  # fmt: skip
    """Which model is adopted, and the evidence for it, also per class and group, and against the champion."""
    method, own = decision["method"]["chosen"], params.guard_adaptation
    labels = lists.labels
    number = labels.set_index("image_id")["number"]
    label_N = rows["image_id"].map(number).fillna(UNLABELLED).to_numpy(int)
    known = {
        "n_labels": int((label_N != UNLABELLED).sum()),
        "n_asked": int(labels["is_asked"].sum()),
        "n_waiting": lists.n_waiting_answers,
    }
    if method == SOURCE_ONLY:
        guard = {"decision": KEEP, "is_proven": False, "reason": no_rival(decision), "n_rounds": 0}
        return {"adopted": SOURCE_ONLY, "guard": guard | known, CHAMPION: None}
    settings = GuardSettings(**own.model_dump(exclude={"class_shares", "n_to_label"}))
    n_rounds = max(int((~labels["is_asked"]).any()) + lists.n_whole, 1)  # how often labels were looked at
    evidence = evidence_of(guess[method], guess[SOURCE_ONLY], label_N)
    can_count_N = (rows["split"] != "val").to_numpy()
    n_askable = int((can_count_N & (guess[method] != guess[SOURCE_ONLY])).sum())
    verdict = decide(evidence, settings, gates=gates, n_rounds=n_rounds, n_askable=n_askable)
    adopted = method if verdict.decision == ADOPT else SOURCE_ONLY
    audit = [name for name in map(str, rows.columns) if name.startswith("audit_")]
    groups = {name.removeprefix("audit_"): rows[name].to_numpy(str) for name in audit}
    parts = {"guessed class": rows["source_only"].to_numpy(str)} | groups
    by = {
        name: by_part(guess[method], guess[SOURCE_ONLY], label_N, part_N, own.confidence)
        for name, part_N in parts.items()
    }
    level = 1 - settings.error(all(gate.is_passed for gate in gates), n_rounds)
    told = {"n_rounds": n_rounds, "level": level, "gates": [asdict(gate) for gate in gates], "by": by}
    guard = asdict(verdict) | known | told
    drawn_N = np.where(rows["image_id"].isin(labels.loc[labels["is_asked"], "image_id"]), UNLABELLED, label_N)
    return {"adopted": adopted, "guard": guard, CHAMPION: against_champion(guess, adopted, drawn_N, settings)}


def guesses(held_out: pd.DataFrame, model: str, rows: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """(N,) class numbers, in the order of the rows."""
    found = of_model(held_out, model).set_index("image_id")["y_pred"].loc[list(rows["image_id"])]
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[name] for name in found], dtype=int)


def no_rival(decision: dict[str, Any]) -> str:
    not_run = "; ".join(f"{name} was not run: {why}" for name, why in decision["not_run"].items())
    return "; ".join(filter(None, [decision["method"]["reason"], not_run]))


def against_champion(
    guess: dict[str, np.ndarray], adopted: str, drawn_N: np.ndarray, settings: GuardSettings
) -> dict[str, Any] | None:
    """The adopted model against the registered one, where a flow pinned it: shown to the reviewer, decides nothing here.

    On labels that were drawn: those asked for another pair are no fair draw of what these two differ on.
    """
    if CHAMPION not in guess:
        return None
    return asdict(decide(evidence_of(guess[adopted], guess[CHAMPION], drawn_N), settings, baseline="the champion"))


def gates_of(
    choice: dict[str, Any], held_out: pd.DataFrame, classes: list[str], stated_C: np.ndarray | None
) -> list[Gate]:
    """What must agree on the chosen method before less evidence than usual is enough, from the stored figures.

    Only images that came without a label say how frequent classes are: labelled ones may be picked by class.
    """
    scored = {candidate.name: candidate for candidate in scored_of(choice)}
    gates = adoption_gates(scored[choice["chosen"]], scored[SOURCE_ONLY], choice["n_source_classes"])
    if stated_C is None:
        return gates
    as_it_comes = held_out[held_out["split"] == "holdout"]
    adapted_NC, base_NC = (
        of_model(as_it_comes, name)[[f"p_{each}" for each in classes]].to_numpy(float)
        for name in (choice["chosen"], SOURCE_ONLY)
    )
    return [*gates, shares_gate(adapted_NC, base_NC, stated_C)]


def write_sheet(path: Path, asked: pd.DataFrame, params: Params) -> None:
    """The images to label in the table's order, as thumbnails with their line's number."""
    files = ImageFiles(Path(params.build_manifest.root), THUMBNAIL_PX)
    sheet = numbered_sheet([files[name] for name in asked["path"]])
    with whole_file(path) as unfinished:
        unfinished.write_bytes(sheet)


if __name__ == "__main__":
    run_stage(main)
