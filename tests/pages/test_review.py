"""Review end to end: a run, decisions made in the browser, `pair --decisions`, and the run goes on without the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clinalign.cli import main
from clinalign.records import Pair
from clinalign.storage import read_table, sha256

sys.path.insert(0, str(Path(__file__).parent))
from test_browser import Watched, browser, download  # noqa: F401

pytestmark = pytest.mark.slow
SMALL = ["data.splits={align: 12, test: 8}", "align.max_steps=2", "align.batch=4", "compare={}"]
SMALL += ["evaluate.resamples=200", "evaluate.permutations=200"]


def clinalign(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["clinalign", *arguments])
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code


def test_decisions_made_on_the_page_are_applied_and_stay(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, file = tmp_path / "run", tmp_path / "decisions.jsonl"
    given = ["phantom", *SMALL, f"align.cache={tmp_path / 'cache'}", "--out", str(out)]
    clinalign(monkeypatch, "run", *given)
    before = read_table(out / "corrupted_pairs.parquet", Pair)
    wanted = next(
        p for p in before if "left" in p.chosen.split() or "right" in p.chosen.split() and p.own == "rejected"
    )
    rejected = next(p for p in before if p.id != wanted.id)
    edited = wanted.rejected if wanted.own == "chosen" else wanted.chosen
    better = edited.replace("left", "left-hand").replace("right", "right-hand")
    watched = Watched(browser, (out / "report.html").as_uri())

    def card(pair: Pair) -> Any:
        place = next(n for n, p in enumerate(before) if p.id == pair.id)
        return watched.page.locator(".card.edit").nth(place)

    card(rejected).locator("[data-decide=reject]").click()
    card(rejected).locator("input").fill("cannot be seen")
    card(wanted).locator("[data-decide=correct]").click()
    card(wanted).locator("textarea").fill(better)
    assert len(download(watched, file)) == 2 and watched.noise == []
    watched.context.close()

    clinalign(monkeypatch, "pair", *given, "--decisions", str(file))
    edits = {p.id: p for p in read_table(out / "pairs.parquet", Pair)}
    assert rejected.id not in edits and len(edits) == len(before) - 1
    assert better in (edits[wanted.id].chosen, edits[wanted.id].rejected) and edits[wanted.id].editor == "reader"
    left_out = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(r["reason"], r["detail"]) for r in left_out if r["id"] == rejected.example_id] == [
        ("rejected_by_reader", "cannot be seen")
    ]
    weights = sha256(out / "adapter" / "adapter_model.safetensors")
    clinalign(monkeypatch, "run", *given, "--resume")
    assert "pair: done already" in capsys.readouterr().err
    assert {p.id for p in read_table(out / "corrupted_pairs.parquet", Pair)} == set(edits)
    assert sha256(out / "adapter" / "adapter_model.safetensors") != weights
    state = json.loads((out / "run.json").read_text())
    assert state["stages"]["pair"]["inputs"]["decisions.jsonl"] == sha256(out / "decisions.jsonl")
    page = (out / "report.html").read_text()
    assert "Already applied: 1 × reject, 1 × correct" in page and better in page

    kept = (out / "decisions.jsonl").read_bytes()
    stale = json.loads(file.read_text().splitlines()[0]) | {"chosen": "Otherwise."}
    file.write_text(json.dumps(stale) + "\n")
    monkeypatch.setattr(sys, "argv", ["clinalign", "pair", *given, "--decisions", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and f"{file}:1: " in message and (out / "decisions.jsonl").read_bytes() == kept
