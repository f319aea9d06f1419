"""The page of a sweep, from the study of phantom-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import phantom
import pytest

from clinalign.pages.study import write_study_page
from clinalign.storage import write_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study() -> dict[str, Any]:
    """A study that was written before studies said their metric."""
    found: dict[str, Any] = json.loads((ROOT / "studies" / "results" / "phantom2.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in ("metric", "matched")}


def page(study: dict[str, Any], folder: Path) -> str:
    write_json(folder / "study.json", study)
    return write_study_page(folder).read_text(encoding="utf-8")


def test_lead_and_figure_are_those_of_the_rules_metric(study: dict[str, Any], tmp_path: Path) -> None:
    shown = {}
    for system in ("keep", "base"):
        metrics = study["test"]["test"]["systems"][system]["metrics"]
        metrics["accuracy"], metrics["right"] = ({**metrics["right"], "estimate": e} for e in (0.987, 0.876))
    for metric in ("", "right", "words", "brier", "style_preserved"):
        shown[metric] = page(study | ({"metric": metric} if metric else {}), tmp_path)
    assert "is right in 98.7 % of the answers that could be judged, the base in 98.7 %" in shown[""]
    assert "is right in 87.6 % of the questions, the base in 87.6 %" in shown["right"]
    assert shown["words"] == shown["brier"] == shown[""], "no share, or none that test has"
    assert (
        "has style preserved " in shown["style_preserved"] and ">style preserved, per cent<" in shown["style_preserved"]
    )
    assert ">right, per cent<" in shown["right"] and shown["right"] != shown[""]


def test_a_rule_by_what_is_said_without_the_lesion_is_on_the_page(study: dict[str, Any], tmp_path: Path) -> None:
    name = "answers_matched_counterfactual"
    plain = page(study, tmp_path)
    for n, row in enumerate(study["dev"]["rows"]):
        row["means"][name] = 0.321 if n else 0.123
    for system in study["test"]["test"]["systems"].values():
        system["flips"][name] = {"estimate": 0.456, "low": 0.4, "high": 0.5, "n": 100}
    shown = page(study | {"metric": name, "rule_metrics": [name, "drift_rest", "right"]}, tmp_path)
    assert "has answers: absent − same elsewhere 45.6 %, the base 45.6 %" in shown
    assert "<h2>Answers: absent − same elsewhere against drift</h2>" in shown
    assert "<h2>Accuracy against drift</h2>" in plain
    assert ">answers: absent − same elsewhere, per cent<" in shown
    assert "<td>32.1</td>" in shown and "<td>32.1</td>" not in plain, "the column that dev chose by"
    # Of all settings with one value the least drifting stands alone; the base, which drifts by nothing, has less of it.
    assert shown.count('r="3" fill="currentColor"') == 2


def test_pages_say_how_many_pairs_a_training_could_use_where_it_is_not_all(
    study: dict[str, Any], tmp_path: Path
) -> None:
    costs = dict.fromkeys(("runs", "steps", "trainings", "evaluations", "shared"), 12.0)
    plain = page(study, tmp_path), phantom.page(study, costs)
    for row in study["dev"]["rows"][1:]:
        row["pairs"] = {"used": 400, "of": 400}
    assert (page(study, tmp_path), phantom.page(study, costs)) == plain
    for row in study["dev"]["rows"]:
        if row["system"] == "symmetric":
            row["pairs"] = {"used": 303, "of": 400}
    shown = page(study, tmp_path)
    assert '<th scope="col">pairs</th>' in shown and "<td>303 of 400</td>" in shown and "<td>400</td>" in shown
    text = phantom.page(study, costs)
    assert "| symmetric | beta 0.1, lr 0.002 | 303 of 400 |" in text and "| 400 of 400 |" in text


def test_pages_say_where_no_setting_met_the_limit(study: dict[str, Any], tmp_path: Path) -> None:
    costs = dict.fromkeys(("runs", "steps", "trainings", "evaluations", "shared"), 12.0)
    at = {"metric": "drift_rest", "limit": 0.0123, "met": False}
    missed, met = study | {"matched": {"sft_matched": at}}, study | {"matched": {"sft_matched": at | {"met": True}}}
    assert "0.0123 (drift, nats): no setting of it is within; taken is the least beyond." in page(missed, tmp_path)
    assert "0.0123 (drift, nats): its setting is within." in page(met, tmp_path)
    assert "0.0123" not in page(study, tmp_path)
    assert "sft_matched: no setting met the limit" in phantom.page(missed, costs)
    assert phantom.page(met, costs) == phantom.page(study, costs)


def test_a_training_that_diverged_is_on_the_page(study: dict[str, Any], tmp_path: Path) -> None:
    study["dev"]["rows"][1] |= {"diverged": "step 3: loss nan", "means": {}, "chosen": False, "frontier": False}
    shown = page(study | {"diverged": {"keep-ab-s2": "step 9: loss inf"}}, tmp_path)
    assert "<td>diverged</td>" in shown and "keep-ab-s2 is left out of test, it diverged: step 9: loss inf" in shown
