"""What needs no labels: rewrites that say the same leave the claims as they are, others change exactly their part.

The reports are read from the packages that hold them, fetched through pip into the cache.
"""

from __future__ import annotations

import random
import re
from typing import Any

import editor
import language as benchmark
import pytest

from clinalign.language import claims
from clinalign.storage import shared_folder

LISTED = ("pneumothorax", "pleural effusion", "consolidation", "pulmonary edema", "rib fracture")


@pytest.fixture(scope="module")
def reports() -> list[str]:
    return benchmark.reports(shared_folder("") / "reports")


@pytest.fixture(scope="module")
def sections() -> list[str]:
    return [report["findings"] for report in editor.read_reports(shared_folder("") / "reports")[:2000]]


def changed(texts: list[str], rewrite: Any) -> list[str]:
    return [text for text in texts if benchmark.labels(rewrite(text)) != benchmark.labels(text)]


@pytest.mark.slow
def test_wrapping_changes_nothing(reports: list[str], sections: list[str]) -> None:
    assert len(reports) == 1000 and len(sections) == 2000
    assert not changed(reports, benchmark.wrapped)
    assert not changed(sections, benchmark.wrapped)


@pytest.mark.slow
def test_capitals_spaces_and_headings_change_nothing(reports: list[str], sections: list[str]) -> None:
    assert not changed(reports, str.upper)
    assert not changed(sections, str.upper)
    assert len(changed(sections, lambda text: text.replace(" ", "  "))) == 0
    assert len(changed(sections, lambda text: f"FINDINGS: {text}")) <= 2


@pytest.mark.slow
def test_history_and_indication_add_no_label(reports: list[str]) -> None:
    assert sum(len(benchmark.chexpert(benchmark.asides(text))) for text in reports) == 0


@pytest.mark.slow
def test_another_side_changes_the_sides_alone(sections: list[str]) -> None:
    """Left and right exchanged: the same findings and statuses, every side the other one."""
    other = {"left": "right", "right": "left"}

    def swapped(text: str) -> str:
        return re.sub(r"\b(left|right)\b", lambda m: other[m.group().lower()], text, flags=re.I)

    wrong = 0
    implied = re.compile(r"lingul|leftward|rightward|levo|dextro", re.I)  # a side that no "left" or "right" names
    for text in (text for text in sections if not implied.search(text)):
        before, after = claims(text), claims(swapped(text))
        told = [(c.finding, c.status, other.get(c.side or "", c.side)) for c in before]
        wrong += told != [(c.finding, c.status, c.side) for c in after]
    assert wrong == 0


def test_the_order_of_a_denied_list_does_not_matter() -> None:
    rng = random.Random(0)
    for _ in range(50):
        items = rng.sample(LISTED, 3)
        text = f"No {items[0]}, {items[1]}, or {items[2]}."
        assert {(c.finding, c.status) for c in claims(text)} == {(item, "absent") for item in items}


def test_a_synonym_a_negation_and_a_size_change_exactly_that() -> None:
    base = [(c.finding, c.status, c.side, c.size) for c in claims("There is a small pleural effusion on the left.")]
    for text in (
        "There is a tiny effusion on the left.",
        "Small left pleural fluid.",
        "A small left-sided effusion is seen",
    ):
        assert [(c.finding, c.status, c.side, c.size) for c in claims(text)] == base
    (denied,) = claims("There is no pleural effusion on the left.")
    assert (denied.finding, denied.status, denied.side) == ("pleural effusion", "absent", "left")
    (large,) = claims("There is a large pleural effusion on the left.")
    assert (large.finding, large.status, large.side, large.size) == ("pleural effusion", "present", "left", "large")
