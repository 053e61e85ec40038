"""params.yaml: every problem at once, each with key, value, what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.lr_range import MIN_STEPS
from tasks.params import Rules, read_params, read_rules
from tasks.params.sections import Weights, WeightsWithoutLabels
from tasks.params.training import (
    MIN_RANGE_STEPS,
    FinetuneModel,
    GuardAdaptation,
    HeadPhase,
    Methods,
    NetPhase,
    kind_of_phase,
)

PROJECT = Path(__file__).parents[1]
RULES_FILE = PROJECT / "flows/validate_rules.yaml"
IMAGE_RULES = {
    "usable_path", "readable", "single_frame", "eight_bit", "rgb_or_grey", "opaque", "upright", "extension_matches",
    "side_px", "aspect_ratio", "typical_size", "not_dark", "not_bright", "contrast", "sharpness", "entropy",
    "one_label_per_pixels", "one_label_per_picture", "label_present", "known_label",
}  # fmt: skip
COPY_RULES = {"unique_pixels", "unique_pictures"}
SET_RULES = {
    "pixels_in_one_split", "pictures_in_one_split", "group_in_one_split", "pixels_in_one_domain",
    "pictures_in_one_domain", "distinct_labels", "same_label_set", "class_in_every_split", "source_class_size",
    "class_balance", "unlabelled_share", "group_coverage", "rejected_share", "source_to_target", "like_accepted",
}  # fmt: skip
LIMITS = {
    "side_px": {"min", "max"}, "aspect_ratio": {"max"}, "typical_size": {"max"}, "not_dark": {"min"}, "not_bright": {"max"},
    "contrast": {"min"}, "sharpness": {"min"}, "entropy": {"min"}, "unique_pictures": {"max_bits"},
    "source_class_size": {"min"}, "class_balance": {"max"}, "unlabelled_share": {"max"}, "group_coverage": {"min"},
    "rejected_share": {"max"}, "source_to_target": {"max"}, "like_accepted": {"max"},
}  # fmt: skip
Change = tuple[str, Any]
GONE = object()
WEIGHTED, WEIGHTED_WITHOUT = list(Weights.model_fields), list(WeightsWithoutLabels.model_fields)


@pytest.fixture
def told(shipped: dict[str, Any], tmp_path: Path) -> Callable[..., str]:
    """What read_params says of the shipped parameters with the given changes ("" = nothing to say)."""

    def tell(*changes: Change) -> str:
        for key, value in changes:
            *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
            section: Any = shipped
            for parent in parents:
                section = section[parent]
            if value is GONE:
                del section[last]
            else:
                section[last] = value
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(shipped, path)
        try:
            read_params(path)
        except ValueError as error:
            return str(error)
        return ""

    return tell


def test_the_shipped_file_loads() -> None:
    params = read_params(PROJECT / "params.yaml")
    assert params.zoo.image_px == 32
    assert params.finetune_model.plans["staged"].phases[0].trains == "head"


def test_values_are_frozen() -> None:
    params = read_params(PROJECT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("seeed", 1), "seeed is not a known key; did you mean 'seed'?"),
        (("runtime.n_thread", 1), "runtime.n_thread is not a known key; did you mean 'n_threads'?"),
        (("runtime.zzz", 1), "runtime.zzz is not a known key; allowed are device, n_threads"),
        (
            ("finetune_model.plans.full.phases.0.n_epoch", 3),
            "plans.full.phases.0.n_epoch is not a known key; did you mean 'n_epochs'?",
        ),
        (("audit_bias.rules.1.limitt", 3), "audit_bias.rules.1.limitt is not a known key; did you mean 'limit'?"),
        (("validate_data.rules.contrast.max", 1), "validate_data.rules.contrast.max is not a known key"),
        (("seed", GONE), "seed is missing; add it (there are no defaults in code)"),
        (("finetune_model.methods.shot", GONE), "finetune_model.methods.shot is missing; add it"),
        (("finetune_model.methods.shot.phase.lr", GONE), "finetune_model.methods.shot.phase.lr is missing; add it"),
        (("finetune_model.plans.full.start", GONE), "finetune_model.plans.full.start is missing; add it"),
        (("finetune_model.methods.schot", None), "methods.schot is not a known key; did you mean 'shot'?"),
        (("finetune_model.methods.adabn.weight", 1.0), "methods.adabn.weight is not a known key; allowed are no keys"),
        (
            ("finetune_model.methods.mcc.phase.epochs", 1),
            "finetune_model.methods.mcc.phase.epochs is not a known key; did you mean 'n_epochs'?",
        ),
        (
            ("finetune_model.plans.staged.phases.0.inverse_l", 1.0),
            "plans.staged.phases.0.inverse_l is not a known key; did you mean 'inverse_l2'?",
        ),
        (("finetune_model.regularisers.mixup", 1.0), "mixup is not a known key; did you mean 'mixup_alpha'?"),
        (
            ("guard_adaptation.n_to_labl", 1),
            "guard_adaptation.n_to_labl is not a known key; did you mean 'n_to_label'?",
        ),
        (("seed", "0"), "seed is '0'; input should be a valid integer"),
        (("seed", True), "seed is True; input should be a valid integer"),
        (("seed", 1.5), "seed is 1.5; input should be a valid integer"),
        (("seed", -1), "seed is -1; input should be greater than or equal to 0"),
        (("runtime.device", "tpu"), "runtime.device is 'tpu'; input should be 'cpu' or 'cuda'"),
        (("runtime", None), "runtime is None; input should be a valid dictionary"),
        (("audit_bias.confidence", 95), "audit_bias.confidence is 95; input should be less than 1"),
        (("finetune_model.methods.shot.phase.lr", "0.1"), "phase.lr is '0.1'; input should be a valid number"),
        (
            ("finetune_model.plans.full.phases.0.trains", "half"),
            "finetune_model.plans.full.phases.0.trains is 'half'; string should match pattern '^(last_block|backbone|all|",
        ),
        (
            ("finetune_model.plans.full.phases.0", "head"),
            "finetune_model.plans.full.phases.0 is 'head'; input should be",
        ),
        (("finetune_model.methods.mcc.phase.trains", "head"), "finetune_model.methods.mcc.phase.trains is 'head'; "),
        (
            ("finetune_model.plans.full.start", "scratch"),
            "start is 'scratch'; input should be 'pretrained' or 'source_only'",
        ),
        (("finetune_model.source", []), "finetune_model.source is []; "),
        (("finetune_model.plans", {}), "finetune_model.plans is {}; "),
        (("finetune_model.plans.full.phases", []), "finetune_model.plans.full.phases is []; "),
        (("finetune_model.methods.shot.phase.lr", float("nan")), "finetune_model.methods.shot.phase.lr is nan"),
        (("finetune_model.regularisers.weight_decay", float("inf")), "finetune_model.regularisers.weight_decay is inf"),
        (("zoo.candidates", []), "zoo.candidates is []; "),
        (("register_model.name", ".."), "register_model.name is '..'"),
        (("register_model.name", "a/b"), "register_model.name is 'a/b'"),
    ],
)
def test_a_problem_is_told_with_its_key(told: Callable[..., str], change: Change, sentence: str) -> None:
    message = told(change)
    assert "has 1 problem(s)" in message
    assert sentence in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("finetune_model.default_plan", "best"), "default_plan 'best' is not one of the plans: "),
        (("finetune_model.scratch.0.trains", "last_block"), "every phase must train all"),
        (("validate_data.splits.target_val_share", 0.7), "must stay below 1"),
        (
            ("validate_data.rules.readable.policy", "keep"),
            "validate_data.rules.readable must have severity block or policy drop: such an image can't be used",
        ),
        (
            ("audit_bias.rules.0.column", "writer"),
            "column 'writer' is no audit column, slice or intersection that is made; allowed are inferred_block, slant, "
            "brightness (thirds), sharpness (thirds), '*' for each audit column",
        ),
        (
            ("audit_bias.columns_explained", {"slamt": "How the ink leans."}),
            "audit_bias.columns_explained names 'slamt', which is no column of groups; did you mean 'slant'?",
        ),
        (
            ("audit_bias.threshold_optimizer.column", "writer"),
            "audit_bias.threshold_optimizer.column 'writer' is no audit column; allowed are inferred_block, slant; or write "
            "threshold_optimizer: null",
        ),
        (("validate_data.rules.side_px.min", 30000), "side_px"),
        *(
            (
                ("select_model.weights", dict.fromkeys(WEIGHTED, weight)),
                "select_model.weights: at least one weight must be",
            )
            for weight in (None, 0, 0.0)
        ),
        (
            ("select_model.weights_without_labels", dict.fromkeys(WEIGHTED_WITHOUT) | {"source_probe": 0.0}),
            "select_model.weights_without_labels: at least one weight must be above 0",
        ),
        (
            ("guard_adaptation.without_labels", "gates"),
            "guard_adaptation.class_shares is null, and without_labels: gates adopts on no figure that sees how frequent",
        ),
    ],
)
def test_rules_between_keys_hold(told: Callable[..., str], change: Change, words: str) -> None:
    assert words in told(change)


@pytest.mark.parametrize("name", WEIGHTED)
def test_one_weight_above_0_is_enough(told: Callable[..., str], name: str) -> None:
    assert told(("select_model.weights", dict.fromkeys(WEIGHTED) | {name: 0.1})) == ""


def test_weights_of_a_wrong_type_are_told_once(told: Callable[..., str]) -> None:
    message = told(("select_model.weights", dict.fromkeys(WEIGHTED) | {"knn": "1"}))
    assert "has 1 problem(s)" in message
    assert "select_model.weights.knn is '1'; input should be a valid number" in message


def test_a_head_phase_comes_first(told: Callable[..., str], shipped: dict[str, Any]) -> None:
    head = {"trains": "head", "inverse_l2": 0.01}
    assert "plan full: the head phase uses cached features" in told(("finetune_model.plans.full.phases", [head, head]))


def test_a_plan_that_starts_from_the_source_model_has_no_head_phase(told: Callable[..., str]) -> None:
    message = told(("finetune_model.plans.head_only.start", "source_only"))
    assert (
        "plan head_only: the head phase uses the pretrained network's features, so the plan can't start from" in message
    )


def test_a_phase_is_told_by_what_it_trains(shipped: dict[str, Any]) -> None:
    phases = shipped["finetune_model"]["plans"]["staged"]["phases"]
    assert [kind_of_phase(phase) for phase in phases] == ["head", "network", "network"]
    assert [type(phase) for phase in read_params(PROJECT / "params.yaml").finetune_model.plans["staged"].phases] == [
        HeadPhase, NetPhase, NetPhase,
    ]  # fmt: skip
    assert kind_of_phase(HeadPhase(trains="head", inverse_l2=1.0)) == "head"
    assert [kind_of_phase(given) for given in ({}, {"trains": "blocks:3"}, "head", None)] == ["network"] * 4


@pytest.mark.parametrize("trains", ["last_block", "backbone", "all", "blocks:layer[34]"])
def test_a_network_phase_trains_one_of_these(told: Callable[..., str], trains: str) -> None:
    assert told(("finetune_model.plans.full.phases.0.trains", trains)) == ""


@pytest.mark.parametrize("trains", ["blocks:", "none", "Head", "all ", ""])
def test_a_network_phase_trains_nothing_else(told: Callable[..., str], trains: str) -> None:
    assert f"plans.full.phases.0.trains is {trains!r}" in told(("finetune_model.plans.full.phases.0.trains", trains))


@pytest.mark.parametrize("key", ["plans.full.phases.0", "source.0", "methods.mcc.phase"])
def test_a_pattern_of_blocks_that_cannot_be_read_is_told(told: Callable[..., str], key: str) -> None:
    sentence = (
        f"finetune_model.{key}.trains is 'blocks:layer[3'; what follows blocks: is no regular expression (unterminated character "
        "set at position 5)"
    )
    message = told((f"finetune_model.{key}.trains", "blocks:layer[3"))
    assert "has 1 problem(s)" in message
    assert message.endswith(sentence)


@pytest.mark.parametrize(("n_steps", "is_told"), [(0, False), (1, True), (39, True), (40, False)])
def test_a_range_test_is_off_or_has_enough_steps(told: Callable[..., str], n_steps: int, is_told: bool) -> None:
    sentence = f"finetune_model.lr_range_steps is {n_steps}; write 0 (no range test) or at least 40 steps"
    assert told(("finetune_model.lr_range_steps", n_steps)).endswith(sentence) is is_told
    assert MIN_RANGE_STEPS == MIN_STEPS


def test_a_range_test_needs_a_phase_with_a_learning_rate(told: Callable[..., str]) -> None:
    head = [{"trains": "head", "inverse_l2": 0.01}]
    message = told(("finetune_model.lr_range_steps", 40), ("finetune_model.source", head))
    assert "has 1 problem(s)" in message
    assert "lr_range_steps asks for a range test, but finetune_model.source trains the head alone" in message


@pytest.mark.parametrize("name", list(Methods.model_fields))
def test_every_method_may_be_left_out(told: Callable[..., str], name: str) -> None:
    assert told((f"finetune_model.methods.{name}", None)) == ""


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("finetune_model.batch_size", 1, "greater than or equal to 2"),
        ("finetune_model.label_smoothing.source", 1.0, "less than 1"),
        ("finetune_model.regularisers.dropout", 1.0, "less than 1"),
        ("finetune_model.regularisers.ema_decay", 1.0, "less than 1"),
        ("finetune_model.regularisers.ema_decay", 0.0, "greater than 0"),
        ("finetune_model.regularisers.l2_sp", -1, "greater than or equal to 0"),
        ("finetune_model.regularisers.sampling", "balanced", "'shuffled', 'class_balanced' or 'group_balanced'"),
        ("finetune_model.regularisers.group_column", "", "at least 1 character"),
        ("finetune_model.machine.precision", "float64", "'float32', 'bfloat16' or 'float16'"),
        ("finetune_model.machine.accumulate", 0, "greater than or equal to 1"),
        ("finetune_model.max_plan_epochs", 0, "greater than or equal to 1"),
        ("finetune_model.min_unlabelled", 9, "greater than or equal to 10"),
        ("finetune_model.min_used_share", 1.5, "less than or equal to 1"),
        ("finetune_model.calibration.accuracy", 1.0, "less than 1"),
        ("finetune_model.source.0.warmup_share", 1.0, "less than 1"),
        ("finetune_model.source.0.block_decay", 0.0, "greater than 0"),
        ("finetune_model.source.0.patience", 0, "greater than or equal to 1"),
        ("finetune_model.source.0.batch_norm", "on", "'train', 'frozen' or 'adapted'"),
        ("finetune_model.methods.mcc.weight", 0.0, "greater than 0"),
        ("finetune_model.methods.frozen.how", "pca", "'none', 'standardise' or 'coral'"),
        ("guard_adaptation.adopt_confidence", 0.5, "greater than 0.5"),
        ("guard_adaptation.adopt_confidence_with_gates", 1.0, "less than 1"),
        ("guard_adaptation.margin", -1.5, "greater than or equal to -1"),
        ("guard_adaptation.without_labels", "adopt", "'keep' or 'gates'"),
        ("guard_adaptation.n_to_label", 0, "greater than or equal to 1"),
        *(
            (
                "guard_adaptation.class_shares",
                value,
                "write null (not known), source (as in the source) or a count or share",
            )
            for value in ("target", 3, [1, 2], {}, 0.5)
        ),
        (
            "guard_adaptation.class_shares",
            {"a": 2, "b": -1},
            "e.g. {cat: 30, dog: 10}; 'b': -1 is no number from 0 to 1e+12",
        ),
        ("guard_adaptation.class_shares", {"a": "3"}, "; 'a': '3' is no number from 0"),
        ("guard_adaptation.class_shares", {"a": True}, "; 'a': True is no number from 0"),
        ("guard_adaptation.class_shares", {"a": float("nan")}, "; 'a': nan is no number from 0"),
        ("guard_adaptation.class_shares", {"a": 10**400}, "is no number from 0"),
        ("guard_adaptation.class_shares", {"a": 0, "b": 0.0}, "; not all can be 0"),
        ("guard_adaptation.class_shares", {"a": 0.7, "b": 0.03}, "; these shares add up to 0.73, not to 1"),
        (
            "guard_adaptation.class_shares",
            {0: 2, "other": 3},
            "; some names are words, others numbers or true and false: quote all of them",
        ),
    ],
)
def test_a_limit_of_training_and_guard_is_checked(told: Callable[..., str], key: str, value: Any, words: str) -> None:
    message = told((key, value))
    assert "has 1 problem(s)" in message
    assert f"{key} is {value!r}; " in message
    assert words in message


@pytest.mark.parametrize(
    ("name", "section"), [("finetune_model", FinetuneModel), ("guard_adaptation", GuardAdaptation)]
)
def test_every_key_of_training_and_guard_is_needed(told: Callable[..., str], name: str, section: Any) -> None:
    message = told((name, {}))
    assert f"has {len(section.model_fields)} problem(s)" in message
    for key in section.model_fields:
        assert f"\n  - {name}.{key} is missing; add it" in message


@pytest.mark.parametrize("column", ["", "*", "slant", "inferred_block × slant", "sharpness (thirds)"])
def test_a_rule_may_name_any_column_that_the_audit_makes(told: Callable[..., str], column: str) -> None:
    message = told(("seeed", 1), ("audit_bias.rules.0", {
        "name": "n", "metric": "accuracy", "column": column, "comparison": "floor", "reference": "", "limit": 0.5,
        "required": True,
    }))  # fmt: skip
    assert "has 1 problem(s)" in message


@pytest.mark.parametrize("column", ["slant × inferred_block", "inferred_block × ink", "contrast (thirds)", "thirds"])
def test_a_rule_on_a_column_that_nobody_makes_is_told(told: Callable[..., str], column: str) -> None:
    assert f"column {column!r} is no audit column, slice or intersection" in told(("audit_bias.rules.0.column", column))


def test_every_problem_is_told_at_once(told: Callable[..., str]) -> None:
    lr = "finetune_model.methods.shot.phase.lr"
    message = told(
        ("seeed", 1), ("runtime.device", "tpu"), (lr, GONE), ("zoo.image_px", "32"), ("guard_adaptation.margin", 2),
        ("finetune_model.methods.frozen.how", "x"), ("finetune_model.plans.staged.phases.0.inverse_l2", 0),
    )  # fmt: skip
    assert "has 7 problem(s)" in message
    for key in (
        "seeed", "runtime.device", lr, "zoo.image_px", "guard_adaptation.margin", "finetune_model.methods.frozen.how",
        "finetune_model.plans.staged.phases.0.inverse_l2",
    ):  # fmt: skip
        assert f"\n  - {key} is " in message


def test_two_audited_columns_that_are_absent_are_told_together(told: Callable[..., str]) -> None:
    message = told(("audit_bias.rules.0.column", "writer"), ("audit_bias.rules.1.column", "ink"))
    assert "'writer'" in message
    assert "'ink'" in message


def test_rules_between_keys_are_told_together_with_other_problems(told: Callable[..., str]) -> None:
    message = told(
        ("seeed", 1), ("audit_bias.rules.0.column", "writer"), ("finetune_model.default_plan", "best"),
        ("finetune_model.n_bootstrap", 1),
    )  # fmt: skip
    for words in ("seeed", "'writer'", "'best'", "finetune_model.n_bootstrap"):
        assert words in message


def test_a_plan_may_be_called_like_a_phase_and_is_still_named(
    told: Callable[..., str], shipped: dict[str, Any]
) -> None:
    plans = shipped["finetune_model"]["plans"]
    plans["all"] = {"start": "pretrained", "phases": [{**plans["full"]["phases"][0], "n_epochs": 0}]}
    assert "finetune_model.plans.all.phases.0.n_epochs is 0" in told()


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1.0e-3", 0.001), ("2", 2.0)])
def test_a_number_may_be_written_with_an_exponent(tmp_path: Path, text: str, value: float) -> None:
    changed = (PROJECT / "params.yaml").read_text().replace("zoo_lr: 0.003", f"zoo_lr: {text}")
    (tmp_path / "params.yaml").write_text(changed)
    assert read_params(tmp_path / "params.yaml").make_sample.zoo_lr == value


def test_a_key_given_twice_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text() + "\nseed: 1\n")
    with pytest.raises(ValueError, match=r"duplicate key.*seed") as caught:
        read_params(tmp_path / "params.yaml")
    assert "http" not in str(caught.value), "ruamel's advice on its own API is nothing for the person"


@pytest.mark.parametrize("text", ["a: [1", "\tseed: 0", "a: 1\n---\nb: 2\n", b"\xff\xfe\x00seed"])
def test_what_is_not_yaml_is_one_sentence(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="is not readable YAML") as caught:
        read_params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "1: 2"])
def test_yaml_that_is_not_a_table_of_sections_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"has \d+ problem"):
        read_params(tmp_path / "params.yaml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"params.yaml is missing: run from the project's folder"):
        read_params(tmp_path / "params.yaml")


def test_every_rule_is_known_here() -> None:
    assert {*IMAGE_RULES, *COPY_RULES, *SET_RULES} == set(Rules.model_fields)


@pytest.mark.parametrize("name", ["params.yaml", "flows/validate_rules.yaml"])
def test_both_shipped_files_name_every_rule_in_the_order_in_which_they_are_told(name: str) -> None:
    content = YAML(typ="safe").load((PROJECT / name).read_text(encoding="utf-8"))
    rules = content.get("validate_data", content)["rules"]
    assert list(rules) == list(Rules.model_fields)


@pytest.mark.parametrize("name", ["params.yaml", "flows/validate_rules.yaml"])
def test_the_shipped_rules_hold_these_keys_and_no_others(name: str) -> None:
    rules = read_rules(PROJECT / name).rules.model_dump()
    for rule, settings in rules.items():
        policy = set() if rule in SET_RULES else {"policy"}
        assert set(settings) == {"severity"} | policy | LIMITS.get(rule, set()), rule


def test_each_rule_asks_for_its_keys(told: Callable[..., str], shipped: dict[str, Any]) -> None:
    for rule in Rules.model_fields:
        shipped["validate_data"]["rules"][rule] = {}
    message = told()
    for rule in Rules.model_fields:
        policy = set() if rule in SET_RULES else {"policy"}
        for key in {"severity"} | policy | LIMITS.get(rule, set()):
            assert f"\n  - validate_data.rules.{rule}.{key} is missing; add it" in message


@pytest.mark.parametrize("rule", sorted(SET_RULES - set(LIMITS)))
def test_rules_on_the_set_have_no_policy(told: Callable[..., str], rule: str) -> None:
    message = told((f"validate_data.rules.{rule}.policy", "drop"))
    assert f"validate_data.rules.{rule}.policy is not a known key; allowed are severity" in message


@pytest.mark.parametrize("rule", sorted(IMAGE_RULES))
def test_only_copies_can_keep_one(told: Callable[..., str], rule: str) -> None:
    message = told((f"validate_data.rules.{rule}.policy", "keep_one"))
    assert f"validate_data.rules.{rule}.policy is 'keep_one'; input should be 'keep' or 'drop'" in message


@pytest.mark.parametrize("policy", ["keep", "keep_one", "drop"])
@pytest.mark.parametrize("rule", sorted(COPY_RULES))
def test_copies_may_be_kept_dropped_or_reduced_to_one(told: Callable[..., str], rule: str, policy: str) -> None:
    assert told((f"validate_data.rules.{rule}.policy", policy)) == ""


@pytest.mark.parametrize("severity", ["block", "warn", "note"])
def test_every_rule_may_block_warn_or_note(told: Callable[..., str], severity: str) -> None:
    rejected = [(f"validate_data.rules.{rule}.policy", "drop") for rule in ("usable_path", "readable", "eight_bit")]
    assert told(*((f"validate_data.rules.{rule}.severity", severity) for rule in Rules.model_fields), *rejected) == ""


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("contrast.severity", "error", "input should be 'block', 'warn' or 'note'"),
        ("contrast.min", -0.1, "greater than or equal to 0"),
        ("contrast.min", "0.1", "valid number"),
        ("side_px.min", 0, "greater than or equal to 1"),
        ("side_px.max", 10.5, "valid integer"),
        ("aspect_ratio.max", 0, "greater than 0"),
        ("not_bright.max", 0.0, "greater than 0"),
        ("unique_pictures.max_bits", -1, "greater than or equal to 0"),
        ("unique_pictures.max_bits", 129, "less than or equal to 128"),
        ("unique_pictures.max_bits", 24.5, "valid integer"),
        ("source_class_size.min", 0, "greater than or equal to 1"),
        ("group_coverage.min", True, "valid integer"),
        ("class_balance.max", 0, "greater than 0"),
        ("unlabelled_share.max", 1.1, "less than or equal to 1"),
        ("rejected_share.max", 20, "less than or equal to 1"),
        ("source_to_target.max", 1, "less than 1"),
        ("like_accepted.max", -0.2, "greater than or equal to 0"),
        ("like_accepted.max", float("nan"), "finite number"),
    ],
)
def test_a_limit_of_a_rule_is_checked(told: Callable[..., str], key: str, value: Any, words: str) -> None:
    message = told((f"validate_data.rules.{key}", value))
    assert f"validate_data.rules.{key} is {value!r}; " in message
    assert words in message
    assert "has 1 problem(s)" in message


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        ("sharpnes", "did you mean 'sharpness'?"),
        ("unique_pixel", "did you mean 'unique_pixels'?"),
        ("group_in_one_splits", "did you mean 'group_in_one_split'?"),
        ("min_source_class_size", "did you mean 'source_class_size'?"),
        ("qqq", "allowed are aspect_ratio, class_balance, "),
    ],
)
def test_an_unknown_rule_is_told_with_the_nearest_known_one(told: Callable[..., str], rule: str, advice: str) -> None:
    message = told((f"validate_data.rules.{rule}", {"severity": "warn"}))
    assert f"validate_data.rules.{rule} is not a known key; {advice}" in message


@pytest.mark.parametrize("rule", ["usable_path", "readable", "eight_bit"])
@pytest.mark.parametrize(
    ("severity", "policy", "fine"),
    [
        ("block", "keep", True), ("block", "drop", True), ("warn", "drop", True), ("note", "drop", True),
        ("warn", "keep", False), ("note", "keep", False),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_used_blocks_or_is_dropped(
    told: Callable[..., str], rule: str, severity: str, policy: str, *, fine: bool
) -> None:
    place = f"validate_data.rules.{rule}"
    message = told((f"{place}.severity", severity), (f"{place}.policy", policy))
    assert message == "" if fine else f"{place} must have severity block or policy drop" in message


@pytest.mark.parametrize(("smallest", "largest", "fine"), [(8, 8, True), (8, 9, True), (9, 8, False)])
def test_the_smallest_side_is_not_above_the_largest(
    told: Callable[..., str], smallest: int, largest: int, *, fine: bool
) -> None:
    message = told(("validate_data.rules.side_px.min", smallest), ("validate_data.rules.side_px.max", largest))
    words = "validate_data.rules.side_px.min is larger than validate_data.rules.side_px.max, so no image could pass"
    assert message == "" if fine else words in message


def test_rules_are_read_from_a_file_of_their_own_and_from_whole_parameters() -> None:
    own, whole = read_rules(RULES_FILE), read_rules(PROJECT / "params.yaml")
    assert (own.confidence, own.rules.side_px.min, own.rules.unique_pictures.max_bits) == (0.95, 32, 40)
    assert (whole.confidence, whole.rules.side_px.min, whole.rules.unique_pictures.max_bits) == (0.95, 8, 24)
    assert whole.rules == read_params(PROJECT / "params.yaml").validate_data.rules


def test_rules_of_whole_parameters_do_not_ask_for_the_other_sections(shipped: dict[str, Any], tmp_path: Path) -> None:
    """A person may validate with the rules of a params.yaml that is wrong elsewhere."""
    shipped["finetune_model"]["n_bootstrapp"] = 1
    del shipped["seed"]
    YAML(typ="safe").dump(shipped, tmp_path / "params.yaml")
    assert read_rules(tmp_path / "params.yaml").rules.side_px.min == 8


@pytest.fixture
def said(tmp_path: Path) -> Callable[[Any], str]:
    """What read_rules says of that content, as text, as bytes or as values."""

    def say(content: Any) -> str:
        path = tmp_path / "rules.yaml"
        if isinstance(content, str | bytes):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            YAML(typ="safe").dump(content, path)
        with pytest.raises(ValueError, match=r"rules.yaml") as caught:
            read_rules(path)
        return str(caught.value)

    return say


@pytest.fixture
def book() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(RULES_FILE.read_text(encoding="utf-8"))
    return content


def test_every_problem_of_a_rules_file_is_told_at_once(said: Callable[[Any], str], book: dict[str, Any]) -> None:
    rules = book["rules"]
    rules["sharpnes"] = rules.pop("sharpness")
    rules["side_px"]["min"] = 30_000
    rules["readable"]["policy"] = "keep"
    rules["entropy"]["severity"] = "fatal"
    message = said(book | {"confidence": 95, "splits": {}})
    assert "has 7 problem(s)" in message
    for words in [
        "rules.sharpnes is not a known key; did you mean 'sharpness'?", "rules.sharpness is missing; add it",
        "confidence is 95; input should be less than 1", "rules.entropy.severity is 'fatal'",
        "splits is not a known key; ",
        "rules.side_px.min is larger than rules.side_px.max, so no image could pass",
        "rules.readable must have severity block or policy drop: such an image can't be used",
    ]:  # fmt: skip
        assert f"\n  - {words}" in message


@pytest.mark.parametrize("content", ["", "[1, 2]", "just words", "3", "rules:", "rules: []", "rules: {readable: 3}"])
def test_what_holds_no_rules_is_refused(said: Callable[[Any], str], content: str) -> None:
    assert "problem(s):\n  - " in said(content)


@pytest.mark.parametrize("content", ["rules: [", b"\xff\xfe\x00", "rules: {}\nrules: {}\n", "\trules: 1"])
def test_rules_that_are_not_yaml_are_one_sentence(said: Callable[[Any], str], content: str | bytes) -> None:
    message = said(content)
    assert "is not readable YAML" in message
    assert "\n" not in message


@pytest.mark.parametrize("gone", ["confidence", "rules"])
def test_whole_parameters_without_rules_are_told(
    shipped: dict[str, Any], said: Callable[[Any], str], gone: str
) -> None:
    del shipped["validate_data"][gone]
    assert f"{gone} is missing; add it" in said(shipped)


def test_a_missing_rules_file_is_told_without_speaking_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mine.yaml is missing: name a YAML file of rules"):
        read_rules(tmp_path / "mine.yaml")


def test_an_entry_that_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ValueError, match=r"folder.yaml is not a file that can be read") as caught:
        read_rules(tmp_path / "folder.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "fine"),
    [
        ("label", True), ("domain/label", True), ("domain/split/label/group", True), ("-/-/label", True),
        ("", False), ("domain/", False), ("/label", False), ("domain/class", False), ("Domain/label", False),
        ("domain label", False), ("label/label", False), ("domain/-/label/domain", False), ("label\n", False),
    ],
)  # fmt: skip
def test_a_layout_names_levels(told: Callable[..., str], layout: str, *, fine: bool) -> None:
    message = told(("build_manifest.layout", layout))
    assert message == "" if fine else "build_manifest.layout" in message


@pytest.mark.parametrize("columns", [["slant", "slant"], ["slant", "inferred_block", "slant"]])
def test_an_audit_column_is_named_once(told: Callable[..., str], columns: list[str]) -> None:
    assert "build_manifest.audit_columns" in told(("build_manifest.audit_columns", columns), ("audit_bias.rules", []))
