"""The model card: front matter that YAML reads, figures from the stages, text from data that can't act as markup."""

from typing import Any

from ruamel.yaml import YAML

from tasks.core.card import model_card

NAME = 'shop: "new" <script>\n# no heading'


def card(adopted: str = "shot", **changes: Any) -> str:
    figures = {
        "accuracy": 0.91234, "accuracy_low": 0.88, "accuracy_high": 0.94, "n": 300, "balanced_accuracy": 0.9,
        "worst_class": "a|b", "worst_class_recall": 0.7, "calibration_error": 0.05,
        "gain_over_source_only": {"value": 0.1, "low": 0.05, "high": 0.15, "n": 300},
    }  # fmt: skip
    chosen = {
        "chosen": True, "source_domain": "photos", "licence": "Apache-2.0",
        "pretraining": {"data": "ImageNet", "n_images": 1281167, "known_gaps": None, "url": None},
    }  # fmt: skip
    description = {
        "adopted": adopted, "architecture": "resnet18", "classes": ["a|b", "*c*"], "image_px": 128, "candidate": "imagenet",
        "ask_below": 0.75,
    }  # fmt: skip
    evidence = {
        "verdict": {"verdict": "inconclusive", "columns": ["site|x", "age", "site|x × age"]},
        "decision": {"guard": {"decision": "adopt", "reason": "better"}},
        "selection": {"candidates": [{"chosen": False}, chosen]},
        "validation": {"n_target_labels": {"train": 30, "val": 20, "guard": 10, "test": 300}},
    }  # fmt: skip
    return model_card(NAME, description | changes, {"adopted": figures}, evidence)


def test_the_front_matter_is_yaml_with_the_measured_values() -> None:
    _, front, _ = card().split("---\n", 2)
    told = YAML(typ="safe").load(front)
    assert told["license"] == "apache-2.0"
    (model,) = told["model-index"]
    assert model["name"] == NAME
    assert model["results"][0]["metrics"] == [
        {"type": "accuracy", "value": 0.9123}, {"type": "balanced_accuracy", "value": 0.9},
    ]  # fmt: skip


def test_figures_carry_interval_and_n() -> None:
    text = card()
    assert "Accuracy on target test images: 0.912 (0.880 to 0.940), n = 300" in text
    assert "+0.100 (+0.050 to +0.150), n = 300" in text
    assert "Bias audit of groups by site\\|x, age: **inconclusive**. These images can't settle" in text
    assert "Below a confidence of 0.75 a person is asked." in text
    assert "data\\: ImageNet; n images\\: 1281167" in text


def test_names_from_data_are_no_markup() -> None:
    text = card().split("---\n", 2)[2]
    assert "<script>" not in text
    assert "\n# no heading" not in text
    assert "a\\|b, \\*c\\*" in text


def test_without_a_threshold_a_person_is_always_asked() -> None:
    assert "right often enough: a person is always asked." in card(ask_below=None)


def test_a_threshold_of_zero_asks_nobody() -> None:
    assert "so no person is asked." in card(ask_below=0.0)


def test_a_kept_source_only_model_claims_no_gain() -> None:
    assert "The source-only model stayed: no adaptation was adopted" in card(adopted="source_only")
