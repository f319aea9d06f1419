"""What a sweep tries, how dev chooses, what lies on the frontier."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinalign.check import _tried
from clinalign.errors import UsageError
from clinalign.evaluation.scores import conditions_of
from clinalign.evaluation.statistics import frontier
from clinalign.preflight.data import Sampled, _splits
from clinalign.recipe import Recipe, load_recipe
from clinalign.records import Example
from clinalign.study.options import RuleOptions, SweepOptions
from clinalign.study.settings import (
    asked_by,
    check_measured,
    findings_of,
    matched,
    ranked,
    rungs,
    scaled,
    settings_of,
)
from clinalign.study.tables import with_frontier

ROOT = Path(__file__).parents[2]


def recipe(**sweep: Any) -> Recipe:
    loaded = load_recipe("phantom")
    values = loaded.model_dump(mode="json", exclude={"align"}) | {"sweep": sweep}
    return Recipe.model_validate(values | {"align": {"method": "firempo", "lr": 1e-4, "max_steps": 80}})


def test_lists_are_crossed_and_systems_keep_what_they_set() -> None:
    keep: dict[str, Any] = {"align.method": "keep", "align.alpha": [4, 16]}
    sft: dict[str, Any] = {"align.method": "sft", "align.lr": 1e-3}
    made = settings_of(recipe(systems={"keep": keep, "sft": sft}, grid={"align.lr": [1e-4, 3e-4]}))
    keeps = [f"keep: lr {lr}, alpha {alpha}" for lr in ("0.0001", "0.0003") for alpha in (4, 16)]
    assert [s.name for s in made] == [*keeps, "sft"]
    assert [s.recipe.align.lr for s in made] == [1e-4, 1e-4, 3e-4, 3e-4, 1e-3]
    assert made[0].recipe.align.max_steps == 80


def test_a_weight_that_stays_open_is_the_methods_own() -> None:
    (keep,) = settings_of(recipe(systems={"keep": {"align.method": "keep"}}))
    assert keep.recipe.align.alpha == 4


def test_settings_that_differ_in_training_alone_share_their_pairs() -> None:
    made = settings_of(
        recipe(systems={"a": {"align.lr": [1e-4, 1e-3]}, "b": {"corrupt.kind": "inpaint"}, "c": {"pair.limit": 100}})
    )
    assert made[0].corpus == made[1].corpus
    assert len({s.corpus for s in made}) == 3


def test_a_method_that_ranks_a_ladder_of_images_gets_one_without_changing_the_others_pairs() -> None:
    dpo, lpoi, own = settings_of(
        recipe(
            systems={
                "dpo": {"align.method": "dpo"},
                "lpoi": {"align.method": "lpoi"},
                "own": {"align.method": "lpoi", "corrupt.levels": [[0.5]]},
            }
        )
    )
    assert dpo.recipe.corrupt.levels == []
    assert lpoi.recipe.corrupt.levels == [0.33, 0.67]
    assert own.recipe.corrupt.levels == [0.5]


@pytest.mark.parametrize("own", [{}, {"reinforce": {}}])
def test_a_system_that_is_reinforced_is_refused_by_name(own: dict[str, Any]) -> None:
    """A sweep trains on pairs: it would take `reinforce` for plain SFT. `align` hands it on to every system."""
    valor = {"align.reinforce": {}} if not own else {}
    values = recipe(systems={"a": {"align.reinforce": None}, "v": {"align.epochs": 1.0, **valor}}).model_dump(
        mode="json", exclude={"compare"}
    )
    tried = Recipe.model_validate(values | {"align": {"method": "sft", **own}})
    with pytest.raises(UsageError, match="system 'v' has align.reinforce.*`clinalign reinforce`"):
        settings_of(tried)
    alone = Recipe.model_validate(values | {"align": {"method": "sft", "reinforce": {}}, "sweep": {}})
    with pytest.raises(UsageError, match="system 'valor' has align.reinforce"):
        settings_of(alone)


def test_every_setting_is_checked_before_anything_is_trained_and_each_finding_said_once() -> None:
    """`full` and the projector alone have no adapter to switch off; FiRe-MPO needs the corrupted images."""
    systems: dict[str, Any] = {
        "whole": {"align.tune": "full", "align.lr": [1e-5, 1e-4]},
        "image": {"align.train": [["projector"]]},
        "blind": {"align.method": "firempo", "corrupt.kind": "none", "align.beta": [0.1, 1.0]},
        "well": {"align.method": "sft"},
    }
    made = settings_of(recipe(systems=systems))
    found = [(one.verdict, one.field, one.text) for one in findings_of(made, [])]
    refused = {field: text for verdict, field, text in found if verdict == "refused"}
    assert refused.keys() == {"align.tune", "align.train", "align.method"} and len(found) == 3
    assert "drift" in refused["align.tune"] and refused["align.tune"].endswith("(sweep: 'whole: lr 1e-05')")
    assert refused["align.method"].endswith("align.method=no_visual (sweep: 'blind: beta 0.1')")
    known = [replace(one, text=one.text.partition(" (sweep")[0]) for one in findings_of(made[3:5], [])]
    assert len(known) == 1 and not findings_of(made[3:], known), "what the recipe itself was told is not said again"


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        ({"systems": {"a": {"data.seed": 1}}}, "cannot be varied"),
        ({"systems": {"base": {}}}, "is a reserved name"),
        ({"systems": {"a": {"align.lr": []}}}, "no value to try"),
        ({"systems": {"a": {"align.lr": [1e-4, 1e-4]}}}, "tried twice"),
        ({"systems": {"a": {"align.lt": 1e-4}}}, "unknown key 'lt'"),
        ({"systems": {"a": {"align.lr.x": 1e-4}}}, "unknown key|number"),
        ({"dev": "test"}, "different splits"),
        ({"seeds": [0], "dev_seeds": 2}, "there are 1 seeds"),
        ({"halving": 1}, "2 and more"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(sweep: dict[str, Any], text: str) -> None:
    with pytest.raises((UsageError, ValueError), match=text):
        settings_of(recipe(**sweep))


def test_dev_chooses_by_the_written_rule() -> None:
    """.91 is the best; .90 is within .02 and drifts less; .80 drifts least and is out."""
    rows = [{"right": a, "drift_rest": d} for a, d in ((0.90, 0.1), (0.91, 0.5), (0.80, 0.0))]
    assert ranked(rows, RuleOptions())[0] == 1
    assert ranked(rows, RuleOptions(within=0.02)) == [0, 1, 2]
    assert ranked(rows, RuleOptions(most={"drift_rest": 0.05}))[0] == 2
    assert ranked(rows, RuleOptions(least={"right": 0.99}))[0] == 1  # none has it: all may be chosen


def test_a_setting_that_lacks_a_metric_ranks_last_and_one_that_no_setting_has_is_an_error() -> None:
    """Of a model whose answers nobody can read, accuracy has no mean; it is not the end of the others."""
    rows: list[dict[str, float]] = [{"drift_rest": 0.0}, {"accuracy": 0.7, "drift_rest": 0.1}, {"accuracy": 0.9}]
    rule = RuleOptions(metric="accuracy")
    assert ranked(rows, rule) == [1, 0, 2]
    assert [matched(rows, rule, limit) for limit in (0.1, -1.0)] == [(1, True), (0, False)]
    check_measured(rows, rule)
    with pytest.raises(UsageError, match="'brier' was not measured on dev; there are accuracy, drift_rest"):
        check_measured(rows, RuleOptions(metric="accuracy", least={"brier": 0.1}))


def test_the_frontier_is_that_of_the_rules_metric() -> None:
    """The second reads fewer answers, all of them right: no better, once what cannot be read counts as not right."""
    rows: list[dict[str, Any]] = [
        {"means": {"accuracy": a, "right": r, "drift_rest": d}} for a, r, d in ((0.9, 0.9, 0.1), (1.0, 0.5, 0.2))
    ]
    with_frontier(rows, RuleOptions().metric)
    assert [row["frontier"] for row in rows] == [True, False]
    with_frontier(rows, "accuracy")
    assert [row["frontier"] for row in rows] == [True, True]


def test_a_matched_setting_drifts_no_more_than_the_limit_or_least() -> None:
    """Of .90/.5, .80/.2, .70/.1: under .3 the second is the most right; under .05 none is, the third drifts least."""
    rows = [{"right": a, "drift_rest": d} for a, d in ((0.90, 0.5), (0.80, 0.2), (0.70, 0.1))]
    limits = (0.5, 0.3, 0.05)
    assert [matched(rows, RuleOptions(), limit) for limit in limits] == [(0, True), (1, True), (2, False)]
    with pytest.raises(ValueError, match="there is no system 'sft'"):
        SweepOptions(systems={"dpo": {}}, matched=["sft"])
    with pytest.raises(ValueError, match="is a system of its own"):
        SweepOptions(systems={"sft": {}, "sft_matched": {}}, matched=["sft"])


def test_the_rule_is_written_in_words() -> None:
    text = RuleOptions(within=0.01, least={"style_preserved": 0.9}).sentence()
    assert text == (
        "The highest right on dev, of those with style_preserved at least 0.9 where there are any; of those within "
        "0.01 of it the lowest drift_rest, then the first in the grid."
    )


def test_the_frontier_is_what_no_other_beats() -> None:
    points = [(0.6, 0.0), (0.9, 0.2), (0.9, 0.1), (0.8, 0.1), (0.95, 0.5)]
    assert frontier(points) == [True, False, True, False, True]
    assert frontier([(0.5, 0.1), (0.5, 0.1)]) == [True, True]


def test_successive_halving_ends_with_all_steps() -> None:
    assert rungs(9, 3) == [pytest.approx(1 / 9), pytest.approx(1 / 3), 1]
    assert rungs(4, 0) == rungs(1, 2) == [1]
    options = load_recipe("phantom").align
    assert scaled(options, 0.25).max_steps == 20
    assert scaled(options.model_copy(update={"max_tokens": 1000}), 0.25).max_tokens == 250
    assert scaled(options.model_copy(update={"max_steps": 0}), 0.5).epochs == 0.5
    assert scaled(options, 1.0) == options


@pytest.mark.parametrize(
    ("name", "settings", "corpora"),
    [
        ("phantom2", 54, 3),
        ("phantom2_factors", 20, 5),
        ("phantom2_finalists", 4, 1),
        ("phantom2_methods", 68, 3),
        ("phantom2_two", 2, 1),
        ("phantom2_second", 12, 1),
        ("phantom2_evidence", 2, 2),
        ("phantom2_evidence_equal", 18, 2),
    ],  # fmt: skip
)
def test_the_committed_studies_are_sweeps(name: str, settings: int, corpora: int) -> None:
    made = settings_of(load_recipe(ROOT / "studies" / f"{name}.yaml"))
    assert (len(made), len({s.corpus for s in made})) == (settings, corpora)
    sweep = load_recipe(ROOT / "studies" / f"{name}.yaml").sweep
    assert sweep is not None
    trainings = settings * sweep.dev_seeds + len({s.system for s in made}) * (len(sweep.seeds) - sweep.dev_seeds)
    assert trainings <= {"phantom2_finalists": 20, "phantom2_methods": 136}.get(name, 80)  # the first three: 180


def test_check_says_what_a_sweep_tries() -> None:
    assert _tried(recipe(systems={"a": {"align.lr": [1e-4, 1e-3]}, "b": {"corrupt.kind": "inpaint"}})) == (
        "; its sweep tries 3 settings of 2 systems on 2 set(s) of pairs"
    )
    assert _tried(load_recipe("phantom")) == ""


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"dev": "align"}, "trained on"),
        ({"tests": ["align"]}, "trained on"),
        ({"tests": ["test", "test"]}, "different splits"),
        ({"tests": ["test"], "kept": "test"}, "different splits"),
        ({"systems": {"sft": {}}, "matched": ["sft"], "halving": 3}, "halving"),
    ],
)
def test_splits_and_halving_that_would_mislead_are_refused(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        SweepOptions(**keys)


@pytest.mark.parametrize("name", ["rigth", "matched_counterfactual", "truth_nll", "bleu"])
def test_a_rule_that_dev_cannot_answer_is_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(UsageError, match="is not measured on dev"):
        settings_of(load_recipe("phantom", [f"sweep={{rule: {{metric: {name}}}}}"]))
    assert settings_of(load_recipe("phantom", ["sweep={rule: {metric: accuracy_prior_conflicting}}"]))


def test_a_rule_may_ask_dev_what_happens_without_the_evidence() -> None:
    """Dev is asked what the rule names, of what the recipe asks, and no more."""

    def asked(rule: str, evaluate: str) -> dict[str, Any]:
        made = load_recipe("phantom", [f"sweep={{rule: {rule}}}", f"evaluate={evaluate}"])
        settings_of(made)
        assert made.sweep is not None
        return asked_by(made, made.sweep.rule)

    every = "{flips: [inpainted, control_inpainted, lesion_noise], ablations: [blank], flip_answers: true}"
    none: dict[str, Any] = {"flips": [], "ablations": []}
    margins, answers = ({"flip_answers": said, "flip_levels": []} for said in (False, True))
    assert asked("{metric: right}", every) == none
    assert asked("{metric: matched_inpainted}", every) == none | margins | {"flips": ["inpainted", "control_inpainted"]}
    assert asked("{metric: right, most: {flip_lesion_noise: 0.5}, then: accuracy_blank}", every) == margins | {
        "flips": ["lesion_noise"], "ablations": ["blank"],
    }  # fmt: skip
    said = none | answers | {"flips": ["inpainted", "control_inpainted"]}
    assert asked("{metric: answers_matched_inpainted}", every) == said
    painted = none | margins | {"flips": ["counterfactual"]}
    assert asked("{metric: flip_inpainted}", "{flips: [control, counterfactual]}") == painted, "without an exact image"
    with pytest.raises(UsageError, match="is not measured on dev; add control_inpainted to evaluate.flips"):
        asked("{metric: matched_inpainted}", "{flips: [inpainted]}")
    with pytest.raises(UsageError, match="is not measured on dev; set evaluate.flip_answers=true"):
        asked("{metric: premise_corrected_inpainted}", "{flips: [inpainted]}")
    with pytest.raises(UsageError, match="is not measured on dev; add noise to evaluate.ablations"):
        asked("{metric: right, most: {changed_noise: 0.5}}", "{ablations: [blank]}")
    for nothing in ("flip_blank", "premise_corrected_blank", "premise_corrected_control"):
        with pytest.raises(UsageError, match="is not measured on dev"):
            asked(f"{{metric: {nothing}}}", every)


def test_what_dev_was_not_asked_of_the_base_is_said_before_anything_is_trained() -> None:
    """Of answers under another condition, that is: what cannot be read of the base may be of a better system."""
    base = {"right": 0.5, "drift_rest": 0.0, "style_preserved": 1.0}
    check_measured([base], RuleOptions(metric="accuracy"), asked=True)
    for name in ("matched_counterfactual", "accuracy_nonsense"):
        with pytest.raises(UsageError, match=f"'{name}' was not measured on dev; there are drift_rest, right"):
            check_measured([base], RuleOptions(metric=name), asked=True)


@pytest.mark.parametrize(
    ("metric", "of", "said"),
    [
        ("right", set(), False),
        ("accuracy_closed", set(), False),
        ("accuracy_blank", {"blank"}, False),
        ("flip_control", {"control"}, False),
        ("specificity_inpainted", {"inpainted", "control"}, False),
        ("premise_corrected_counterfactual", {"counterfactual"}, True),
        ("answers_matched_counterfactual", {"counterfactual", "control_counterfactual"}, True),
    ],
)
def test_what_a_metric_is_of(metric: str, of: set[str], said: bool) -> None:
    assert conditions_of(metric) == (of, said)


def test_a_sweep_is_checked_for_its_own_splits() -> None:
    """`evaluate.split` is a run's; a sweep names the splits that it asks."""
    examples = [Example(f"{split}{n}", [], "Which side?", "left", split=split) for split in ("align", "dev", "final")
                for n in (0, 1)]  # fmt: skip
    sampled = Sampled(examples, len(examples), True, Counter(), "", [])
    asked = load_recipe("phantom", ["sweep={tests: [final]}"])
    assert [f for f in _splits(asked, sampled) if f.subject == "splits"] == []
    [found] = _splits(load_recipe("phantom", ["sweep={tests: [other]}"]), sampled)
    assert (found.verdict, found.field) == ("refused", "sweep") and "no example has split 'other'" in found.text
    [found] = _splits(asked.model_copy(update={"sweep": None}), sampled)
    assert (found.verdict, found.field) == ("refused", "evaluate.split")
