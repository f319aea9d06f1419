"""The first hour as docs/first-hour.md prints it, on tables with the faults that people's tables have."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import tiny
from PIL import Image

from clinalign.records import Example, Outcome, Pair
from clinalign.storage import read_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-hour.md"


def commands() -> list[str]:
    text = PAGE.read_text(encoding="utf-8").partition("## From a table")[2]
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return [line for line in blocks.split("\n") if line]


def own_table(here: Path) -> None:
    """The example's questions as Excel writes a CSV in Germany, paths as Windows has them, columns by other names, and
    one row of each fault that costs a row."""
    with (ROOT / "examples" / "own_data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"image": "Image Path", "question": "prompt", "answer": "Ground Truth", "patient_id": "Subject ID"}
    good = [{names.get(key, key): value for key, value in row.items() if key != "finding"} for row in rows]
    for row in good:
        row["Image Path"] = row["Image Path"].replace("/", "\\")
    faults = [
        {"Image Path": "images\\missing.png"},
        {"prompt": ""},
        {"Ground Truth": " "},
        {"box": "900, 900, 40, 40"},
        {"task": "essay"},
        {"split": "somewhere"},
        {"Image Path": "torn.png"},
    ]
    (here / "torn.png").write_bytes((ROOT / "examples/images/phantom-02.png").read_bytes()[:200])
    table = good + [good[0] | {"mask": ""} | fault for fault in faults]
    with (here / "questions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(good[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(table)
        file.write("a;row;of;too;many;cells;" + ";" * 8 + "\n")
    book = openpyxl.Workbook()
    for cells in [list(good[0]), *(list(row.values()) for row in good)]:
        book.active.append(cells)
    book.save(here / "questions.xlsx")
    with (here / "labels.csv").open("w", newline="") as file:
        wide = csv.writer(file)
        wide.writerow(["filename", "patient", "Pleural_Effusion", "Nodule"])
        for number in range(1, 13):
            wide.writerow([f"images/phantom-{number:02}.png", f"P{number:02}", number % 2, (number // 2) % 2])


def slake(here: Path) -> None:
    """Twenty questions in the published layout with answers that brightness tells, and one in Chinese; no two images
    are alike, or the readers would find one patient in two splits."""
    splits = ["train"] * 14 + ["validate"] * 2 + ["test"] * 4
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validate": [], "test": []}
    for number, split in enumerate(splits):
        folder = here / "Slake1.0" / "imgs" / f"xmlab{number}"
        folder.mkdir(parents=True)
        blocks = np.random.default_rng(number).integers(0, 120, (8, 8), dtype=np.uint8) + 130 * (number % 2)
        Image.fromarray(blocks.astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST).save(folder / "source.jpg")
        (folder / "detection.json").write_text(json.dumps([{"Lung": [8.0, 8.0, 40.0, 40.0]}]))
        shutil.copyfile(ROOT / "examples/masks/phantom-01.png", folder / "mask.png")
        row = {
            "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": "On which side is the nodule?",
            "answer": ("Left", "Right")[number % 2], "q_lang": "en", "location": "Lung", "modality": "X-Ray",
            "answer_type": "OPEN", "base_type": "vqa", "content_type": "Position", "triple": ["vhead", "_", "_"],
            "qid": number,
        }  # fmt: skip
        rows[split].append(row)
    rows["train"].append(rows["train"][0] | {"q_lang": "zh", "qid": 99, "question": "结节在哪一侧?"})
    for split, found in rows.items():
        (here / "Slake1.0" / f"{split}.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def decide(here: Path) -> None:
    """What the page downloads when a reader rejects one pair and accepts another."""
    first, second = read_table(here / "runs/mine/pairs.parquet", Pair)[:2]
    rows = [
        {"pair": pair.id, "round": 0, "decision": decision, "chosen": pair.chosen, "rejected": pair.rejected}
        for pair, decision in ((first, "reject"), (second, "accept"))
    ]
    (here / "decisions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_first_hour_runs_as_printed(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    for name in ("images", "masks"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    own_table(tmp_path)
    slake(tmp_path)
    tiny.save(tiny.tiny_qwen2_5(), tmp_path / "qwen2_5_vl")
    environment = os.environ | {"CLINALIGN_CACHE": str(tmp_path / "cache"), "COLUMNS": "80"}
    lines = commands()
    assert len(lines) >= 14
    said: dict[str, str] = {}
    for line in lines:
        if line.startswith("clinalign pair"):
            decide(tmp_path)
        words = [sys.executable, "-m", "clinalign", *shlex.split(line)[1:]]
        ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
        assert ended.returncode == 0, f"{line}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        said[line] = ended.stdout + ended.stderr
        assert max(map(len, ended.stdout.splitlines()), default=0) <= 160, line

    reasons = {json.loads(row)["reason"] for row in (tmp_path / "runs/mine/quarantine.jsonl").read_text().splitlines()}
    assert {"missing_image", "empty_question", "empty_answer", "unreadable_image", "wrong_cell_count"} <= reasons
    mine, excel = (read_table(tmp_path / f"runs/{name}/examples.parquet", Example) for name in ("mine", "excel"))
    assert [e.question for e in mine] == [e.question for e in excel] and len(mine) == 36
    asked = {e.question for e in read_table(tmp_path / "runs/labels/examples.parquet", Example)}
    assert asked == {"Is there pleural effusion?", "Is there nodule?"}
    assert {o.system for o in read_table(tmp_path / "runs/slake/outcomes.parquet", Outcome)} >= {"base", "firempo"}
    assert all(
        e.question == "On which side is the nodule?"
        for e in read_table(tmp_path / "runs/slake/examples.parquet", Example)
    )
    rerun = said["clinalign run mine.yaml align.max_steps=4 --out runs/mine --resume"]
    assert "answer: done already" in rerun and "pair: done already" in rerun
    assert {o.decoder for o in read_table(tmp_path / "runs/mine/outcomes.parquet", Outcome)} == {"vcd"}
    assert "<img" not in (tmp_path / "runs/mine/report.html").read_text(encoding="utf-8")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    for way in ("merged", "transformers", "peft"):
        assert "equal" in said[f"clinalign parity runs/mine --with {way}"]
