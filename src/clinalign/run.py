"""The stages of a recipe, in the order in which they run: each a function from the run to the files it wrote."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.folder import NotDone, Run, device_of, file_hash, model_fingerprint
from clinalign.progress import say
from clinalign.records import Answer, Example, Outcome, Pair, Region
from clinalign.tables import Journal, read_table, write_json, write_table

MAPPED = 60
"""Most questions whose attention maps are compared with the teacher's."""


def execute(run: Run, only: str | None = None) -> None:
    """Runs every stage that is not done. With `only`, runs that one stage, in every round its predecessors allow."""
    run.only = only
    try:
        for work, arguments in _plan(run):
            work(run, *arguments)
    except NotDone as missing:
        if run.ran == 0:
            command = str(missing).partition(":")[0]
            raise UsageError(f"{run.out}: stage '{missing}' is not done; run `clinalign {command}` first") from None


def _plan(run: Run) -> list[tuple[Callable[..., None], tuple[int, ...]]]:
    steps = (answer, pair, corrupt, align, distill)
    rounds = [(work, (number,)) for number in range(run.recipe.rounds) for work in steps]
    return [(ingest, ()), (warm, ()), *rounds, (gather, ()), (taught, ()), (evaluate, ()), (report, ())]


def ingest(run: Run) -> None:
    """The data source into `examples.parquet` and `images/`."""

    def work() -> list[Path]:
        from clinalign.data import stream

        write_table(
            run.out / "examples.parquet", _checked(run, stream(run.recipe.data, run.out, run.quarantine)), Example
        )
        return [run.out / "examples.parquet"]

    data = run.recipe.data
    given = file_hash(Path(data.path)) if data.path and Path(data.path).is_file() else ""
    run.stage("ingest", work, options=[data.model_dump(mode="json"), given], inputs=[])


def _checked(run: Run, examples: Iterator[Example]) -> Iterator[Example]:
    """Passes examples on, one at a time, and refuses a source that leaves nothing to learn from or to test on."""
    splits = set()
    for example in examples:
        splits.add(example.split)
        yield example
    if not splits:
        raise UsageError(f"{run.recipe.data.path or run.recipe.data.source}: no usable row; see {run.quarantine.path}")
    missing = {"align", run.recipe.evaluate.split} - splits
    if missing and run.only is None:
        raise UsageError(
            f"data: no example has split '{sorted(missing)[0]}'; a run needs 'align' and a split to test on"
        )


def warm(run: Run) -> None:
    """The recipe's supervised warm-up, where it has one; its adapter is part of the model from then on."""
    options = run.recipe.warmup
    if options is None:
        if run.only == "warm":
            raise UsageError("the recipe has no warm-up; set warmup={method: sft} or leave this stage out")
        return

    def work() -> list[Path]:
        from clinalign.training import train
        from clinalign.training.warmup import truth_pairs

        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == "align"]
        vlm = run.load_cold()
        pairs = truth_pairs(examples, vlm.tokenizer, vlm.eos_ids[0])
        seed, rows = run.recipe.seed, run.quarantine
        result = train(vlm, pairs, run.out, options, run.warm, label="warmup", seed=seed, quarantine=rows, stage="warm")
        say(f"warm-up: {result.steps} steps in {result.seconds:.0f} s")
        return sorted(p for p in result.adapter.iterdir() if p.suffix in (".safetensors", ".json"))

    given = [options.model_dump(mode="json"), run.recipe.seed]
    run.stage("warm", work, options=given, inputs=[run.out / "examples.parquet"], cold=True)


def answer(run: Run, number: int) -> None:
    """The policy's own answers to the align split; none where the data set brings the pairs."""
    if run.recipe.pair.editor == "given":
        return

    def work() -> list[Path]:
        from clinalign.answers import answer as sample

        journal = Journal(run.out / f".answers{_suffix(run, number)}.journal", Answer, ("example_id",))
        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == "align"]
        if not examples:
            raise UsageError(f"{run.out / 'examples.parquet'}: no example has split 'align'; nothing to learn from")
        vlm = run.load(_adapter(run, number - 1))
        answers = sample(
            vlm, examples, run.out, run.recipe.answer, round=number, journal=journal, quarantine=run.quarantine
        )
        write_table(table, answers, Answer)
        journal.close()
        return [table]

    table = _table(run, "answers", number)
    inputs = [run.out / "examples.parquet", *_adapter_files(run, number - 1)]
    run.stage(
        _name(run, "answer", number), work, options=run.recipe.answer.model_dump(mode="json"), inputs=inputs, model=True
    )


def pair(run: Run, number: int) -> None:
    """Answers into minimal-edit pairs with exact spans; what fails a gate goes to the quarantine with its reason."""
    if run.recipe.pair.editor == "given":
        _pair_given(run, number)
        return
    from clinalign.pairs.decisions import NAME as DECISIONS
    from clinalign.pairs.decisions import adopted, apply_decisions

    def work() -> list[Path]:
        from clinalign.models import load_tokenizer
        from clinalign.pairs import build_pairs

        examples = read_table(run.out / "examples.parquet", Example)
        answers = read_table(_table(run, "answers", number), Answer)
        tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
        with _speaker(run, number) as speaker:
            source = Path(run.recipe.data.path).name
            pairs = build_pairs(
                examples, answers, tokenizer, run.recipe.pair, run.quarantine, speaker=speaker, source=source
            )
            if asked := speaker.usage():
                say(f"editor {run.recipe.pair.editor}: " + ", ".join(f"{name} {n:,}" for name, n in asked.items() if n))
                write_json(run.out / f"editor{_suffix(run, number)}.json", asked)
                speaker.record(run.out / f"replies{_suffix(run, number)}.jsonl")
        if decided:
            pairs = apply_decisions(pairs, decided, examples, answers, tokenizer, run.recipe.pair, run.quarantine)
            say(f"{len(decided)} decisions of {decisions} applied")
        if not pairs:
            raise UsageError(f"{table}: no answer became a pair; see {run.quarantine.path} for the reasons")
        write_table(table, pairs, Pair)
        return [table]

    table, decisions = _table(run, "edits", number), run.out / DECISIONS
    options = run.recipe.pair.model_dump(mode="json", exclude={"decisions"})
    with adopted(run.recipe.pair.decisions if number == 0 else "", run.out, run.recipe.rounds) as decided:
        inputs = [run.out / "examples.parquet", _table(run, "answers", number)]
        inputs += [decisions] if decisions.is_file() else []
        inputs += _adapter_files(run, number - 1) if run.recipe.pair.editor == "self" else []
        run.stage(_name(run, "pair", number), work, options=options, inputs=inputs, model=True)


def _speaker(run: Run, number: int) -> AbstractContextManager[Any]:
    """Whom the editor asks; with `editor: self` the model that answered, its replies kept under its weights' hashes."""
    from clinalign.pairs.speakers import open_speaker

    if run.recipe.pair.editor != "self":
        return open_speaker(run.recipe.pair)
    weights = [model_fingerprint(run.recipe.model), run.recipe.dtype]
    weights += [file_hash(path) for path in _adapter_files(run, number - 1)]
    return open_speaker(run.recipe.pair, vlm=run.load(_adapter(run, number - 1)), name=" ".join(weights))


def _pair_given(run: Run, number: int) -> None:
    """The align split's own chosen and rejected answers as pairs."""

    def work() -> list[Path]:
        from clinalign.models import load_tokenizer
        from clinalign.pairs import given_pairs

        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == "align"]
        tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
        pairs = given_pairs(examples, tokenizer, run.recipe.pair, run.quarantine)
        if not pairs:
            raise UsageError(f"{table}: no row brings a pair; see {run.quarantine.path}, or set pair.editor to rule")
        write_table(table, pairs, Pair)
        return [table]

    table = _table(run, "edits", number)
    options = run.recipe.pair.model_dump(mode="json", exclude={"decisions"})
    run.stage(_name(run, "pair", number), work, options=options, inputs=[run.out / "examples.parquet"], model=True)


def corrupt(run: Run, number: int) -> None:
    """The evidence taken out of a twin image of every pair, and the same done to a matched control patch."""

    def work() -> list[Path]:
        from clinalign.lesions import corrupt_pairs
        from clinalign.pairs import audit_pairs, corpus_numbers

        examples = read_table(run.out / "examples.parquet", Example)
        edits = read_table(_table(run, "edits", number), Pair)
        regions = _segmented(run, examples, {pair.example_id for pair in edits})
        pairs = corrupt_pairs(edits, examples, run.out, run.load(), run.recipe.corrupt, run.quarantine, regions)
        write_table(table, pairs, Pair)
        found = audit_pairs(pairs, examples, run.out)
        write_json(corpus, corpus_numbers(pairs) | {"gates": gates, "audit": found})
        say(f"audit: {found['verdict']}" + "".join(f"; {reason}" for reason in found["reasons"]))
        return [table, corpus]

    table, corpus = _table(run, "pairs", number), run.out / f"corpus{_suffix(run, number)}.json"
    edited = _name(run, "pair", number)
    gates = dict(Counter(row["reason"] for row in run.quarantine.rows if row["stage"] == edited).most_common())
    inputs = [run.out / "examples.parquet", _table(run, "edits", number)]
    run.stage(
        _name(run, "corrupt", number),
        work,
        options=[run.recipe.corrupt.model_dump(mode="json"), *_segmenter_files(run)],
        inputs=inputs,
        model=True,
    )


def _segmenter_files(run: Run) -> list[Any]:
    options = run.recipe.corrupt
    if not options.segmenter:
        return []
    from clinalign.models.segmenter import segmenter_fingerprint

    return segmenter_fingerprint(options.segmenter, options.segmenter_adapter)


def _segmented(run: Run, examples: list[Example], wanted: set[str]) -> dict[str, Region]:
    """Regions that the recipe's segmenter finds, by example; none without a segmenter."""
    options = run.recipe.corrupt
    if not options.segmenter or options.kind == "none":
        return {}
    from clinalign.language.concept import concept
    from clinalign.lesions import segmented_regions
    from clinalign.models.segmenter import load_segmenter

    segmenter = load_segmenter(
        options.segmenter,
        adapter=options.segmenter_adapter,
        dtype=run.recipe.dtype,
        device=device_of(run.recipe.device),
    )
    return segmented_regions(
        [example for example in examples if example.id in wanted],
        run.out,
        segmenter,
        options,
        lambda example: concept(example.question, example.answer, example.meta.get("slots")),
        run.quarantine,
    )


def align(run: Run, number: int) -> None:
    """Pairs into an adapter: the method of interest in every round, the systems under `compare` in the first."""
    for label in run.recipe.systems() if number == 0 else run.recipe.systems()[:1]:
        if run.recipe.system(label).distill is None:
            _align(run, number, label, "align")


def distill(run: Run, number: int) -> None:
    """The same for the systems that an expert teaches beside their method."""
    labels = run.recipe.systems() if number == 0 else run.recipe.systems()[:1]
    taught_ones = [label for label in labels if run.recipe.system(label).distill is not None]
    if run.only == "distill" and number == 0 and not taught_ones:
        raise UsageError("the recipe distils nothing; set align.distill={} or `distill` in a system under `compare`")
    for label in taught_ones:
        _align(run, number, label, "distill")


def _align(run: Run, number: int, label: str, stage: str) -> None:
    options = run.recipe.system(label)
    folder = _system(run, label, number)

    def work() -> list[Path]:
        from clinalign.training import train

        _audited(run, number)
        pairs = read_table(table, Pair)
        vlm = run.load(_adapter(run, number - 1))
        result = train(
            vlm,
            pairs,
            run.out,
            options,
            folder,
            label=label,
            seed=run.recipe.seed,
            reference=run.recipe.reference,
            quarantine=run.quarantine,
        )
        say(f"{label}: {result.steps} steps in {result.seconds:.0f} s")
        return [*sorted(p for p in (folder / "adapter").iterdir() if p.suffix in (".safetensors", ".json"))]

    table = _table(run, "pairs", number)
    given = [options.model_dump(mode="json"), run.recipe.seed, run.recipe.reference]
    inputs = [table, *_adapter_files(run, number - 1)]
    name = _name(run, f"{stage}:{label}", number)
    run.stage(name, work, options=given, inputs=inputs, model=True)


def taught(run: Run) -> None:
    """Teacher's and student's attention maps on the test split, before and after, where a system was distilled."""
    labels = [label for label in run.recipe.systems() if run.recipe.system(label).distill is not None]
    if not labels:
        return
    systems = {"base": None} | {label: _system(run, label, None) / "adapter" for label in run.recipe.systems()}

    def work() -> list[Path]:
        from clinalign.evaluation.measure import limited
        from clinalign.evaluation.taught import write_taught
        from clinalign.training.distill import default_layer
        from clinalign.training.maps import attention_maps

        chosen = run.recipe.system(labels[0]).distill
        assert chosen is not None
        split = run.recipe.evaluate.split
        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == split]
        examples = limited([e for e in examples if e.images and e.regions], MAPPED)
        cache = run.recipe.align.cache
        maps, layer = {}, 0
        for name, adapter in systems.items():
            vlm = run.load(adapter)
            layer = chosen.layers[0] if chosen.layers else default_layer(len(vlm.language_model.layers))
            maps[name] = attention_maps(vlm, examples, run.out, chosen, cache=cache)
        return [write_taught(maps, examples, run.out, layer)]

    inputs = [run.out / "examples.parquet"]
    inputs += [path for folder in systems.values() if folder for path in sorted(folder.glob("*.safetensors"))]
    given = [run.recipe.system(labels[0]).model_dump(mode="json"), run.recipe.evaluate.split]
    run.stage("distill:maps", work, options=given, inputs=inputs, model=True)


def _audited(run: Run, number: int) -> None:
    """Refuses a corpus that failed its audit, unless the recipe says to go on."""
    path = run.out / f"corpus{_suffix(run, number)}.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("audit", {}) if path.is_file() else {}
    if found.get("verdict") == "fail" and run.recipe.audit == "refuse":
        raise UsageError(f"{path}: the audit refuses these pairs ({found['reasons'][0]}); audit=go_on trains anyway")


def gather(run: Run) -> None:
    """After several rounds: all rounds' tables in one, and the last adapter, where a single round would put them."""
    if run.recipe.rounds == 1:
        return
    numbers = range(run.recipe.rounds)
    kinds: dict[str, type[Any]] = {"answers": Answer, "edits": Pair, "pairs": Pair}
    for table, kind in kinds.items():
        rows = [row for number in numbers for row in read_table(_table(run, table, number), kind)]
        write_table(run.out / f"{table}.parquet", rows, kind)
    last = _system(run, run.recipe.align.method, numbers[-1])
    weights = sorted((last / "adapter").glob("*.safetensors"))
    if any(file_hash(path) != file_hash(run.out / "adapter" / path.name) for path in weights):
        shutil.copytree(last / "adapter", run.out / "adapter", dirs_exist_ok=True)
        shutil.copy2(last / "metrics.jsonl", run.out / "metrics.jsonl")


def evaluate(run: Run) -> None:
    """Base and every trained system on the test split, on one footing; the numbers with intervals and paired tests."""
    systems: dict[str, Path | None] = {"base": None}
    systems |= {label: _system(run, label, None) / "adapter" for label in run.recipe.systems()}

    def work() -> list[Path]:
        from clinalign.evaluation import add_external, card_note, card_rows, summarise
        from clinalign.evaluation import evaluate as measure
        from clinalign.training import write_card

        journal = Journal(run.out / ".outcomes.journal", Outcome, ("system", "example_id", "condition"))
        options = run.recipe.evaluate
        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == options.split]
        if not examples:
            raise UsageError(
                f"{run.out / 'examples.parquet'}: no example has split '{options.split}'; nothing to evaluate"
            )
        outcomes: list[Outcome] = []
        for label, adapter in systems.items():
            outcomes += measure(
                run.load(adapter),
                examples,
                run.out,
                options,
                system=label,
                seed=run.recipe.seed,
                journal=journal,
                quarantine=run.quarantine,
            )
        outcomes, external = add_external(outcomes, examples, options.external)
        summary = summarise(outcomes, examples, options) | {"external": external}
        write_table(run.out / "outcomes.parquet", outcomes, Outcome)
        write_json(run.out / "evaluation" / "summary.json", summary)
        for label in run.recipe.systems():
            folder = _system(run, label, None)
            facts = {"evaluated": card_note(summary), "evaluation": card_rows(summary, label)}
            write_card(folder / "adapter", facts)
        written = [run.out / "outcomes.parquet", run.out / "evaluation" / "summary.json"]
        if options.pictures:
            written.append(_pictures(run, examples, outcomes, systems[run.recipe.align.method]))
        journal.close()
        return written

    inputs = [run.out / "examples.parquet"]
    inputs += [path for folder in systems.values() if folder for path in sorted(folder.glob("*.safetensors"))]
    run.stage("evaluate", work, options=run.recipe.evaluate.model_dump(mode="json"), inputs=inputs, model=True)


def _pictures(run: Run, examples: list[Example], outcomes: list[Outcome], adapter: Path | None) -> Path:
    """Twins, attention maps and token rewards of the questions that the page shows."""
    from clinalign.evaluation.pictures import picture_examples
    from clinalign.pages import shown_examples

    method = run.recipe.align.method
    shown = shown_examples({e.id: e for e in examples}, outcomes, ["base", method])
    systems: dict[str, Callable[[], Any]] = {"base": run.load, method: partial(run.load, adapter)}
    return picture_examples(systems, shown, outcomes, run.out, run.recipe.evaluate.sigma)


def report(run: Run) -> None:
    """The page. Always written anew: it is cheap and reads the run folder alone."""
    from clinalign.pages import write_report

    write_json(run.file, run.state)
    write_report(run.out)


def _name(run: Run, stage: str, number: int) -> str:
    return f"{stage}:round{number}" if run.recipe.rounds > 1 else stage


def _suffix(run: Run, number: int) -> str:
    return f".round{number}" if run.recipe.rounds > 1 else ""


def _table(run: Run, table: str, number: int) -> Path:
    return run.out / f"{table}{_suffix(run, number)}.parquet"


def _system(run: Run, label: str, number: int | None) -> Path:
    """Where a system's adapter and metrics live; `number` None means the final one."""
    if label != run.recipe.align.method:
        return run.out / "compare" / label
    return run.out if run.recipe.rounds == 1 or number is None else run.out / "rounds" / str(number)


def _adapter(run: Run, number: int) -> Path | None:
    return None if number < 0 else _system(run, run.recipe.align.method, number) / "adapter"


def _adapter_files(run: Run, number: int) -> list[Path]:
    folder = _adapter(run, number)
    return sorted(folder.glob("*.safetensors")) if folder else []
