"""The main job, small, with the embedded model: what a run leaves, resume, and every mistake a user can make."""

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
from once import Once
from PIL import Image

from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Example, Outcome, Pair
from clinalign.run import execute
from clinalign.storage import read_table, sha256

pytestmark = pytest.mark.usefixtures("no_figures")
SMALL = [
    "data.splits={align: 5, test: 3}",
    "align.max_steps=3",
    "align.batch=4",
    "align.checkpoint_every=1",
    "compare={sft: {method: sft}}",
    "evaluate.resamples=200",
    "evaluate.permutations=200",
]
TABLES = ("examples.parquet", "answers.parquet", "pairs.parquet", "corrupted_pairs.parquet", "outcomes.parquet")
SAME = (*TABLES, "corpus.json", "evaluation/summary.json", "quarantine.jsonl", "adapter/adapter_model.safetensors")


def small_run(out: Path, *more: str, resume: bool = False) -> Path:
    execute(Run(load_recipe("phantom", [*SMALL, f"align.cache={out.parent / 'cache'}", *more]), out, resume=resume))
    return out


@pytest.fixture(scope="module")
def run(once: Once) -> Path:
    """A whole run, which several workers may read at once."""
    return once("run", lambda folder: small_run(folder / "a")) / "a"


def test_a_run_leaves_what_the_design_says(run: Path) -> None:
    for name in (
        *SAME,
        "run.json",
        "metrics.jsonl",
        "report.html",
        "compare/sft/adapter/README.md",
        "images",
        "corrupted",
    ):
        assert (run / name).exists(), name
    state = json.loads((run / "run.json").read_text())
    assert list(state["stages"]) == ["ingest", "answer", "pair", "corrupt", "align:firempo", "align:sft", "evaluate"]
    assert state["recipe"]["align"]["method"] == "firempo" and state["versions"]["torch"] != "not installed"
    assert state["stages"]["pair"]["inputs"]["answers.parquet"] == sha256(run / "answers.parquet")
    assert [p.name for p in run.rglob("*") if p.suffix == ".part"] == []
    assert sorted(p.name for p in run.rglob("*.journal")) == ["answer.journal", "evaluate.journal"]


def test_no_record_is_lost_between_the_stages(run: Path) -> None:
    examples = read_table(run / "examples.parquet", Example)
    asked = {e.id for e in examples if e.split == "align"}
    quarantine = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert all(row["reason"] for row in quarantine)

    def dropped(stage: str) -> set[str]:
        return {row["id"] for row in quarantine if row["stage"] == stage}

    answered = {a.example_id for a in read_table(run / "answers.parquet", Answer)}
    assert answered | dropped("answer") == asked
    edited = {p.example_id for p in read_table(run / "pairs.parquet", Pair)}
    assert edited | dropped("pair") == answered
    assert {p.example_id for p in read_table(run / "corrupted_pairs.parquet", Pair)} | dropped("corrupt") == edited
    outcomes = [o for o in read_table(run / "outcomes.parquet", Outcome) if o.condition == "clean"]
    tested = {e.id for e in examples if e.split == "test"}
    for system in ("base", "firempo", "sft"):
        assert {o.example_id for o in outcomes if o.system == system} == tested


def test_own_side_ids_are_the_sampled_ids_and_the_edited_side_differs_in_spans_only(run: Path) -> None:
    from clinalign.language.offsets import token_offsets
    from clinalign.models import load_tokenizer

    tokenizer = load_tokenizer("embedded")
    answers = {a.example_id: a for a in read_table(run / "answers.parquet", Answer)}
    pairs = read_table(run / "corrupted_pairs.parquet", Pair)
    assert pairs
    for pair in pairs:
        sampled = answers[pair.example_id].token_ids
        sides = {"chosen": pair.chosen_token_ids, "rejected": pair.rejected_token_ids}
        own, edited = sides.pop(pair.own), sides.popitem()
        assert own == sampled
        spans = pair.chosen_spans if edited[0] == "chosen" else pair.rejected_spans
        outside = [i for i, at in zip(edited[1], token_offsets(tokenizer, edited[1])) if not _touches(at, spans)]
        own_spans = pair.chosen_spans if pair.own == "chosen" else pair.rejected_spans
        kept = [i for i, at in zip(own, token_offsets(tokenizer, own)) if not _touches(at, own_spans)]
        assert outside == kept


def _touches(token: tuple[int, int], spans: list[list[int]]) -> bool:
    return any(token[0] < end and start < token[1] for start, end in spans)


def test_the_same_seed_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    again = small_run(tmp_path / "b")
    assert {name: sha256(run / name) for name in SAME} == {name: sha256(again / name) for name in SAME}


def test_resume_redoes_nothing_that_is_done_and_mends_what_is_damaged(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "c")
    before = json.loads((copy / "run.json").read_text())["stages"]
    small_run(copy, f"align.cache={run.parent / 'cache'}", resume=True)
    assert json.loads((copy / "run.json").read_text())["stages"] == before
    (copy / "corrupted_pairs.parquet").write_bytes(b"torn")
    (copy / "evaluation" / "summary.json").unlink()
    small_run(copy, f"align.cache={run.parent / 'cache'}", resume=True)
    assert {name: sha256(run / name) for name in SAME} == {name: sha256(copy / name) for name in SAME}


@pytest.mark.slow
def test_two_rounds_answer_again_with_the_adapter(tmp_path: Path) -> None:
    rounds = ("data.splits={align: 10, test: 5}", "rounds=2", "compare={}", "align.lr=2e-3", "evaluate.flips=[]")
    out = small_run(tmp_path / "r", *rounds)
    answers = read_table(out / "answers.parquet", Answer)
    assert {a.round for a in answers} == {0, 1}
    assert (out / "rounds" / "1" / "adapter" / "adapter_model.safetensors").is_file()
    assert sha256(out / "adapter" / "adapter_model.safetensors") == sha256(
        out / "rounds" / "1" / "adapter" / "adapter_model.safetensors"
    )
    first, second = ({a.example_id: a.text for a in answers if a.round == n} for n in (0, 1))
    assert first != second
    card = (out / "adapter" / "README.md").read_text()
    small_run(out, *rounds, resume=True)
    assert "Not evaluated yet" not in card and (out / "adapter" / "README.md").read_text() == card


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    from clinalign.cli import main

    monkeypatch.setattr(sys, "argv", ["clinalign", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
        raise SystemExit(0)
    return int(end.value.code or 0), capsys.readouterr().err


def table(folder: Path, rows: list[str], header: str = "image,question,answer,box,patient_id,split") -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.new("L", (80, 60), 90 if name == "a" else 140).save(folder / f"{name}.png")
    path = folder / "questions.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


GOOD = ['a.png,Is there a nodule?,yes,"[10, 10, 20, 20]",p1,align', "b.png,Which side is the nodule on?,left,,p2,test"]


def own_data(path: Path, out: Path, *more: str) -> list[str]:
    source = f"data={{source: table, path: {path}}}"
    return ["run", "phantom", source, *SMALL[1:], f"align.cache={out.parent / 'cache'}", *more, "--out", str(out)]


def test_bad_rows_are_quarantined_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        "none.png,Is there a nodule?,no,,p3,align",
        'a.png,Is there a mass?,yes,"[70, 10, 40, 20]",p1,align',
        "a.png,Is there an effusion?,,,p1,align",
    ]
    path = table(tmp_path / "data", GOOD + bad)
    ingest = ["ingest", *own_data(path, tmp_path / "out")[1:]]
    assert fail(monkeypatch, capsys, *ingest)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [3, 4, 5]
    assert all(row["reason"] and row["field"] and row["file"].endswith("questions.csv") for row in rows)
    assert len(read_table(tmp_path / "out" / "examples.parquet", Example)) == 2
    code, errors = fail(monkeypatch, capsys, *ingest[:-2], "strict=true", "--out", str(tmp_path / "strict"))
    assert code == 2 and "strict=true" in errors


def test_a_name_too_long_and_half_a_character_cost_their_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "data", [*GOOD, "x" * 300 + ".png,Is there a nodule?,no,,p3,align"])
    ingest = ["ingest", *own_data(path, tmp_path / "csv")[1:]]
    assert fail(monkeypatch, capsys, *ingest)[0] == 0
    rows = [
        {"image": "a.png", "question": q, "answer": "no", "split": "align"} for q in ("Is there a nodule?", "\ud800?")
    ]
    lines = path.with_suffix(".jsonl")
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert fail(monkeypatch, capsys, "ingest", *own_data(lines, tmp_path / "jsonl")[1:])[0] == 0
    for out, reason in (("csv", "missing_image"), ("jsonl", "bad_question")):
        quarantine = (tmp_path / out / "quarantine.jsonl").read_text().splitlines()
        assert [json.loads(line)["reason"] for line in quarantine] == [reason]


def test_a_missing_test_split_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "data", GOOD[:1])
    code, errors = fail(monkeypatch, capsys, *own_data(path, tmp_path / "out"))
    assert code == 2 and "no example has split 'test'" in errors and not (tmp_path / "out" / "answers.parquet").exists()


def test_a_stage_command_does_not_overwrite_a_run_of_other_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, before = shutil.copytree(run, tmp_path / "c"), sha256(run / "examples.parquet")
    code, errors = fail(monkeypatch, capsys, "ingest", "phantom", "data.splits={align: 3, test: 1}", "--out", str(copy))
    assert code == 2 and "other data" in errors and sha256(copy / "examples.parquet") == before


def test_a_changed_setting_is_named_on_resume(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(run, tmp_path / "c")
    (copy / ".x.parquet.1.2.part").write_text("torn")
    Run(load_recipe("phantom", [*SMALL, "align.lr=1e-5"]), copy, resume=True)
    assert "align.lr: 0.0001 -> 1e-05" in capsys.readouterr().err and not (copy / ".x.parquet.1.2.part").exists()


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    code, errors = fail(monkeypatch, capsys, "ingest", "phantom", "--out", str(tmp_path / "file" / "sub"))
    assert code == 2 and "choose another --out" in errors


def test_check_reads_a_table_of_ones_own_and_refuses_torn_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clinalign.check import check
    from clinalign.errors import UsageError

    path = table(tmp_path / "data", [*GOOD, "none.png,Is there a nodule?,no,,p3,align"])
    assert "2 usable rows, 1 that" in check(str(path)) and "row 3, column 'images'" in check(str(path))
    for name in TABLES:
        assert "valid" in check(str(run / name))
    (tmp_path / "u.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "e.jsonl").write_text("")
    for name, message in (("u.jsonl", "UTF-8"), ("e.jsonl", "empty")):
        with pytest.raises(UsageError, match=message):
            check(str(tmp_path / name))
    (tmp_path / "run.json").write_text('{"stages": {')
    assert "not valid JSON" in fail(monkeypatch, capsys, "report", str(tmp_path))[1]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (GOOD, "image,qestion,answer,box,patient_id,split", "question"),
        ([], "image,question,answer", "no"),
        (["none.png,Is there a nodule?,yes,,p1,align"], "image,question,answer,box,patient_id,split", "no usable row"),
    ],
)
def test_a_useless_table_is_one_line_and_exit_code_2(
    rows: list[str], header: str, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = table(tmp_path / "data", rows, header)
    code, errors = fail(monkeypatch, capsys, *own_data(path, tmp_path / "out"))
    last = errors.strip().splitlines()[-1]
    assert code == 2 and last.startswith("clinalign: ") and message in last and "questions.csv" in errors


def test_a_folder_that_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "data", GOOD)
    code, errors = fail(monkeypatch, capsys, *own_data(path, tmp_path / "out", f"model={tmp_path / 'data'}"))
    assert code == 2 and "config.json is missing" in errors.strip().splitlines()[-1]


def test_no_space_left_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("clinalign.stages.corpus.write_table", full)
    path = table(tmp_path / "data", GOOD)
    code, errors = fail(monkeypatch, capsys, *own_data(path, tmp_path / "out"))
    assert code == 2 and "no space left" in errors and "--resume" in errors


def test_no_space_left_in_the_words_of_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("clinalign.stages.corpus.write_table", full)
    code, errors = fail(monkeypatch, capsys, *own_data(table(tmp_path / "data", GOOD), tmp_path / "out"))
    assert code == 2 and "no space left" in errors and "Traceback" not in errors


def test_a_folder_with_a_run_is_not_overwritten(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "c")
    code, errors = fail(monkeypatch, capsys, "demo", "--out", str(copy))
    assert code == 2 and "--resume" in errors


def test_a_stage_without_its_predecessor_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = fail(monkeypatch, capsys, "pair", "phantom", *SMALL, "--out", str(tmp_path / "s"))
    assert code == 2 and "run `clinalign ingest` first" in errors


def test_the_page_holds_no_script_of_an_answer_and_asks_nothing_from_outside(run: Path, tmp_path: Path) -> None:
    from clinalign.pages import write_report
    from clinalign.storage import write_table

    copy = shutil.copytree(run, tmp_path / "p")
    outcomes = read_table(copy / "outcomes.parquet", Outcome)
    for outcome in outcomes:
        outcome.text = "<script>alert(1)</script> " + outcome.text
    write_table(copy / "outcomes.parquet", outcomes, Outcome)
    page = write_report(copy).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "http://" not in page and "https://" not in page and 'src="/' not in page
    assert "not for clinical use" in page


def test_a_run_folder_stands_for_its_recipe(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`clinalign evaluate RUN evaluate.decoder=...`, as docs/decoding.md prints it."""
    from clinalign.cli import main

    copy = shutil.copytree(run, tmp_path / "c")
    assert load_recipe(copy) == load_recipe("phantom", [*SMALL, f"align.cache={run.parent / 'cache'}"])
    overrides = ["evaluate.decoder=beam", "evaluate.flips=[]", "evaluate.calibration=false", "evaluate.pictures=false"]
    monkeypatch.setattr(sys, "argv", ["clinalign", "evaluate", str(copy), *overrides])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().out
    assert not end.value.code and f"evaluate: done, in {copy}" in said and "against base" in said
    assert {o.decoder for o in read_table(copy / "outcomes.parquet", Outcome)} == {"beam"}
