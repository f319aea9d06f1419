"""The stages from data to preference pairs but for the answers: ingest, pair, corrupt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.folder import Run, device_of
from clinalign.lesions.options import LesionOptions
from clinalign.progress import say
from clinalign.records import Answer, Example, Pair, Region, files_of
from clinalign.stages.names import (
    adapter_files,
    adapter_of,
    pair_images,
    stage_name,
    suffix,
    table_of,
)
from clinalign.storage import (
    Rows,
    open_table,
    whole_lines,
    write_json,
    write_table,
    write_text,
)
from clinalign.training.options import method_of

PARTS = ("file", "mask", "control", "control_mask")
"""What a row of `corrupted/index.jsonl` names of images."""


def ingest(run: Run) -> None:
    """The data source into `examples.parquet` and `images/`."""

    from clinalign.data.files import source_hash

    def work() -> list[Path]:
        from clinalign.data import stream

        images: set[str] = set()
        examples = stream(run.recipe.data, run.out, run.quarantine)
        write_table(run.out / "examples.parquet", _checked(run, examples, images), Example)
        counts = [path for path in [run.out / "ingest.json"] if path.is_file()]
        return [run.out / "examples.parquet", *counts, *(run.out / name for name in images)]

    data = run.recipe.data
    run.stage("ingest", work, options=[data.model_dump(mode="json"), source_hash(data, exclude=run.out)], inputs=[])


def _checked(run: Run, examples: Iterator[Example], images: set[str]) -> Iterator[Example]:
    """Passes examples on, one at a time, notes their `images`, and refuses a source that leaves nothing to learn from
    or to test on."""
    splits = set()
    for example in examples:
        splits.add(example.split)
        images.update(files_of(example))
        yield example
    if not splits:
        raise UsageError(f"{run.recipe.data.path or run.recipe.data.source}: no usable row; see {run.quarantine.path}")
    missing = {"align", run.recipe.evaluate.split} - splits
    if missing and run.only is None:
        raise UsageError(
            f"data: no example has split '{sorted(missing)[0]}'; a run needs 'align' and a split to test on"
        )


def pair(run: Run, number: int) -> None:
    """Answers into minimal-edit pairs with exact spans; what fails a filter goes to the quarantine with its reason."""
    if run.recipe.pair.editor == "dataset":
        _dataset_pairs(run, number)
        return
    if run.recipe.pair.editor == "retrieval":
        _misled_pairs(run, number)
        return
    from clinalign.pairs.decisions import NAME as DECISIONS
    from clinalign.pairs.decisions import adopted, apply_decisions

    def work() -> list[Path]:
        from clinalign.language.offsets import spelled
        from clinalign.measuring.asking import quarantined
        from clinalign.models import load_tokenizer
        from clinalign.pairs import build_pairs
        from clinalign.pairs.build import STAGE

        examples = open_table(run.out / "examples.parquet", Example)
        answers: Sequence[Answer] = open_table(table_of(run, "answers", number), Answer)
        tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
        spoken, boxes, refused = _spoken(run, examples)
        if refused:
            answers = Rows(one for one in answers if one.example_id not in refused)
        with _backend(run, number) as backend:
            source = Path(run.recipe.data.path).name
            pairs = build_pairs(
                spoken,
                answers,
                tokenizer,
                run.recipe.pair,
                run.quarantine,
                backend=backend,
                source=source,
                boxes={name: spelled(tokenizer, text)[0] for name, text in boxes.items()},
                each=run.each,
            )
            quarantined(run.quarantine, STAGE, examples, refused)
            if asked := backend.usage():
                say(f"editor {run.recipe.pair.editor}: " + ", ".join(f"{name} {n:,}" for name, n in asked.items() if n))
                write_json(usage, asked)
                backend.record(replies)
        if decided:
            pairs = apply_decisions(pairs, decided, spoken, answers, tokenizer, run.recipe.pair, run.quarantine)
            say(f"{len(decided)} decisions of {decisions} applied")
        if not pairs:
            raise UsageError(f"{table}: no answer became a pair; see {run.quarantine.path} for the reasons")
        write_table(table, pairs, Pair)
        return [table, *([usage, replies] if asked else [])]

    table, decisions = table_of(run, "pairs", number), run.out / DECISIONS
    usage, replies = run.out / f"editor{suffix(run, number)}.json", run.out / f"replies{suffix(run, number)}.jsonl"
    options = run.recipe.pair.model_dump(mode="json", exclude={"decisions"})
    with adopted(run.recipe.pair.decisions if number == 0 else "", run.out, run.recipe.rounds) as decided:
        inputs = [run.out / "examples.parquet", table_of(run, "answers", number)]
        inputs += [decisions] if decisions.is_file() else []
        inputs += adapter_files(adapter_of(run, number - 1)) if run.recipe.pair.editor == "self" else []
        run.stage(stage_name(run, "pair", number), work, options=options, inputs=inputs, model=True)


def _spoken(run: Run, examples: Sequence[Example]) -> tuple[Sequence[Example], dict[str, str], dict[str, RowError]]:
    """The examples as training reads them, boxes in the words of the model's family; the first box of each true answer;
    and why some are left out, by example id. Only where a text holds a box the model's shapes are loaded."""
    from clinalign.measuring.asking import TARGETS, targets_in_words
    from clinalign.models.boxes import MARK

    if not any(MARK.search(getattr(e, name) or "") for e in examples for name in TARGETS):
        return examples, {}, {}
    vlm = run.shapes()
    spoken, refused = targets_in_words(vlm, examples, run.out)
    first = {e.id: found[0] for e in examples if e.id not in refused and (found := MARK.search(e.answer))}
    alone = Rows(replace(e, answer=first[e.id], rejected="", full="") for e in examples if e.id in first)
    return spoken, {e.id: e.answer for e in targets_in_words(vlm, alone, run.out)[0]}, refused


def _backend(run: Run, number: int) -> AbstractContextManager[Any]:
    """Whom the editor asks; with `editor: self` the model that answered, its replies kept under its fingerprint."""
    from clinalign.pairs.backends import open_backend

    if run.recipe.pair.editor != "self":
        return open_backend(run.recipe.pair)
    run.release()
    vlm = run.load(adapter_of(run, number - 1))
    return open_backend(run.recipe.pair, vlm=vlm, name=vlm.fingerprint())


def _dataset_pairs(run: Run, number: int) -> None:
    """The align split's own chosen and rejected answers as pairs."""

    def work() -> list[Path]:
        from clinalign.measuring.asking import quarantined
        from clinalign.models import load_tokenizer
        from clinalign.pairs import dataset_pairs
        from clinalign.pairs.build import STAGE

        examples = open_table(run.out / "examples.parquet", Example, lambda one: one.split == "align")
        tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
        spoken, _, refused = _spoken(run, examples)
        pairs = dataset_pairs(spoken, tokenizer, run.recipe.pair, run.quarantine)
        quarantined(run.quarantine, STAGE, examples, refused)
        if not pairs:
            raise UsageError(f"{table}: no row brings a pair; see {run.quarantine.path}, or set pair.editor to rule")
        write_table(table, pairs, Pair)
        return [table]

    table = table_of(run, "pairs", number)
    options = run.recipe.pair.model_dump(mode="json", exclude={"decisions"})
    run.stage(stage_name(run, "pair", number), work, options=options, inputs=[run.out / "examples.parquet"], model=True)


def _misled_pairs(run: Run, number: int) -> None:
    """Answers that are right alone and wrong beside a retrieved text, as pairs."""

    def work() -> list[Path]:
        from clinalign.models import load_tokenizer
        from clinalign.pairs import misled_pairs

        examples = open_table(run.out / "examples.parquet", Example)
        alone, beside = (open_table(path, Answer) for path in inputs[1:])
        tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
        pairs = misled_pairs(examples, alone, beside, tokenizer, run.recipe.pair, run.quarantine)
        if not pairs:
            raise UsageError(f"{table}: no retrieved text turned a right answer wrong; see {run.quarantine.path}")
        write_table(table, pairs, Pair)
        return [table]

    table = table_of(run, "pairs", number)
    inputs = [run.out / "examples.parquet", *(table_of(run, name, number) for name in ("answers", "informed_answers"))]
    options = run.recipe.pair.model_dump(mode="json", exclude={"decisions"})
    run.stage(stage_name(run, "pair", number), work, options=options, inputs=inputs, model=True)


def corrupt(run: Run, number: int) -> None:
    """The evidence taken out of a copy of every pair's image, and the same done to a matched control patch."""

    def work() -> list[Path]:
        from clinalign.lesions import corrupt_pairs
        from clinalign.pairs import answered_under_corruption, audit_pairs, corpus_numbers

        examples = open_table(run.out / "examples.parquet", Example)
        made = open_table(table_of(run, "pairs", number), Pair)
        regions = _segmented(run, examples, made)
        vlm = run.load_to_train()
        write_text(run.out / index, "")  # what it held may be of other settings
        given: dict[str, Any] = {"index_name": index, "each": run.each}
        pairs = corrupt_pairs(made, examples, run.out, vlm, options, run.quarantine, regions, **given)
        pairs = answered_under_corruption(pairs, examples, vlm.tokenizer, flip=options.flip)
        write_table(table, pairs, Pair)
        found = audit_pairs(pairs, examples, run.out)
        write_json(corpus, corpus_numbers(pairs) | {"filters": filters, "audit": found})
        say(f"audit: {found['verdict']}" + "".join(f"; {reason}" for reason in found["reasons"]))
        images = {name for one in pairs for name in pair_images(one)}
        images |= {row[part] for row in whole_lines(run.out / index)[0] for part in PARTS if row.get(part)}
        return [table, corpus, run.out / index, *(run.out / name for name in images)]

    options = with_ladder(run.recipe)
    index = f"corrupted/index{suffix(run, number)}.jsonl"
    table, corpus = table_of(run, "corrupted_pairs", number), run.out / f"corpus{suffix(run, number)}.json"
    edited = stage_name(run, "pair", number)
    filters = dict(Counter(row["reason"] for row in run.quarantine.rows if row["stage"] == edited).most_common())
    inputs = [run.out / "examples.parquet", run.images_of("ingest"), table_of(run, "pairs", number)]
    run.stage(
        stage_name(run, "corrupt", number),
        work,
        options=[options.model_dump(mode="json"), *_segmenter_files(run)],
        inputs=inputs,
        model=True,
    )


LEVELS = [0.33, 0.67]
"""Steps of the ladder where a method ranks one and the recipe names none."""


def with_ladder(recipe: Any) -> LesionOptions:
    """The recipe's corruption; where a system ranks a ladder of images, with steps for it."""
    systems = (recipe.system(label) for label in recipe.systems())
    if recipe.corrupt.levels or not any("ladder_images" in method_of(options).needs for options in systems):
        return recipe.corrupt
    return recipe.corrupt.model_copy(update={"levels": LEVELS})


def _segmenter_files(run: Run) -> list[Any]:
    options = run.recipe.corrupt
    if not options.segmenter:
        return []
    from clinalign.models import files_hash

    return [files_hash(options.segmenter), files_hash(options.segmenter_adapter)]


def _segmented(run: Run, examples: Sequence[Example], pairs: Sequence[Pair]) -> dict[str, Region]:
    """Regions that the recipe's segmenter finds, by example; none without a segmenter."""
    options = run.recipe.corrupt
    if not options.segmenter or options.kind == "none":
        return {}
    from clinalign.language.parse_question import concept
    from clinalign.lesions import segmented_regions
    from clinalign.models.segmenter import load_segmenter

    wanted = {pair.example_id for pair in pairs}
    run.release()
    segmenter = load_segmenter(
        options.segmenter,
        adapter=options.segmenter_adapter,
        dtype=run.recipe.dtype,
        device=device_of(run.recipe.device),
    )
    return segmented_regions(
        Rows(example for example in examples if example.id in wanted),
        run.out,
        segmenter,
        options,
        lambda example: concept(example.question, example.answer, example.slots),
        run.quarantine,
    )
