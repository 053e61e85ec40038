"""guard_adaptation on a folder made by hand: which labels count, what they decide, and which images are asked for."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from tasks import guard_adaptation
from tasks.core.files import read_json, read_table, write_json, write_table
from tasks.core.method_choice import SOURCE_ONLY, Scored, choose_method

Labels = dict[str, str]
Start = Callable[..., None]
ADOPTION, TO_LABEL, SHEET = (Path("data") / name for name in ("adoption.json", "to_label.csv", "to_label.png"))
CLASSES = ["a", "b", "c"]
# held-out images; the models differ on h0..h9 and g0..g5: source-only says a there, mcc b, and both say c elsewhere
SPLIT_OF = {**{f"h{k}": "holdout" for k in range(12)}, **{f"g{k}": "guard" for k in range(6)}, "v0": "val", "v1": "val"}
DIFFERENT = {*(f"h{k}" for k in range(10)), *(f"g{k}" for k in range(6))}
OTHERS = {"t0": "train", "u0": "unlabelled", "x0": "test"}
# sums by hand are made for these; the shipped ones may be others
GUARD = {
    "confidence": 0.95, "adopt_confidence": 0.95, "adopt_confidence_with_gates": 0.9, "margin": 0.0,
    "without_labels": "keep", "n_to_label": 40,
}  # fmt: skip
ASKABLE = {f"h{k}.png" for k in range(10)}


@pytest.fixture
def start(shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]) -> Start:
    """Goes to a new folder: labels drawn for the guard, whether the label-free gates agree, changes of its parameters."""

    def begin(drawn: Labels, *, gates_agree: bool = False, champion: bool = False, **guard: Any) -> None:
        shipped["build_manifest"]["root"] = "images"
        shipped["guard_adaptation"] |= GUARD | guard
        go_with(shipped)
        save_manifest_and_images()
        write_json(Path("data/gate.json"), {"blocked_by": []})
        table = pd.DataFrame(list(drawn.items()), columns=["image_id", "label"])
        write_table(Path("data/guard_labels.csv"), table)
        save_held_out(champion)
        write_json(Path("data/model/model.json"), {"classes": CLASSES})
        save_decision([scored(SOURCE_ONLY, 0.7), scored("mcc", 0.8, agreement=0.9 if gates_agree else 0.5)])

    return begin


def save_manifest_and_images() -> None:
    Path("images").mkdir()
    rows = []
    for number, (name, split) in enumerate({**SPLIT_OF, **OTHERS, "s0": "train"}.items()):
        Image.new("RGB", (8, 8), (number * 9, 0, 255)).save(f"images/{name}.png")
        domain, label = ("source", "a") if name == "s0" else ("target", "")
        rows.append({
            "image_id": name, "path": f"{name}.png", "domain": domain, "split": split, "label": label,
            "audit_site": "north" if name[1:] in ("0", "1") else "south",
        })  # fmt: skip
    write_table(Path("data/manifest_valid.csv"), pd.DataFrame(rows))


def save_held_out(champion: bool, differing: set[str] = DIFFERENT) -> None:
    """As the models say it; the champion says b everywhere."""
    rows = [
        {"model": model, "image_id": name, "split": split, "y_pred": guess if name in differing else "c"}
        for model, guess in ((SOURCE_ONLY, "a"), ("mcc", "b"))
        for name, split in SPLIT_OF.items()
    ]
    if champion:
        rows += [{"model": "champion", "image_id": n, "split": s, "y_pred": "b"} for n, s in SPLIT_OF.items()]
    table = pd.DataFrame(rows)
    write_table(
        Path("data/model/held_out.csv"), table.assign(**{f"p_{c}": 1.0 * (table["y_pred"] == c) for c in CLASSES})
    )


def scored(name: str, level: float, *, agreement: float = 0.7) -> Scored:
    """Passes every gate but, for a low agreement, the one on agreement: it is asked for before an adoption alone."""
    names = ("mixval_intra", "mixval_inter", "information_maximisation", "nuclear_norm", "softmax_correlation")
    scores: dict[str, float | None] = {"ensemble_agreement": agreement, **dict.fromkeys(names, level)}
    return Scored(name, 0.9, 2.9, 1.1, scores, ())


def save_decision(candidates: list[Scored], n_source_classes: float = 3.0) -> None:
    method = choose_method(candidates, n_source_classes, 0.95)
    assert method["chosen"] == candidates[-1].name
    decision = {"method": method, "not_run": {"shot": "too few images"}, "calibration": {}}
    write_json(Path("data/model/decision.json"), decision)


def run() -> dict[str, Any]:
    guard_adaptation.main()
    return dict(read_json(ADOPTION, made_by="guard_adaptation"))


def asked() -> pd.DataFrame:
    return read_table(TO_LABEL, made_by="guard_adaptation")


def answer(labels: Labels, of: str | None = None) -> None:
    """Labels by path as a person enters them behind those that are there; `of`: the pair, as it stands in the list."""
    with Path("data/given/labels.csv").open() as handle:
        entries = [row[:4] + row[4:5] for row in csv.reader(handle)][1:]
    pair = asked()["asked_of"][0] if of is None else of
    entries += [[path, label, "ann", "2026-03-01", pair] for path, label in labels.items()]
    lines = ["path,label,by,on,asked_of", *(",".join(entry) for entry in entries)]
    Path("data/given/labels.csv").write_text("\n".join(lines) + "\n")


def wins(n: int) -> Labels:
    """Labels that only mcc gets."""
    return {f"g{k}": "b" for k in range(n)}


def figures(found: dict[str, Any]) -> tuple[int, ...]:
    evidence = found["guard"]["evidence"]
    return tuple(evidence[name] for name in ("n_images", "n_disagreements", "wins", "losses", "both_wrong"))


@pytest.mark.parametrize(
    ("drawn", "decision", "adopted"),
    [
        (wins(6), "adopt", "mcc"),  # sign test 1/64 = .016, the first of all rounds within .05 may err in .025
        (wins(5), "inconclusive", SOURCE_ONLY),  # 1/32 = .031
        ({f"g{k}": "a" for k in range(6)}, "keep", SOURCE_ONLY),
        ({f"g{k}": "c" for k in range(6)}, "inconclusive", SOURCE_ONLY),
        ({}, "inconclusive", SOURCE_ONLY),
    ],
)
def test_drawn_labels_decide(
    start: Start, capsys: pytest.CaptureFixture[str], drawn: Labels, decision: str, adopted: str
) -> None:
    start(drawn)
    found = run()
    assert (found["guard"]["decision"], found["adopted"]) == (decision, adopted)
    assert (found["guard"]["n_labels"], found["guard"]["n_asked"], found["guard"]["n_rounds"]) == (len(drawn), 0, 1)
    assert capsys.readouterr().out == (
        f"shot was not run: too few images\nguard: {decision}; {found['guard']['reason']}\n"
    )
    assert found["not_run"] == {"shot": "too few images"}  # what training decided stands beside


def test_wins_and_losses_are_counted_on_disagreements(start: Start) -> None:
    start({"g0": "b", "g1": "b", "g2": "a", "g3": "c", "g4": "zebra"})
    found = run()
    assert figures(found) == (20, 16, 2, 1, 2)  # zebra is no class: no model gets it
    assert found["guard"]["gain"]["value"] == pytest.approx(16 / 20 * (2 - 1) / 5)
    assert found["champion"] is None


@pytest.mark.parametrize(("more", "n_more"), [({"v0", "v1"}, None), ({"h10", "h11"}, 12)])
def test_images_that_chose_the_method_are_promised_to_nobody(start: Start, more: set[str], n_more: int | None) -> None:
    """Two wins of five: of 16 labels 6, 1/64 = .016, of 17 or 18 labels 7, 1/128 = .008; the second round may err in .0125."""
    start({"g0": "b", "g1": "b", "g2": "c", "g3": "c", "g4": "c"})
    save_held_out(champion=False, differing=DIFFERENT | more)
    found = run()
    assert figures(found) == (20, 18, 2, 0, 3)
    assert found["guard"]["n_more_labels"] == n_more


def test_asked_labels_count_beside_drawn_ones_once_their_list_is_whole(start: Start) -> None:
    """Looking after each label would allow to stop at the lucky moment."""
    start(wins(5), n_to_label=2)
    run()
    first, second = asked()["path"]
    answer({first: "b"})
    half = run()
    assert figures(half) == (20, 16, 5, 0, 0)
    assert [half["guard"][name] for name in ("n_labels", "n_asked", "n_waiting", "n_rounds")] == [5, 0, 1, 1]
    assert list(asked()["path"]) == [second]
    answer({second: "b"})
    found = run()
    assert figures(found) == (20, 16, 7, 0, 0)
    assert [found["guard"][name] for name in ("n_labels", "n_asked", "n_waiting", "n_rounds")] == [7, 2, 0, 2]
    assert (found["guard"]["decision"], found["adopted"]) == (
        "adopt",
        "mcc",
    )  # 1/128 = .008, the second round may err in .0125


def test_asked_labels_alone_are_the_first_round(start: Start) -> None:
    start({}, n_to_label=6)
    run()
    answer(dict.fromkeys(asked()["path"], "b"))
    found = run()
    assert (found["guard"]["n_rounds"], found["adopted"]) == (1, "mcc")


def test_a_label_that_is_no_class_is_right_for_nobody(start: Start) -> None:
    start({}, n_to_label=1)
    run()
    answer({asked()["path"][0]: "zebra", "h10.png": "c"})  # on h10 both say c: it is in no list
    found = run()
    assert figures(found) == (20, 16, 0, 0, 1)
    assert found["guard"]["n_labels"] == 1


@pytest.mark.parametrize(
    ("labels", "of"),
    [
        ({"h0.png": "b", "h1.png": "b"}, "0123456789abcdef"),  # of another pair
        ({"h0.png": "b"}, ""),  # an ordinary label, which the manifest doesn't know yet
        ({"u0.png": "b", "t0.png": "b", "v0.png": "b", "x0.png": "b", "g5.png": "b"}, None),  # not held out (any more)
        ({"s0.png": "b", "gone.png": "b"}, None),
    ],
)
def test_other_labels_do_not_count(start: Start, labels: Labels, of: str | None) -> None:
    start(wins(5))
    before = run()
    run()
    answer(labels, of)
    found = run()
    found["guard"].pop("void_answers", None)  # told, and weighed by nothing
    assert found == before


def test_answers_to_other_models_are_told(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three answers; of those one was taken back. With the present pair's alone no word is lost."""
    start(wins(5))
    run()
    answer({"h0.png": "b"})
    assert "void_answers" not in run()["guard"]
    answer({"h1.png": "b", "h2.png": "b"}, "0123456789abcdef")
    capsys.readouterr()
    told = run()["guard"]["void_answers"]
    assert told.startswith(
        "2 answer(s) in data/given/labels.csv don't count: they were asked of two models that said other"
    )
    assert told in capsys.readouterr().out.splitlines()
    answer({"h1.png": ""}, "0123456789abcdef")
    assert run()["guard"]["void_answers"].startswith("1 answer(s)")


def test_a_label_taken_back_does_not_count_and_its_image_is_asked_for_again(start: Start) -> None:
    start(wins(5))
    run()
    before = [path.read_bytes() for path in (ADOPTION, TO_LABEL)]
    answer({"h0.png": "b"})
    run()
    assert [path.read_bytes() for path in (ADOPTION, TO_LABEL)] != before
    answer({"h0.png": ""})
    run()
    assert [path.read_bytes() for path in (ADOPTION, TO_LABEL)] == before


@pytest.mark.parametrize(("agree", "decision"), [(True, "adopt"), (False, "inconclusive")])
def test_gates_lower_the_evidence_only_where_all_of_an_adoption_agree(start: Start, agree: bool, decision: str) -> None:
    """1/32 = .031: enough for the first of all rounds within .1, which the gates allow, but not within .05.

    Both pass the gates of the choice among methods; those of an adoption ask for more.
    """
    start(wins(5), gates_agree=agree)
    found = run()
    mcc = found["method"]["candidates"][-1]
    assert mcc["passes"]
    assert found["guard"]["decision"] == decision
    failed = [gate["name"] for gate in found["guard"]["gates"] if not gate["is_passed"]]
    assert failed == ([] if agree else ["agreement"])


@pytest.mark.parametrize(("agree", "decision"), [(True, "adopt"), (False, "keep")])
def test_without_labels_gates_decide_where_that_is_allowed(start: Start, agree: bool, decision: str) -> None:
    start({}, gates_agree=agree, without_labels="gates", class_shares={"a": 0, "b": 10, "c": 2})
    guard = run()["guard"]
    assert (guard["decision"], guard["is_proven"]) == (decision, False)


def test_source_only_without_a_rival_is_kept_and_it_is_said_why(start: Start) -> None:
    start(wins(6), class_shares={"a": 1, "b": 1, "c": 1})
    save_decision([scored(SOURCE_ONLY, 0.7)], n_source_classes=1.0)  # of which no gate can tell chance from competence
    found = run()
    assert (found["adopted"], found["champion"]) == (SOURCE_ONLY, None)
    guard = found["guard"]
    assert (guard["decision"], guard["is_proven"], guard["n_rounds"], guard["n_labels"]) == ("keep", False, 0, 6)
    assert guard["reason"] == f"{found['method']['reason']}; shot was not run: too few images"
    assert TO_LABEL.read_text() == "path,label,source_only,adapted,asked_of\n"
    with Image.open(SHEET) as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (1, 1))


@pytest.mark.parametrize(
    ("stated", "decision"),
    [
        ({"a": 0, "b": 10, "c": 2}, "adopt"),  # of h0..h11 mcc says b ten times and c twice, source-only a ten times
        ({"a": 10, "b": 0, "c": 2}, "keep"),
        ("source", "keep"),  # whose only label is a
    ],
)
def test_gates_adopt_where_the_stated_class_shares_agree(start: Start, stated: Any, decision: str) -> None:
    start({}, gates_agree=True, without_labels="gates", class_shares=stated)
    found = run()["guard"]
    assert (found["decision"], found["is_proven"]) == (decision, False)
    expected = {"a": 1.0, "b": 0.0, "c": 0.0} if stated == "source" else {c: round(stated[c] / 12, 4) for c in CLASSES}
    assert found["class_shares"] == expected
    (gate,) = (gate for gate in found["gates"] if gate["name"] == "class_shares")
    assert gate["is_passed"] is (decision == "adopt")


def test_labelled_images_say_nothing_of_class_shares(start: Start) -> None:
    """They may be picked by class: the guard's g0 to g5 and the validation's v0, v1 are left out, h0 to h11 count."""
    stated = {"a": 0, "b": 10, "c": 2}
    start({"g0": "c"}, gates_agree=True, class_shares=stated)
    gate = run()["guard"]["gates"][-1]
    assert gate["reason"] == (
        "over 12 held-out images that came without a label the adapted model's class shares lie 0.000 from the stated ones, "
        "source-only's 0.833: at most 0.783 is asked"
    )


def test_without_stated_class_shares_there_is_no_gate_on_them(start: Start) -> None:
    start({"g0": "c"}, gates_agree=True)
    assert "class_shares" not in [gate["name"] for gate in run()["guard"]["gates"]]


def test_parts_carry_their_names(start: Start) -> None:
    start({"g0": "b", "g1": "b", "g2": "a"})
    by = run()["guard"]["by"]
    counts = {
        column: {p["part"]: (p["n"], p["n_disagreements"], p["n_labels"]) for p in parts}
        for column, parts in by.items()
    }
    assert counts == {
        "guessed class": {"a": (16, 16, 3), "c": (4, 0, 0)},
        "site": {"north": (6, 4, 2), "south": (14, 12, 1)},
    }


def test_the_champion_is_compared_on_drawn_labels_alone(start: Start) -> None:
    """Labels asked for mcc and source-only are no fair draw of what mcc and the champion differ on."""
    start({**wins(3), "g3": "a", "g4": "a", "g5": "a"}, champion=True, n_to_label=5)
    run()
    answer({f"h{k}.png": "a" for k in range(10)})
    found = run()
    assert found["adopted"] == SOURCE_ONLY
    evidence = found["champion"]["evidence"]  # source-only says a or c, the champion b: they never agree
    assert [evidence[name] for name in ("n_images", "n_disagreements", "wins", "losses", "both_wrong")] == [
        20, 20, 3, 3, 0,
    ]  # fmt: skip
    assert figures(found) == (20, 16, 3, 13, 0)


def test_only_unlabelled_disagreements_that_nothing_learns_from_are_asked_for(start: Start) -> None:
    start(wins(2))
    run()
    table = asked()
    assert list(table.columns) == ["path", "label", "source_only", "adapted", "asked_of"]
    assert set(table["path"]) == ASKABLE
    assert table[["label", "source_only", "adapted"]].drop_duplicates().to_numpy().tolist() == [["", "a", "b"]]
    assert table["asked_of"].nunique() == 1
    answer({"h3.png": "a", "h4.png": "b"})
    run()
    assert list(asked()["path"]) == [path for path in table["path"] if path not in ("h3.png", "h4.png")]
    with Image.open(SHEET) as sheet:  # eight squares of 96 px in a row, 4 px between them, 14 px for the number
        assert (sheet.format, sheet.size) == ("PNG", (8 * 100 + 4, 114 + 4))


def test_a_longer_list_begins_like_a_shorter_one(start: Start, shipped: dict[str, Any]) -> None:
    start({}, n_to_label=3)
    run()
    short = list(asked()["path"])
    shipped["guard_adaptation"]["n_to_label"] = 6
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("n_to_label: 3", "n_to_label: 6"))
    run()
    assert len(short) == 3
    assert list(asked()["path"])[:3] == short
    assert len(asked()) == 6


def test_the_pair_is_named_by_what_the_models_say(start: Start) -> None:
    start({})
    run()
    before = asked()["asked_of"][0]
    path = Path("data/model/held_out.csv")
    held_out = read_table(path, made_by="finetune_model")
    write_table(path, held_out.assign(p_a=0.5))
    run()
    assert asked()["asked_of"][0] == before
    changed = (held_out["model"] == "mcc") & (held_out["image_id"] == "v1")
    write_table(path, held_out.assign(y_pred=held_out["y_pred"].mask(changed, "a")))
    run()
    assert asked()["asked_of"][0] != before


def test_the_order_of_labels_and_images_changes_no_byte(start: Start) -> None:
    start({"g0": "b", "g1": "b", "g2": "a"}, champion=True)
    run()
    answer({"h0.png": "b", "h1.png": "a", "h2.png": "c"})
    run()
    before = [path.read_bytes() for path in (ADOPTION, TO_LABEL, SHEET)]
    for path in (Path("data/manifest_valid.csv"), Path("data/guard_labels.csv"), Path("data/given/labels.csv")):
        write_table(path, read_table(path, made_by="a person").iloc[::-1])
    run()
    assert [path.read_bytes() for path in (ADOPTION, TO_LABEL, SHEET)] == before


@pytest.mark.parametrize(
    ("n_drawn", "n_answered", "n_asked", "n_waiting", "n_left", "n_rounds"),
    [
        (0, 0, 0, 0, 4, 1),
        (3, 3, 0, 3, 1, 1),
        (0, 4, 4, 0, 4, 1),
        (3, 4, 4, 0, 4, 2),
        (3, 9, 8, 1, 1, 3),
        (3, 10, 10, 0, 0, 4),
    ],
)
def test_lists_count_one_after_the_other(  # noqa: PLR0913
    start: Start, n_drawn: int, n_answered: int, n_asked: int, n_waiting: int, n_left: int, n_rounds: int
) -> None:
    """Ten disagreements in lists of four, four and two."""
    start({f"g{k}": "c" for k in range(n_drawn)}, n_to_label=10)
    run()
    order = list(asked()["path"])
    start_again = Path("params.yaml").read_text()
    Path("params.yaml").write_text(start_again.replace("n_to_label: 10", "n_to_label: 4"))
    answer(dict.fromkeys(order[:n_answered], "c"))
    guard = run()["guard"]
    assert [guard[name] for name in ("n_asked", "n_waiting", "n_rounds")] == [n_asked, n_waiting, n_rounds]
    assert list(asked()["path"]) == order[n_answered : n_answered + n_left]


def test_blocked_data_is_refused(start: Start) -> None:
    start(wins(6))
    write_json(Path("data/gate.json"), {"blocked_by": ["readable: 3 images"]})
    with pytest.raises(ValueError, match="the data is blocked: readable: 3 images"):
        guard_adaptation.main()
    assert not ADOPTION.exists()


@pytest.mark.parametrize(
    ("gone", "stage"), [("decision.json", "finetune_model"), ("../guard_labels.csv", "validate_data")]
)
def test_a_missing_file_names_its_stage(start: Start, gone: str, stage: str) -> None:
    start(wins(6))
    Path("data/model", gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"made by the stage {stage}"):
        guard_adaptation.main()
