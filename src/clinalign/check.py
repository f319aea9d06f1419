"""`clinalign check`: what a recipe, a table or a model folder is, or the first thing that is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.records import Answer, Example, Outcome, Pair
from clinalign.storage import parse_json, read_table

SIDES = (224, 512, 1024)
ANSWERS = 64
"""Tokens of two short answers, for the estimate of memory."""
KINDS: tuple[type[Any], ...] = (Pair, Outcome, Answer, Example)


def check(target: str, overrides: list[str] | None = None, out: Path | None = None, card: str = "") -> str:
    """Validates one thing and describes it in a few lines. Raises `UsageError` naming file, row and column.

    `overrides` are a recipe's, as for a run, and `out` is the folder that the run would fill. Of a recipe everything is
    tried that its stages will need (`preflight`), and told what its training will take here, or on the named `card`.
    """
    path = Path(target)
    if overrides or card:
        return _recipe(target, overrides or [], out, card)
    if path.suffix == ".csv":
        return _own(path)
    recipe = path.suffix in (".yaml", ".yml")
    if not path.exists() and not recipe and target.count("/") == 1 and not path.parent.exists():
        return _model(target)  # a hub name
    # `clinalign demo` leaves a folder of the recipe's name.
    run = (path / "run.json").is_file() and not (path / "config.json").is_file()
    if recipe or run or not path.exists():
        return _recipe(target, [], out)
    if path.is_dir():
        return _model(target)
    return _table(path)


def _recipe(target: str, overrides: list[str], out: Path | None, card: str = "") -> str:
    from clinalign.preflight import as_table, preflight, refuse
    from clinalign.preflight.cost import cost
    from clinalign.recipe import load_recipe

    recipe = load_recipe(target, overrides)
    tried = _tried(recipe)
    findings = preflight(recipe, out or Path("run"))
    if recipe.sweep is not None:
        from clinalign.study.settings import findings_of, settings_of

        findings += findings_of(settings_of(recipe), findings)
    refused = [finding for finding in findings if finding.verdict == "refused"]
    if refused:
        say(as_table(findings))
        refuse(findings, target)
    systems = ", ".join(recipe.systems())
    named = f"{target}: a valid recipe. model {recipe.model}, data {recipe.data.source}, trains {systems}"
    return f"{named}{tried}\n{as_table(findings)}\n{cost(recipe, out or Path('run'), card)}"


def _tried(recipe: Any) -> str:
    """What the recipe's sweep tries; "" where it has none. Raises `UsageError` for what cannot be tried."""
    if recipe.sweep is None:
        return ""
    from clinalign.study.settings import settings_of

    tried = settings_of(recipe)
    systems, corpora = len({setting.system for setting in tried}), len({setting.corpus for setting in tried})
    return f"; its sweep tries {len(tried)} settings of {systems} systems on {corpora} set(s) of pairs"


def _model(name: str) -> str:
    """Family, image tokens, what would train and the memory for it, with the published settings. Loads the weights."""
    import numpy as np

    from clinalign.models import load_vlm
    from clinalign.training.estimate import estimate
    from clinalign.training.options import TrainOptions

    vlm, options = load_vlm(name, dtype="bfloat16"), TrainOptions()
    described = vlm.describe()
    grids = {side: vlm.image_grid(np.zeros((side, side, 3), np.uint8)) for side in SIDES}
    tokens = {side: vlm.family.token_count(vlm.processor, grid) for side, grid in grids.items()}
    same = len(set(tokens.values())) == 1
    by_side = ", ".join(f"{n} at {s} px" for s, n in tokens.items())
    per_image = f"{tokens[SIDES[0]]} for every image" if same else by_side
    vlm.attach_lora(**options.lora.model_dump())
    blank = np.zeros((SIDES[1], SIDES[1], 3), np.uint8)
    sizes = [len(vlm.prompt_ids("Where is the lesion?", [blank])) + ANSWERS] * options.batch
    found = estimate(vlm.model, vlm.trainable(), sizes, options, 0)
    parts = ((name, getattr(found, name) / 2**30) for name in ("total", "weights", "optimizer", "activations"))
    needs = ", ".join(f"{name} {size:.2f} GB" for name, size in parts)
    return "\n".join(
        [
            described,
            *([vlm.proof.line(name)] if vlm.proof else []),
            f"image tokens: {per_image}",
            f"what would train (LoRA rank {options.lora.r}):",
            vlm.trainable_table(),
            f"memory to train, {options.batch} pairs at once, weights in bfloat16: {needs} "
            f"(the activations shrink with gradient_checkpointing or a smaller micro_batch)",
        ]
    )


def _own(path: Path) -> str:
    """A user's table, read as a run would read it, into a folder that is thrown away."""
    import tempfile

    from clinalign.data import read
    from clinalign.data.options import DataOptions
    from clinalign.storage import Quarantine

    with tempfile.TemporaryDirectory() as folder:
        quarantine = Quarantine(Path(folder) / "quarantine.jsonl")
        examples = read(DataOptions(source="table", path=str(path)), Path(folder), quarantine)
    bad = [f"row {q['row']}, column '{q['field']}': {q['reason']}; {q['detail']}" for q in quarantine.rows]
    return "\n".join([f"{path}: {len(examples)} usable rows, {len(bad)} that a run would leave out", *bad[:20]])


def _table(path: Path) -> str:
    if path.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{path}: check takes a recipe (.yaml), a table (.parquet, .jsonl) or a model folder")
    kind = _kind(path)
    records = read_table(path, kind)
    for row, record in enumerate(records, 1):
        for field, holds, remedy in CHECKS[kind]:
            if not holds(record, path.parent):
                raise UsageError(f"{path}: row {row}, column '{field}': {remedy}")
    return f"{path}: {len(records)} valid {kind.__name__} rows"


def _kind(path: Path) -> type[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".jsonl":
        try:
            first = path.read_text(encoding="utf-8-sig").partition("\n")[0]
            names = set(parse_json(first)) if first.strip() else set()
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}:1: not a JSON object in UTF-8 ({error})") from error
        if not names:
            raise UsageError(f"{path}: empty; nothing to check")
    else:
        try:
            names = set(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{path}: not a Parquet file ({error})") from error
    for kind in KINDS:
        required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if required <= names:
            return kind
    raise UsageError(f"{path}: not a table that a run writes; for a table of your own see docs/data.md")


def _files(record: Any, folder: Path) -> bool:
    return all((folder / image).is_file() for image in record.images)


def _spans(name: str) -> Callable[[Pair, Path], bool]:
    def holds(pair: Pair, folder: Path) -> bool:
        text, spans = getattr(pair, name), getattr(pair, f"{name}_spans")
        return all(0 <= start <= end <= len(text) for start, end in spans)

    return holds


IMAGES = ("images", _files, "an image file is missing; paths are relative to the table's folder")
CHECKS: dict[type[Any], list[tuple[str, Callable[[Any, Path], bool], str]]] = {
    Example: [
        ("answer", lambda r, _: bool(r.answer.strip()), "the answer is empty"),
        ("task", lambda r, _: r.task in ("closed", "open", "report"), "must be closed, open or report"),
        IMAGES,
    ],
    Pair: [
        ("chosen_spans", _spans("chosen"), "a span lies outside the text"),
        ("rejected_spans", _spans("rejected"), "a span lies outside the text"),
        ("chosen", lambda r, _: r.chosen != r.rejected, "chosen and rejected are the same"),
        IMAGES,
    ],
    Answer: [("token_ids", lambda r, _: bool(r.token_ids), "no token ids")],
    Outcome: [("condition", lambda r, _: bool(r.condition), "no condition")],
}
