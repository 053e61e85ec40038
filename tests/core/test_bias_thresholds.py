"""The page's section on thresholds per group: what was measured, why not, and that it is never shipped."""

from dataclasses import replace
from typing import Any

from made_audit import HOSTILE, models, of_sites
from test_bias_page import faults, text_of

from tasks.core.bias_page import render

VALUES = {f"{side}{end}": None for side in ("before", "after", "change") for end in ("", "_low", "_high")}
ROW = {
    "metric": "accuracy", "column": "site", "group": "B", "n": 100, "before": 0.6, "before_low": 0.5, "before_high": 0.69,
    "after": 0.65, "after_low": 0.55, "after_high": 0.74, "change": 0.05, "change_low": -0.01, "change_high": 0.11,
}  # fmt: skip
TOLD: dict[str, Any] = {
    "method": "threshold_optimizer", "column": "site", "positive": "cat", "constraint": "equalized_odds", "objective": "accuracy",
    "n_fitted": 133, "n_changed": 7, "reason": "", "left_out": ["class cat in C"],
    "rows": [ROW | {"column": "", "group": "all images"}, ROW, {**ROW, **VALUES, "group": "C", "n": 3}],
}  # fmt: skip


def told(mitigation: dict[str, Any] | None) -> str:
    """The page's words from that section on."""
    facts = of_sites(models=models())
    text = text_of(replace(facts, verdict=facts.verdict | {"mitigation": mitigation}))
    return text[text.index("Would thresholds per group help?") :]


def test_thresholds_are_told_beside_the_model_as_it_is() -> None:
    text = told(TOLD)
    assert (
        "gives class cat a threshold of its own in each group of site, so that the groups have the same recall and"
        in text
    )
    assert "chosen on 133 labelled validation images of the target" in text
    assert "7 of 300 test images are predicted otherwise" in text
    assert "This changes no prediction of the model that is registered." in text
    assert "accuracy B 100 60.0 % (50.0 to 69.0) 65.0 % (55.0 to 74.0) +5.0 (−1.0 to +11.0)" in text
    assert "accuracy C 3 not measured not measured not measured" in text
    assert "the model's own yes or no stays: class cat in C." in text


def test_each_class_is_told_as_such() -> None:
    text = told(TOLD | {"positive": "*", "constraint": "demographic_parity", "left_out": []})
    assert "gives each class, against the rest, a threshold of its own" in text
    assert "the same selection rate at the best accuracy" in text
    assert "own yes or no" not in text


def test_of_many_classes_left_out_some_are_named() -> None:
    text = told(TOLD | {"left_out": [f"class {k} in C" for k in range(12)]})
    assert "class 9 in C; and 2 more." in text
    assert "class 10 in C" not in text


def test_thresholds_that_were_not_measured_have_their_reason() -> None:
    assert "Not measured: no thresholds were asked for." in told(None)
    assert "Not measured: nobody labelled anything." in told(TOLD | {"reason": "nobody labelled anything", "rows": []})


def test_names_in_the_section_are_escaped() -> None:
    row = ROW | {"group": HOSTILE}
    facts = of_sites()
    hostile = TOLD | {"positive": HOSTILE, "column": HOSTILE, "rows": [row], "left_out": [HOSTILE]}
    assert faults(render(replace(facts, verdict=facts.verdict | {"mitigation": hostile}))) == []
