"""The numbers of the phantom benchmark, from a study whose tables are written by hand."""

from __future__ import annotations

from typing import Any

import phantom
import pytest
import yaml


def found(estimate: float, n: int = 40) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1, "n": n}


def system(right: float, drift: float, removal: float, premise: float) -> dict[str, Any]:
    flips = {"matched_counterfactual": found(removal), "premise_corrected_counterfactual": found(premise)}
    return {"metrics": {"right": found(right), "drift_rest": found(drift)}, "flips": flips}


def against(other: str, metric: str, estimate: float, p: float) -> dict[str, Any]:
    return {"a": "keep", "b": other, "metric": metric, "p_holm": p} | found(estimate)


def study() -> dict[str, Any]:
    systems = {
        "base": system(0.6, 0.0, 0.4, 0.0),
        "keep": system(0.9, 0.02, 0.5, 0.1),
        "counterfactual_keep": system(0.88, 0.03, 0.7, 0.5),
        "sft": system(0.89, 0.08, 0.45, 0.1),
    }
    compared = [
        against("sft", "right", 0.01, 0.4), against("sft", "drift_rest", -0.06, 0.002),
        against("sft", "style_preserved", 0.08, 0.01), against("dpo", "right", 0.15, 0.001),
    ]  # fmt: skip
    first = {"systems": systems, "comparisons": compared, "n": 100, "patients": 50}
    elsewhere = {"systems": systems, "comparisons": [against("sft", "right", 0.03, 0.2)], "n": 40, "patients": 20}
    chosen = {"keep": "keep: alpha 4", "sft": "sft: lr 0.0005", "counterfactual_keep": "counterfactual_keep"}
    chosen |= {"dpo": "dpo", "firempo": "firempo", "sft_matched": "sft: lr 0.0002"}
    tried = [("keep", "keep: alpha 4", {"align.alpha": 4}), ("sft", "sft: lr 0.0005", {"align.lr": 5e-4})]
    tried += [("sft", "sft: lr 0.0002", {"align.lr": 2e-4}), *((name, name, {}) for name in list(chosen)[2:5])]
    rows = [{"system": system, "name": name, "keys": keys, "chosen": True} for system, name, keys in tried]
    return {
        "tests": ["test", "elsewhere"], "test": {"test": first, "elsewhere": elsewhere}, "best": "keep",
        "chosen": chosen, "dev": {"rows": rows}, "seeds": [0, 1, 2], "readings": 1,
    }  # fmt: skip


def test_fields_are_those_of_the_tables() -> None:
    """Removal .7 - .45; drift .02 / .08; premises .5 over a base of none, which counts as half an answer of 40."""
    measured = {
        "checks": {"visible": [0, 1], "class_shift_recovers": 0.3},
        "rungs": {"0": [0.94, 0.6, 1], "1": [0.92, 0.6, 1], "2": [0.8, 0.6, 0.7]},
    }
    got = phantom.numbers(study(), measured, "study")
    assert got["best_method"] == "keep" and got["evidence_method"] == "counterfactual_keep"
    assert (got["base"], got["linear_reader"], got["shift_recovers"]) == (0.6, pytest.approx(0.93), 0.3)
    assert (got["best_minus_sft"], got["best_minus_sft_low"]) == (0.01, pytest.approx(-0.09))
    assert (got["drift_p"], got["style_p"], got["drift_vs_sft"]) == (0.002, 0.01, pytest.approx(0.25))
    assert got["style_minus_sft"] == 0.08, "a small p alone does not say which way"
    assert got["best_minus_dpo_low"] == pytest.approx(0.05) and got["best_minus_firempo_low"] is None
    assert got["removal_minus_control_gain"] == pytest.approx(0.25) and got["premise_ratio"] == pytest.approx(40)
    assert got["ood_best_minus_sft"] == 0.03


def test_the_page_has_every_system_and_what_it_differs_by() -> None:
    made = study() | {"name": "a study", "rule": "the highest right", "kept": ""}
    costs = dict.fromkeys(("runs", "steps", "trainings", "evaluations", "shared"), 12.0)
    text = phantom.page(made, costs)
    assert (
        "| keep | 90.0 [80.0, 100.0] |" in text
        and "| alpha 4 |" in text
        and "steps 12, trainings 12" in text
        and "thousandths of a nat" in text
    )
    assert "| sft | 1.0 [-9.0, 11.0], p = 0.400 | -60.0 [-160.0, 40.0], p = 0.002 |" in text
    assert "calibration error" not in text and "seconds |" not in text
    timed = phantom.page(made, costs | {"training_of": {"keep": 41.7}})
    assert timed.count("| seconds |") == 2 and timed.count("| 42 |") == 2
    assert "Dev chose. the highest right" in text
    made["dev"]["rows"] = [row for row in made["dev"]["rows"] if row["name"] != "sft: lr 0.0002"]
    fixed = phantom.page(made, costs)
    assert phantom.FIXED in fixed and "Dev chose" not in fixed and "setting that dev chose" not in fixed


def test_quick_takes_what_dev_chose_and_the_winners_alone() -> None:
    written = yaml.safe_load((phantom.STUDIES / "phantom2.yaml").read_text(encoding="utf-8"))["sweep"]["systems"]
    systems, first = phantom.quick(written, study())
    assert list(systems) == ["keep", "counterfactual_keep", "sft", "dpo", "firempo"] and first == "keep"
    assert systems["keep"]["align.alpha"] == 4
    assert systems["sft"]["align.lr"] == 5e-4, "not what dev chose for sft_matched"
    row = {"name": "by evidence", "keys": {"align.gamma": 3, "align.batch": 4}}
    of = {"best": "counterfactual_keep", "chosen": {"counterfactual_keep": "by evidence"}, "dev": {"rows": [row]}}
    by_evidence, _ = phantom.quick(written, study(), of)
    assert by_evidence["counterfactual_keep"] == systems["counterfactual_keep"] | row["keys"]
    assert {**by_evidence, "counterfactual_keep": 0} == {**systems, "counterfactual_keep": 0}
    assert not any(isinstance(value, list) for keys in systems.values() for value in keys.values())
    assert list(phantom.quick(written, None)[0]) == list(systems)
