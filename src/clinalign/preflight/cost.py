"""What a recipe's trainings will take in time and memory: tried here with stand-ins, or counted for a named card."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from clinalign.data.options import PHANTOMS
from clinalign.errors import UsageError
from clinalign.folder import device_of, load_model
from clinalign.preflight.data import Sampled, sample, sample_options
from clinalign.preflight.finding import wrapped
from clinalign.preflight.model import RESERVE, Needs, device_memory, lengths, needed, open_model
from clinalign.recipe import Recipe
from clinalign.records import Example, Pair
from clinalign.storage import Quarantine, open_table
from clinalign.training.options import TrainOptions

ASSUMED = 10_000
"""Pairs where nothing says how many there will be."""
PAIRS = "corrupted_pairs.parquet"
LARGEST_TRIED = 1 << 29
"""Bytes of weights beyond which a check on a CPU counts instead of trying."""


def cost(recipe: Recipe, out: Path, card: str = "") -> str:
    """Lines about the system of the recipe's `align`: seconds by part, memory by part, and settings that fit.

    With `card` they are counted from shapes for that card; otherwise some steps are run here, with the pairs in `out`
    or with stand-ins made of true answers. Raises `UsageError` for an unknown card.
    """
    from clinalign.training.cards import card_named

    known = card_named(card) if card else None
    vlm, refused = open_model(recipe)
    options = recipe.system(recipe.systems()[0])
    sampled, _ = sample(recipe)
    if vlm is None or options.reinforce is not None:
        return "no estimate: " + (refused[0].text if refused else "reinforcement is not estimated")
    count, said = pairs_to_come(recipe, sampled, out)
    needs = needed(recipe, vlm, options, sampled)
    memory = RESERVE * (known.memory if known else device_memory(recipe.device))
    named = card or device_of(recipe.device)
    lines = [f"{recipe.systems()[0]} on {named}, {said}:"]
    if known is not None:
        lines.append(f"  time, counted from shapes: {_seconds(_counted(known, vlm, options, sampled, count))}")
    elif device_of(recipe.device) == "cpu" and needs.weights > LARGEST_TRIED:
        lines.append("  time: not tried, the weights are large for a CPU; name a card with --card")
    elif sampled is None and not (out / PAIRS).is_file():
        lines.append("  time: not tried, the first stage fetches the data; name a card with --card")
    else:
        lines += _tried_lines(recipe, options, out, count)
    lines.append(f"  memory, counted from shapes: {_bytes(needs)}")
    can_quantize = options.tune == "lora" and not named.startswith("cpu")
    weights: list[str] = list(dict.fromkeys([recipe.quantize, "4bit"] if can_quantize else [recipe.quantize]))
    lines += _fitting(recipe, vlm, options, sampled, memory, weights)
    return "\n".join(part for line in lines for part in wrapped(line, hang=4))


def pairs_to_come(recipe: Recipe, sampled: Sampled | None, out: Path) -> tuple[int, str]:
    """How many pairs will be trained on, and how that is known."""
    import pyarrow.parquet as pq

    table = out / PAIRS
    if table.is_file():
        count = pq.read_metadata(table).num_rows
        return count, f"{count:,} pairs of {table}"
    align = sum(example.split == "align" for example in sampled.examples) if sampled is not None else 0
    if align and recipe.data.source in PHANTOMS and recipe.data.splits:
        drawn = (sample_options(recipe.data).splits or {}).get("align", 0)
        count = round(align / max(1, drawn) * recipe.data.splits.get("align", drawn))
        return count, f"about {count:,} pairs, one a question to learn from"
    if align and sampled is not None and sampled.whole:
        return align, f"{align:,} pairs, one a question to learn from"
    return ASSUMED, f"for {ASSUMED:,} pairs (how many there will be is not known yet)"


def _tried_lines(recipe: Recipe, options: TrainOptions, out: Path, count: int) -> list[str]:
    try:
        found = _tried(recipe, options, out, count)
    except UsageError as error:  # the check itself has passed: what stand-ins lack is no fault of the recipe
        return [f"  time: not tried ({error})"]
    beside = "; without the teacher's share" if options.distill is not None else ""
    return [
        f"  time, tried here with {found.tokens:,} tokens at once: {_seconds(dict(found.parts))}{beside}",
        f"  peak memory of the process when tried: {found.peak_mb:,.0f} MB",
    ]


def _tried(recipe: Recipe, options: TrainOptions, out: Path, count: int) -> Any:
    from clinalign.data import read
    from clinalign.training.trial import stand_ins, try_training

    vlm = load_model(recipe)
    table = out / PAIRS
    with contextlib.redirect_stderr(io.StringIO()):  # progress of what is thrown away
        if table.is_file():
            return try_training(vlm, open_table(table, Pair), out, options, seed=recipe.seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            examples = read(sample_options(recipe.data), folder, Quarantine(folder / "quarantine.jsonl"))
            learnt: list[Example] = [example for example in examples if example.split == "align"] or examples
            return try_training(vlm, stand_ins(vlm, learnt), folder, options, count=count, seed=recipe.seed)


def _counted(card: Any, vlm: Any, options: TrainOptions, sampled: Sampled | None, count: int) -> dict[str, float]:
    from clinalign.training.cards import Work, seconds_on
    from clinalign.training.trainer import _plan

    prompt, answer = lengths(vlm, sampled)
    whole = sum(value.numel() for value in vlm.model.parameters())
    language = sum(value.numel() for value in vlm.language_model.parameters()) + vlm.head.weight.numel()
    vision = getattr(vlm.model.config, "vision_config", None)
    patches = getattr(vision, "spatial_merge_size", 1) ** 2  # of one image token
    shown = [len(example.images) for example, _ in sampled.shown] if sampled is not None else []
    image = prompt if shown and any(shown) else 0.0  # nearly all of a prompt are its image's tokens
    work = Work(count, prompt, answer, patches * image, max(0, whole - language))
    return seconds_on(card, vlm.model.config, work, _plan(options.completed()), options)


def _fitting(
    recipe: Recipe,
    vlm: Any,
    options: TrainOptions,
    sampled: Sampled | None,
    memory: float,
    weights: list[str],
) -> list[str]:
    """The settings that fit, the fastest first."""
    from clinalign.training.cards import proposals

    def bytes_of(changed: TrainOptions, quantize: str) -> int:
        return needed(recipe.model_copy(update={"quantize": quantize}), vlm, changed, sampled).total

    found = list(proposals(memory, bytes_of, options, weights))
    if not found:
        return ["  nothing fits: take a smaller model, a smaller align.lora.r, or a larger card"]
    lines = []
    for number, (settings, size) in enumerate(found):
        text = " ".join(f"{name}={str(value).lower()}" for name, value in settings.items())
        lines.append(f"  {'fits, fastest first:' if not number else 'or':<21} {text} ({size / 2**30:.1f} GB)")
    return lines


def _seconds(parts: dict[str, float]) -> str:
    from clinalign.training.estimate import duration_text

    named = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in parts.items())
    return f"{duration_text(sum(parts.values()))} ({named})"


def _bytes(needs: Needs) -> str:
    from clinalign.training.estimate import size_text

    parts = ("weights", "optimizer", "activations")
    named = ", ".join(f"{name} {size_text(getattr(needs, name))}" for name in parts)
    return f"{size_text(needs.total)} ({named})"
