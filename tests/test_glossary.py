"""The glossary has every column of the tables, every metric with its label, and every term that the page explains."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from clinalign import records

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = set(re.findall(r"`([\w.]+)`", GLOSSARY))
TABLES = ("Example", "Answer", "Pair", "Outcome", "Measurement", "Region")


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_a_term(table: str) -> None:
    assert {field.name for field in fields(getattr(records, table))} - TERMS == set()


def test_every_metric_is_a_term_and_its_label_stands_beside_it() -> None:
    from clinalign.evaluation.metrics import METRICS

    rows = [line.split(" | ") for line in GLOSSARY.split("\n") if line.startswith("| `")]
    for metric in METRICS:
        lines = [row for row in rows if f"`{metric.name}`" in row[0]]
        label = metric.label.removesuffix(", %")
        assert any(label in re.split(r", (?!mean)", row[1]) for row in lines), (metric.name, label)


def test_every_condition_is_a_term() -> None:
    assert records.Outcome.__doc__ is not None
    [conditions] = re.findall(r"`condition` ([\w|]+)", records.Outcome.__doc__)
    assert set(conditions.split("|")) - TERMS == set()


def test_what_the_page_explains_is_a_term() -> None:
    page = (ROOT / "src" / "clinalign" / "pages" / "report.html.j2").read_text(encoding="utf-8")
    explained = re.findall(r"<dt>([^<]+)</dt>", page)
    assert len(explained) >= 6
    words = [word for term in explained for word in re.split(r", (?:and )?(?:the )?| and ", term.lower())]
    ours = GLOSSARY.lower().replace("-", " ")
    assert [word for word in words if word.replace("-", " ").removesuffix("s") not in ours] == []
