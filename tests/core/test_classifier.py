"""Why an image can't be read, in words that are the same from run to run."""

from io import BytesIO

import pytest
from PIL import Image

from tasks.core.classifier import reason


def test_no_address_in_memory_gets_into_the_reason() -> None:
    with pytest.raises(OSError, match="cannot identify image file") as seen:
        Image.open(BytesIO(b""))
    assert reason(seen.value) == "UnidentifiedImageError: cannot identify image file"
