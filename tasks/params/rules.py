"""The rules of validate_data: what each one may be told in params.yaml."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Severity = Literal["block", "warn", "note"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rule(Section):
    """block: nothing is trained on this data; warn and note are only told."""

    severity: Severity


class ImageRule(Rule):
    """drop: the images that fail are rejected."""

    policy: Literal["keep", "drop"]


class CopyRule(Rule):
    """keep_one: of the copies a labelled one stays, else the first, the others are rejected; drop: none stays."""

    policy: Literal["keep", "keep_one", "drop"]


class SideRule(ImageRule):
    min: Count
    max: Count


class MaxRule(ImageRule):
    max: Positive


class MinRule(ImageRule):
    min: Annotated[float, Field(ge=0)]


class PictureRule(CopyRule):
    max_bits: Annotated[int, Field(ge=0, le=128)]


class LimitRule(Rule):
    max: Positive


class ShareRule(Rule):
    max: Share


class CellRule(Rule):
    min: Count


class EffectRule(Rule):
    max: Annotated[float, Field(ge=0, lt=1)]


class Rules(Section):
    """In the order in which they are told. Images, copies, labels, the set as a whole."""

    usable_path: ImageRule
    readable: ImageRule
    single_frame: ImageRule
    eight_bit: ImageRule
    rgb_or_grey: ImageRule
    opaque: ImageRule
    upright: ImageRule
    extension_matches: ImageRule
    side_px: SideRule
    aspect_ratio: MaxRule
    typical_size: MaxRule
    not_dark: MinRule
    not_bright: MaxRule
    contrast: MinRule
    sharpness: MinRule
    entropy: MinRule

    unique_pixels: CopyRule
    unique_pictures: PictureRule
    one_label_per_pixels: ImageRule
    one_label_per_picture: ImageRule
    pixels_in_one_split: Rule
    pictures_in_one_split: Rule
    group_in_one_split: Rule
    pixels_in_one_domain: Rule
    pictures_in_one_domain: Rule

    label_present: ImageRule
    known_label: ImageRule
    distinct_labels: Rule
    same_label_set: Rule
    class_in_every_split: Rule
    source_class_size: CellRule
    class_balance: LimitRule
    unlabelled_share: ShareRule
    group_coverage: CellRule
    rejected_share: ShareRule
    source_to_target: EffectRule
    like_accepted: EffectRule


class RuleBook(Section):
    """The rules with what they need: a file of its own for sets outside a pipeline."""

    confidence: Confidence
    rules: Rules
