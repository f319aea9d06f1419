"""The page's section on reinforcement."""

from __future__ import annotations

from clinalign.evaluation.reports import marked_report
from clinalign.evaluation.summary import main_system
from clinalign.pages.reinforcement import reinforcement
from clinalign.records import Example, Outcome

TRUTH = "There is cardiomegaly. There is a nodule in the left upper zone. There is a pleural effusion on the left."
EXAMPLE = Example("e", ["e.png"], "Describe the findings.", TRUTH, "report")
TEXT = "There is no cardiomegaly. There is a nodule in the right upper zone. There is a pneumothorax."


def outcome(system: str, text: str) -> Outcome:
    return Outcome("e", "report", "phantom", system, "greedy", 0, "clean", text, None, "rules", "")


def test_a_report_is_marked_finding_by_finding() -> None:
    pieces, missed = marked_report(TEXT, EXAMPLE)
    assert "".join(text for text, _ in pieces) == TEXT
    assert {text: kind for text, kind in pieces if kind} == {
        "cardiomegaly": "denied", "nodule": "misplaced", "pneumothorax": "invented",
    }  # fmt: skip
    assert missed == ["pleural effusion"]
    assert {kind for _, kind in marked_report(TRUTH, EXAMPLE)[0]} == {"", "right"}


def test_every_reward_has_a_curve_and_changed_reports_come_first() -> None:
    rows = [
        {"step": n + 1, "stage": "textual", "loss": 0.0, "reward": 0.1 * n, "rewards/recall/mean": 0.05 * n}
        for n in range(12)
    ]
    found = reinforcement(
        {"sft": [{"step": 1, "loss": 1.0}], "valor": rows},
        {"e": EXAMPLE},
        [outcome("base", TEXT), outcome("valor", TRUTH)],
    )
    assert found is not None
    assert found["names"] == ["VALOR"] and found["stages"] == ["VALOR: textual stage in steps 1 to 12"]
    titles = " ".join(str(chart) for chart in found["charts"])
    assert "recall" in titles and "all rewards, weighted" in titles
    [report] = found["reports"]
    assert [row[0] for row in report["rows"]] == ["before", "after"] and report["rows"][1][2] == []


def test_there_is_none_where_nothing_was_reinforced() -> None:
    assert reinforcement({"sft": [{"step": 1, "loss": 1.0}]}, {}, []) is None


def test_the_system_of_interest_is_named_by_what_made_it() -> None:
    assert main_system({"align": {"method": "sft", "reinforce": None}}) == "sft"
    assert main_system({"align": {"method": "sft", "reinforce": {"textual": {}}}}) == "valor"
