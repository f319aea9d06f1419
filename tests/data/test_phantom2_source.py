"""`data.source: phantom2`: what a recipe asks for is what is drawn, and every answer of it can be judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.data.phantom.claims import CHANGE_PROMPTS, CHANGE_STYLES
from clinalign.data.phantom.wording import fill
from clinalign.errors import UsageError
from clinalign.language.judge import judge
from clinalign.recipe import load_recipe
from clinalign.records import Example, files_of
from clinalign.storage import Quarantine

SPLITS = {"align": 4, "dev": 3, "test": 3, "elsewhere": 3, "skills": 1}


def drawn(folder: Path, **options: object) -> list[Example]:
    given = {"source": "phantom2", "splits": SPLITS} | options
    return read(DataOptions.model_validate(given), folder, Quarantine(folder / "quarantine.jsonl"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantom2")


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    return drawn(folder)


def test_every_split_is_drawn_with_its_files(examples: list[Example], folder: Path) -> None:
    assert {e.split for e in examples} == set(SPLITS)
    patients = {split: {e.patient_id for e in examples if e.split == split} for split in SPLITS}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == sum(SPLITS.values())
    assert all((folder / name).is_file() for e in examples for name in files_of(e))
    assert len({e.id for e in examples}) == len(examples)
    assert {e.meta["hospital"] for e in examples if e.split == "elsewhere"} == {"elsewhere"}
    assert any(e.counterfactual and e.regions[0].mask for e in examples if e.split == "test")
    assert all(e.full for e in examples if e.split == "skills")


def test_full_answers_are_right_and_counter_answers_wrong(examples: list[Example]) -> None:
    asked = [e for e in examples if e.split != "skills"]
    for e in asked:
        for text, right in ((e.full, True), (str(e.meta["counter"]), False)):
            assert judge(e.question, text, e.answer, e.task, e.slots).correct is right, (e.question, text)


@pytest.mark.parametrize("truth", ["no prior", "unchanged", "larger"])
def test_a_change_since_an_earlier_image_is_judged(truth: str) -> None:
    for prompt in CHANGE_PROMPTS:
        for value, styles in CHANGE_STYLES.items():
            for text in (fill(style, "pleural effusion") for style in styles):
                found = judge(fill(prompt, "pleural effusion"), text, truth, "open", {"change": truth})
                assert found.correct is (value == truth), text


@pytest.mark.parametrize(
    ("text", "correct"),
    [("The nodule is larger.", False), ("There is no change in the nodule.", False), ("Signs of age.", None),
     ("Without a previous study this cannot be said.", True), ("No nodule is seen.", False)],
)  # fmt: skip
def test_other_words_for_a_change(text: str, correct: bool | None) -> None:
    question = "How has the nodule changed since the prior image?"
    assert judge(question, text, "no prior", "open", {"change": "no prior"}).correct is correct


def test_a_draw_is_of_other_patients_and_a_rung_is_kept(examples: list[Example], tmp_path: Path) -> None:
    other = drawn(tmp_path, draw=1, rungs=[1, 2], splits={"align": 4, "test": 2})
    assert not {e.patient_id for e in other} & {e.patient_id for e in examples}
    assert set(Counter(e.meta["rung"] for e in other)) <= {1, 2}
    assert all(e.id.startswith("phantom-2-") for e in other)


def test_splits_of_other_phantoms_stay_as_they_were() -> None:
    with pytest.raises(UsageError, match="unknown split 'elsewhere'"):
        load_recipe("phantom", ["data.splits.elsewhere=3"])
    with pytest.raises(UsageError, match="unknown split 'else'"):
        load_recipe("phantom", ["data.source=phantom2", "data.splits.else=3"])
