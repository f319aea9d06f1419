"""A recipe into stages and a run folder that resumes.

A stage is a function from the run to the files it wrote. What went in (options, input tables, model) is hashed into
a key; `run.json` keeps the key and the hash of every output. A stage whose key and outputs still match is not run
again, so a run that was killed anywhere goes on where it was, and a changed setting redoes only what depends on it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.recipe import Recipe
from clinalign.records import Answer, Example, Outcome, Pair
from clinalign.tables import Journal, Quarantine, read_table, sha256, write_json, write_table

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pillow", "pyarrow")
WHOLE_HASH_BYTES = 256 * 2**20


class _NotDone(Exception):
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

    def stage(
        self, name: str, work: Callable[[], list[Path]], *, options: Any, inputs: list[Path], model: bool = False
    ) -> None:
        """Runs `work` unless its outputs are there, made from the same options, inputs and model."""
        kind = name.partition(":")[0]
        key = self._key(options, inputs, model)
        done = self.state["stages"].get(name)
        if done and done["key"] == key and all(_hash(self.out / p) == h for p, h in done["outputs"].items()):
            say(f"{name}: done already")
            self.ran += kind == self.only
            return
        if self.only not in (None, kind):
            raise _NotDone(name)
        self.ran += 1
        self.state["stages"].pop(name, None)
        start = time.monotonic()
        with self._quarantined(name):
            outputs = work()
        dropped = self.quarantine.count(name)
        self.state["stages"][name] = {
            "key": key,
            "inputs": {str(p.relative_to(self.out)): _hash(p) for p in inputs},
            "outputs": {str(p.relative_to(self.out)): _hash(p) for p in outputs},
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
        parts = [__version__, json.dumps(options, sort_keys=True, default=str), *(_hash(path) for path in inputs)]
        if model:
            parts += [self.recipe.dtype, model_fingerprint(self.recipe.model)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def load(self, adapter: Path | None = None) -> Any:
        """The recipe's model, with an adapter on it where one is given."""
        from clinalign.models import load_vlm

        return load_vlm(self.recipe.model, adapter=adapter, dtype=self.recipe.dtype, device=_device(self.recipe.device))


def execute(run: Run, only: str | None = None) -> None:
    """Runs every stage that is not done. With `only`, runs that one stage, in every round its predecessors allow."""
    run.only = only
    try:
        for work, arguments in _plan(run):
            work(run, *arguments)
    except _NotDone as missing:
        if run.ran == 0:
            command = str(missing).partition(":")[0]
            raise UsageError(f"{run.out}: stage '{missing}' is not done; run `clinalign {command}` first") from None


def _plan(run: Run) -> list[tuple[Callable[..., None], tuple[int, ...]]]:
    rounds = [(work, (number,)) for number in range(run.recipe.rounds) for work in (answer, pair, corrupt, align)]
    return [(ingest, ()), *rounds, (gather, ()), (evaluate, ()), (report, ())]


def ingest(run: Run) -> None:
    """The data source into `examples.parquet` and `images/`."""

    def work() -> list[Path]:
        from clinalign.data import read

        examples = read(run.recipe.data, run.out, run.quarantine)
        if not examples:
            raise UsageError(
                f"{run.recipe.data.path or run.recipe.data.source}: no usable row; see {run.quarantine.path}"
            )
        missing = {"align", run.recipe.evaluate.split} - {e.split for e in examples}
        if missing and run.only is None:
            raise UsageError(
                f"data: no example has split '{sorted(missing)[0]}'; a run needs 'align' and a split to test on"
            )
        write_table(run.out / "examples.parquet", examples, Example)
        return [run.out / "examples.parquet"]

    data = run.recipe.data
    given = _hash(Path(data.path)) if data.path and Path(data.path).is_file() else ""
    run.stage("ingest", work, options=[data.model_dump(mode="json"), given], inputs=[])


def answer(run: Run, number: int) -> None:
    """The policy's own answers to the align split."""

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

    def work() -> list[Path]:
        from clinalign.models import load_tokenizer
        from clinalign.pairs import build_pairs

        examples = read_table(run.out / "examples.parquet", Example)
        answers = read_table(_table(run, "answers", number), Answer)
        tokenizer = load_tokenizer(run.recipe.model)
        pairs = build_pairs(examples, answers, tokenizer, run.recipe.pair, run.quarantine)
        if not pairs:
            raise UsageError(f"{table}: no answer became a pair; see {run.quarantine.path} for the reasons")
        write_table(table, pairs, Pair)
        return [table]

    table = _table(run, "edits", number)
    inputs = [run.out / "examples.parquet", _table(run, "answers", number)]
    run.stage(
        _name(run, "pair", number), work, options=run.recipe.pair.model_dump(mode="json"), inputs=inputs, model=True
    )


def corrupt(run: Run, number: int) -> None:
    """The evidence taken out of a twin image of every pair, and the same done to a matched control patch."""

    def work() -> list[Path]:
        from clinalign.lesions import corrupt_pairs
        from clinalign.pairs import corpus_numbers

        examples = read_table(run.out / "examples.parquet", Example)
        edits = read_table(_table(run, "edits", number), Pair)
        pairs = corrupt_pairs(edits, examples, run.out, run.load(), run.recipe.corrupt, run.quarantine)
        write_table(table, pairs, Pair)
        write_json(corpus, corpus_numbers(pairs) | {"gates": gates})
        return [table, corpus]

    table, corpus = _table(run, "pairs", number), run.out / f"corpus{_suffix(run, number)}.json"
    edited = _name(run, "pair", number)
    gates = dict(Counter(row["reason"] for row in run.quarantine.rows if row["stage"] == edited).most_common())
    inputs = [run.out / "examples.parquet", _table(run, "edits", number)]
    run.stage(
        _name(run, "corrupt", number),
        work,
        options=run.recipe.corrupt.model_dump(mode="json"),
        inputs=inputs,
        model=True,
    )


def align(run: Run, number: int) -> None:
    """Pairs into an adapter: the method of interest in every round, the systems under `compare` in the first."""
    for label in run.recipe.systems() if number == 0 else run.recipe.systems()[:1]:
        _align(run, number, label)


def _align(run: Run, number: int, label: str) -> None:
    options = run.recipe.system(label)
    folder = _system(run, label, number)

    def work() -> list[Path]:
        from clinalign.training import train

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
    name = _name(run, f"align:{label}", number)
    run.stage(name, work, options=given, inputs=inputs, model=True)


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
    if any(_hash(path) != _hash(run.out / "adapter" / path.name) for path in weights):
        shutil.copytree(last / "adapter", run.out / "adapter", dirs_exist_ok=True)
        shutil.copy2(last / "metrics.jsonl", run.out / "metrics.jsonl")


def evaluate(run: Run) -> None:
    """Base and every trained system on the test split, on one footing; the numbers with intervals and paired tests."""
    systems: dict[str, Path | None] = {"base": None}
    systems |= {label: _system(run, label, None) / "adapter" for label in run.recipe.systems()}

    def work() -> list[Path]:
        from clinalign.evaluation import card_rows, summarise
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
        summary = summarise(outcomes, examples, options)
        write_table(run.out / "outcomes.parquet", outcomes, Outcome)
        write_json(run.out / "evaluation" / "summary.json", summary)
        for label in run.recipe.systems():
            folder = _system(run, label, None)
            write_card(folder / "adapter", {"evaluation": card_rows(summary, label)})
        journal.close()
        _picture_conditions(run, examples, outcomes)
        return [run.out / "outcomes.parquet", run.out / "evaluation" / "summary.json"]

    inputs = [run.out / "examples.parquet"]
    inputs += [path for folder in systems.values() if folder for path in sorted(folder.glob("*.safetensors"))]
    run.stage("evaluate", work, options=run.recipe.evaluate.model_dump(mode="json"), inputs=inputs, model=True)


def _picture_conditions(run: Run, examples: list[Example], outcomes: list[Outcome]) -> None:
    """The corrupted twins of the questions that the page shows, at the model's input resolution."""
    from clinalign.data.images import write_png
    from clinalign.lesions import example_conditions
    from clinalign.pages import shown_examples

    vlm = run.load()
    for example in shown_examples({e.id: e for e in examples}, outcomes, ["base", run.recipe.align.method]):
        drawn = example_conditions(example, run.out, vlm, sigma=run.recipe.evaluate.sigma) if example.regions else {}
        for condition in ("lesion_noise", "removal"):
            if condition in drawn:
                write_png(run.out / "evaluation" / "images" / f"{example.id}-{condition}.png", drawn[condition][0])


def report(run: Run) -> None:
    """The page. Always written anew: it is cheap and reads the run folder alone."""
    from clinalign.pages import write_report

    write_json(run.file, run.state)
    write_report(run.out)


def model_fingerprint(name: str) -> str:
    """A hash of the model's files: whole small files, name and size of weights over 256 MiB."""
    from clinalign.models import fingerprint

    digest = hashlib.sha256(name.encode())
    for path, size in fingerprint(name).items():
        content = _hash(Path(path)) if size <= WHOLE_HASH_BYTES else size
        digest.update(f"{Path(path).name}:{content}\n".encode())
    return digest.hexdigest()


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        below = [_differences(before.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [text for texts in below for text in texts]
    return [] if before == now else [f"{name}: {before} -> {now}"]


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


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _hash(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
