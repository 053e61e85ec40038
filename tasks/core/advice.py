"""What each rule of validate_data claims, how its limits read, and what to do where it fails: one sentence each."""

from typing import Any

CLAIMS = {
    "usable_path": "Every path is a plain UTF-8 name below the root of the images",
    "readable": "Every image is there and can be read whole",
    "single_frame": "Every file holds one picture, no animation or stack",
    "eight_bit": "Every image has 8 bits a channel",
    "rgb_or_grey": "Every image is stored as RGB or grey",
    "opaque": "No image is transparent",
    "upright": "Every image is stored upright",
    "extension_matches": "Every file name tells the true format",
    "side_px": "Every image has usable sides",
    "aspect_ratio": "No image is a narrow strip",
    "typical_size": "No image is far larger or smaller than is usual in its domain",
    "not_dark": "No image is all but black",
    "not_bright": "No image is all but white",
    "contrast": "Every image has contrast",
    "sharpness": "Every image is sharp",
    "entropy": "Every image shows something, not one flat tone",
    "unique_pixels": "No image comes twice with the same pixels",
    "unique_pictures": "No picture comes twice with small changes",
    "one_label_per_pixels": "Images with the same pixels carry the same label",
    "one_label_per_picture": "Images that are nearly the same picture carry the same label",
    "pixels_in_one_split": "Images with the same pixels lie in one given split",
    "pictures_in_one_split": "Images that are nearly the same picture lie in one given split",
    "group_in_one_split": "All images of a group lie in one given split",
    "pixels_in_one_domain": "No image lies in two domains",
    "pictures_in_one_domain": "No picture lies in two domains with small changes",
    "label_present": "Every image that needs a label has one",
    "known_label": "Every target label is a class of the source",
    "distinct_labels": "No two labels differ only in case or blanks",
    "same_label_set": "Every class of the source is seen among the target's labels",
    "class_in_every_split": "Every class is there in every split",
    "source_class_size": "Every class has enough source images to train on",
    "class_balance": "No class of a domain is far larger than another",
    "unlabelled_share": "Enough of the target's images carry a label",
    "group_coverage": "Every group has enough images of every class to be audited",
    "rejected_share": "Only a small share of the images is rejected",
    "source_to_target": "The target's images look like the source's: no large shift of a measured property",
    "like_accepted": "The data is like the data behind the last promoted model",
}

LIMITS = {
    "side_px": "shorter side at least {min} px, longer side at most {max} px",
    "aspect_ratio": "longer side at most {max} times the shorter one",
    "typical_size": "at most {max} times off the median size",
    "not_dark": "the brightest 1 % of the pixels reach a grey value of {min} (0 black, 1 white)",
    "not_bright": "the darkest 5 % of the pixels stay below a grey value of {max} (0 black, 1 white)",
    "contrast": "standard deviation of grey values at least {min} (0 to 1)",
    "sharpness": "variance of the Laplacian of grey values at least {min}",
    "entropy": "grey histogram of at least {min} bits (0 to 8)",
    "unique_pictures": "perceptual hashes that differ in at most {max_bits} of 256 bits count as one picture",
    "source_class_size": "at least {min} images a class",
    "class_balance": "largest class at most {max} times the smallest",
    "unlabelled_share": "share of images without label at most {max}",
    "group_coverage": "at least {min} target images per group and class",
    "rejected_share": "share of rejected images at most {max}",
    "source_to_target": "a shift's whole interval beyond an effect of {max} fails",
    "like_accepted": "a change's whole interval beyond an effect of {max} fails",
}

POLICIES = {
    "keep": "kept",
    "drop": "rejected",
    "keep_one": "rejected (one copy stays)",
}

ADVICE = {
    "usable_path": "Rename the file to plain UTF-8 without control characters, below the root, and mend its row in the table.",
    "readable": "Restore the file from its source, or take it out of the table or folder.",
    "single_frame": "Export the frame that is meant as a file of its own; of an animation only the first one would be seen.",
    "eight_bit": "Convert the image to 8 bits a channel with a scaling that you choose.",
    "rgb_or_grey": "Convert the image to RGB with its colour profile; without it colours come out shifted.",
    "opaque": "Nothing, if white is the right ground; otherwise lay the image over the right one and save it so.",
    "upright": "Nothing: the picture is turned as its EXIF says; look whether the thumbnails stand upright.",
    "extension_matches": "Rename the file to its true format, and find out which step of the export misnames it.",
    "side_px": "Look whether it is a thumbnail, a scan of a whole page or a broken export, and put the right file there.",
    "aspect_ratio": "Look whether the crop went wrong: of a long strip only the middle square is seen.",
    "typical_size": "Look whether it comes from another device or export; the model sees all images at one size.",
    "not_dark": "Look at the thumbnails: take out images that show nothing (lens cap, failed exposure).",
    "not_bright": "Look at the thumbnails: take out blank pages and overexposed images.",
    "contrast": "Look at the thumbnails: take out blank or fogged images.",
    "sharpness": "Look at the thumbnails: take out images that a person could not label; keep blur that will come in use, too.",
    "entropy": "Look at the thumbnails: take out images that are one flat tone.",
    "unique_pixels": "Remove the copies at their source; until then keep_one takes a labelled one, else the first path.",
    "unique_pictures": (
        "Look whether they really are one picture: if so remove the copies, if not set "
        "validate_data.rules.unique_pictures.max_bits lower."
    ),
    "one_label_per_pixels": (
        "Decide which label is right, write it into the table (in a pipeline: `acclimate label IMAGE LABEL`), and "
        "remove the other copy."
    ),
    "one_label_per_picture": (
        "Look at each pair: keep both, or correct one in the table (in a pipeline: `acclimate label IMAGE LABEL`)."
    ),
    "pixels_in_one_split": "Move all copies to one split, or remove the split column so that acclimate draws it.",
    "pictures_in_one_split": "Move all copies to one split, or remove the split column so that acclimate draws it.",
    "group_in_one_split": "Move the whole group to one split, or remove the split column so that acclimate draws it by group.",
    "pixels_in_one_domain": "Find out which domain the image comes from, and take it out of the other.",
    "pictures_in_one_domain": "Find out which domain the picture comes from, and take it out of the other.",
    "label_present": (
        "Write the label into the table or move the image to its class's folder, or take it out of the labelled split."
    ),
    "known_label": (
        "Correct the label in the table (in a pipeline: `acclimate label IMAGE LABEL`), or add source images of that class."
    ),
    "distinct_labels": "Choose one spelling and write it everywhere.",
    "same_label_set": "Label target images of the missing classes, or accept that nothing can be said about them on the target.",
    "class_in_every_split": "Add or label images of the class, or move some to the split that lacks it.",
    "source_class_size": "Add source images of the class, or take the class out of the source and of the target.",
    "class_balance": "Collect more of the small class; until then read figures by class, the overall accuracy hides it.",
    "unlabelled_share": "Label some target images; in a pipeline `acclimate label --list 20` names some to begin with.",
    "group_coverage": "Collect or label target images of these groups; until then the audit can say nothing about them.",
    "rejected_share": "Mend the rules that reject most (see below) at the source of the data before you train on what is left.",
    "source_to_target": (
        "Such a shift is what adaptation is for; check that it belongs to the domain and is no fault of the export."
    ),
    "like_accepted": (
        "Find out what changed since (device, export, selection); if it is meant, train and let the audit decide."
    ),
}


def limit_of(found: dict[str, Any]) -> str:
    """The limits of a rule in words, "" if it has none."""
    numbers = {key: f"{found[key]:,.10g}" for key in ("min", "max", "max_bits") if key in found}
    return LIMITS.get(found["rule"], "").format(**numbers)


def policy_of(found: dict[str, Any]) -> str:
    """What becomes of the images that fail; "" for rules on the set as a whole."""
    return POLICIES[found.get("policy", "keep")] if "images" in found else ""
