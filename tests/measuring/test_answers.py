"""On-policy answers: ids kept, truncated ones quarantined, batches that depend on the set alone, resume."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny
from PIL import Image

from clinalign.errors import RowError, UsageError
from clinalign.measuring import answer, evaluate
from clinalign.measuring.asking import Entry
from clinalign.measuring.options import AnswerOptions, EvaluationOptions
from clinalign.records import Example
from clinalign.storage import Journal, Quarantine

END = 0


@dataclass
class Said:
    token_ids: list[int]
    text: str
    finish_reason: str


class Echo:
    """Answers with the mean of the image and the question; every call is kept. Dies after `calls` batches."""

    name = "echo"

    def __init__(self, calls: int = 10**6) -> None:
        self.batches: list[list[str]] = []
        self.calls = calls

    def fingerprint(self):
        return self.name

    def prompt_ids(self, prompt, images):
        if "<image>" in prompt:
            raise RowError("prompt", "image_token_in_prompt", "take it out")
        return list(prompt.encode())

    def generate(self, prompts, *, max_new_tokens, batch_size):
        if len(self.batches) == self.calls:
            raise KeyboardInterrupt
        self.batches.append([question for question, _ in prompts])
        assert batch_size >= len(prompts)
        out = []
        for question, images in prompts:
            text = f"{question} {int(images[0].mean()) if images else 'none'}"
            ids = [*text.encode(), END]
            cut = len(ids) > max_new_tokens
            out.append(Said(ids[:max_new_tokens], text[:max_new_tokens], "length" if cut else "stop"))
        return out


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.fromarray(np.full((4, 4), 10 * number, np.uint8)).save(tmp_path / f"images/{number}.png")
    return tmp_path


@pytest.fixture
def examples():
    return [
        Example(f"e{n}", [f"images/{n % 6}.png"] if n % 5 else [], "why? " + "x" * (n % 7), "yes") for n in range(20)
    ]


OPTIONS = AnswerOptions(max_new_tokens=40, batch_size=4)


def test_ids_are_kept_with_the_end_and_the_order_is_the_examples(folder, examples):
    got = answer(Echo(), examples, folder, OPTIONS, round=2)
    assert [a.example_id for a in got] == [e.id for e in examples]
    assert got[7].text == f"{examples[7].question} 10" and got[7].token_ids == [*got[7].text.encode(), END]
    assert got[7].prompt == examples[7].question and got[7].model == "echo" and got[7].round == 2
    assert got[5].text.endswith("none")


def test_truncated_answers_go_to_quarantine(folder, examples):
    long = replace(examples[3], question="y" * 100)
    quarantine = Quarantine(folder / "quarantine.jsonl")
    got = answer(Echo(), [*examples[:3], long, *examples[4:]], folder, OPTIONS, quarantine=quarantine)
    assert long.id not in {a.example_id for a in got} and len(got) == 19
    (row,) = quarantine.rows
    assert (row["stage"], row["id"], row["row"], row["reason"]) == ("answer", "e3", 4, "truncated")
    assert "max_new_tokens" in row["detail"]


def test_a_missing_image_is_quarantined_and_the_rest_answered(folder, examples):
    quarantine = Quarantine(folder / "quarantine.jsonl")
    bad = replace(examples[1], images=["images/none.png"])
    got = answer(Echo(), [bad, *examples[2:]], folder, OPTIONS, quarantine=quarantine)
    assert len(got) == 18
    assert [(r["id"], r["reason"], r["row"]) for r in quarantine.rows] == [("e1", "missing_image", 1)]


def test_a_prompt_the_model_cannot_take_is_quarantined(folder, examples):
    quarantine = Quarantine(folder / "quarantine.jsonl")
    got = answer(
        Echo(), [replace(examples[1], question="<image> what?"), *examples[2:]], folder, OPTIONS, quarantine=quarantine
    )
    assert len(got) == 18 and [r["reason"] for r in quarantine.rows] == ["image_token_in_prompt"]


def test_batches_do_not_depend_on_the_order(folder, examples):
    one, two = Echo(), Echo()
    first = answer(one, examples, folder, OPTIONS)
    second = answer(two, examples[::-1], folder, OPTIONS)
    assert one.batches == two.batches and first == second[::-1]
    lengths = [[len(q) for q in batch] for batch in one.batches]
    assert max(max(b) - min(b) for b in lengths) <= 6


def test_a_killed_stage_goes_on_and_gives_the_same(folder, examples):
    whole = answer(Echo(), examples, folder, OPTIONS)
    path = folder / "journal"
    with pytest.raises(KeyboardInterrupt):
        answer(Echo(calls=2), examples, folder, OPTIONS, journal=Journal(path, Entry))
    text = path.read_bytes()
    path.write_bytes(text[:-15])  # the kill also cut the last line short
    rest = Echo()
    quarantine = Quarantine(folder / "q.jsonl")
    journal = Journal(path, Entry)
    resumed = answer(rest, examples, folder, OPTIONS, journal=journal, quarantine=quarantine)
    assert resumed == whole and len(rest.batches) == 4  # one of two done, its neighbour cut short: done again whole
    assert quarantine.rows == []


def test_what_workers_made_is_not_made_by_them_again(folder, examples):
    """A worker is told what was answered until its function was sent, in this run too: suites and evaluation ask the
    same questions."""

    def elsewhere(function, items):
        return map(function, items)

    journal = Journal(folder / "journal", Entry)
    first = answer(Echo(), examples, folder, OPTIONS, journal=journal, each=elsewhere)
    assert answer(Echo(calls=0), examples, folder, OPTIONS, journal=journal, each=elsewhere) == first


def test_resume_reports_truncated_answers_again(folder, examples):
    long = [replace(examples[3], question="y" * 100)]
    journal = Journal(folder / "journal", Entry)
    answer(Echo(), long, folder, OPTIONS, journal=journal)
    quarantine = Quarantine(folder / "q.jsonl")
    assert answer(Echo(calls=0), long, folder, OPTIONS, journal=journal, quarantine=quarantine) == []
    assert [row["reason"] for row in quarantine.rows] == ["truncated"]


def test_same_id_twice_is_one_clear_line(folder, examples):
    with pytest.raises(UsageError, match="unique"):
        answer(Echo(), [examples[0], examples[0]], folder, OPTIONS)


def test_importing_the_options_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, clinalign.measuring.options, clinalign.measuring.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_real_model_class_gives_its_own_sampled_ids(folder, examples):
    import tiny

    vlm = tiny.tiny_llava()
    options = AnswerOptions(max_new_tokens=5, batch_size=4)
    journal = Journal(folder / "journal", Entry)
    quarantine = Quarantine(folder / "q.jsonl")
    got = answer(vlm, examples, folder, options, journal=journal, quarantine=quarantine)
    everything = list(journal.rows.values())
    assert len(everything) == 20 == len(got) + len(quarantine.rows)
    assert all(a.text == vlm.decode(a.token_ids) and 0 < len(a.token_ids) <= 5 for a in everything)
    assert all((a.finish_reason == "stop") == (a.token_ids[-1] in vlm.eos_ids) for a in everything)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_what_no_model_can_take_is_left_out_before_any_forward(tmp_path, family: str, monkeypatch):
    """A picture too thin for Qwen's processor and a question longer than the positions, answered and evaluated."""
    vlm = tiny.tiny(family)
    for name, shape in (("good.png", (48, 64)), ("strip.png", (5, 1093))):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(tmp_path / name)
    given = [
        Example(id=name, images=[image], question=question, answer="yes", task="closed", split="test")
        for name, image, question in (
            ("good", "good.png", "Is there an effusion?"),
            ("strip", "strip.png", "Is there an effusion?"),
            ("long", "good.png", "nodule " * vlm.max_positions),
        )
    ]
    refused = {"long": "too_long"} | ({"strip": "picture_refused"} if family == "qwen2_5_vl" else {})
    longest, real = [], vlm.language_model.forward

    def watched(*args, **kwargs):
        longest.append(kwargs["inputs_embeds"].shape[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(vlm.language_model, "forward", watched)
    quarantine = Quarantine(tmp_path / "q.jsonl")
    said = answer(vlm, given, tmp_path, AnswerOptions(max_new_tokens=3), quarantine=quarantine)
    reasons = {row["id"]: row["reason"] for row in quarantine.rows if row["stage"] == "answer"}
    assert {key: reasons[key] for key in refused} == refused and len(said) + len(reasons) == len(given)
    options = EvaluationOptions(max_new_tokens=3, calibration=False, flips=[], grounding=False)
    found = evaluate(vlm, given, tmp_path, options, system="base", quarantine=quarantine)
    left = {row["id"]: row["reason"] for row in quarantine.rows if row["stage"] == "evaluate"}
    assert left == refused and {o.example_id for o in found.outcomes} == {e.id for e in given} - refused.keys()
    assert max(longest) < vlm.max_positions
