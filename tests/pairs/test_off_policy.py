"""Pairs that a data set brings: spans by alignment, ids shared outside them, every other row accounted for."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from clinalign.data.preferences import preferences_of
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.language.offsets import decode, token_offsets
from clinalign.pairs import PairOptions, dataset_pairs, informed, misled_pairs
from clinalign.pairs.audit import audit
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Example, Pair, Region
from clinalign.run import execute
from clinalign.storage import Quarantine, read_table

GIVEN = PairOptions(editor="dataset")


def example(name: str, chosen: str, rejected: str | None, **more) -> Example:
    fields = dict(question="Where is the nodule?", answer=chosen, rejected=rejected or "")
    return Example(id=name, images=["a.png"], **fields, **more)


CASES = [
    ("There is a nodule in the left upper lung.", "There is a nodule in the right upper lung.", ["left"], ["right"]),
    ("No pleural effusion is seen.", "A pleural effusion is seen.", ["No"], ["A"]),
    ("left", "right, and it is large", ["left"], ["right, and it is large"]),
    ("The heart is of normal size. No effusion.", "The heart is of normal size.", [" No effusion."], []),
]


@pytest.mark.parametrize(("chosen", "rejected", "own", "other"), CASES)
def test_spans_by_alignment(tmp_path: Path, chosen: str, rejected: str, own: list[str], other: list[str]) -> None:
    tokenizer = tiny.tokenizer()
    quarantine = Quarantine(tmp_path / "q.jsonl")
    [pair] = dataset_pairs([example("a", chosen, f" {rejected} ")], tokenizer, GIVEN, quarantine)
    assert decode(tokenizer, pair.chosen_token_ids).strip() == pair.chosen == chosen
    assert decode(tokenizer, pair.rejected_token_ids).strip() == pair.rejected == rejected
    assert pair.chosen_token_ids[-1] == pair.rejected_token_ids[-1] == tokenizer.eos_token_id
    assert pair.own == "none" and pair.editor == pair.edit_kind == "dataset"
    said = [
        [text[s:e].strip() for s, e in spans]
        for text, spans in ((chosen, pair.chosen_spans), (rejected, pair.rejected_spans))
    ]
    assert said == [[text.strip() for text in own], other]
    outside = []
    for text, ids, spans in (
        (chosen, pair.chosen_token_ids, pair.chosen_spans),
        (rejected, pair.rejected_token_ids, pair.rejected_spans),
    ):
        ranges = token_offsets(tokenizer, ids, text)
        outside.append([i for i, (a, b) in zip(ids, ranges) if not any(a < e and s < b for s, e in spans)])
    assert outside[0] == outside[1]


def test_what_gives_no_pair_is_named(tmp_path: Path) -> None:
    rows = [
        example("a", "left", "right", regions=[Region("nodule", [1, 1, 2, 2])]),
        example("b", "left", None),
        example("c", "left", " left"),
        example("d", "left", ""),
    ]
    quarantine = Quarantine(tmp_path / "q.jsonl")
    [pair] = dataset_pairs(rows, tiny.tokenizer(), GIVEN, quarantine)
    assert pair.region is not None and pair.region_source == "dataset"
    found = [(row["id"], row["reason"]) for row in quarantine.rows]
    assert found == [("b", "no_rejected"), ("c", "nothing_changed"), ("d", "no_rejected")]
    assert "own text" not in str(audit(preferences_of([pair] * 40, tmp_path))["reasons"])


def test_recipes_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rounds to 1"):
        load_recipe("phantom", ["pair.editor=dataset", "rounds=2"])
    with pytest.raises(UsageError, match="decisions are about made pairs"):
        load_recipe("phantom", ["pair.editor=dataset", "pair.decisions=x.jsonl"])


@pytest.mark.slow
def test_a_preference_file_enters_training(tmp_path: Path) -> None:
    """From an MMedPO file to an adapter and a page, without answers; what the audit finds does not stop it here."""
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
        asked = {"from": "human", "value": "<image>\nOn which side is the nodule?"}
        sides = ("left", "right") if number % 2 else ("right", "left")
        said = [[asked, {"from": "gpt", "value": f"The nodule is on the {side}."}] for side in sides]
        rows.append(
            {"id": number, "image": f"{number}.png", "conversations": said[0], "rejected_conversations": said[1]}
        )
    (data / "p.json").write_text(json.dumps(rows))
    out = tmp_path / "run"
    small = ["align.max_steps=2", "align.batch=4", "evaluate.resamples=100", "evaluate.permutations=100", "compare={}"]
    chosen = [f"data={{source: mmedpo, path: {data / 'p.json'}}}", "pair.editor=dataset", "audit=go_on"]
    recipe = load_recipe("phantom", [*small, *chosen, f"align.cache={tmp_path / 'cache'}"])
    execute(Run(recipe, out))
    pairs = read_table(out / "corrupted_pairs.parquet", Pair)
    assert len(pairs) > 5 and all(p.own == "none" and p.chosen_spans and p.corrupted_images for p in pairs)
    assert not (out / "answers.parquet").exists() and (out / "adapter" / "adapter_model.safetensors").is_file()
    assert (out / "report.html").is_file() and "answer" not in json.loads((out / "run.json").read_text())["stages"]
    execute(Run(recipe, out, resume=True))


def answered(name: str, text: str, prompt: str = "Where is the nodule?") -> Answer:
    ids = tiny.tokenizer()(text, add_special_tokens=False)["input_ids"] + [tiny.tokenizer().eos_token_id]
    return Answer(name, "m", 0, prompt, text, ids, "stop")


def test_what_was_retrieved_stands_before_the_question() -> None:
    given = [example("a", "left", None), example("b", "left", None), example("c", "left", None)]
    asked = informed(given, {"a": " Most nodules are on the right.\n", "b": "  "})
    assert [one.id for one in asked] == ["a"]
    assert asked[0].question == "Reference text: Most nodules are on the right.\nWhere is the nodule?"
    assert given[0].question == "Where is the nodule?"


def test_an_answer_that_a_retrieved_text_turned_wrong_is_a_pair(tmp_path: Path) -> None:
    """Right alone and wrong beside it (a); right both times (b), wrong alone (c) and without a text (d) are none. The
    prompt holds the text, the wrong answer has its sampled ids, and the spans are what differs."""
    tokenizer, quarantine = tiny.tokenizer(), Quarantine(tmp_path / "q.jsonl")
    right, wrong = "The nodule is in the left lung.", "The nodule is in the right lung."
    slots = {"side": "left"}
    examples = [example(name, "left", None, slots=slots) for name in "abcd"]
    alone = [answered("a", right), answered("b", right), answered("c", wrong), answered("d", right)]
    prompt = "Reference text: It is on the right.\nWhere is the nodule?"
    beside = [answered(name, text, prompt) for name, text in (("a", wrong), ("b", right), ("c", wrong))]
    options = PairOptions(editor="retrieval", retrieved="texts.jsonl")
    [pair] = misled_pairs(examples, alone, beside, tokenizer, options, quarantine)
    assert (pair.example_id, pair.prompt, pair.chosen, pair.rejected) == ("a", prompt, right, wrong)
    assert pair.rejected_token_ids == beside[0].token_ids and pair.own == "rejected" and not pair.was_correct
    assert [right[s:e] for s, e in pair.chosen_spans] == ["left"]
    assert [wrong[s:e] for s, e in pair.rejected_spans] == ["right"]
    reasons = [(row["id"], row["reason"]) for row in quarantine.rows]
    assert reasons == [("b", "not_misled"), ("c", "not_misled"), ("d", "not_retrieved")]


def test_the_answer_stage_asks_again_beside_what_was_retrieved(tmp_path: Path) -> None:
    changes = ["data.splits={align: 8, test: 4}", "compare={}", "pair.editor=retrieval"]
    texts = tmp_path / "texts.jsonl"
    recipe = load_recipe("phantom", [*changes, f"pair.retrieved={texts}"])
    execute(Run(recipe, tmp_path / "run"), only="ingest")
    with pytest.raises(UsageError, match="no such file; pair.retrieved is"):
        execute(Run(recipe, tmp_path / "run", resume=True), only="answer")
    asked = [one for one in read_table(tmp_path / "run" / "examples.parquet", Example) if one.split == "align"]
    lines = [json.dumps({"id": one.id, "text": f"It is {one.id}."}) for one in asked[:7]]
    texts.write_text("\n".join(lines), encoding="utf-8")
    execute(Run(recipe, tmp_path / "run", resume=True), only="answer")
    found = {a.example_id: a.prompt for a in read_table(tmp_path / "run" / "informed_answers.parquet", Answer)}
    assert set(found) <= {one.id for one in asked[:7]} and found
    assert all(prompt.startswith(f"Reference text: It is {name}.\n") for name, prompt in found.items())
    texts.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="texts.jsonl:1: not an object with id and text"):
        execute(Run(recipe, tmp_path / "run", resume=True), only="answer")
