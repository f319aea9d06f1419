"""One sentence of a report mended from its reference."""

from __future__ import annotations

import pytest

from clinalign.language.edit_reports import mend_sentence

TRUTH = "There is cardiomegaly. The lungs show a small nodule in the left upper zone. There is no pleural effusion."


@pytest.mark.parametrize(
    ("text", "kind", "mended"),
    [
        ("There is no cardiomegaly. There is a small nodule in the left upper zone.", "replace",
         "There is cardiomegaly. There is a small nodule in the left upper zone."),
        ("There is cardiomegaly. The lungs show a small nodule in the right upper zone.", "replace",
         "There is cardiomegaly. The lungs show a small nodule in the left upper zone."),
        ("There is cardiomegaly.", "insert",
         "There is cardiomegaly. The lungs show a small nodule in the left upper zone."),
        ("No findings.", "insert", "No findings. There is cardiomegaly."),
    ],
)  # fmt: skip
def test_an_operation_from_the_reference(text: str, kind: str, mended: str) -> None:
    assert mend_sentence(text, TRUTH) == (kind, mended)


def test_what_is_right_is_left_alone() -> None:
    assert mend_sentence(TRUTH, TRUTH) is None


def test_operations_end() -> None:
    """Each leaves fewer errors and omissions than there were, so that they come to an end."""
    text, steps = "There is a fracture. There is no cardiomegaly. There is a large pneumothorax on the right.", 0
    while (found := mend_sentence(text, TRUTH)) is not None:
        text, steps = found[1], steps + 1
    assert 3 <= steps <= 5 and "left upper zone" in text and "There is cardiomegaly" in text
