"""`clinalign check RECIPE`: time and memory by part, tried here or counted for a named card, and what fits."""

from __future__ import annotations

import re
from pathlib import Path

from clinalign.check import check

SMALL = ["data.splits={align: 3, test: 2}", "align.batch=4", "compare={}"]


def test_a_recipe_on_a_card_that_is_not_here(tmp_path: Path) -> None:
    text = " ".join(check("phantom", SMALL, tmp_path / "run", "h100").split())
    assert re.search(r"firempo on h100, about \d+ pairs, one a question to learn from:", text)
    assert all(f"{part} about" in text for part in ("answers", "images", "reference", "steps"))
    assert re.search(r"weights \d+ MB", text)
    assert "align.gradient_checkpointing=false align.micro_batch=4 quantize=none" in text


def test_a_recipe_is_tried_here(tmp_path: Path) -> None:
    text = " ".join(check("phantom", SMALL, tmp_path / "run").split())
    assert re.search(
        r"time, tried here with [\d,]+ tokens at once: about \d+ (s|min) \(start about \d+ s, images ", text
    )
    assert re.search(r"peak memory of the process when tried: [\d,]+ MB", text)
    assert not (tmp_path / "run").exists()
