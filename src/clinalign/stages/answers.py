"""The stage that samples the model's own answers, which everything after it is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.records import Answer, Example
from clinalign.stages.names import adapter_files, adapter_of, journal_of, stage_name, suffix, table_of
from clinalign.storage import Journal, file_hash, filled_lines, is_file, open_table, parse_json, user_path, write_table

NO_NUMBERS = {"batch_size", "vllm_memory", "vllm_length"}
"""Settings of answering that no answer hangs on."""


def answer(run: Run, number: int) -> None:
    """The policy's own answers to the align split; none where the data set brings the pairs."""
    if run.recipe.pair.editor == "dataset":
        return

    def work() -> list[Path]:
        from clinalign.measuring import answer as sample
        from clinalign.measuring.asking import Entry
        from clinalign.pairs import informed

        journal = Journal(journal_of(run, f"answer{suffix(run, number)}"), Entry)
        examples = open_table(run.out / "examples.parquet", Example, lambda one: one.split == "align")
        if not examples:
            raise UsageError(f"{run.out / 'examples.parquet'}: no example has split 'align'; nothing to learn from")
        adapter = adapter_of(run, number - 1)
        vlm = run.load_to_train(adapter, words=run.recipe.answer.engine == "vllm")
        with _served(run, vlm, adapter, examples) as sampler:
            given: dict[str, Any] = {"round": number, "quarantine": run.quarantine, "each": run.each}
            given |= {"sampler": sampler}
            answers = sample(vlm, examples, run.out, run.recipe.answer, journal=journal, **given)
            write_table(table, answers, Answer)
            if retrieved:
                beside = informed(examples, _retrieved(run))
                found = sample(vlm, beside, run.out, run.recipe.answer, **given)
                write_table(informed_table, found, Answer)
        journal.close(stage_name(run, "answer", number), remove=False)
        return [table, informed_table] if retrieved else [table]

    table, informed_table = table_of(run, "answers", number), table_of(run, "informed_answers", number)
    retrieved = run.recipe.pair.editor == "retrieval"
    file = user_path(run.recipe.pair.retrieved)
    hashed = {"retrieved": file_hash(file)} if retrieved and is_file(file) else {}
    inputs = [run.out / "examples.parquet", run.images_of("ingest"), *adapter_files(adapter_of(run, number - 1))]
    run.stage(
        stage_name(run, "answer", number),
        work,
        options=run.recipe.answer.model_dump(mode="json", exclude=NO_NUMBERS) | hashed,
        inputs=inputs,
        model=True,
    )


@contextmanager
def _served(run: Run, vlm: Any, adapter: Path | None, examples: Sequence[Example]) -> Iterator[Any]:
    """vLLM with the weights that the stage asks, a plain folder of them beside the tables for as long as it is needed;
    None where the model's own forward answers."""
    from clinalign.merge import save_plain
    from clinalign.models.guard import source_of
    from clinalign.models.served import Served

    recipe, options = run.recipe, run.recipe.answer
    if options.engine != "vllm":
        yield None
        return
    source = source_of(recipe.model)
    with tempfile.TemporaryDirectory(prefix=".served-", suffix=".part", dir=run.out) as folder:
        if adapter is not None or recipe.warmup is not None:
            source = str(save_plain(vlm, recipe, Path(folder) / "model"))
        source = str(Path(source).absolute()) if Path(source).is_dir() else source
        images = max(len(example.images) for example in examples)
        sampler = Served(source, recipe.dtype, images, options.vllm_memory, options.vllm_length)
        try:
            yield sampler
            run.release()  # workers hold theirs until they end
        finally:
            sampler.close()


def _retrieved(run: Run) -> dict[str, str]:
    """The texts that were found, by the id of an example. Raises `UsageError` for no file or a bad row."""
    path = user_path(run.recipe.pair.retrieved)
    if not is_file(path):
        raise UsageError(f"{path}: no such file; pair.retrieved is a JSONL file of texts that were found")
    texts = {}
    for number, line in filled_lines(path):
        try:
            row = parse_json(line)
            texts[str(row["id"])] = str(row["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}:{number}: not an object with id and text ({error}); rewrite the line") from error
    return texts
