"""Leaving the tool: a run's adapter added to the weights, as a plain Hugging Face folder that needs nothing of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from clinalign.errors import UsageError, nearest
from clinalign.folder import load_model
from clinalign.models.load import source_of
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
    if vlm.peft is not None:
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
