"""Rewards of reports: worked by hand, and the known hacks, none of which wins over an honest report."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.training import options as O
from clinalign.training import scoring
from clinalign.training.rewards import REWARDS, scored, sentence_set, sentences
from clinalign.training.scoring import Tally, by_radeval, check_rewards, guarded, troubles

TRUTH = (
    "There is cardiomegaly. The lungs show a small nodule in the left upper zone. No consolidation or atelectasis is "
    "seen. The pleural space shows a large pneumothorax on the left. There is no pleural effusion."
)
NORMAL = (
    "There is no cardiomegaly. The lungs are clear, with no nodule, consolidation or atelectasis. The pleural space "
    "is clear, with no pleural effusion or pneumothorax."
)
HONEST = (
    "There is cardiomegaly. The lungs show a small nodule in the right upper zone. No consolidation or atelectasis is "
    "seen. The pleural space shows no pleural effusion or pneumothorax."
)
"""One side wrong, one finding missed: what a model on its way says."""
ALL = (
    "There is cardiomegaly. The lungs show a small nodule in the right upper zone, a small consolidation in the right "
    "lower zone and a small atelectasis in the right lower zone. The pleural space shows a small pleural effusion on "
    "the right and a small pneumothorax on the right."
)
TEMPLATE = (
    "There is no cardiomegaly. The lungs show a small consolidation in the right lower zone. No nodule or atelectasis "
    "is seen. The pleural space shows a small pleural effusion on the right. There is no pneumothorax."
)


def example(answer: str = TRUTH) -> Example:
    return Example("e", ["e.png"], "Describe the findings.", answer, "report")


def values(text: str, answer: str = TRUTH) -> dict[str, float | None]:
    return {name: reward(text, example(answer)) for name, reward in REWARDS.items()}


def test_every_reward_of_the_reference_itself_is_one() -> None:
    assert values(TRUTH) == dict.fromkeys(REWARDS, 1.0) | {"correct": None}


def test_an_honest_report_by_hand() -> None:
    """HONEST states cardiomegaly and a nodule, both there: precision 2/2. Of three findings it states two: recall 2/3.

    The reference denies consolidation, atelectasis and effusion. HONEST denies these (3 right) and the pneumothorax
    (1 wrong): F1 = 2 x 3 / (3 + 1 + 3). Of nodule and pneumothorax, which have a side, none is on it: 0 of 2; of the
    nodule, which has a zone, 1 of 1.
    """
    found = values(HONEST)
    assert found["precision"] == 1 and found["recall"] == pytest.approx(2 / 3)
    assert found["denials"] == pytest.approx(6 / 7)
    assert (found["side"], found["zone"], found["length"]) == (0, 1, 1)


def test_what_does_not_apply_is_none_for_every_report() -> None:
    for text in (NORMAL, ALL, "There is cardiomegaly."):
        found = values(text, NORMAL)
        assert (found["recall"], found["side"], found["zone"]) == (None, None, None)
        assert found["precision"] == float(text == NORMAL)


def test_negation_is_read() -> None:
    assert REWARDS["recall"]("There is no nodule.", example("There is a nodule.")) == 0
    assert REWARDS["precision"]("There is no nodule.", example("There is a nodule.")) == 0


def test_what_the_reference_leaves_open_is_no_invention() -> None:
    assert REWARDS["precision"]("There is a nodule.", example("There may be a nodule. There is cardiomegaly.")) == 1


def test_a_finding_at_two_places_is_at_neither() -> None:
    text = "There is a nodule in the left upper zone. There is a nodule in the right upper zone."
    assert REWARDS["side"](text, example("There is a nodule in the left upper zone.")) == 0


def test_length_by_hand() -> None:
    """10 words wanted: 8 to 12 lose nothing; 16 are 0.4 beyond the fifth: 1 - 0.4 / 0.8; 20 and none are worth 0."""
    truth = " ".join(f"w{n}" for n in range(10))
    for count, value in ((8, 1), (12, 1), (16, 0.5), (20, 0), (40, 0)):
        text = " ".join(f"v{n}" for n in range(count))
        assert REWARDS["length"](text, example(truth)) == pytest.approx(value)
    assert REWARDS["length"](f"{truth}. {truth}.", example(f"{truth}. And as many other words as these are here.")) == 0


@pytest.mark.parametrize("answer", [TRUTH, TRUTH.replace("left", "right"), TRUTH.replace("cardiomegaly", "a fracture")])
@pytest.mark.parametrize(
    "hack", [NORMAL, ALL, TEMPLATE, "There is cardiomegaly.", "Nothing.", " ".join([HONEST] * 3), HONEST + HONEST],
    ids=["denies everything", "lists everything", "template", "short", "empty words", "long", "twice"],
)  # fmt: skip
def test_no_hack_wins_over_an_honest_report(hack: str, answer: str) -> None:
    honest = answer.replace(" The pleural space shows a large pneumothorax on the left.", "")
    assert scored(O.TEXTUAL, hack, example(answer)) < scored(O.TEXTUAL, honest, example(answer))


@pytest.mark.parametrize("hack", [ALL, TEMPLATE])
def test_no_hack_wins_on_a_normal_image(hack: str) -> None:
    assert scored(O.TEXTUAL, hack, example(NORMAL)) < scored(O.TEXTUAL, "There is no cardiomegaly.", example(NORMAL))


SIDE = Example(
    "q", ["q.png"], "Which side is the nodule on?", "left", "open", slots={"side": "left"},
    full="On this image, the nodule is on the left side.",
)  # fmt: skip
SEEN = Example("q", ["q.png"], "Is there a nodule?", "yes", "closed", slots={"presence": "yes"})


@pytest.mark.parametrize(
    ("asked", "right", "hacks"),
    [
        (SIDE, "The nodule is on the left.", ["On this image, the middle zone of the middle zone.", "Right.",
                                              "It is on the left. It is on the right.", "No nodule.", "A nodule."]),
        (SEEN, "There is a nodule.", ["No nodule is seen.", "The lungs are clear.", "Perhaps.", "Yes and no.",
                                      "Upper."]),
    ],
    ids=["open", "closed"],
)  # fmt: skip
def test_a_question_is_rewarded_for_being_answered_rightly(asked: Example, right: str, hacks: list[str]) -> None:
    """To state no finding is no precision where a question has none: that won with words that answer nothing."""
    weights = O.TEXTUAL | {"correct": 1.0}
    of_reports = {name for name in REWARDS if name not in ("length", "overlap", "correct")}
    assert all(REWARDS[name](text, asked) is None for name in of_reports for text in (right, *hacks))
    assert REWARDS["correct"](right, asked) == 1 and [REWARDS["correct"](text, asked) for text in hacks] == [0.0] * 5
    assert all(scored(weights, text, asked) < scored(weights, right, asked) for text in hacks)


def test_a_question_has_a_length_where_its_answer_is_known_as_a_sentence() -> None:
    assert REWARDS["length"]("The nodule is on the left.", SEEN) is None
    assert REWARDS["length"](SIDE.full, SIDE) == 1 and REWARDS["length"]("left", SIDE) == pytest.approx(0.125)
    assert REWARDS["overlap"](SIDE.full, SIDE) == 1


def test_tasks_and_rewards_fit() -> None:
    with pytest.raises(ValueError, match="no textual reward is of them; give rewards.correct a weight"):
        O.ReinforceOptions(tasks=["report", "closed"])
    with pytest.raises(ValueError, match=r"rewards.correct is of questions, and tasks asks for reports alone"):
        O.ReinforceOptions(textual=O.TextualOptions(rewards={"correct": 1.0}))
    mixed = O.TextualOptions(rewards=O.TEXTUAL | {"correct": 2.0})
    assert O.ReinforceOptions(tasks=["report", "closed"], textual=mixed).textual == mixed
    assert O.ReinforceOptions(tasks=["open"], textual=O.TextualOptions(rewards={"overlap": 1.0})).tasks == ["open"]


def embed(texts: list[str]) -> torch.Tensor:
    """Letters counted, of unit length."""
    rows = torch.tensor([[text.count(letter) for letter in "abc"] for text in texts], dtype=torch.float)
    return torch.nn.functional.normalize(rows, dim=-1)


def test_sentence_set_by_hand() -> None:
    """{a, b} and {a}: a finds 1, b finds 0, and back a finds 1: (1/2 + 1) / 2; order and repetition do not count."""
    assert sentence_set("a. b.", example("a."), embed) == pytest.approx(0.75)
    assert sentence_set("b. a. a. b.", example("a. b."), embed) == pytest.approx(1)
    assert sentence_set("", example("a."), embed) == 0 and sentences("One. Two.\nThree") == ["One", "Two", "Three"]


def test_errors_no_numbers_and_empty_reports_are_counted() -> None:
    tally = Tally()

    def broken(text: str, example: Example) -> float:
        raise KeyError("lost")

    reward = guarded("mine", broken, tally)
    assert reward("text", example()) is None and reward(" ", example()) == 0
    assert guarded("other", lambda text, example: math.nan, tally)("text", example()) is None
    assert tally.counts == {"mine/error": 1, "mine/empty": 1, "other/no number": 1}
    assert "KeyError" in troubles(tally.counts, tally.first)["reward mine/error"]


def test_radeval_is_asked_once_and_its_failure_is_everyones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def scores(name: str, references: list[str], texts: list[str]) -> dict[str, list[float]]:
        asked.append(texts)
        return {name: [0.25] * len(texts)}

    tally, every = Tally(), [example()] * 3
    monkeypatch.setattr(scoring.peers, "radeval", scores)
    assert by_radeval("radeval_green", tally, ["a", "", "b"], every) == [0.25, 0.0, 0.25]
    assert asked == [["a", "b"]] and tally.counts == {"radeval_green/empty": 1}
    monkeypatch.setattr(scoring.peers, "radeval", lambda *given: {})
    assert by_radeval("radeval_green", tally, ["a", "b"], every[:2]) == [None, None]
    assert tally.counts["radeval_green/error"] == 2


def test_the_names_of_the_options_are_those_that_are_known() -> None:
    assert O.REWARD_NAMES == scoring.NAMES
    assert set(O.OF_REPORTS) == {name for name, reward in REWARDS.items() if reward(TRUTH, SEEN) is None}


def test_what_is_not_installed_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"reward radeval_green needs radeval; install it with"):
        check_rewards(["precision", "radeval_green"])
    with pytest.raises(UsageError, match="no_such_module"):
        check_rewards(["no_such_module:reward"])
