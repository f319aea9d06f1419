"""A run folder: which stages are done, what they were made from, what they left out.

What goes into a stage (package version, options and the files they name, input tables and images, model) is hashed
into a key; `run.json` keeps the key and the hash of every output, images through a list of their own. A stage whose
key, outputs and quarantine are still those is not run again, so a run that was killed anywhere goes on where it was,
and whatever changed redoes what depends on it and nothing else. docs/runs.md, "What is reused".
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import clinalign
from clinalign.engine import Each
from clinalign.errors import UsageError
from clinalign.processes import count, rank, tell
from clinalign.progress import say
from clinalign.recipe import Recipe
from clinalign.storage import (
    Lock,
    Quarantine,
    content_key,
    file_hash,
    first_changed,
    key_of,
    named_files,
    read_state,
    remove_parts,
    set_aside,
    write_json,
    write_manifest,
)
from clinalign.workers import Workers

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pillow", "pyarrow")
FOLDERS = (
    "images",
    "masks",
    "regions",
    "corrupted",
    "adapter",
    "compare",
    "rounds",
    "warmup",
    "evaluation",
    "suites",
    "manifests",
    "journals",
)
MANIFESTS = "manifests"


class NotDone(Exception):
    """A stage that a single-stage command needs has not been run."""


class Run:
    """One run folder: its recipe, its `run.json`, its quarantine, and which stages are done.

    It is this process's own until `lock` is released (`run.execute` does it). What is damaged in it is set aside under
    a name, said in one line, and made anew.
    """

    def __init__(self, recipe: Recipe, out: Path, *, resume: bool = False) -> None:
        self.recipe, self.out, self.file = recipe, out, out / "run.json"
        self.only: str | None = None
        self.ran = 0
        self.together = False
        self.lock = Lock(out)
        self.quarantine = Quarantine(out / "quarantine.jsonl")
        self.workers = Workers(recipe.engine, out) if recipe.engine.kind == "ray" and rank() == 0 else None
        self.state: dict[str, Any] = {"stages": {}}
        if rank() == 0:
            self._open(resume)

    def _open(self, resume: bool) -> None:
        """Takes the folder over and reads what is done."""
        out, recipe = self.out, self.recipe
        if self.file.is_file() and not resume:
            raise UsageError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; --out names a folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileNotFoundError, FileExistsError) as error:
            raise UsageError(f"{out}: no folder can be made here ({error.strerror}); choose another --out") from error
        self.lock.acquire()
        remove_parts(out)
        for name in FOLDERS:
            if (out / name).exists() and not (out / name).is_dir():
                set_aside(out / name, "a file where a folder belongs")
        self.state = self._read()
        self._compare(self.state.get("recipe"), recipe.model_dump(mode="json"))
        self.state |= {
            "clinalign": clinalign.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": {name: version_of(name) for name in self._packages()},
            "seed": recipe.seed,
            "recipe": recipe.model_dump(mode="json"),
        }
        self.quarantine = Quarantine(out / "quarantine.jsonl")  # as it stands now that the folder is this process's

    @property
    def each(self) -> Each:
        """What has the groups of a stage worked on: the recipe's engine."""
        return self.workers.each if self.workers is not None else map

    def release(self) -> None:
        """Ends the workers until they are needed again: what follows takes the memory and the GPUs itself."""
        if self.workers is not None:
            self.workers.release()

    @property
    def on_cpu(self) -> bool:
        return device_of(self.recipe.device) == "cpu"

    def dismiss(self) -> None:
        """Lets the other processes of a launcher go; not while they train, where the launcher ends them."""
        if not self.together and count() > 1:
            tell(None, cpu=self.on_cpu)

    def _read(self) -> dict[str, Any]:
        try:
            return read_state(self.file)
        except FileNotFoundError:
            return {"stages": {}}
        except UsageError:
            set_aside(self.file, "damaged")
            return {"stages": {}}

    def _compare(self, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
        """Says what differs from the recipe that made the folder; other data or another model is another run."""
        changed = [] if before is None else sorted(_differences(before, now))
        changed = [text for text in changed if not text.startswith("engine")]  # no number rests on it
        foreign = [text for text in changed if text.startswith(("data.", "model:"))]
        if foreign:
            raise UsageError(
                f"{self.out}: holds a run of other data or another model ({foreign[0]}); choose another --out"
            )
        for text in changed:
            say(f"recipe changed: {text}; what depends on it is done again")

    @property
    def warmup_folder(self) -> Path:
        """Where the supervised warm-up leaves its adapter."""
        return self.out / "warmup"

    def images_of(self, stage: str) -> Path:
        """The list of the images that a stage made, with their hashes."""
        return self.out / MANIFESTS / f"{stage.replace(':', '.')}.sha256"

    def stage(
        self,
        name: str,
        work: Callable[[], list[Path]],
        *,
        options: Any,
        inputs: list[Path],
        model: bool = False,
        base: bool = False,
        joint: tuple[str, tuple[Any, ...]] | None = None,
    ) -> None:
        """Runs `work`, which gives the files it made, unless they are there, made from the same options, inputs and
        model (`base`: before its warm-up). An input that is a list of images (`images_of`) stands for what they hold.
        `joint`: the entry of `run.JOINT`, with its arguments, by which other processes come to this stage and share it.
        """
        if rank():
            work()
            return
        kind = name.partition(":")[0]
        if model and self.recipe.warmup is not None:
            inputs = [*inputs, *self._warmed()]
        known = {str(path.relative_to(self.out)): self._hash(path) for path in inputs}
        key = self._key(options, known, model or base)
        if self._is_done(name, key):
            say(f"{name}: done already")
            if not self.quarantine.path.is_file():  # an empty one, which no key misses
                self.quarantine.flush()
            self.ran += kind == self.only
            return
        if self.only not in (None, kind):
            raise NotDone(name)
        self.ran += 1
        self.state["stages"].pop(name, None)
        start = time.monotonic()
        if joint is not None:
            self.release()
            tell(joint, cpu=self.on_cpu)
        self.together = joint is not None
        with self._quarantined(name):
            outputs = work()
        self.together = False
        if self.images_of(name).is_dir():
            set_aside(self.images_of(name), "a folder where a file belongs")
        self.images_of(name).unlink(missing_ok=True)
        if images := [path for path in outputs if path.suffix == ".png"]:
            others = [path for path in outputs if path.suffix != ".png"]
            outputs = [*others, write_manifest(self.images_of(name), self.out, images)]
        dropped = self.quarantine.count(name)
        self.state["stages"][name] = {
            "key": key,
            "inputs": known,
            "outputs": {str(path.relative_to(self.out)): file_hash(path) for path in outputs},
            "quarantine": self.quarantine.key(name),
            "quarantined": dropped,
            "seconds": round(time.monotonic() - start, 2),
        }
        write_json(self.file, self.state)
        if dropped:
            say(f"{name}: {dropped} rows in {self.quarantine.path}")
            if self.recipe.strict:
                raise UsageError(f"{self.quarantine.path}: {dropped} rows of stage {name} quarantined and strict=true")

    def _is_done(self, name: str, key: str) -> bool:
        """Whether a stage's key holds and what it left is as it left it; what is not is said."""
        done = self.state["stages"].get(name)
        if not done or done["key"] != key:
            return False
        changed = [path for path, known in done["outputs"].items() if file_hash(self.out / path) != known]
        lists = [self.out / path for path in done["outputs"] if path.startswith(f"{MANIFESTS}/")]
        changed += [image for path in lists if (image := first_changed(path, self.out))]
        changed += [self.quarantine.path.name] if done.get("quarantine") != self.quarantine.key(name) else []
        if changed:
            say(f"{name}: {changed[0]} is not what this stage left; made anew")
        return not changed

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

    def _hash(self, path: Path) -> str:
        return content_key(path, self.out) if path.parent.name == MANIFESTS else file_hash(path)

    def _key(self, options: Any, inputs: dict[str, str], model: bool) -> str:
        parts = [clinalign.__version__, options, named_files(options), inputs]
        return key_of([*parts, model_hashes(self.recipe)] if model else parts)

    def _packages(self) -> list[str]:
        """What the numbers rest on, and the engines that this recipe asks for."""
        engines = {"ray": self.workers is not None, "vllm": self.recipe.answer.engine == "vllm"}
        return [*PACKAGES, *(name for name, asked in engines.items() if asked)]

    def load(self, adapter: Path | None = None) -> Any:
        """The recipe's model, warmed up where the recipe says so, with an adapter on it where one is given."""
        return load_model(self.recipe, self._warmup_adapter(), adapter)

    def load_to_ask(self, adapter: Path | None = None, *, words: bool = False) -> Any:
        """`load` where `each` does the work: what workers load for themselves takes no GPU of this process. For its
        `words` alone (vLLM answers) it takes none anywhere."""
        here = there = self.recipe
        if (words or self.workers is not None) and here.quantize == "none":  # 4-bit weights need a GPU to be loaded
            here = here.model_copy(update={"device": "cpu"})
        vlm = load_model(here, self._warmup_adapter(), adapter)
        vlm.origin = partial(_origin, here if words else there, self._warmup_adapter(), adapter)
        return vlm

    def _warmup_adapter(self) -> Path | None:
        return self.warmup_folder / "adapter" if self.recipe.warmup is not None else None

    def shapes(self) -> Any:
        """The recipe's model without its weights: its words, sizes of images, shapes."""
        return load_shapes_of(self.recipe)

    def load_to_train(self, adapter: Path | None = None, *, words: bool = False) -> Any:
        """`load_to_ask` before training: what no system of the recipe could train is refused now, not then."""
        from clinalign.training.trainer import check_trains

        vlm = self.load_to_ask(adapter, words=words)
        for label in self.recipe.systems() if self.only is None else ():
            check_trains(vlm, self.recipe.system(label))
        return vlm

    def load_base(self) -> Any:
        """The recipe's model as it came."""
        return load_model(self.recipe)

    def _warmed(self) -> list[Path]:
        return [
            path
            for path in sorted((self.warmup_folder / "adapter").glob("*"))
            if path.suffix in (".safetensors", ".json")
        ]


def model_hashes(recipe: Recipe) -> list[Any]:
    """What a recipe's model is made of: its files and its processor's, and how they are loaded."""
    from clinalign.models import files_hash
    from clinalign.models.guard import source_of

    source_of(recipe.model)
    files = [files_hash(recipe.model), files_hash(recipe.processor)]
    further = (["tiles"] if recipe.tiles else []) + ([recipe.boxes] if recipe.boxes != "auto" else [])
    return [*files, recipe.dtype, recipe.quantize, recipe.unpacked, *further]


def load_shapes_of(recipe: Recipe) -> Any:
    """A recipe's model without weights; `UsageError` for whatever `load_model` refuses before it runs the model."""
    from clinalign.models.load import load_shapes

    given = {"dtype": recipe.dtype, "processor": recipe.processor}
    vlm = load_shapes(recipe.model, **given, unpacked=recipe.unpacked, tiles=recipe.tiles)
    vlm.boxes = recipe.boxes
    _ = vlm.box_convention
    return vlm


def load_model(recipe: Recipe, warmed: Path | None = None, adapter: Path | None = None) -> Any:
    """A recipe's model with the adapter of its warm-up merged in and another one on it, where they are given."""
    from clinalign.decoding import check
    from clinalign.models import load_vlm

    vlm = load_vlm(
        recipe.model,
        dtype=recipe.dtype,
        device=device_of(recipe.device),
        processor=recipe.processor,
        quantize=recipe.quantize,
        unpacked=recipe.unpacked,
        tiles=recipe.tiles,
    )
    vlm.boxes = recipe.boxes
    _ = vlm.box_convention
    for options in (recipe.evaluate.decoder, *recipe.evaluate.decoders):
        check(vlm, options)
    if warmed is not None:
        vlm.load_adapter(warmed)
        vlm.merge_adapter()
    if adapter is not None:
        vlm.load_adapter(adapter)
    return vlm


def _origin(recipe: Recipe, *adapters: Path | None) -> tuple[Any, ...]:
    """What `engine.held` takes for a model: a key of its files, and how it is loaded from them."""
    key = _files_key(recipe, *adapters)
    return key, _load_again, key, recipe, *adapters


def _files_key(recipe: Recipe, *adapters: Path | None) -> str:
    from clinalign.models import files_hash

    folders = [str(one) if one is not None else "" for one in adapters]
    return key_of([recipe.model_dump(mode="json"), *map(files_hash, [recipe.model, recipe.processor, *folders])])


def _load_again(key: str, recipe: Recipe, *adapters: Path | None) -> Any:
    """The model in a worker. Raises `UsageError` where its files are not those that the run has."""
    if _files_key(recipe, *adapters) != key:
        raise UsageError(
            f"{recipe.model}: {platform.node()} has other files of the model than the run; give all nodes the same"
        )
    return load_model(recipe, *adapters)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        below = [_differences(before.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [text for texts in below for text in texts]
    return [] if before == now else [f"{name}: {before} -> {now}"]


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
