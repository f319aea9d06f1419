"""Metrics of other packages: what ran is told apart from what did not, and nothing ends an evaluation."""

import math

from clinalign.evaluation import add_external, summarise
from clinalign.evaluation.peers import NAMES
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example, Outcome

EXAMPLES = [Example(f"e{n}", ["i.png"], "Describe.", f"truth {n}", "report", patient_id=f"p{n}") for n in range(4)]
EXAMPLES += [Example("q", ["i.png"], "Is there a nodule?", "no", "closed", patient_id="p9")]
OUTCOMES = [
    Outcome(e.id, e.task, "s", system, "greedy", 0, "clean", f"{system} {e.id}", None, "rules")
    for system in ("base", "other")
    for e in EXAMPLES
]


def scorer(name, references, texts):
    """Knows radgraph, has no weights for green, and gives ratescore as one number for all."""
    if name == "green":
        raise OSError("cannot reach the hub\nfor these weights")
    if name == "ratescore":
        return {}
    assert references == [f"truth {n % 4}" for n in range(8)]
    return {"radgraph_simple": [float(t.startswith("other")) for t in texts], "odd": [math.nan] * len(texts)}


def test_what_ran_and_what_did_not():
    outcomes, report = add_external(OUTCOMES, EXAMPLES, list(NAMES)[:1] + ["green", "ratescore"], scorer)
    assert report == {
        "ran": {"radgraph": "scorer"},
        "not_run": {
            "green": "OSError: cannot reach the hub for these weights",
            "ratescore": "it gave no score for each report",
        },
    }
    assert [o.metrics for o in outcomes if o.task == "closed"] == [{}, {}]
    systems = summarise(outcomes, EXAMPLES, EvaluationOptions(resamples=100, permutations=100))["systems"]
    shown = {name: system["external"]["radgraph_simple"] for name, system in systems.items()}
    assert shown["base"]["estimate"] == 0.0 and shown["other"]["estimate"] == 1.0 and shown["base"]["n"] == 4
    assert "odd" not in systems["base"]["external"], "what is no number is not scored"


def test_without_the_package_it_is_named_and_the_rest_goes_on():
    outcomes, report = add_external(OUTCOMES, EXAMPLES, ["radgraph"])
    assert outcomes == OUTCOMES and "No module named 'radeval'" in report["not_run"]["radgraph"]
    assert report["ran"] == {}


def test_without_reports_nothing_is_asked():
    _, report = add_external(OUTCOMES[4:5], EXAMPLES, ["green"], scorer)
    assert report["not_run"] == {"green": "no report was asked for"}
    assert add_external(OUTCOMES, EXAMPLES, [])[1] == {"ran": {}, "not_run": {}}
