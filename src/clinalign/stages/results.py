"""The stages that look: attention maps, evaluation, the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.measuring.options import DRIFT
from clinalign.records import Example, Measurement, Outcome
from clinalign.stages.names import adapter_files, journal_of, places, system_folder, teacher_hash
from clinalign.storage import Journal, read_table, texts, write_json, write_table

MAPPED = 60
"""Most questions whose attention maps are compared with the teacher's."""


def attention_maps(run: Run) -> None:
    """Teacher's and student's attention maps on the test split, before and after, where a system was distilled."""
    labels = [label for label in run.recipe.systems() if run.recipe.system(label).distill is not None]
    if not labels:
        return
    systems = {"base": None} | {label: system_folder(run, label, None) / "adapter" for label in run.recipe.systems()}

    def work() -> list[Path]:
        from clinalign.measuring.distillation import write_maps
        from clinalign.measuring.measure import limited
        from clinalign.training import distill

        chosen = run.recipe.system(labels[0]).distill
        assert chosen is not None
        split = run.recipe.evaluate.split
        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == split]
        examples = limited([e for e in examples if e.images and e.regions], MAPPED)
        cache = run.recipe.align.cache
        maps, layer = {}, 0
        for name, adapter in systems.items():
            vlm = run.load(adapter)
            layer = chosen.layers[0] if chosen.layers else distill.default_layer(vlm.language_model.config)
            maps[name] = distill.attention_maps(vlm, examples, run.out, chosen, cache=cache)
        written = write_maps(maps, examples, run.out, layer)
        return [written, *_images_in(written, run.out)]

    inputs = [run.out / "examples.parquet", run.images_of("ingest")]
    inputs += [path for adapter in systems.values() for path in adapter_files(adapter)]
    options = run.recipe.system(labels[0])
    given = [options.model_dump(mode="json"), run.recipe.evaluate.split, teacher_hash(options)]
    run.stage("distill:maps", work, options=given, inputs=inputs, model=True)


def evaluate(run: Run) -> None:
    """Base and every trained system on the test split, on one footing; the numbers with intervals and paired tests."""
    from clinalign.data.files import source_hash

    systems: dict[str, Path | None] = {"base": None}
    systems |= {label: system_folder(run, label, None) / "adapter" for label in run.recipe.systems()}

    def work() -> list[Path]:
        from clinalign.evaluation import add_external, summarise
        from clinalign.evaluation.suites.table import suites_summary
        from clinalign.measuring import evaluate as measure
        from clinalign.measuring.asking import Entry
        from clinalign.measuring.measure import Results
        from clinalign.measuring.suites import evaluate_suites, questions
        from clinalign.stages.suites import suite_items

        journal = Journal(journal_of(run, "evaluate"), Entry)
        options = run.recipe.evaluate
        every = read_table(run.out / "examples.parquet", Example)
        examples = [e for e in every if e.split == options.split]
        if not examples:
            raise UsageError(
                f"{run.out / 'examples.parquet'}: no example has split '{options.split}'; nothing to evaluate"
            )
        items, drawn = suite_items(run, every)
        asked = {suite: list(questions(suite, of, run.out)) for suite, of in items.items()}
        in_suites: dict[tuple[int, str], list[Outcome]] = {}
        found: dict[tuple[int, str], Results] = {}
        variants = list(enumerate(options.variants(run.recipe.seed)))
        for label, adapter in systems.items():
            vlm = run.load_to_ask(adapter)
            for number, (ending, decoder, seed) in variants:
                settings = options.model_copy(update={"decoder": decoder})
                kept: dict[str, Any] = {"journal": journal, "quarantine": run.quarantine, "each": run.each}
                kept |= {"system": f"{label}{ending}", "seed": seed}
                before = found.get((number, "base"))
                said = {o.example_id: o.text for o in before.outcomes if o.condition == "clean"} if before else None
                found[number, label] = measure(vlm, examples, run.out, settings, base=said, **kept)
                again = any(ending == variant[0] for _, variant in variants[:number])  # draws have seeds of their own
                samples = 0 if again else options.suite_samples
                in_suites[number, label] = evaluate_suites(vlm, asked, run.out, settings, samples=samples, **kept)
        order = [(number, label) for number, _ in variants for label in systems]
        ordered = [found[one] for one in order]
        outcomes = [outcome for one in ordered for outcome in one.outcomes]
        measurements = [measurement for one in ordered for measurement in one.measurements]
        outcomes, external = add_external(outcomes, examples, options.external)
        summary = summarise(outcomes, examples, options, measurements=measurements) | {"external": external}
        of_suites = [outcome for one in order for outcome in in_suites[one]]
        if items:
            summary["suites"] = suites_summary(of_suites, items)
        tables = [run.out / "outcomes.parquet", run.out / "measurements.parquet"]
        write_table(tables[0], [*outcomes, *of_suites], Outcome)
        write_table(tables[1], measurements, Measurement)
        write_json(run.out / "evaluation" / "summary.json", summary)
        written = [*tables, run.out / "evaluation" / "summary.json", *drawn]
        run.release()
        if options.pictures:
            pictures = _pictures(run, examples, outcomes, systems[run.recipe.align.label])
            written += [pictures, *_images_in(pictures, run.out)]
        journal.close("evaluate", remove=False)
        return written

    inputs = [run.out / "examples.parquet", run.images_of("ingest")]
    inputs += [path for adapter in systems.values() for path in adapter_files(adapter)]
    options = run.recipe.evaluate.model_dump(mode="json", exclude={"batch_size"})
    published = [source_hash(data, exclude=run.out) for _, data in sorted(run.recipe.evaluate.suite_data.items())]
    given = [options, published, *([DRIFT] if run.recipe.evaluate.drift else [])]
    run.stage("evaluate", work, options=given, inputs=inputs, model=True)


def _pictures(run: Run, examples: list[Example], outcomes: list[Outcome], adapter: Path | None) -> Path:
    """Counterfactual and corrupted images, attention maps and token rewards of the questions that the page shows."""
    from clinalign.evaluation.cases import shown_examples
    from clinalign.measuring import picture_examples

    method = run.recipe.align.label
    shown = shown_examples({e.id: e for e in examples}, outcomes, ["base", method])
    systems: dict[str, Callable[[], Any]] = {"base": run.load, method: partial(run.load, adapter)}
    return picture_examples(systems, shown, outcomes, run.out, run.recipe.evaluate.sigma)


def _images_in(path: Path, folder: Path) -> list[Path]:
    """The images below `folder` that a JSON file names, wherever in it."""
    return [folder / name for name in texts(json.loads(path.read_bytes())) if name.endswith(".png")]


def report(run: Run) -> None:
    """The page and the numbers on the adapters' cards. Always written anew: cheap, and from the run folder alone."""
    from clinalign.evaluation import card_note, card_rows
    from clinalign.pages import write_report
    from clinalign.training import write_card

    write_json(run.file, run.state)
    evaluated = run.out / "evaluation" / "summary.json"
    if "evaluate" in run.state["stages"]:
        summary = json.loads(evaluated.read_text(encoding="utf-8"))
        for label in run.recipe.systems():
            adapter = system_folder(run, label, None) / "adapter"
            facts = {"evaluated": card_note(summary), "evaluation": card_rows(summary, label)}
            write_card(adapter, facts | places(run, adapter))
    write_report(run.out)
