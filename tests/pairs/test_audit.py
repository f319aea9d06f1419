"""The audit: three corpora of the same records, every layout, every leak, and its own arithmetic."""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clinalign.data.preferences import FORMATS, Preference, read_corpus
from clinalign.errors import UsageError
from clinalign.pairs import PairOptions, audit_file, audit_pairs, build_pairs, reference_pairs, style
from clinalign.pairs.audit import RULES, audit, describe, read_test_set
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine, write_table

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from test_build_pairs import phantoms
from tokenizers_small import byte_level


@pytest.fixture(scope="module")
def records() -> tuple[list[Example], list[Answer]]:
    """Phantom questions and a biased speaker's answers, an image a patient."""
    examples, answers = phantoms(60)
    return [replace(e, images=[f"images/{e.id.partition('-')[0]}.png"]) for e in examples], answers


@pytest.fixture(scope="module")
def minimal(records: tuple[list[Example], list[Answer]], tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    quarantine = Quarantine(tmp_path_factory.mktemp("q") / "quarantine.jsonl")
    return build_pairs(*records, byte_level(), PairOptions(), quarantine)


def terse(pairs: list[Pair]) -> list[Pair]:
    """The same pairs with their chosen side cut down to the words that differ, or to the last three."""
    out = []
    for pair in pairs:
        said = " ".join(pair.chosen[start:end] for start, end in pair.chosen_spans) or pair.chosen[-20:]
        out.append(replace(pair, chosen=said, chosen_spans=[[0, len(said)]]))
    return out


def test_the_audit_passes_minimal_edits_and_fails_reference_style_and_terse_corpora(
    records: tuple[list[Example], list[Answer]], minimal: list[Pair], tmp_path: Path
) -> None:
    examples, answers = records
    good = audit_pairs(minimal, examples, tmp_path)
    assert good["verdict"] == "pass" and good["reasons"] == [] and good["pairs"] > 200
    reference = reference_pairs(examples, answers, byte_level(), Quarantine(tmp_path / "q.jsonl"))
    for bad in (reference, terse(minimal)):
        found = audit_pairs(bad, examples, tmp_path)
        assert found["verdict"] == "fail"
        assert found["checks"]["length_only"]["value"] > 0.9
        assert any("length alone" in reason for reason in found["reasons"])
        assert {found["checks"][name]["verdict"] for name in ("length_only", "form_only")} == {"fail"}


def rows(sides: list[tuple[str, str]], **more: object) -> list[Preference]:
    return [Preference(str(n), f"q{n}", a, b, (), Path(), **more) for n, (a, b) in enumerate(sides)]


def test_negation_that_names_the_chosen_side_fails_and_balanced_negation_passes() -> None:
    flip = ("There is no effusion.", "There is an effusion.")
    always = audit(rows([flip] * 60))
    assert always["checks"]["negation_only"]["verdict"] == "fail"
    assert always["checks"]["presence_imbalance"] == {"value": 1.0, "verdict": "warn", "warn": 0.8, "fail": None}
    rng = random.Random(0)
    balanced = audit(rows([flip if rng.random() < 0.5 else flip[::-1] for _ in range(200)]))
    assert balanced["checks"]["negation_only"]["verdict"] == "pass"


def test_a_few_pairs_are_not_refused_by_chance() -> None:
    few = audit(rows([("Yes, a small one.", "No such thing is there.")] * 3 + [("No it is not.", "Yes.")]))
    assert few["verdict"] == "warn"
    assert "too few" in few["reasons"][-1]


def test_length_only_accuracy_by_hand() -> None:
    """Chosen is shorter in 6 pairs, as long in 2, longer in 2. Every fold learns "shorter": (6 + 2 / 2) / 10 = 0.7."""
    sides = [("a b", "a b c")] * 6 + [("a b", "a c")] * 2 + [("a b c", "a b")] * 2
    told = style.held_out_accuracy(style.length_features(sides), [str(n) for n in range(10)])
    assert told.accuracy == pytest.approx(0.7)
    # 6 x (1 - .7)^2 + 2 x (.5 - .7)^2 + 2 x (0 - .7)^2 = 1.6; 1.96 sqrt(1.6) / 10 = 0.248
    assert (told.low, told.high) == (pytest.approx(0.7 - 0.2479, abs=1e-4), pytest.approx(0.7 + 0.2479, abs=1e-4))


def test_a_classifier_does_not_learn_from_its_own_fold() -> None:
    """Each group has a word of its own that names its chosen side: held out, the words tell nothing."""
    sides = [(f"w{n} x", f"v{n} x") for n in range(50) for _ in range(4)]
    groups = [str(n) for n in range(50) for _ in range(4)]
    assert style.held_out_accuracy(style.word_features(sides), groups).accuracy == 0.5
    apart = [str(n) for n in range(200)]  # the same without groups: it leaks
    assert style.held_out_accuracy(style.word_features(sides), apart).accuracy > 0.9


def test_swapping_the_sides_changes_no_accuracy() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0.3, 1.0, (80, 3))
    groups = [str(n) for n in range(80)]
    assert style.held_out_accuracy(features, groups) == style.held_out_accuracy(-features, groups)


def test_repeats_and_contradictions_by_hand() -> None:
    """4 pairs: one repeated, one that contradicts both (so three are contradictory), one without an edit."""
    made = rows([("Left.", "Right."), ("Left.", "Right."), ("Right.", "Left."), ("Same.", "Same.")])
    for row in made[:3]:
        row.prompt = "Which side?"
    checks = audit(made)["checks"]
    assert checks["duplicate_share"]["value"] == 0.25
    assert checks["contradictory_share"]["value"] == 0.75
    assert checks["same_sides_share"]["value"] == 0.25


@pytest.mark.parametrize("kind", ["path", "content", "patient", "example"])
def test_a_leak_of_the_test_set_fails(minimal: list[Pair], tmp_path: Path, kind: str) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "images" / name).write_bytes(f"pixels of {name}".encode())
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "copy.png")
    pairs = [replace(pair, images=["images/a.png"], prompt=f"{n}: {pair.prompt}") for n, pair in enumerate(minimal)]
    learnt = [Example(pair.example_id, ["images/a.png"], "q", "a", patient_id="p1", split="align") for pair in pairs]
    held = {
        "path": Example("t", ["images/a.png"], "q", "a", patient_id="p2", split="test"),
        "content": Example("t", ["images/copy.png"], "q", "a", patient_id="p2", split="test"),
        "patient": Example("t", ["images/b.png"], "q", "a", patient_id="p1", split="test"),
        "example": Example(pairs[0].example_id, ["images/b.png"], "q", "a", patient_id="p2", split="test"),
    }
    clean = Example("t", ["images/c.png"], "q", "a", patient_id="p2", split="test")
    assert audit_pairs(pairs, [*learnt, clean], tmp_path)["verdict"] == "pass"
    found = audit_pairs(pairs, [*learnt, held[kind]], tmp_path)
    assert found["verdict"] == "fail" and found["checks"]["test_leaks"]["value"] >= 1
    assert "test set" in found["reasons"][0]


PICTURE = {"image": "x.png"}
FOREIGN: dict[str, dict[str, object]] = {
    "TRL": {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}],
        "chosen": [{"role": "assistant", "content": "It is on the left."}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "It is on the right."}]}],
        "images": ["x.png"],
    },
    "MMedPO": PICTURE
    | {
        "id": 7,
        "conversations": [
            {"from": "human", "value": "<image>\nWhere?"},
            {"from": "gpt", "value": " It is on the left."},
        ],
        "rejected_conversations": [
            {"from": "human", "value": "<image>\nWhere?"},
            {"from": "gpt", "value": " It is on the right."},
        ],
        "weighted_score": 0.8,
    },
    "RRPO": {
        "question": "<image>\nWhere?",
        "answer": "It is on the left.",
        "pred": "It is on the right.",
        "answer_masked": "It is on the <MASK> left </MASK>.",
        "pred_masked": "It is on the <MASK> right </MASK>.",
        "sample_id": 0,
        "video": "x.png",
    },
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "<image>Where?"}],
        "chosen": {"from": "gpt", "value": "It is on the left."},
        "rejected": {"from": "gpt", "value": "It is on the right."},
        "images": ["x.png"],
    },
    "ms-swift": {
        "messages": [
            {"role": "user", "content": "<image>Where?"},
            {"role": "assistant", "content": "It is on the left."},
        ],
        "rejected_response": "It is on the right.",
        "images": ["x.png"],
    },
}


@pytest.mark.parametrize("layout", FOREIGN)
def test_every_layout_gives_the_same_row(tmp_path: Path, layout: str) -> None:
    for name, text in (("a.json", json.dumps([FOREIGN[layout]])), ("a.jsonl", json.dumps(FOREIGN[layout]) + "\n")):
        (tmp_path / name).write_text(text)
        corpus = read_corpus(tmp_path / name)
        (row,) = corpus.rows
        assert corpus.format == layout and corpus.unreadable == []
        assert (row.prompt, row.chosen, row.rejected) == ("Where?", "It is on the left.", "It is on the right.")
        assert row.images == ("x.png",)
    assert row.spans == (([[13, 17]], [[13, 18]]) if layout == "RRPO" else None)


def test_standard_and_promptless_trl_rows(tmp_path: Path) -> None:
    user, one, two = (
        {"role": r, "content": c} for r, c in (("user", "Where?"), ("assistant", "A"), ("assistant", "B"))
    )
    lines = [{"prompt": "Where?", "chosen": "A", "rejected": "B"}, {"chosen": [user, one], "rejected": [user, two]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(r.prompt, r.chosen, r.rejected) for r in read_corpus(tmp_path / "a.jsonl").rows] == [
        ("Where?", "A", "B")
    ] * 2


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_our_own_table_from_a_file_and_a_run_folder(minimal: list[Pair], tmp_path: Path, suffix: str) -> None:
    write_table(tmp_path / f"corrupted_pairs{suffix}", minimal, Pair)
    found = audit_file(tmp_path / f"corrupted_pairs{suffix}")
    assert (found["verdict"], found["layout"], found["pairs"]) == ("pass", "clinalign", len(minimal))
    assert found["checks"]["test_leaks"]["verdict"] == "not checked" and "--test" in describe(found)
    examples = [Example(p.example_id, [], "q", "a", patient_id="p", split="align") for p in minimal]
    write_table(
        tmp_path / "examples.parquet", [*examples, Example("t", [], "q", "a", patient_id="p", split="test")], Example
    )
    again = audit_file(tmp_path if suffix == ".parquet" else tmp_path / "corrupted_pairs.jsonl")
    assert again["verdict"] == "fail" and again["numbers"]["leaked_patients"] == len(minimal)


def test_a_test_set_can_be_a_corpus_of_another_layout(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([FOREIGN["MMedPO"]]))
    (tmp_path / "pairs.json").write_text(json.dumps([FOREIGN["TRL"]] * 40))
    assert set(read_test_set(tmp_path / "test.json").images) == {"x.png"}
    assert audit_file(tmp_path / "pairs.json", tmp_path / "test.json")["checks"]["test_leaks"]["verdict"] == "fail"


def test_rows_that_cannot_be_read_are_counted_with_row_and_reason(tmp_path: Path) -> None:
    bad = {"prompt": "q", "chosen": 3, "rejected": "b"}
    (tmp_path / "a.json").write_text(json.dumps([FOREIGN["TRL"]] * 8 + [bad, {"x": 1}]))
    found = audit_file(tmp_path / "a.json")
    assert [item["row"] for item in found["unreadable"]] == [9, 10]
    assert found["checks"]["unreadable_share"]["verdict"] == "fail"


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("a.json", "[{}]", "no preference pair"),
        ("a.json", "{}", "one list"),
        ("a.json", "[", "not JSON"),
        ("a.jsonl", "{}\n{", "a.jsonl:2"),
        ("a.csv", "a,b", "'.csv'"),
        ("a.parquet", "x", "not a Parquet"),
    ],
)
def test_a_file_that_is_no_corpus_is_refused_in_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=says) as refused:
        audit_file(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_folder_is_a_run_or_holds_one_corpus(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no corrupted_pairs.parquet and 0 other tables"):
        audit_file(tmp_path)
    (tmp_path / "clinalign.json").write_text(json.dumps([FOREIGN["LLaMA-Factory"]]))
    (tmp_path / "dataset_info.json").write_text("{}")
    assert audit_file(tmp_path)["layout"] == "LLaMA-Factory"
    (tmp_path / "more.jsonl").write_text("")
    with pytest.raises(UsageError, match="2 other tables"):
        audit_file(tmp_path)


def test_every_measure_has_its_bounds_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[2].lstrip("<> ") == f"{rule.warn:g}"
        assert cells[3].lstrip("<> ") == ("never" if rule.fail is None else f"{rule.fail:g}")
    assert all(name in text for name in FORMATS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_line_of_a_corpus_ends_at_a_line_feed_and_a_mark_is_passed_over(tmp_path: Path, name: str, mark: str) -> None:
    rows = [{"prompt": f"Where {n}?", "chosen": f"left {n}", "rejected": f"right {n}"} for n in range(4)]
    rows[2]["chosen"] = "left\u2028 side\u0085 2"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\n".join(lines) if name == "a.jsonl" else "[" + ",".join(lines) + "]"
    (tmp_path / name).write_bytes(text.encode(mark))
    assert [row.chosen for row in read_corpus(tmp_path / name).rows] == [row["chosen"] for row in rows]
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        read_corpus(tmp_path / name)
