"""A run folder: which stages are done, what they were made from, what they left out.

What goes into a stage (options, input tables, model) is hashed into a key; `run.json` keeps the key and the hash of
every output. A stage whose key and outputs still match is not run again, so a run that was killed anywhere goes on
where it was, and a changed setting redoes only what depends on it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.recipe import Recipe
from clinalign.storage import Quarantine, sha256, write_json

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pillow", "pyarrow")
WHOLE_HASH_BYTES = 256 * 2**20


class NotDone(Exception):
    """A stage that a single-stage command needs has not been run."""


class Run:
    """One run folder: its recipe, its `run.json`, its quarantine, and which stages are done."""

    def __init__(self, recipe: Recipe, out: Path, *, resume: bool = False) -> None:
        self.recipe, self.out, self.file = recipe, out, out / "run.json"
        self.only: str | None = None
        self.ran = 0
        if self.file.is_file() and not resume:
            raise UsageError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; --out names a folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileNotFoundError, FileExistsError) as error:
            raise UsageError(f"{out}: no folder can be made here ({error.strerror}); choose another --out") from error
        for left in out.rglob(".*.part"):  # of a write that was killed
            left.unlink(missing_ok=True)
        self.state: dict[str, Any] = {"stages": {}}
        if self.file.is_file():
            try:
                self.state = json.loads(self.file.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise UsageError(f"{self.file}: not valid JSON ({error}); delete it to start over") from error
        self._compare(self.state.get("recipe"), recipe.model_dump(mode="json"))
        self.state |= {
            "clinalign": __version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": {name: version_of(name) for name in PACKAGES},
            "seed": recipe.seed,
            "recipe": recipe.model_dump(mode="json"),
        }
        self.quarantine = Quarantine(out / "quarantine.jsonl")

    def _compare(self, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
        """Says what differs from the recipe that made the folder; other data or another model is another run."""
        changed = [] if before is None else sorted(_differences(before, now))
        foreign = [text for text in changed if text.startswith(("data.", "model:"))]
        if foreign:
            raise UsageError(
                f"{self.out}: holds a run of other data or another model ({foreign[0]}); choose another --out"
            )
        for text in changed:
            say(f"recipe changed: {text}; what depends on it is done again")

    @property
    def warm(self) -> Path:
        """Where the supervised warm-up leaves its adapter."""
        return self.out / "warmup"

    def stage(
        self,
        name: str,
        work: Callable[[], list[Path]],
        *,
        options: Any,
        inputs: list[Path],
        model: bool = False,
        cold: bool = False,
    ) -> None:
        """Runs `work` unless its outputs are there, made from the same options, inputs and model (`cold`: before its
        warm-up)."""
        kind = name.partition(":")[0]
        if model and self.recipe.warmup is not None:
            inputs = [*inputs, *self._warmed()]
        key = self._key(options, inputs, model or cold)
        done = self.state["stages"].get(name)
        if done and done["key"] == key and all(file_hash(self.out / p) == h for p, h in done["outputs"].items()):
            say(f"{name}: done already")
            self.ran += kind == self.only
            return
        if self.only not in (None, kind):
            raise NotDone(name)
        self.ran += 1
        self.state["stages"].pop(name, None)
        start = time.monotonic()
        with self._quarantined(name):
            outputs = work()
        dropped = self.quarantine.count(name)
        self.state["stages"][name] = {
            "key": key,
            "inputs": {str(p.relative_to(self.out)): file_hash(p) for p in inputs},
            "outputs": {str(p.relative_to(self.out)): file_hash(p) for p in outputs},
            "quarantined": dropped,
            "seconds": round(time.monotonic() - start, 2),
        }
        write_json(self.file, self.state)
        if dropped:
            say(f"{name}: {dropped} rows in {self.quarantine.path}")
            if self.recipe.strict:
                raise UsageError(f"{self.quarantine.path}: {dropped} rows of stage {name} quarantined and strict=true")

    @contextmanager
    def _quarantined(self, name: str) -> Iterator[None]:
        """Rows that the block quarantines are this stage's, whatever it did before; kept also when the block fails."""
        others = [row for row in self.quarantine.rows if row["stage"] != name]
        self.quarantine.rows = []
        try:
            yield
        finally:
            self.quarantine.rows = others + [row | {"stage": name} for row in self.quarantine.rows]
            self.quarantine.flush()

    def _key(self, options: Any, inputs: list[Path], model: bool) -> str:
        parts = [__version__, json.dumps(options, sort_keys=True, default=str), *(file_hash(path) for path in inputs)]
        if model:
            given = (self.recipe.dtype, self.recipe.processor, self.recipe.quantize)
            parts += [*given, model_fingerprint(self.recipe.model)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def load(self, adapter: Path | None = None) -> Any:
        """The recipe's model, warmed up where the recipe says so, with an adapter on it where one is given."""
        vlm = self.load_cold()
        if self.recipe.warmup is not None:
            vlm.load_adapter(self.warm / "adapter")
            vlm.merge_adapter()
        if adapter is not None:
            vlm.load_adapter(adapter)
        return vlm

    def load_cold(self) -> Any:
        """The recipe's model as it came."""
        from clinalign.models import load_vlm

        recipe = self.recipe
        return load_vlm(
            recipe.model,
            dtype=recipe.dtype,
            device=device_of(recipe.device),
            processor=recipe.processor,
            quantize=recipe.quantize,
            unpacked=recipe.unpacked,
        )

    def _warmed(self) -> list[Path]:
        return sorted((self.warm / "adapter").glob("*.safetensors"))


def model_fingerprint(name: str) -> str:
    """A hash of the model's files: whole small files, name and size of weights over 256 MiB."""
    from clinalign.models import fingerprint

    digest = hashlib.sha256(name.encode())
    for path, size in fingerprint(name).items():
        content = file_hash(Path(path)) if size <= WHOLE_HASH_BYTES else size
        digest.update(f"{Path(path).name}:{content}\n".encode())
    return digest.hexdigest()


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        below = [_differences(before.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [text for texts in below for text in texts]
    return [] if before == now else [f"{name}: {before} -> {now}"]


def file_hash(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def device_of(name: str) -> str:
    if name == "cpu":
        return name
    import torch

    if name != "auto":
        kind, _, index = name.partition(":")
        there = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.mps}[kind].device_count()
        if there <= int(index or 0):
            raise UsageError(f"device: {name} is asked for, but there are {there} {kind} devices; use auto or cpu")
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
