"""Systems by suites: the headline score, the share of unread answers, and tests against the baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from suite_items import example, outcome

from clinalign.evaluation.suites import SUITES, causal
from clinalign.evaluation.suites.table import HEADLINES, belongs, compared, unread
from clinalign.records import Example, Outcome


def grounded(examples: list[Example], says: dict[str, str]) -> list[Outcome]:
    """Answers by condition; "truth" stands for the right one."""
    return [outcome(e, e.answer if text == "truth" else text, c) for e in examples for c, text in says.items()]


def test_every_suite_has_a_headline() -> None:
    assert set(HEADLINES) == set(SUITES)


def test_right_for_the_evidences_sake() -> None:
    """A yes that stays under the target mask, and any answer that turns under the irrelevant one, are not grounded."""
    examples = [example(k, "yes" if k % 2 else "no") for k in range(40)]
    systems = {
        "base": grounded(examples, {"clean": "truth", causal.TARGET: "truth", causal.CONTROL: "truth"}),
        "looks": grounded(examples, {"clean": "truth", causal.TARGET: "no", causal.CONTROL: "truth"}),
        "sways": grounded(examples, {"clean": "truth", causal.TARGET: "no", causal.CONTROL: "no"}),
    }
    rows = compared("causal", systems, examples, baseline="base")
    assert [rows[name]["score"]["estimate"] for name in systems] == [0.5, 1.0, 0.5]
    assert rows["looks"]["difference"]["estimate"] == 0.5 and rows["looks"]["difference"]["low"] > 0
    assert rows["looks"]["difference"]["p_adjusted"] < 0.01 and rows["sways"]["difference"]["p_adjusted"] == 1.0
    assert "difference" not in rows["base"]


@pytest.mark.parametrize(("suite", "text"), [("hallucinogen", "hm"), ("s_chain", "hm"), ("causal", "hm"), ("eh", "hm")])
def test_what_cannot_be_read_is_counted(suite: str, text: str) -> None:
    examples = [example(k, "yes" if k % 2 else "no") for k in range(4)]
    if suite == "eh":
        examples = [replace(e, answer="AB"[k % 2], options=["Drusen", "Cup"]) for k, e in enumerate(examples)]
    outcomes = [outcome(e, text if k == 0 else e.answer) for k, e in enumerate(examples)]
    assert unread(suite, outcomes, examples) == 0.25
    assert compared(suite, {"base": outcomes}, examples, baseline="base")["base"]["score"]["estimate"] == 0.75


def test_examples_belong_to_the_suites_that_can_ask_them() -> None:
    presence = example(0, "yes")
    attack = example(1, "no", "Where is the nodule?", kind="localisation")
    told = example(2, "yes", slots={"context": "Cough.", "question": "Is there a nodule?"})
    staged = example(3, "yes", slots={"recognition": "A shadow.", "knowledge": "It counts."})
    chain = example(4, "mild", kind="s_chain", full="- Step 1: a")
    eye = example(5, "B", options=["Drusen", "Cup"], slots={"taxonomy": "Visual Understanding"})
    assert [[s for s in SUITES if belongs(s, e)] for e in (presence, attack, told, staged, chain, eye)] == [
        ["causal", "uncertainty"],
        ["hallucinogen", "causal", "uncertainty"],
        ["modality", "causal", "uncertainty"],
        ["causal", "stages", "uncertainty"],
        ["s_chain", "uncertainty"],
        ["uncertainty", "eh"],
    ]
