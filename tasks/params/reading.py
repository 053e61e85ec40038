"""Reading params.yaml: every problem is told at once, with its key, its value and what is allowed."""

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.params.auditing import problems_between_audit_rules, problems_of_explanations
from tasks.params.rules import RuleBook, Section
from tasks.params.sections import Params, SelectionBook, SelectionFeatures
from tasks.params.training import kind_of_phase

PHASES = ("head", "network")


def read_params(path: Path = Path("params.yaml")) -> Params:
    """The checked parameters. ValueError lists every problem: key, value, what is allowed, nearest known key."""
    content = _read_yaml(path, "run from the project's folder")
    params, problems = None, []
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors()]
    problems += problems_between_keys(content)
    if problems or params is None:
        raise ValueError(f"{path} has {len(problems)} problem(s):\n  - " + "\n  - ".join(problems))
    return params


def read_rules(path: Path) -> RuleBook:
    """Rules for sets outside a pipeline: a file with `confidence` and `rules`, or the same keys of a whole params.yaml."""
    content = _read_yaml(path, "name a YAML file of rules")
    if isinstance(content, dict) and isinstance(content.get("validate_data"), dict):
        content = {key: value for key, value in content["validate_data"].items() if key in RuleBook.model_fields}
    book, problems = None, []
    try:
        book = RuleBook.model_validate(content)
    except ValidationError as error:
        problems = [_sentence(detail, RuleBook) for detail in error.errors()]
    problems += problems_between_rules(content, "")
    if problems or book is None:
        raise ValueError(f"{path} has {len(problems)} problem(s):\n  - " + "\n  - ".join(problems))
    return book


def read_selection(path: Path) -> SelectionBook:
    """Settings of a selection outside a pipeline: a file of their own, or the same keys of a whole params.yaml."""
    content = _read_yaml(path, "name a YAML file of settings, or a params.yaml")
    if isinstance(content, dict) and "build_manifest" in content:
        content = {key: value for key, value in content.items() if key in SelectionBook.model_fields}
        if isinstance(features := content.get("extract_features"), dict):
            own = {key: value for key, value in features.items() if key in SelectionFeatures.model_fields}
            content["extract_features"] = own
    book, problems = None, []
    try:
        book = SelectionBook.model_validate(content)
    except ValidationError as error:
        problems = [_sentence(detail, SelectionBook) for detail in error.errors()]
    problems += problems_between_weights(content, "select_model.")
    if problems or book is None:
        raise ValueError(f"{path} has {len(problems)} problem(s):\n  - " + "\n  - ".join(problems))
    return book


def _read_yaml(path: Path, advice: str) -> Any:
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number, `no` is a word, a key given twice is an error.
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {advice}") from None
    except OSError as error:
        raise ValueError(f"{path} is not a file that can be read ({error.strerror}); {advice}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"{path} is not readable YAML: {error.problem or error.context} (line {line})") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None


def problems_between_keys(content: Any) -> list[str]:
    """Sentences on keys that don't fit each other; whatever is missing or of a wrong type is told elsewhere."""
    problems = problems_between_rules(content, "validate_data.") + _repetitions(content)
    splits = "validate_data.splits"
    shares = [_at(content, f"{splits}.{name}", float, 0.0) for name in ("target_val_share", "target_test_share")]
    if sum(shares) >= 1:
        problems.append(
            f"{splits}: target_val_share + target_test_share must stay below 1, or no target image is left to learn from"
        )
    problems += _unknown_audit_columns(content)
    problems += problems_between_audit_rules(_at(content, "audit_bias", dict, {}), "audit_bias.")
    explained = _at(content, "audit_bias.columns_explained", dict, {})
    columns = [
        str(name)
        for key in ("build_manifest.audit_columns", "audit_bias.slices")
        for name in _at(content, key, list, [])
    ]
    problems += problems_of_explanations(explained, columns, "audit_bias.")
    problems += problems_between_weights(content, "select_model.")
    guard = _at(content, "guard_adaptation", dict, {})
    if guard.get("without_labels") == "gates" and "class_shares" in guard and guard["class_shares"] is None:
        problems.append(
            "guard_adaptation.class_shares is null, and without_labels: gates adopts on no figure that sees how frequent the "
            "classes are in the target: write source if they're as in the source, or a count or share per class; or "
            "without_labels: keep"
        )
    return problems + _problems_between_phases(_at(content, "finetune_model", dict, {}))


def _unknown_audit_columns(content: Any) -> list[str]:
    """Sentences on rules that name no audit column, intersection of audit columns or slice."""
    columns = [str(column) for column in _at(content, "build_manifest.audit_columns", list, [])]
    slices = [f"{name} (thirds)" for name in _at(content, "audit_bias.slices", list, [])]
    order = _at(content, "audit_bias.max_intersection_order", int, 1)
    problems = []
    by = _at(content, "audit_bias.threshold_optimizer.column", str, "")
    if by and by not in columns:
        problems.append(
            f"audit_bias.threshold_optimizer.column {by!r} is no audit column; allowed are {', '.join(columns) or 'none'}; "
            "or write threshold_optimizer: null"
        )
    for rule in _at(content, "audit_bias.rules", list, []):
        column = _at(rule, "column", str, "")
        parts = column.split(" × ")
        is_known = column in ("", "*", *slices) or (
            len(parts) <= order and parts == [name for name in columns if name in parts]
        )
        if not is_known:
            listed = ", ".join([*columns, *slices]) or "none"
            problems.append(
                f"audit_bias.rules: column {column!r} is no audit column, slice or intersection that is made; allowed are "
                f"{listed}, '*' for each audit column, '' for all images together, and 'a × b' (in this order) up to "
                f"audit_bias.max_intersection_order ({order})"
            )
    return problems


def _repetitions(content: Any) -> list[str]:
    """Sentences on what may be named only once."""
    levels = [level for level in _at(content, "build_manifest.layout", str, "").split("/") if level != "-"]
    columns = [str(column) for column in _at(content, "build_manifest.audit_columns", list, [])]
    return [
        f"build_manifest.{key} names {name!r} more than once; name it once"
        for key, names in (("layout", levels), ("audit_columns", columns))
        for name in sorted({name for name in names if name and names.count(name) > 1})
    ]


def problems_between_rules(content: Any, section: str) -> list[str]:
    """Sentences on rules that can't be meant so."""
    problems = []
    for rule in ("usable_path", "readable", "eight_bit"):
        place = f"{section}rules.{rule}"
        blocks = _at(content, f"{place}.severity", str, "block") == "block"
        if not blocks and _at(content, f"{place}.policy", str, "drop") != "drop":
            problems.append(f"{place} must have severity block or policy drop: such an image can't be used")
    side = f"{section}rules.side_px"
    if _at(content, f"{side}.min", int, 0) > _at(content, f"{side}.max", int, 2**62):
        problems.append(f"{side}.min is larger than {side}.max, so no image could pass")
    return problems


def problems_between_weights(content: Any, section: str) -> list[str]:
    """Sentences on scores of which none has a say: nothing could be ranked."""
    return [
        f"{place}: at least one weight must be above 0"
        for place in (f"{section}weights", f"{section}weights_without_labels")
        if (weights := _at(content, place, dict, {})) and all(weight in (None, 0) for weight in weights.values())
    ]


def _problems_between_phases(section: dict[str, Any]) -> list[str]:
    problems = []
    plans, scratch = _at(section, "plans", dict, {}), _at(section, "scratch", list, [])
    default = _at(section, "default_plan", str, "")
    if default and plans and default not in plans:
        problems.append(
            f"finetune_model.default_plan {default!r} is not one of the plans: {', '.join(map(str, plans))}"
        )
    own = {name: _at(plan, "phases", list, []) for name, plan in plans.items()}
    for name, phases in {**own, "source": _at(section, "source", list, [])}.items():
        heads = [_at(phase, "trains", str, "") == "head" for phase in phases]
        if any(heads[1:]):
            problems.append(
                f"finetune_model, plan {name}: the head phase uses cached features, so it can only come first"
            )
        if any(heads) and _at(plans, f"{name}.start", str, "") == "source_only":
            problems.append(
                f"finetune_model, plan {name}: the head phase uses the pretrained network's features, so the plan can't start "
                "from source_only"
            )
    source = _at(section, "source", list, [])
    if _at(section, "lr_range_steps", int, 0) and source and all(kind_of_phase(phase) == "head" for phase in source):
        problems.append(
            "finetune_model.lr_range_steps asks for a range test, but finetune_model.source trains the head alone, in closed "
            "form and without a learning rate; write lr_range_steps: 0, or add a phase that trains the network"
        )
    if any(_at(phase, "trains", str, "all") != "all" for phase in scratch):
        problems.append(
            "finetune_model.scratch: a random network has no features worth keeping, so every phase must train all"
        )
    return problems


def _at(content: Any, key: str, kind: type, otherwise: Any) -> Any:
    """The value at a dotted key if it is of this kind."""
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    if kind is float and isinstance(content, int) and not isinstance(content, bool):
        return float(content)
    return content if isinstance(content, kind) else otherwise


def _sentence(detail: ErrorDetails, root: type[Section] = Params) -> str:
    places = detail["loc"]
    # a union's tag stands behind the number of the phase: it is no key of the file
    shown = [p for i, p in enumerate(places) if not (p in PHASES and i and isinstance(places[i - 1], int))]
    key = ".".join(str(place) for place in shown) or "the file"
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(places, root)
        near = difflib.get_close_matches(str(places[-1]), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known) or 'no keys'}"
        return f"{key} is not a known key; {advice}"
    if detail["type"] == "missing":
        return f"{key} is missing; add it (there are no defaults in code)"
    return f"{key} is {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _keys_beside(location: tuple[int | str, ...], root: type[Section]) -> list[str]:
    """The known keys of the section in which the unknown key stands."""
    kinds: list[type[Section]] = [root]
    for part in location[:-1]:
        kinds = [below for kind in kinds for below in _kinds_below(kind, part)]
    return sorted({name for kind in kinds for name in kind.model_fields})


def _kinds_below(kind: type[Section], part: int | str) -> list[type[Section]]:
    field = kind.model_fields.get(str(part))
    return _sections(field.annotation) if field else [kind]  # else: a list's index, a dict's key or a union's tag


def _sections(annotation: Any) -> list[type[Section]]:
    """The section classes inside an annotation: unions, lists and dicts are looked through."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [below for argument in get_args(annotation) for below in _sections(argument)]
