"""The answer that is right under the corrupted image: taken from the pair, written, or left open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny

from clinalign.data.phantom import claims as phantom
from clinalign.data.phantom.scenes import KINDS
from clinalign.pairs import answered_under_corruption
from clinalign.records import Example, Pair, Region


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tiny_llava().tokenizer


def example(question: str, answer: str, task: str = "closed") -> Example:
    return Example("e", ["0.png"], question, answer, task)


def pair(tokenizer: Any, chosen: str, rejected: str, **changes: Any) -> Pair:
    ids = {
        text: [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for text in (chosen, rejected)
    }
    base = Pair(
        id="p", example_id="e", round=0, images=["0.png"], prompt="?", chosen=chosen, rejected=rejected,
        chosen_spans=[[0, 1]], rejected_spans=[[0, 2]], own="rejected", chosen_token_ids=ids[chosen],
        rejected_token_ids=ids[rejected], was_correct=False, edit_kind="presence", editor="rule",
        corrupted_images=["0x.png"], corruption="inpaint", corruption_area="lesion",
    )  # fmt: skip
    return replace(base, **changes)


def answered(tokenizer: Any, given: Pair, asked: Example, flip: str = "evidence") -> Pair:
    return answered_under_corruption([given], [asked], tokenizer, flip=flip)[0]


def test_without_the_lesion_the_denial_is_right(tokenizer: Any) -> None:
    given = pair(tokenizer, "There is a nodule.", "There is no nodule.")
    done = answered(tokenizer, given, example("Is there a nodule?", "Yes."))
    assert done.flips and done.corrupted_answer == given.rejected
    assert done.corrupted_answer_token_ids == given.rejected_token_ids
    assert done.corrupted_answer_spans == given.rejected_spans


def test_of_a_place_the_premise_is_denied_and_the_rejected_answer_stays_wrong(tokenizer: Any) -> None:
    given = pair(tokenizer, "It is in the left lung.", "It is in the right lung.", edit_kind="side")
    done = answered(tokenizer, given, example("On which side is the nodule?", "Left.", "open"))
    assert not done.flips and done.corrupted_answer == "No nodule is seen."
    assert done.corrupted_answer_spans == [[0, 18]]
    assert done.corrupted_answer_token_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(done.corrupted_answer_token_ids[:-1]).strip() == "No nodule is seen."


@pytest.mark.parametrize(
    "changes",
    [{"corruption_area": "image"}, {"corrupted_images": None}, {"corrupted_images": []}],
)
def test_where_no_lesion_was_taken_out_nothing_is_known(tokenizer: Any, changes: dict[str, Any]) -> None:
    given = pair(tokenizer, "There is a nodule.", "There is no nodule.", **changes)
    asked = example("Is there a nodule?", "Yes.")
    assert answered(tokenizer, given, asked) == replace(given, flips=False)
    assert answered(tokenizer, given, asked, "all") == given


def test_an_absent_finding_leaves_nothing_to_take_out(tokenizer: Any) -> None:
    given = pair(tokenizer, "There is no nodule.", "There is a nodule.")
    done = answered(tokenizer, given, example("Is there a nodule?", "No."))
    assert not done.flips and not done.corrupted_answer


def test_as_published_every_corrupted_image_flips(tokenizer: Any) -> None:
    given = pair(tokenizer, "It is in the left lung.", "It is in the right lung.", edit_kind="side")
    assert answered(tokenizer, given, example("On which side is the nodule?", "Left.", "open"), "all").flips


@pytest.mark.parametrize(
    ("question", "chosen", "rejected", "finding"),
    [
        ("Is there a nodule in the left lung?", "There is a nodule in the left lung.",
         "There is a nodule in the right lung.", "nodule"),
        ("Is there a small nodule in the left lung?", "There is a small nodule.", "There is a large nodule.", "nodule"),
        ("Is there a left pleural effusion?", "There is a left pleural effusion.",
         "There is a right pleural effusion.", "pleural effusion"),
        ("Is there a left pleural effusion?", "Yes, it is on the left.", "No, it is on the right.", "pleural effusion"),
        ("Is there a nodule in the left lung?", "There is one in the left lung.",
         "No nodule in the left lung, but there is one in the right lung.", "nodule"),
        ("Is there an adenocarcinoma?", "There is an adenocarcinoma.", "There is a squamous cell carcinoma.",
         "adenocarcinoma"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flip", ["evidence", "all"])
def test_what_says_the_finding_is_elsewhere_is_not_right_without_it(
    tokenizer: Any, question: str, chosen: str, rejected: str, finding: str, flip: str
) -> None:
    """The lesion asked about is gone, and nobody knows of one on the other side, or of another kind."""
    given = pair(tokenizer, chosen, rejected, edit_kind="side")
    done = answered(tokenizer, given, example(question, "Yes."), flip)
    text = f"No {finding} is seen."
    assert done.corrupted_answer == text and done.corrupted_answer_spans == [[0, len(text)]]
    assert tokenizer.decode(done.corrupted_answer_token_ids[:-1]).strip() == text
    assert done.flips == (flip == "all")


@pytest.mark.parametrize(
    ("question", "truth", "chosen", "rejected"),
    [
        ("Is there a nodule in the left lung?", "Yes.", "Yes.", "No."),
        ("Is there a left pleural effusion?", "Yes.", "Left pleural effusion.", "No left pleural effusion."),
        ("Is there a nodule?", "Yes.", "A nodule and an effusion.", "There is no nodule, but an effusion."),
        ("Is there a nodule?", "Yes.", "There is a nodule.", "The lungs are clear."),
        ("Is the heart normal?", "No.", "The heart is enlarged.", "Yes, the heart is normal."),
        ("Is the spleen present?", "Yes.", "Yes.", "No."),
    ],
)
def test_what_denies_the_finding_is_right_without_it(
    tokenizer: Any, question: str, truth: str, chosen: str, rejected: str
) -> None:
    given = pair(tokenizer, chosen, rejected)
    done = answered(tokenizer, given, example(question, truth))
    assert done.flips and done.corrupted_answer_token_ids == given.rejected_token_ids


def test_where_neither_a_denial_nor_the_finding_is_known_there_is_no_answer(tokenizer: Any) -> None:
    given = pair(tokenizer, "Yes.", "It may be.")
    asked = example("Is the spleen present?", "Yes.")
    assert answered(tokenizer, given, asked) == replace(given, flips=False)


def test_every_denial_of_phantom_2_is_taken_as_it_is(tokenizer: Any) -> None:
    for finding in KINDS:
        for wording, (asked, _) in enumerate(zip(phantom.PRESENCE_PROMPTS, phantom.PRESENCE_STYLES, strict=False)):
            said = [phantom.sentence("presence", "presence", finding, value, wording) for value in ("yes", "no")]
            given = pair(tokenizer, *said)
            done = answered(tokenizer, given, example(phantom.fill(asked, finding), "yes"))
            assert done.flips and done.corrupted_answer == given.rejected, (asked, given.rejected)


TWO = [Region("nodule", [1.0, 1.0, 4.0, 4.0]), Region("nodule", [9.0, 9.0, 4.0, 4.0])]
ASKED = [("Is there a nodule?", "Yes.", "closed"), ("On which side is the nodule?", "Left.", "open")]


@pytest.mark.parametrize(("question", "truth", "task"), ASKED)
def test_a_second_lesion_that_stays_leaves_no_answer(tokenizer: Any, question: str, truth: str, task: str) -> None:
    """One region an image is taken out: "No nodule is seen" would be said of an image that shows one."""
    given = pair(tokenizer, "There is a nodule.", "There is no nodule.")
    asked = replace(example(question, truth, task), regions=TWO)
    assert answered(tokenizer, given, asked) == replace(given, flips=False)
    assert answered(tokenizer, given, asked, "all") == given


@pytest.mark.parametrize(
    "regions",
    [
        TWO[:1],
        [TWO[0], TWO[0]],
        [TWO[0], replace(TWO[1], image=1)],
        [TWO[0], Region("effusion", [9.0, 9.0, 4.0, 4.0])],
        [TWO[0], Region("nodule")],
    ],
    ids=["one", "given twice", "on the next slice", "another finding", "without a place"],
)
def test_other_regions_do_not_stand_in_the_way(tokenizer: Any, regions: list[Region]) -> None:
    given = pair(tokenizer, "There is a nodule.", "There is no nodule.")
    asked = replace(example("Is there a nodule?", "Yes."), regions=regions)
    assert answered(tokenizer, given, asked).corrupted_answer == given.rejected


def test_of_anything_at_all_any_other_lesion_stays(tokenizer: Any) -> None:
    given = pair(tokenizer, "There is an abnormality.", "There is no abnormality.")
    asked = replace(example("Is there any abnormality?", "Yes."), regions=[TWO[0], Region("mass", [9, 9, 4, 4])])
    assert not answered(tokenizer, given, asked).corrupted_answer
    organ = replace(asked, regions=[TWO[0], Region("lung", [9, 9, 4, 4])])
    assert answered(tokenizer, given, organ).corrupted_answer == given.rejected


def test_the_exact_image_without_the_finding_shows_none_of_it(tokenizer: Any) -> None:
    given = pair(tokenizer, "There is a nodule.", "There is no nodule.", corruption="counterfactual")
    asked = replace(example("Is there a nodule?", "Yes."), regions=TWO)
    assert answered(tokenizer, given, asked).corrupted_answer == given.rejected
