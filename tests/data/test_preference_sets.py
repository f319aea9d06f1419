"""MMedPO, RRPO, TRL and LLaVA files, tables in more shapes, and data sets through `datasets`."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import ingest, picture, reasons, summary, write_json

from clinalign.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png", "röntgen ü.png")):
        picture(tmp_path / "data" / name, number)
    return tmp_path / "data"


def weighted(number: int, image: str, chosen: str, rejected: str) -> dict:
    asked = {"from": "human", "value": "<image>\nIs there an effusion?"}
    return {
        "id": number,
        "image": image,
        "conversations": [asked, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [asked, {"from": "gpt", "value": rejected}],
        "weighted_score": 0.8,
    }


def test_mmedpo(folder: Path, tmp_path: Path, capsys) -> None:
    long = "The lungs are clear. " * 10
    rows = [
        weighted(0, "a.png", " Yes", "No, there is none."),
        weighted(1, "b.png", long, "There is a large effusion."),
        weighted(2, "b.png", "Yes", " yes "),
        weighted(3, "b.png", "The XXXX is normal", "No"),
        weighted(4, "none.png", "Yes", "No"),
        weighted(5, "b.png", "Yes", "yes "),
    ]
    write_json(folder / "slake_dpo_weighted.json", rows)
    examples, quarantine = ingest(tmp_path / "out", "mmedpo", folder / "slake_dpo_weighted.json")
    assert [(e.id, e.question, e.answer, e.rejected) for e in examples[:1]] == [
        ("0", "Is there an effusion?", "Yes", "No, there is none.")
    ]
    assert [e.task for e in examples[:2]] == ["closed", "report"] and examples[0].meta["weighted_score"] == 0.8
    assert reasons(quarantine)[:2] == [
        ("slake_dpo_weighted.json", 4, "answer", "placeholder"),
        ("slake_dpo_weighted.json", 5, "images", "missing_image"),
    ]
    assert "6 rows, published are 4919" in capsys.readouterr().err
    (folder / "imgs").mkdir()
    (folder / "a.png").rename(folder / "imgs" / "a.png")
    examples, _ = ingest(tmp_path / "b", "mmedpo", folder / "slake_dpo_weighted.json", images=str(folder / "imgs"))
    assert [e.id for e in examples] == ["0"]
    with pytest.raises(UsageError, match="data.images"):
        ingest(tmp_path / "c", "mmedpo", folder / "slake_dpo_weighted.json", images=str(folder / "none"))


def test_the_two_sides_must_differ(folder: Path, tmp_path: Path) -> None:
    rows = [weighted(0, "a.png", "Yes", "No"), weighted(1, "a.png", "Yes", " Yes"), weighted(2, "a.png", "Yes", "")]
    write_json(folder / "x.json", rows)
    _, quarantine = ingest(tmp_path / "out", "mmedpo", folder / "x.json")
    assert [(r["row"], r["field"], r["reason"]) for r in quarantine.rows] == [
        (2, "rejected", "same_as_chosen"),
        (3, "rejected", "empty_rejected"),
    ]


def test_rrpo(folder: Path, tmp_path: Path) -> None:
    base = {
        "question": "<image>\nWhere is it?",
        "answer": "It is on the left side.",
        "pred": "It is on the right side.",
        "answer_masked": "It is on the <MASK> left </MASK> side.",
        "pred_masked": "It is on the <MASK> right </MASK> side.",
        "src": "own",
    }
    rows = [
        base | {"sample_id": 0, "image": "a.png"},
        base | {"sample_id": 1, "video": "video.mp4"},
        {k: v for k, v in base.items() if k not in ("answer", "pred")} | {"sample_id": 2, "images": ["b.png"]},
    ]
    write_json(folder / "rrpo.json", rows)
    examples, quarantine = ingest(tmp_path / "out", "rrpo", folder / "rrpo.json")
    for example in examples:
        assert (example.answer, example.rejected) == ("It is on the left side.", "It is on the right side.")
        assert example.meta["answer_phrases"] == ["left"] and example.meta["pred_phrases"] == ["right"]
    assert reasons(quarantine) == [("rrpo.json", 2, "images", "video")]


def user(text: str, image: bool = True) -> dict:
    return {"role": "user", "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def parts(value):
    """A column has one type: every content as a list of parts."""
    if not isinstance(value, list) or not isinstance(value[0], dict):
        return value
    plain = [message for message in value if isinstance(message["content"], str)]
    return [m | {"content": [{"type": "text", "text": m["content"]}]} if m in plain else m for m in value]


TRL = [
    {"prompt": [user("Which side?")], "chosen": [said("left")], "rejected": [said("right")], "images": ["a.png"]},
    {"prompt": "Which side?", "chosen": "left", "rejected": "right", "images": ["a.png"]},
    {"chosen": [user("Which side?"), said("left")], "rejected": [user("Which side?"), said("right")], "image": "a.png"},
    {"prompt": [{"role": "system", "content": "s"}, user("Which side?", False)], "chosen": [said("left")],
     "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "right"}]}], "images": ["a.png"]},
]  # fmt: skip


@pytest.mark.parametrize("row", TRL, ids=["messages", "plain", "implicit prompt", "system"])
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_trl_preferences(folder: Path, tmp_path: Path, row: dict, form: str) -> None:
    path = folder / f"p.{form}"
    if form == "jsonl":
        path.write_text(json.dumps(row))
    elif form == "json":
        write_json(path, [row])
    else:
        pq.write_table(pa.Table.from_pylist([{name: parts(value) for name, value in row.items()}]), path)
    [example], _ = ingest(tmp_path / "out", "trl", path)
    assert (example.question, example.answer, example.rejected) == ("Which side?", "left", "right")
    assert len(example.images) == 1


def test_trl_rows_that_are_no_preference(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Which side?", "completion": "left", "images": ["a.png"]},
        {"messages": [user("Which side?"), said("left")], "images": ["a.png"]},
        {"prompt": [user("a"), said("b"), user("c")], "chosen": [said("x")], "rejected": [said("y")]},
        {"prompt": "q", "chosen": "x"},
        {"prompt": "q", "chosen": 3, "rejected": "y"},
        {"images": ["a.png"]},
    ]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, quarantine = ingest(tmp_path / "out", "trl", folder / "p.jsonl")
    assert [e.answer for e in examples] == ["left", "left"] and not examples[0].rejected
    assert [(r["row"], r["reason"]) for r in quarantine.rows] == [
        (3, "several_turns"),
        (4, "empty_rejected"),
        (5, "bad_chosen"),
        (6, "missing_field"),
    ]


def test_llava_conversations(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": "a.png", "conversations": [
            {"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "A chest X-ray."},
            {"from": "human", "value": "Is it normal?"}, {"from": "gpt", "value": "Yes"}]},
        {"id": "2", "image": "röntgen ü.png", "conversations": [
            {"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": ""}]},
        {"id": "3", "image": "b.png", "conversations": [{"from": "narrator", "value": "q"}]},
    ]  # fmt: skip
    write_json(folder / "llava.json", rows)
    examples, quarantine = ingest(tmp_path / "out", "llava", folder / "llava.json")
    assert [(e.id, e.question, e.answer, e.task) for e in examples] == [
        ("1-0", "What is it?", "A chest X-ray.", "open"),
        ("1-1", "Is it normal?", "Yes", "closed"),
    ]
    assert examples[0].images == examples[1].images
    assert [(r["row"], r["reason"]) for r in quarantine.rows] == [(2, "empty_answer"), (3, "bad_conversations")]


def test_tables_in_more_shapes(folder: Path, tmp_path: Path) -> None:
    row = {"file": "röntgen ü.png", "q": "Which side?", "a": "left", "part": "train"}
    columns = {"image": "file", "question": "q", "answer": "a", "split": "part"}
    with gzip.open(folder / "t.csv.gz", "wt", encoding="utf-8") as file:
        file.write("file,q,a,part\n" + ",".join(row.values()) + "\n")
    write_json(folder / "t.json", [row])
    write_json(folder / "by_split.json", {"train": [{k: v for k, v in row.items() if k != "part"}], "test": []})
    image = {"bytes": (folder / "röntgen ü.png").read_bytes(), "path": "x.png"}
    pq.write_table(pa.Table.from_pylist([row | {"file": image}]), folder / "t.parquet")
    found = [ingest(tmp_path / n, "table", folder / n, columns=columns)[0] for n in ("t.csv.gz", "t.json", "t.parquet")]
    found += [ingest(tmp_path / "s", "table", folder / "by_split.json", columns=columns | {"split": "split"})[0]]
    assert all(examples == found[0] for examples in found) and found[0][0].split == "align"


def test_a_label_map_and_the_sides_of_a_preference_in_a_table(folder: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    labels = np.zeros((24, 20), dtype=np.uint8)
    labels[2:4, 2:4], labels[6:9, 6:9] = 1, 2
    Image.fromarray(labels).save(folder / "labels.png")
    row = {"image": "a.png", "question": "q", "answer": "left", "rejected": "right", "mask": "labels.png"}
    rows = [row | {"mask_value": 2}, row | {"mask_value": 5}, row]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, quarantine = ingest(tmp_path / "out", "table", folder / "t.jsonl")
    from clinalign.imaging.images import read_mask

    assert [read_mask(tmp_path / "out" / e.regions[0].mask).sum() for e in examples] == [9, 13]
    assert examples[0].rejected == "right"
    assert [(r["row"], r["reason"]) for r in quarantine.rows] == [(2, "empty_mask")]


def test_a_folder_of_the_hub_without_the_hub(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    base = tmp_path / "set"
    (base / "data").mkdir(parents=True)
    for split, name in (("train", "a.png"), ("test", "b.png")):
        image = {"bytes": (folder / name).read_bytes(), "path": name}
        rows = [{"picture": image, "question": "q", "answer": "yes"}, {"picture": image, "question": "q", "answer": ""}]
        pq.write_table(pa.Table.from_pylist(rows), base / "data" / f"{split}-00000-of-00001.parquet")
    examples, quarantine = ingest(tmp_path / "out", "hub", base, columns={"image": "picture"})
    assert [(e.split, e.task) for e in examples] == [("align", "closed"), ("test", "closed")]
    assert [(r["file"], r["row"], r["reason"]) for r in quarantine.rows] == [
        ("train", 2, "empty_answer"),
        ("test", 2, "empty_answer"),
    ]
    with pytest.raises(UsageError, match="no column 'image'"):
        ingest(tmp_path / "b", "hub", base)
    with pytest.raises(UsageError, match="cannot open it through datasets"):
        ingest(tmp_path / "c", "hub", Path("nobody/no-such-set"))


def test_the_counts_of_an_ingest_are_written_down(folder: Path, tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "q", "answer": a} for a in ("yes", "", "no")]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(tmp_path / "out", "table", folder / "t.jsonl")
    assert summary(tmp_path / "out") == {
        "source": "table",
        "rows": {"t.jsonl": 3},
        "usable": {"t.jsonl": 2},
        "rejected": {"empty_answer": 1},
        "filtered": {},
        "published": {},
        "warnings": [],
    }
