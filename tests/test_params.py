"""params.yaml: every problem at once, each with key, value, what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.params import read_params

PROJECT = Path(__file__).parents[1]
Change = tuple[str, Any]
GONE = object()


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
    assert params.finetune_model.plans["staged"][0].trains == "head"


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
            ("finetune_model.plans.full.0.n_epoch", 3),
            "plans.full.0.n_epoch is not a known key; did you mean 'n_epochs'?",
        ),
        (("audit_bias.rules.1.max_gapp", 3), "audit_bias.rules.1.max_gapp is not a known key; did you mean 'max_gap'?"),
        (("validate_data.rules.contrast.max", 1), "validate_data.rules.contrast.max is not a known key"),
        (("seed", GONE), "seed is missing; add it (there are no defaults in code)"),
        (("finetune_model.shot.lr", GONE), "finetune_model.shot.lr is missing; add it"),
        (("finetune_model.shot", GONE), "finetune_model.shot is missing; add it"),
        (("seed", "0"), "seed is '0'; input should be a valid integer"),
        (("seed", True), "seed is True; input should be a valid integer"),
        (("seed", 1.5), "seed is 1.5; input should be a valid integer"),
        (("seed", -1), "seed is -1; input should be greater than or equal to 0"),
        (("runtime.device", "tpu"), "runtime.device is 'tpu'; input should be 'cpu' or 'cuda'"),
        (("runtime", None), "runtime is None; input should be a valid dictionary"),
        (("audit_bias.confidence", 95), "audit_bias.confidence is 95; input should be less than 1"),
        (("finetune_model.shot.lr", "0.1"), "finetune_model.shot.lr is '0.1'; input should be a valid number"),
        (("finetune_model.plans.full.0.trains", "half"), "finetune_model.plans.full.0 is "),
        (("finetune_model.plans.full", []), "finetune_model.plans.full is []; "),
        (("finetune_model.shot.lr", float("nan")), "finetune_model.shot.lr is nan"),
        (("finetune_model.weight_decay", float("inf")), "finetune_model.weight_decay is inf"),
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
        (("validate_data.rules.readable.severity", "warn"), "an unreadable image can't be used"),
        (
            ("audit_bias.rules.0.column", "writer"),
            "column 'writer' is not in build_manifest.audit_columns (inferred_block, slant)",
        ),
        (("validate_data.rules.side_px.min", 30000), "side_px"),
    ],
)
def test_rules_between_keys_hold(told: Callable[..., str], change: Change, words: str) -> None:
    assert words in told(change)


def test_a_head_phase_comes_first(told: Callable[..., str], shipped: dict[str, Any]) -> None:
    head = {"trains": "head", "inverse_l2": 0.01}
    assert "plan full: the head phase uses cached features" in told(("finetune_model.plans.full", [head, head]))


def test_every_problem_is_told_at_once(told: Callable[..., str]) -> None:
    message = told(("seeed", 1), ("runtime.device", "tpu"), ("finetune_model.shot.lr", GONE), ("zoo.image_px", "32"))
    assert "has 4 problem(s)" in message
    for key in ("seeed", "runtime.device", "finetune_model.shot.lr", "zoo.image_px"):
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
    plans["all"] = [{**plans["full"][0], "n_epochs": 0}]
    assert "finetune_model.plans.all.0.n_epochs is 0" in told()


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
