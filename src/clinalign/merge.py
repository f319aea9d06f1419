"""Leaving the tool: a run's adapter added to the weights, as a plain Hugging Face folder that needs nothing of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from clinalign.errors import UsageError, nearest
from clinalign.folder import Run
from clinalign.models.load import source_of
from clinalign.recipe import Recipe

OURS = ("config.json", "generation_config.json", "model.safetensors.index.json", "README.md")
KEPT = (".json", ".jinja", ".model", ".txt")


def merge(run: Path, out: Path, *, system: str = "") -> Path:
    """Writes the model of a run folder with the adapter of `system` (empty: the method of interest) merged into it.

    Tokenizer and processor files are those of the model that the run started from, byte for byte. Raises `UsageError`
    where `run` is no run folder, the system was not trained, `out` is not empty, or the adapter is no matrix that
    could be added (MEDALIGN's W acts on image tokens alone).
    """
    file = run / "run.json"
    if not file.is_file():
        raise UsageError(f"{run}: not a run folder (no run.json); give the folder that a run wrote")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already; choose another folder for the merged model")
    recipe = Recipe.model_validate(json.loads(file.read_text(encoding="utf-8"))["recipe"])
    adapter = _adapter(run, recipe, system)
    recipe = recipe.model_copy(update={"quantize": "none"})  # what is merged is the whole weight
    vlm = Run(recipe, run, resume=True).load(adapter)
    if vlm.peft is not None:
        vlm.merge_adapter()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    vlm.model.save_pretrained(part)
    source = Path(source_of(recipe.model))
    if source.is_dir():
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix in KEPT and path.name not in OURS:
                shutil.copyfile(path, part / path.name)
    else:
        vlm.processor.save_pretrained(part)
    if out.exists():
        out.rmdir()
    part.rename(out)
    return out


def _adapter(run: Path, recipe: Recipe, system: str) -> Path:
    systems = recipe.systems()
    if system and system not in systems:
        raise UsageError(f"{run}: trained {', '.join(systems)}, no '{system}'{nearest(system, systems)}")
    folder = run if system in ("", systems[0]) else run / "compare" / system
    if not list((folder / "adapter").glob("*.safetensors")):
        raise UsageError(f"{folder / 'adapter'}: no adapter here; run `clinalign align` first")
    return folder / "adapter"
