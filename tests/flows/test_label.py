"""`acclimate label` on a workspace of its own: only params.yaml, a manifest and given labels."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from flows.data_cli import LABELS, MANIFEST, SPLITS, TO_LABEL, add_commands
from flows.review_cli import person_of
from tasks.core.files import write_json
from tasks.core.labels import read_labels
from tasks.guard_adaptation import pair_of

PROJECT = Path(__file__).parents[2]
MOST = ", at most 3 of a class to train on (validate_data.target_labels_per_class; null = all)"  # as shipped
HEADER = "path,label,by,on,asked_of\n"
Rows = list[tuple[str, str, str, str, str]]  # path, domain, split, group_id, label
ROWS: Rows = [
    ("ink/1.png", "source", "", "g1", "cat"),
    ("ink/2.png", "source", "", "g2", "dog"),
    ("pen/1.png", "target", "", "w1", ""),
    ("pen/2.png", "target", "", "w1", ""),
    ("pen/3.png", "target", "", "w2", ""),
    ("pen/4.png", "target", "", "w3", "cat"),
    ("pen/5.png", "target", "test", "w4", "dog"),
]


def put_manifest(rows: Rows) -> None:
    table = pd.DataFrame(rows, columns=["path", "domain", "split", "group_id", "label"])
    names = [f"of {path}" for path in table["path"]]
    table.assign(image_id=names, content_id=names).to_csv(MANIFEST, index=False)


@pytest.fixture
def project(
    shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    shipped["build_manifest"]["root"] = "images"
    folder = go_with(shipped)
    monkeypatch.delenv("ACCLIMATE_HOME", raising=False)
    put_manifest(ROWS)
    LABELS.parent.mkdir(exist_ok=True)
    LABELS.write_text(HEADER)
    return folder


def acclimate(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    add_commands(app)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def label(*arguments: str) -> str:
    """What is printed; the call must end well and print one line."""
    done = acclimate("label", *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return str(done.stdout.rstrip("\n"))


def refused(*arguments: str) -> str:
    """The one sentence; the labels must be as they were."""
    before = LABELS.read_bytes() if LABELS.exists() else None
    done = acclimate("label", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (LABELS.read_bytes() if LABELS.exists() else None) == before
    return str(done.stderr)


def written() -> list[tuple[str, str]]:
    labels = read_labels(LABELS)
    return list(zip(labels["path"], labels["label"], strict=True))


def test_one_label_is_written_with_person_and_day(project: Path) -> None:
    days = [datetime.now(UTC).date().isoformat()]
    assert label("pen/1.png", "cat", "--by", "ann") == (
        "1 label written to data/given/labels.csv (1 new); `acclimate run` uses them" + MOST
    )
    days.append(datetime.now(UTC).date().isoformat())
    assert LABELS.read_text() in [f"{HEADER}pen/1.png,cat,ann,{day},\n" for day in days]
    assert sorted(path.name for path in LABELS.parent.iterdir()) == ["accepted_profile.json", "labels.csv"]


def test_many_labels_come_from_a_table_and_corrections_are_counted(project: Path) -> None:
    Path("mine.csv").write_text("path,label\npen/1.png,cat\npen/2.png,dog\npen/4.png,dog\n")
    assert label("--from", "mine.csv") == (
        "3 labels written to data/given/labels.csv (2 new, 1 changed); `acclimate run` uses them" + MOST
    )
    assert label("--from", "mine.csv") == "nothing to write: data/given/labels.csv says so already (3 labels)"
    assert label("pen/1.png", "dog").startswith("1 label written to data/given/labels.csv (1 changed);")
    Path("mine.csv").write_text("path,label\npen/1.png,dog\npen/3.png,dog\n")
    assert "(1 new, 1 written before)" in label("--from", "mine.csv")
    assert written() == [
        ("pen/1.png", "cat"), ("pen/2.png", "dog"), ("pen/4.png", "dog"), ("pen/1.png", "dog"), ("pen/3.png", "dog"),
    ]  # fmt: skip


def test_a_corrected_test_image_is_told(project: Path) -> None:
    assert label("pen/5.png", "dog").endswith("(1 confirmed); `acclimate run` uses them" + MOST)
    told = label("pen/5.png", "cat")
    assert "(1 changed)" in told
    assert "1 of them concern test images, so test figures from before and after don't compare" in told
    assert "test" not in label("pen/4.png", "dog")
    SPLITS.write_text("path,domain,split\npen/4.png,target,test\nink/1.png,source,test\n")
    assert "1 of them concern test images" in label("pen/4.png", "cat")
    assert "test" not in label("ink/1.png", "dog")


def test_without_a_name_the_login_name_signs_else_gits_address_as_in_reviews(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [("USER", "berta", "berta"), ("LOGNAME", "carl", "berta"), ("USER", "", "carl"), ("LOGNAME", "", "d@e.org")]
    for name in ("USER", "LOGNAME", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)
    Path("who").write_text("[user]\nemail = d@e.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(Path("who").absolute()))
    for (name, value, signed), image in zip(steps, ("pen/1.png", "pen/2.png", "pen/3.png", "pen/4.png"), strict=True):
        monkeypatch.setenv(name, value)
        label(image, "dog")
        assert read_labels(LABELS)["by"].to_list()[-1] == signed == person_of(None)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    assert "it is not known who gives the labels; say it with --by NAME" in refused("pen/1.png", "dog")


def test_a_label_is_taken_back_and_given_anew(project: Path) -> None:
    label("pen/1.png", "cat")
    assert "1 label written to data/given/labels.csv (1 taken back)" in label("--undo", "pen/1.png")
    assert "carry no label that could be taken back, the first: 'pen/1.png'" in refused("--undo", "pen/1.png")
    assert "(1 new)" in label("pen/1.png", "dog")
    assert "(2 taken back)" in label("--undo", "pen/1.png", "pen/4.png")
    assert written() == [
        ("pen/1.png", "cat"), ("pen/1.png", ""), ("pen/1.png", "dog"), ("pen/1.png", ""), ("pen/4.png", ""),
    ]  # fmt: skip


def test_a_label_that_the_pipeline_needs_is_not_taken_back(project: Path) -> None:
    told = refused("--undo", "ink/1.png", "pen/5.png", "pen/3.png")
    assert "1 images carry no label that could be taken back, the first: 'pen/3.png'" in told
    assert "1 images are source images, which can't be without a label; give the right one instead" in told
    assert "1 images are given as split val or test" in told


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_written(project: Path) -> None:
    Path("mine.csv").write_text("path,label\npen/1.png,cat\npen/22.png,cat\npen/3.png,dgo\npen/2.png,a\npen/2.png,b\n")
    told = refused("--from", "mine.csv", "--by", "")
    assert "1 images are not in the manifest, the first: 'pen/22.png' (did you mean 'pen/2.png'?)" in told
    assert "1 images are given two labels in one call, the first: 'pen/2.png'" in told
    assert "'dgo' (did you mean 'dog'?); the classes are 'cat', 'dog'" in told
    assert "it is not said who gives the label" in told


def test_a_new_class_must_be_asked_for_once(project: Path) -> None:
    assert "the classes are 'cat', 'dog'" in refused("pen/1.png", "zebra")
    assert "no image carried 'zebra' before: the rule known_label wants source images of each class" in label(
        "pen/1.png", "zebra", "--new-class"
    )
    assert label("pen/2.png", "zebra").endswith("(1 new); `acclimate run` uses them" + MOST)
    label("--undo", "pen/1.png", "pen/2.png")
    assert "the classes are 'cat', 'dog'" in refused("pen/1.png", "zebra")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["pen/1.png"], ["pen/1.png", "cat", "dog"], ["--undo"], ["--undo", "--from", "x.csv"], ["--undo", "--list", "3"],
        ["pen/1.png", "cat", "--from", "x.csv"], ["--list", "3", "--from", "x.csv"],
    ],
)  # fmt: skip
def test_an_unclear_request_is_told_what_can_be_said(project: Path, arguments: list[str]) -> None:
    assert "say one of these: `acclimate label IMAGE LABEL`, " in refused(*arguments)


def test_words_that_no_label_can_be_made_of_are_told(project: Path) -> None:
    assert "the label of 'pen/4.png' is empty; to take a label back say" in refused("pen/4.png", "")
    assert r"'pen/\udcff.png' is not UTF-8; rename the image" in refused("pen/\udcff.png", "cat")
    assert r"'\udcff' is not UTF-8" in refused("pen/1.png", "cat", "--by", "\udcff")
    Path("mine.csv").write_bytes(b"path,label\npen/\0.png,cat\n")
    assert r"'pen/\x00.png'" in refused("--from", "mine.csv")


@pytest.mark.parametrize("arguments", [["pen/1.png", "cat"], ["--list", "3"], ["--undo", "pen/4.png"]])
def test_missing_files_say_what_to_do(project: Path, arguments: list[str]) -> None:
    LABELS.unlink()
    assert "data/given/labels.csv is missing: it holds people's labels; restore it with git" in refused(*arguments)
    MANIFEST.unlink()
    told = refused(*arguments)
    assert (
        "data/manifest.csv is missing: it is made by the stage build_manifest; run `dvc repro build_manifest`" in told
    )


def test_damaged_labels_are_left_alone(project: Path) -> None:
    LABELS.write_text(HEADER + "<<<<<<< HEAD\n")
    assert "line 2 has 1 columns instead of 5 ('<<<<<<< HEAD'…)" in refused("pen/1.png", "cat")


def test_an_image_may_be_named_by_any_path_to_its_file(project: Path) -> None:
    real = project / "disk/pen"
    real.mkdir(parents=True)
    for name in "123":
        (real / f"{name}.png").touch()
    Path("images").symlink_to("disk")
    label("images/pen/1.png", "cat")
    label(str(project / "images/pen/../pen/2.png"), "cat")
    label(str(real / "3.png"), "cat")  # the root is reached through a link
    label("./pen/4.png", "dog")
    assert [path for path, _ in written()] == ["pen/1.png", "pen/2.png", "pen/3.png", "pen/4.png"]


def test_a_linked_image_is_the_image_whose_name_was_said(project: Path) -> None:
    Path("images/pen").mkdir(parents=True)
    Path("images/pen/1.png").touch()
    Path("images/pen/2.png").symlink_to("1.png")
    label("images/pen/2.png", "cat")
    assert written() == [("pen/2.png", "cat")]


def test_a_name_that_fits_two_images_is_refused(project: Path) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("root: images", "root: .."))
    put_manifest([*ROWS, (f"{project.name}/pen/1.png", "target", "", "w9", "")])
    told = refused("pen/1.png", "cat")
    assert f"'pen/1.png' could be 'pen/1.png' or '{project.name}/pen/1.png'; name the file with its whole path" in told
    label(str(project / "pen/1.png"), "cat")
    assert written() == [(f"{project.name}/pen/1.png", "cat")]


def test_images_to_label_come_group_by_group_in_an_order_of_their_own(project: Path) -> None:
    def listed(n: int) -> list[str]:
        return str(acclimate("label", "--list", str(n)).stdout).splitlines()

    first = listed(20)
    assert sorted(first) == ["pen/1.png", "pen/2.png", "pen/3.png"]
    assert "pen/3.png" in first[:2], "of each group one image comes first"
    put_manifest(ROWS[::-1])
    assert listed(20) == first
    assert listed(2) == first[:2]
    label(first[0], "cat")
    label("--undo", "pen/4.png")
    assert sorted(listed(20)) == sorted([*first[1:], "pen/4.png"])


def test_images_that_cannot_be_read_are_not_listed(project: Path) -> None:
    table = pd.read_csv(MANIFEST, dtype=str, keep_default_na=False)
    table.assign(content_id=table["content_id"].mask(table["path"] == "pen/3.png", "")).to_csv(MANIFEST, index=False)
    assert sorted(acclimate("label", "--list", "9").stdout.splitlines()) == ["pen/1.png", "pen/2.png"]
    put_manifest([ROWS[0], ROWS[-1]])
    done = acclimate("label", "--list", "5")
    told = "every readable target image of data/manifest.csv carries a label\n"
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", told)


def test_held_out_images_are_not_listed_but_for_those_that_the_guard_asks_for(project: Path) -> None:
    def listed() -> list[str]:
        return sorted(acclimate("label", "--list", "9").stdout.splitlines())

    SPLITS.write_text(
        "path,domain,split\npen/1.png,target,holdout\npen/2.png,target,unlabelled\npen/3.png,target,holdout\n"
    )
    assert listed() == ["pen/2.png"]
    TO_LABEL.write_text(ASKING + "pen/3.png,,cat,dog,p1\n")
    assert listed() == ["pen/2.png", "pen/3.png"]
    TO_LABEL.write_text("path;label;asked_of\npen/3.png;;p1\n")  # as some spreadsheets save it
    assert listed() == ["pen/2.png"]
    label("pen/2.png", "cat")
    done = acclimate("label", "--list", "9")
    assert (done.stdout, done.stderr) == (
        "",
        "every readable target image of data/manifest.csv that may be learnt from carries a label; the 2 without one are held "
        "out: nothing may be learnt from them\n",
    )


def test_names_that_a_spreadsheet_or_shell_would_misread_are_kept(project: Path) -> None:
    names = ["=cmd|' /C calc'!A0.png", "pen/a,b.png", 'pen/"q".png', "pen/new\nline.png", "-1.png", "@x"]
    put_manifest([*ROWS, *((name, "target", "", name, "") for name in names)])
    for name in names:
        label("--by", 'a "b", c', "--", name, "cat")
    assert written() == [(name, "cat") for name in names]


def test_eight_people_at_once_lose_nothing(project: Path) -> None:
    put_manifest([*ROWS, *((f"pen/p{i}-{j}.png", "target", "", "w", "") for i in range(8) for j in range(20))])
    for i in range(8):
        Path(f"{i}.csv").write_text("path,label\n" + "".join(f"pen/p{i}-{j}.png,cat\n" for j in range(20)))
    # one process loads the libraries and becomes eight, that then write at the same moment
    code = (
        "import os, sys, typer, pandas, tasks.params, tasks.core.labels, flows.data_cli\n"
        "children = []\n"
        "for i in range(8):\n"
        "    children.append(os.fork())\n"
        "    if not children[-1]:\n"
        "        sys.argv[1:] = ['label', '--from', f'{i}.csv', '--by', f'person {i}']\n"
        "        app = typer.Typer(); flows.data_cli.add_commands(app); app()\n"
        "sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("20 labels written to data/given/labels.csv (20 new)") == 8
    labels = read_labels(LABELS)
    assert len(labels) == 160
    people = labels["path"].str.extract(r"p(\d)-", expand=False)
    assert (labels["by"] == "person " + people).all()


def test_a_call_killed_while_it_writes_leaves_whole_labels(project: Path) -> None:
    label("pen/1.png", "cat")
    before = LABELS.read_bytes()
    code = "import os, pathlib, signal, typer, flows.data_cli; a = typer.Typer(); flows.data_cli.add_commands(a)\n"
    code += "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\na()"
    command = [sys.executable, "-c", code, "label", "pen/2.png", "cat"]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=False).returncode == -9
    assert LABELS.read_bytes() == before
    assert "(1 new)" in label("pen/2.png", "cat")


ASKING = "path,label,source_only,adapted,asked_of\n"


def answered() -> list[tuple[str, str, str]]:
    labels = read_labels(LABELS)
    return list(zip(labels["path"], labels["label"], labels["asked_of"], strict=True))


def test_answers_to_the_guard_are_entered_and_open_questions_are_counted(project: Path) -> None:
    questions = "pen/1.png,cat,cat,dog,p1\npen/2.png,,cat,dog,p1\npen/3.png,,dog,cat,p1\npen/4.png,dog,dog,cat,p1\n"
    Path("to_label.csv").write_text(ASKING + questions)
    assert label("--from", "to_label.csv", "--by", "ann") == (
        "2 labels written to data/given/labels.csv (2 new); the guard of the next `acclimate run` reads them, nothing else "
        "does; 2 of the 4 rows of to_label.csv have no label yet"
    )
    assert answered() == [("pen/1.png", "cat", "p1"), ("pen/4.png", "dog", "p1")]
    Path("to_label.csv").write_text(
        ASKING + questions.replace("pen/2.png,", "pen/2.png,dog").replace("pen/1.png,cat", "pen/1.png,dog")
    )
    told = label("--from", "to_label.csv")
    assert "2 labels written to data/given/labels.csv (1 new, 1 changed, 1 written before); the guard" in told
    assert told.endswith("; 1 of the 4 rows of to_label.csv has no label yet")
    assert answered()[2:] == [("pen/1.png", "dog", "p1"), ("pen/2.png", "dog", "p1")]
    told = label("--from", "to_label.csv")
    assert told.startswith("nothing to write: data/given/labels.csv says so already (3 labels); 1 of the 4 rows")


def test_where_nothing_is_answered_one_sentence_says_so(project: Path) -> None:
    Path("to_label.csv").write_text(ASKING + "pen/1.png,,cat,dog,p1\npen/2.png,,cat,dog,p1\n")
    assert refused("--from", "to_label.csv") == (
        "error: to_label.csv: none of its 2 rows has a label yet; write the class of the images that you know into the "
        "column label\n"
    )


def test_wrong_answers_are_told_like_other_wrong_labels(project: Path) -> None:
    Path("to_label.csv").write_text(
        ASKING + "pen/1.png,cta,cat,dog,p1\npen/22.png,cat,cat,dog,p1\npen/3.png,,cat,dog,p1\n"
    )
    told = refused("--from", "to_label.csv")
    assert "'cta' (did you mean 'cat'?); the classes are 'cat', 'dog'" in told
    assert "1 images are not in the manifest, the first: 'pen/22.png'" in told


def test_an_answer_lets_no_class_into_training(project: Path) -> None:
    Path("to_label.csv").write_text(ASKING + "pen/1.png,zebra,cat,dog,p1\n")
    assert "the classes are 'cat', 'dog'" in refused("--from", "to_label.csv")
    assert label("--from", "to_label.csv", "--new-class").endswith("reads them, nothing else does")
    assert "the classes are 'cat', 'dog'" in refused("pen/2.png", "zebra")


def test_of_an_answered_image_the_answer_is_taken_back_and_its_ordinary_label_stays(project: Path) -> None:
    """pen/4.png has a label of its own; the answer came later."""
    Path("to_label.csv").write_text(ASKING + "pen/1.png,cat,cat,dog,p1\npen/4.png,dog,cat,dog,p1\n")
    label("--from", "to_label.csv")
    assert label("--undo", "pen/1.png", "pen/4.png") == (
        "2 labels written to data/given/labels.csv (2 taken back); the guard of the next `acclimate run` reads them, nothing "
        "else does"
    )
    assert answered()[2:] == [("pen/1.png", "", "p1"), ("pen/4.png", "", "p1")]
    assert "carry no label that could be taken back, the first: 'pen/1.png'" in refused("--undo", "pen/1.png")
    assert label("--undo", "pen/4.png").endswith("(1 taken back); `acclimate run` uses them")
    assert answered()[4:] == [("pen/4.png", "", "")]


def test_an_answered_image_may_get_an_ordinary_label_too(project: Path) -> None:
    Path("to_label.csv").write_text(ASKING + "pen/1.png,cat,cat,dog,p1\n")
    label("--from", "to_label.csv")
    assert "pen/1.png" in acclimate("label", "--list", "9").stdout, "the answer is no label to learn from"
    assert label("pen/1.png", "cat").endswith("(1 new); `acclimate run` uses them" + MOST)
    assert answered() == [("pen/1.png", "cat", "p1"), ("pen/1.png", "cat", "")]


def test_an_answer_of_a_test_image_changes_no_test_figure(project: Path) -> None:
    Path("to_label.csv").write_text(ASKING + "pen/5.png,cat,cat,dog,p1\n")
    assert "test figures" not in label("--from", "to_label.csv")


def test_labels_without_the_column_asked_of_get_it_with_the_next_entry(project: Path) -> None:
    LABELS.write_text("path,label,by,on\npen/1.png,cat,ann,2026-03-01\n")
    label("pen/2.png", "dog")
    assert LABELS.read_text().startswith(f"{HEADER}pen/1.png,cat,ann,2026-03-01,\npen/2.png,dog,")
    assert answered() == [("pen/1.png", "cat", ""), ("pen/2.png", "dog", "")]


def train(said_by_mcc: str) -> str:
    """Two models of pen/1.png to pen/3.png lie in data/model; the id of their pair."""
    Path("data/model").mkdir(exist_ok=True)
    rows = [(m, f"of pen/{n}.png", say) for m, say in (("source_only", "cat"), ("mcc", said_by_mcc)) for n in "123"]
    pd.DataFrame(rows, columns=["model", "image_id", "y_pred"]).to_csv("data/model/held_out.csv", index=False)
    write_json(Path("data/model/decision.json"), {"method": {"chosen": "mcc"}})
    return pair_of(pd.DataFrame(rows, columns=["model", "image_id", "y_pred"]), "mcc")


def warned(*arguments: str) -> str:
    done = acclimate("label", *arguments)
    assert (done.exit_code, done.stderr[:9]) == (0, "warning: "), done.stderr
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


def ask(pair: str) -> None:
    Path("to_label.csv").write_text(ASKING + f"pen/1.png,cat,cat,dog,{pair}\npen/2.png,,cat,dog,{pair}\n")


def test_answers_to_models_that_are_gone_are_warned_of(project: Path) -> None:
    first = train("dog")
    ask(first)
    label("--from", "to_label.csv")
    assert train("zebra") != first
    for _ in range(2):  # entered before, they count as little
        assert "1 of the 1 answers won't count: they were asked of two models" in warned("--from", "to_label.csv")
    ask(train("zebra"))
    label("--from", "to_label.csv")
    label("--undo", "pen/1.png")


def test_answers_beside_changed_labels_are_warned_of_in_either_order(project: Path) -> None:
    """A source image was corrected since the last run, whose manifest.csv does not know it."""
    rows = [*ROWS, ("ink/3.png", "source", "", "g3", "cat")]
    put_manifest(rows)
    ask(train("dog"))
    label("ink/1.png", "dog")
    why = (
        "1 ordinary label(s) changed since the last run, so the next one trains anew, and the 1 answer(s) to the guard"
    )
    assert why in warned("--from", "to_label.csv")
    label("ink/1.png", "cat")
    assert why in warned("ink/1.png", "dog")
    put_manifest([("ink/1.png", "source", "", "g1", "dog"), *rows[1:]])  # as the next run reads it
    label("--undo", "pen/1.png")
    label("--from", "to_label.csv")
    label("pen/5.png", "cat")  # a test image: nothing is trained by it


def test_naming_the_commands_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'prefect', 'mlflow', 'dvc', 'pandas', 'numpy', 'pydantic', 'PIL'}"
    code = f"import sys, flows.data_cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
