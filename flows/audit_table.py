"""Tables of predictions for `acclimate audit`: read as text, checked as a whole, brought into one order."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.validate import TABLES

if TYPE_CHECKING:
    import pandas as pd

TRUE, PREDICTED, IMAGE, CLUSTER = "y_true", "y_pred", "image_id", "group_id"
OWN = {TRUE: "the true classes", PREDICTED: "the predicted classes", IMAGE: "the images' names"}
PROBABILITY = "p_"
ALL_COLUMNS, CROSSED, SLICED = "*", " × ", " (thirds)"  # in rules
MAX_GROUPS = 20_000  # of a column; more are ids, not groups
N_NAMED = 5
MAX_OFF_ONE = 0.02  # of a row's sum of probabilities


@dataclass(frozen=True)
class Tables:
    """The checked rows, group columns and probabilities included, and the baseline's rows in the same order."""

    rows: "pd.DataFrame"
    baseline: "pd.DataFrame | None"


class Unusable(ValueError):
    """Carries one sentence for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_tables(predictions: Path, columns: list[str], baseline: Path | None) -> Tables:
    """The tables. Unusable lists all that is wrong with them: columns, empty cells, probabilities, rows that don't match."""
    rows, problems = read_rows(predictions)
    if rows is not None:
        problems += problems_of_columns(rows, columns, predictions) + problems_of_rows(rows, predictions)
        problems += problems_of_groups(rows, columns, predictions)
        rows, odd = with_probabilities(rows, columns, predictions)
        problems += odd or problems_of_sums(rows, columns, predictions)
    other, unread = read_rows(baseline) if baseline else (None, [])
    problems += unread
    if rows is not None and other is not None and baseline:
        problems += problems_of_columns(other, [], baseline) + problems_of_rows(other, baseline)
        if not problems:
            other, problems = aligned(other, rows, baseline)
    if problems or rows is None:
        raise Unusable(problems)
    return Tables(rows, other)


def read_rows(path: Path) -> "tuple[pd.DataFrame | None, list[str]]":
    """The cells as text, empty where there is none; or none, and why."""
    from tasks.core.listing import read_image_table

    if not path.is_file():
        return None, [f"{path} is not a file; name a table of predictions ({', '.join(TABLES)})"]
    try:
        rows = read_image_table(path)
    except ValueError as error:
        return None, [str(error)]
    return (rows, []) if len(rows) else (None, [f"{path} has a header and no rows; write one row per image"])


def problems_of_columns(rows: "pd.DataFrame", columns: list[str], path: Path) -> list[str]:
    """Sentences on columns that are absent, or whose name means something else."""
    wanted = dict.fromkeys([TRUE, PREDICTED, *columns])
    absent = [name for name in wanted if name not in rows.columns]
    problems = []
    if absent:
        there = ", ".join(map(repr, rows.columns[:20])) + (" …" if len(rows.columns) > 20 else "")
        problems.append(f"{path} has no column {', '.join(map(repr, absent))}; it has {there}")
    problems += [
        f"--group-columns {name!r}: it holds {OWN[name]}, which are counted by themselves; name a column of groups"
        for name in columns
        if name in OWN
    ]
    return problems + [
        f"--group-columns {name!r}: {meaning}; rename the column"
        for name in columns
        for is_meant, meaning in (
            (name.startswith(PROBABILITY), f"a name that begins with {PROBABILITY!r} marks probabilities"),
            (name == ALL_COLUMNS, "this means every column in the rules"),
            (CROSSED in name, f"a name with {CROSSED!r} marks an intersection"),
            (name.endswith(SLICED), f"a name that ends with {SLICED!r} marks a slice"),
        )
        if is_meant
    ]


def problems_of_rows(rows: "pd.DataFrame", path: Path) -> list[str]:
    """Sentences on empty cells, images that stand in several rows, and labels that can't be meant."""
    problems = []
    for column in (TRUE, PREDICTED, IMAGE):
        if column in rows and (empty := (rows[column] == "")).any():
            problems.append(f"{path}: {column} is empty in {told_rows(empty)}; fill the cells, or leave those rows out")
    if IMAGE in rows and (twice := rows[IMAGE].duplicated(keep=False) & (rows[IMAGE] != "")).any():
        advice = "keep the rows of one model" if "model" in rows else "keep one row per image"
        problems.append(f"{path}: {IMAGE} is not unique in {told_rows(twice)}; {advice}")
    if {TRUE, PREDICTED} <= set(rows.columns):
        true, predicted = words(rows[TRUE]), words(rows[PREDICTED])
        if true and predicted and not true & predicted:
            problems.append(
                f"{path}: {PREDICTED} ({some(predicted)}) and {TRUE} ({some(true)}) have no class in common; "
                "write classes with the same words in both"
            )
    return problems


def problems_of_groups(rows: "pd.DataFrame", columns: list[str], path: Path) -> list[str]:
    """Sentences on columns of ids, and on groups that could not be told from empty cells."""
    from tasks.core.bias.table import NOT_KNOWN

    problems = [
        f"{path}: column {name!r} says {NOT_KNOWN!r} in {told_rows(said)}, which is what an empty cell is called; "
        "leave the cells empty, or write another word"
        for name in columns
        if name in rows and (said := rows[name] == NOT_KNOWN).any()
    ]
    return problems + [
        f"{path}: column {name!r} has {n:,} different values, more than the {MAX_GROUPS:,} that are told apart; "
        "name a column of groups, such as bands of age, not of ids"
        for name in columns
        if name in rows and (n := rows[name].nunique()) > MAX_GROUPS
    ]


def with_probabilities(rows: "pd.DataFrame", columns: list[str], path: Path) -> "tuple[pd.DataFrame, list[str]]":
    """The rows with p_<class> as numbers, NaN where a cell is empty; and sentences on what is no probability."""
    import pandas as pd

    given = probabilities(rows, columns)
    problems, numbers = [], {}
    for name in given:
        numbers[name] = pd.to_numeric(rows[name], errors="coerce").astype(float)
        odd = ~numbers[name].between(0, 1)
        odd[odd] = ~rows[name][odd].str.strip().str.lower().isin(["", "nan"])
        if odd.any():
            value = str(rows[name][odd].iloc[0])[:40]
            problems.append(
                f"{path}: {name!r} is no probability in {told_rows(odd)} ({value!r}); write numbers from 0 to 1, or "
                "leave the cell empty"
            )
    classes = seen_classes(rows)
    if given and (absent := sorted(name for name in classes if PROBABILITY + name not in given)):
        problems.append(
            f"{path} has probabilities but no column {some({PROBABILITY + name for name in absent})}; "
            "write one for each class, or none at all"
        )
    return rows.assign(**numbers), problems


def problems_of_sums(rows: "pd.DataFrame", columns: list[str], path: Path) -> list[str]:
    """A sentence on rows whose probabilities, where all are known, are not those of one class out of all."""
    if not (given := probabilities(rows, columns)):
        return []
    total = rows[given].sum(axis=1, skipna=False)
    odd = (total - 1).abs() > MAX_OFF_ONE + 1e-9
    if not odd.any():
        return []
    strange = unseen_classes(rows, given)
    advice = f"; no image is of class {some(strange)}: take such a column out if it is no class" if strange else ""
    return [
        f"{path}: probabilities do not sum to 1 within {MAX_OFF_ONE} in {told_rows(odd)} ({total[odd].iloc[0]:.4g}); write "
        f"the probabilities of all classes with 3 decimals or more, or leave the cells empty{advice}"
    ]


def notes_of(tables: Tables, columns: list[str], path: Path, baseline: Path | None) -> list[str]:
    """Sentences on what is allowed and may not be meant; by the files' names only, for the page goes to others."""
    from tasks.params.audit_file import look_alikes

    rows, path = tables.rows, Path(path.name)
    notes = notes_on_probabilities(rows, columns, path) + notes_on_predictions(rows, path)
    if tables.baseline is not None and baseline:
        notes += notes_on_predictions(tables.baseline, Path(baseline.name))
    if CLUSTER in columns:
        notes.append(f"{path}: {CLUSTER} is the unit of sampling, not an attribute; its groups are no kinds of people.")
    for name in (TRUE, *columns):
        if pairs := look_alikes(words(rows[name])):
            what = "classes" if name == TRUE else "groups"
            told = "; ".join(" and ".join(map(repr, pair)) for pair in pairs[:N_NAMED])
            notes.append(
                f"{path}: {what} of {name!r} differ in nothing but capitals and blanks and are counted apart: {told}"
                + (" …" if len(pairs) > N_NAMED else ".")
            )
    if IMAGE not in rows and (twice := rows.duplicated()).any():
        notes.append(
            f"{path}: {told_share(twice)} {'equals' if twice.sum() == 1 else 'equal'} an earlier row in every column; without "
            f"{IMAGE} copies can't be told from different images, and copies make intervals too narrow."
        )
    return notes


def notes_on_probabilities(rows: "pd.DataFrame", columns: list[str], path: Path) -> list[str]:
    import numpy as np

    given = probabilities(rows, columns)
    if not given:
        return []
    notes = []
    shares_NC = rows[given].to_numpy(float)
    unknown = rows[given].isna().any(axis=1)
    if unknown.any():
        notes.append(
            f"{path}: probabilities are not known in {told_share(unknown)}; calibration and confidence leave them out."
        )
    places = {name: i for i, name in enumerate(given)}
    own_N = shares_NC[np.arange(len(rows)), (PROBABILITY + rows[PREDICTED]).map(places)]
    if (lower := ~unknown & (own_N < shares_NC.max(axis=1) - 1e-9)).any():
        notes.append(
            f"{path}: {PREDICTED} is not the class with the largest probability in {told_rows(lower)}; "
            "right only where thresholds are meant."
        )
    if strange := unseen_classes(rows, given):
        notes.append(f"{path} has probabilities of {some(strange)}, and no image is of that class or taken for it.")
    return notes


def notes_on_predictions(rows: "pd.DataFrame", path: Path) -> list[str]:
    from tasks.params.audit_file import nearest

    true = words(rows[TRUE])
    never = sorted(words(rows[PREDICTED]) - true)
    if not never:
        return []
    near = {name: nearest(name, true) for name in never[:N_NAMED]}
    told = ", ".join(f"{name[:40]!r}" + (f" (near {near[name]!r})" if near[name] else "") for name in near)
    return [
        f"{path}: {PREDICTED} names {told}{' …' if len(never) > N_NAMED else ''}, which {TRUE} never does, so each such "
        f"answer counts as wrong: {told_rows(rows[PREDICTED].isin(never))}."
    ]


def probabilities(rows: "pd.DataFrame", columns: list[str]) -> list[str]:
    return [name for name in rows.columns if name.startswith(PROBABILITY) and name not in columns]


def seen_classes(rows: "pd.DataFrame") -> set[str]:
    return {word for column in (TRUE, PREDICTED) if column in rows for word in words(rows[column])}


def unseen_classes(rows: "pd.DataFrame", given: list[str]) -> set[str]:
    """Classes with probabilities that are never true and never predicted."""
    return {name.removeprefix(PROBABILITY) for name in given} - seen_classes(rows)


def aligned(other: "pd.DataFrame", rows: "pd.DataFrame", path: Path) -> "tuple[pd.DataFrame, list[str]]":
    """The baseline's rows in the order of the audited ones: by image_id where both have it, else as they stand."""
    if IMAGE in rows and IMAGE in other:
        mine, theirs = words(rows[IMAGE]), words(other[IMAGE])
        problems = [
            f"{path} {what} {len(names):,} image(s), such as {some(names)}; a baseline needs the very same images"
            for what, names in (("lacks", mine - theirs), ("holds besides", theirs - mine))
            if names
        ]
        if problems:
            return other, problems
        other = other.set_index(IMAGE).loc[rows[IMAGE]].reset_index()
    elif len(other) != len(rows):
        return other, [
            f"{path} has {len(other):,} rows, not {len(rows):,}; a baseline needs one row for each audited row, or an "
            f"{IMAGE} in both tables"
        ]
    if (differs := (other[TRUE] != rows[TRUE])).any():
        how = "of the same images" if IMAGE in rows and IMAGE in other else f"row by row (no {IMAGE} in both tables)"
        return other, [
            f"{path}: {TRUE} {how} differs from the audited table's in {told_rows(differs)}; give the same images "
            "in the same order, or the same labels"
        ]
    return other, []


def words(cells: "pd.Series") -> set[str]:
    return set(cells.unique()) - {""}


def told_rows(which: "pd.Series") -> str:
    """Such as "2 rows, the first: row 3", counted from 1 below the header."""
    n, first = int(which.sum()), int(which.to_numpy().argmax()) + 1
    return f"row {first}" if n == 1 else f"{n:,} rows, the first: row {first}"


def told_share(which: "pd.Series") -> str:
    """Such as "2 of 9 rows, the first: row 3"."""
    n, first = int(which.sum()), int(which.to_numpy().argmax()) + 1
    return f"{n:,} of {len(which):,} rows, {'' if n == 1 else 'the first: '}row {first}"


def some(names: set[str]) -> str:
    """The first few names, quoted and cut short."""
    listed = [repr(name[:40]) for name in sorted(names)[:N_NAMED]]
    return ", ".join(listed) + (" …" if len(names) > N_NAMED else "")
