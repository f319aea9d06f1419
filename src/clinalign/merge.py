"""Leaving the tool: a run's adapter added to the weights, as a plain Hugging Face folder that needs nothing of ours;
and parity, a run's model here beside the same model as others load it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clinalign.errors import UsageError, nearest
from clinalign.folder import device_of, load_model
from clinalign.models import served
from clinalign.models.guard import source_of
from clinalign.progress import track
from clinalign.recipe import Recipe, validated
from clinalign.storage import atomic_folder, read_state

OURS = ("config.json", "generation_config.json", "model.safetensors.index.json", "README.md")
KEPT = (".json", ".jinja", ".model", ".txt")


def merge(run: Path, out: Path, *, system: str = "") -> Path:
    """Writes the model of a run folder with the adapter of `system` (empty: the method of interest) merged into it.

    Tokenizer and processor files are those of the model that the run started from, byte for byte. Raises `UsageError`
    where `run` is no run folder, the system was not trained, `out` is not empty, or the adapter is no matrix that
    could be added (MEDALIGN's W acts on image tokens alone).
    """
    recipe = recipe_of(run)
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already; choose another folder for the merged model")
    adapter = adapter_of(run, recipe, system)
    recipe = recipe.model_copy(update={"quantize": "none"})  # what is merged is the whole weight
    vlm = load_model(recipe, run / "warmup" / "adapter" if recipe.warmup is not None else None, adapter)
    return save_plain(vlm, recipe, out)


def save_plain(vlm: Any, recipe: Recipe, out: Path) -> Path:
    """Writes a recipe's model as it is now to a plain folder, its adapter merged into it for good; `UsageError` for a
    projection of image tokens (`merge_adapter`)."""
    if vlm.peft is not None or vlm.projection is not None:
        vlm.merge_adapter()
    with atomic_folder(out) as part:
        vlm.model.save_pretrained(part)
        source = Path(source_of(recipe.model))
        if source.is_dir():
            for path in sorted(source.iterdir()):
                if path.is_file() and path.suffix in KEPT and path.name not in OURS:
                    shutil.copyfile(path, part / path.name)
        else:
            vlm.processor.save_pretrained(part)
    return out


def recipe_of(run: Path) -> Recipe:
    """The recipe of a run folder; `UsageError` where it is none."""
    file = run / "run.json"
    if not file.is_file():
        raise UsageError(f"{run}: not a run folder (no run.json); give the folder that a run wrote")
    return validated(Recipe, read_state(file).get("recipe", {}), f"{file}: recipe")


def adapter_of(run: Path, recipe: Recipe, system: str) -> Path:
    """The folder of a system's adapter (empty: of the method of interest); `UsageError` where it was not trained."""
    systems = recipe.systems()
    if system and system not in systems:
        raise UsageError(f"{run}: trained {', '.join(systems)}, no '{system}'{nearest(system, systems)}")
    folder = run if system in ("", systems[0]) else run / "compare" / system
    if not list((folder / "adapter").glob("*.safetensors")):
        raise UsageError(f"{folder / 'adapter'}: no adapter here; run `clinalign align` first")
    return folder / "adapter"


WAYS = ("merged", "transformers", "peft", "vllm")
GAP = {"float32": 1e-2, "bfloat16": 1.0, "float16": 0.25}
"""How far a logit may be off: summation order in 32 bits, one more rounding of merged weights in 16."""


class Parity(NamedTuple):
    """Of `questions`, how many are answered alike token for token, and the largest difference of a logit at the tokens
    of this side's answers."""

    way: str
    questions: int
    equal: int
    gap: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether nothing but rounding is between the two."""
        return self.gap <= self.limit

    def line(self) -> str:
        """The verdict for a reader."""
        verdict = "the same model" if self.holds else "NOT the same model"
        share = f"{self.equal} of {self.questions} answers are equal ({self.equal / self.questions:.1%})"
        return f"{verdict}: with {self.way} {share}, largest logit gap {self.gap:.2g} (limit {self.limit:g})"


def parity(run: Path, way: str, *, system: str = "", limit: int = 32) -> Parity:
    """Asks up to `limit` questions of the test split both ways, greedily.

    `way`: "merged" (the merged folder, loaded here), "transformers" (the merged folder by transformers alone: its own
    processor, forward and `generate`) or "peft" (the base model and PEFT's own loading of the adapter, likewise)
    or "vllm" (the merged folder by vLLM, which gives log-probabilities: the gap is theirs, up to where answers part).
    `UsageError` where the run has no such system, no question, or an adapter that the way cannot carry.
    """
    if way not in WAYS:
        raise UsageError(f"--with {way}: unknown; use one of {', '.join(WAYS)}{nearest(way, WAYS)}")
    recipe = recipe_of(run)
    engine = served.library("--with vllm") if way == "vllm" else None
    adapter = adapter_of(run, recipe, system)
    warmed = run / "warmup" / "adapter" if recipe.warmup is not None else None
    size = min(recipe.evaluate.max_new_tokens, 64)
    here = _Answers(load_model(recipe, warmed, adapter), size)
    asked = _questions(run, recipe, limit, here.vlm)
    expected = [here(*question) for question in track(asked, "here")]
    if engine is not None:
        return _beside_vllm(engine, here, merged_of(run, system), recipe, asked, expected)
    with _other(run, recipe, way, system, warmed, adapter) as vlm:
        there = _Answers(vlm, size)
        pairs = list(zip(asked, expected, strict=True))
        equal = sum(there(*question)[0] == ids for question, (ids, _) in track(pairs, way))
        gap = max(float((there.logits(*q, ids) - logits).abs().max()) for q, (ids, logits) in pairs)
    return Parity(way, len(asked), equal, gap, GAP[recipe.dtype])


def _questions(run: Path, recipe: Any, limit: int, vlm: Any) -> list[tuple[str, list[np.ndarray]]]:
    """Prompts in the model's words (boxes) and images."""
    from clinalign.imaging.images import read_image
    from clinalign.measuring.asking import in_words
    from clinalign.records import Example
    from clinalign.storage import read_table

    examples = [e for e in read_table(run / "examples.parquet", Example) if e.split == recipe.evaluate.split][:limit]
    if not examples:
        raise UsageError(f"{run}: no example has split '{recipe.evaluate.split}'; nothing to ask")
    examples = in_words(vlm, examples, run)
    return [(e.prompt, [read_image(run / name) for name in e.images]) for e in examples]


class _Answers:
    """A model's greedy answer and its logits [T, V] at an answer's tokens."""

    def __init__(self, vlm: Any, size: int) -> None:
        self.vlm, self.size = vlm, size

    def __call__(self, prompt: str, images: list[np.ndarray]) -> tuple[list[int], torch.Tensor]:
        (answer,) = self.vlm.generate([(prompt, images)], max_new_tokens=self.size)
        return answer.token_ids, self.logits(prompt, images, answer.token_ids)

    @torch.no_grad()
    def logits(self, prompt: str, images: list[np.ndarray], ids: list[int]) -> torch.Tensor:
        from clinalign.models.features import from_arrays
        from clinalign.models.tree import Fork, answer_states, tree_of

        features, (keys,) = from_arrays(self.vlm, [images])
        tree = tree_of(self.vlm, prompt, images, keys, [Fork([ids])])
        found: torch.Tensor = self.vlm.logits(answer_states(self.vlm, tree, 0, 0, features)).cpu()
        return found


def _beside_vllm(
    engine: Any,
    here: _Answers,
    merged: AbstractContextManager[Path],
    recipe: Recipe,
    asked: list[tuple[str, list[np.ndarray]]],
    expected: list[tuple[list[int], torch.Tensor]],
) -> Parity:
    """The same questions to vLLM: prompts as token ids with one placeholder an image, images beside them."""
    longest = max(len(images) for _, images in asked)
    with merged as folder:
        kept = {"limit_mm_per_prompt": {"image": longest}} if longest else {}
        model = engine.LLM(model=str(folder), dtype=recipe.dtype, seed=0, **kept)
        settings = engine.SamplingParams(
            temperature=0.0, max_tokens=here.size, logprobs=1, stop_token_ids=here.vlm.eos_ids
        )
        given = [served.as_given(here.vlm, prompt, images) for prompt, images in asked]
        said = [out.outputs[0] for out in model.generate(given, settings)]
    gaps = [_gap(one, ids, logits) for one, (ids, logits) in zip(said, expected, strict=True)]
    equal = sum(list(one.token_ids) == ids for one, (ids, _) in zip(said, expected, strict=True))
    return Parity("vllm", len(asked), equal, max(gaps), GAP[recipe.dtype])


def _gap(said: Any, ids: list[int], logits: torch.Tensor) -> float:
    """The largest difference of a log-probability over vLLM's tokens, up to the first that differs."""
    logps, gap = logits.log_softmax(-1), 0.0
    for number, (token, known) in enumerate(zip(said.token_ids, said.logprobs)):
        if number >= len(ids):
            break
        gap = max(gap, abs(float(logps[number, token]) - float(known[token].logprob)))
        if token != ids[number]:
            break
    return gap


@contextmanager
def merged_of(run: Path, system: str) -> Iterator[Path]:
    """A system's merged folder, for as long as it is open."""
    with tempfile.TemporaryDirectory() as folder:
        yield merge(run, Path(folder) / "merged", system=system)


@contextmanager
def _other(run: Path, recipe: Any, way: str, system: str, warmed: Path | None, adapter: Path) -> Iterator[Any]:
    from clinalign.models import load_vlm
    from clinalign.models.load import by_transformers_alone

    device = device_of(recipe.device)
    if way == "peft":
        adapters = [path for path in (warmed, adapter) if path is not None]
        source, other = source_of(recipe.model), recipe.processor
        yield by_transformers_alone(source, other, dtype=recipe.dtype, device=device, adapters=adapters)
        return
    with merged_of(run, system) as merged:
        if way == "merged":
            yield load_vlm(
                str(merged), dtype=recipe.dtype, device=device, processor=recipe.processor, tiles=recipe.tiles
            )
        else:
            yield by_transformers_alone(str(merged), recipe.processor, dtype=recipe.dtype, device=device)
