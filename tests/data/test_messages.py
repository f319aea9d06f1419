"""Images in the parts of a message, placeholders against images, and no turn dropped without a word."""

import base64
import json
from pathlib import Path

import pytest
from sources import ingest, picture, reasons, write_json

PNG = "a.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png")):
        picture(tmp_path / "data" / name, number)
    return tmp_path / "data"


def part(kind: str, folder: Path) -> dict:
    packed = base64.b64encode((folder / PNG).read_bytes()).decode()
    return {
        "qwen": {"type": "image", "image": PNG},
        "openai": {"type": "image_url", "image_url": {"url": PNG}},
        "responses": {"type": "input_image", "image_url": PNG},
        "file": {"type": "image", "image": f"file://{folder / PNG}"},
        "data": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{packed}"}},
        "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": packed}},
        "hub": {"type": "image", "image": {"bytes": None, "path": PNG}},
    }[kind]


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


YES = [{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]
NO = [{"role": "assistant", "content": "no"}]


def asked(*parts: dict, text: str = "Is there an effusion?") -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("kind", ["qwen", "openai", "responses", "file", "data", "anthropic", "hub"])
@pytest.mark.parametrize("source", ["llava", "trl", "preference"])
def test_the_image_of_a_part_is_the_rows_image(folder: Path, tmp_path: Path, kind: str, source: str) -> None:
    prompt = asked(part(kind, folder))
    row = {"prompt": prompt, "chosen": YES, "rejected": NO} if source == "preference" else {"messages": prompt + YES}
    path = lines(folder / "t.jsonl", [row])
    [example], quarantine = ingest(tmp_path / "out", "trl" if source == "preference" else source, path)
    [plain], _ = ingest(
        tmp_path / "plain", "table", lines(folder / "p.jsonl", [{"image": PNG, "question": "q", "answer": "yes"}])
    )
    assert example.images == plain.images and not quarantine.rows
    assert (example.question, example.answer) == ("Is there an effusion?", "yes")


def test_images_beside_the_content_of_a_message_count(folder: Path, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Is there an effusion?", "images": [PNG]}, *NO]
    [example], _ = ingest(tmp_path / "out", "llava", lines(folder / "t.jsonl", [{"messages": talk}]))
    assert len(example.images) == 1


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"messages": asked({"type": "image", "url": "https://x/a.png"}) + YES}, "images", "remote_image"),
        ({"messages": asked({"type": "video", "video": "a.mp4"}) + YES}, "conversations", "video"),
        ({"messages": asked({"type": "input_audio", "x": 1}) + YES}, "conversations", "bad_conversations"),
        ({"messages": asked({"type": "image"}) + YES}, "conversations", "placeholders"),
        ({"messages": asked({"type": "image", "image": PNG}) + YES, "images": ["b.png"]}, "images", "bad_images"),
        ({"messages": asked() + [YES[0] | {"images": [PNG]}]}, "conversations", "placeholders"),
        ({"messages": asked() + YES + YES}, "conversations", "answer_without_question"),
        ({"messages": asked() + YES + asked()}, "conversations", "question_without_answer"),
        ({"messages": asked() + [{"role": "Erika Mustermann", "content": "x"}]}, "conversations", "bad_conversations"),
        ({"messages": [*asked(text="<image>Is there?"), *YES]}, "conversations", "placeholders"),
        ({"messages": [*asked(text="<video>Is there?"), *YES]}, "question", "video"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_rows_image_costs_the_row(folder: Path, tmp_path: Path, row, field: str, reason: str) -> None:
    good = {"messages": asked({"type": "image", "image": PNG}) + NO}
    examples, quarantine = ingest(tmp_path / "out", "llava", lines(folder / "t.jsonl", [good, row]))
    assert len(examples) == 1 and reasons(quarantine) == [("t.jsonl", 2, field, reason)]
    assert "Erika" not in json.dumps(quarantine.rows)


def talk(*turns: tuple[str, str]) -> list[dict]:
    return [{"from": role, "value": text} for role, text in turns]


YES_TURN, LATER = ("gpt", "yes"), ("human", "<image>And now?")


def test_as_many_placeholders_as_images(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"image": PNG, "conversations": talk(("human", "<image>\n<image>\nWhich shows one?"), ("gpt", "the second"))},
        {"conversations": talk(("human", "<image>\nIs there an effusion?"), ("gpt", "yes"))},
        {"image": "b.png", "conversations": talk(("human", "<image>\nOn the left?"), ("human", "One word."), YES_TURN)},
        {"image": [PNG, "b.png"], "conversations": talk(("human", "<image>First?"), YES_TURN, LATER, YES_TURN)},
        {"image": PNG, "conversations": talk(("human", "No mark?"), ("gpt", "fine"))},
    ]
    examples, quarantine = ingest(tmp_path / "out", "llava", write_json(folder / "d.json", rows), leaks="allow")
    assert [(e.question, len(e.images)) for e in examples] == [
        ("On the left?\nOne word.", 1),
        ("First?", 1),
        ("And now?", 2),
        ("No mark?", 1),
    ]
    assert [(row["row"], row["reason"]) for row in quarantine.rows] == [(1, "placeholders"), (2, "placeholders")]
    assert "2 images, the row has 1" in quarantine.rows[0]["detail"]


@pytest.mark.parametrize(
    "mark",
    ["<image>", "<img>", "<|image_pad|>", "<start_of_image>", "<image 1>", "[IMG]", "<Image>", "<img>a.png</img>"],
)
def test_a_placeholder_in_a_table_is_counted_and_taken_out(folder: Path, tmp_path: Path, mark: str) -> None:
    rows = [
        {"image": PNG, "question": f"{mark} Which side?", "answer": "left"},
        {"image": "", "question": f"{mark} Which side?", "answer": "left"},
        {"image": PNG, "question": f"{mark}{mark} Which side?", "answer": "left"},
        {"image": PNG, "question": "Which side?", "answer": f"left {mark}"},
        {"image": PNG, "question": mark, "answer": "left"},
    ]
    examples, quarantine = ingest(tmp_path / "out", "table", lines(folder / "t.jsonl", rows), empty_image="text")
    assert [e.question for e in examples] == ["Which side?"]
    assert [row["reason"] for row in quarantine.rows] == ["placeholders"] * 3 + ["empty_question"]
