"""One corpus for every system: phantoms, the base's own answers, minimal-edit pairs, and v' drawn in up to three ways.

Everything is made once and kept as tables in one folder whose name is a hash of what went in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.lesions import corrupt_pairs
from clinalign.lesions.options import LesionOptions
from clinalign.measuring import answer
from clinalign.models import VLM, load_vlm, model_files
from clinalign.pairs import build_pairs, corpus_numbers, reference_pairs
from clinalign.pairs.options import PairOptions
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine, read_table, sha256, write_json, write_table
from studies.phantom.settings import Study

Answering = Callable[..., list[Answer]]
EDITS, REFERENCE = "edits", "reference"


@dataclass(frozen=True)
class Corpus:
    """A folder with `examples.parquet`, `images/` and `pairs-KIND.parquet`; `key` names its content."""

    folder: Path
    key: str

    def examples(self, split: str | None = None) -> list[Example]:
        """All examples, or those of a split."""
        return [e for e in read_table(self.folder / "examples.parquet", Example) if split in (None, e.split)]

    def pairs(self, name: str) -> list[Pair]:
        """Pairs with v' of a kind ("noise", "inpaint", ...), reference-style ones, or those of a later round."""
        return read_table(self.folder / f"pairs-{name}.parquet", Pair)

    def has(self, name: str) -> bool:
        """Whether a set of pairs is there, whole."""
        return (self.folder / f"numbers-{name}.json").is_file()

    def numbers(self, name: str) -> dict[str, Any]:
        """Style-gap and span statistics of a set of pairs."""
        return dict(json.loads((self.folder / f"numbers-{name}.json").read_text(encoding="utf-8")))


def model_hash(model: str) -> str:
    """A hash over the bytes of the model's files."""
    digest = hashlib.sha256()
    for path in model_files(model):
        digest.update(f"{path.name}:{sha256(path)}\n".encode())
    return digest.hexdigest()


def data_options(study: Study) -> DataOptions:
    """What is drawn for a study."""
    return DataOptions(source="phantom", splits=dict(study.patients), per_case=study.per_case)


def build(study: Study, work: Path, model: str, answering: Answering = answer) -> Corpus:
    """The corpus of a study below `work`, made where it is not there. `answering` samples the model's answers."""
    data = data_options(study)
    asked = load_recipe("phantom").answer
    parts = [data.model_dump(mode="json"), asked.model_dump(), PairOptions().model_dump(), model_hash(model)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    corpus = Corpus(work / f"corpus-{key[:12]}", key)
    done = corpus.folder / "done.json"
    if done.is_file():
        return corpus
    quarantine = Quarantine(corpus.folder / "quarantine.jsonl")
    examples = read(data, corpus.folder, quarantine)
    vlm = load_vlm(model)
    own = [e for e in examples if e.split == "align"]
    quarantine.start("answer")
    answers = answering(vlm, own, corpus.folder, asked, quarantine=quarantine)
    write_table(corpus.folder / "answers.parquet", answers, Answer)
    styled = reference_pairs(own, answers, vlm.tokenizer, quarantine)
    _keep(corpus, REFERENCE, styled, None)
    edits = build_pairs(own, answers, vlm.tokenizer, PairOptions(), quarantine)
    _keep(corpus, EDITS, edits, quarantine)
    quarantine.flush()
    write_table(corpus.folder / "examples.parquet", examples, Example)
    write_json(done, {"key": key, "examples": len(examples), "answers": len(answers), "pairs": len(edits)})
    return corpus


def with_corruption(corpus: Corpus, model: str, kind: str) -> None:
    """Makes the pairs with v' of a kind where they are not there."""
    if not corpus.has(kind):
        quarantine = Quarantine(corpus.folder / f"quarantine-{kind}.jsonl")
        edits = corpus.pairs(EDITS)
        pairs = _corrupted(corpus, load_vlm(model), edits, corpus.examples("align"), kind, quarantine)
        quarantine.flush()
        _keep(corpus, kind, pairs, quarantine)


def another_round(
    corpus: Corpus, model: str, adapter: Path, name: str, kind: str, round: int, answering: Answering = answer
) -> str:
    """Pairs made of the answers of the policy with `adapter`, kept under `name`, which is returned."""
    if not corpus.has(name):
        vlm = load_vlm(model, adapter=adapter)
        examples = corpus.examples("align")
        quarantine = Quarantine(corpus.folder / f"quarantine-{name}.jsonl")
        quarantine.start("answer")
        asked = load_recipe("phantom").answer
        answers = answering(vlm, examples, corpus.folder, asked, round=round, quarantine=quarantine)
        edits = build_pairs(examples, answers, vlm.tokenizer, PairOptions(), quarantine)
        _keep(corpus, name, _corrupted(corpus, vlm, edits, examples, kind, quarantine), quarantine)
        quarantine.flush()
    return name


def _corrupted(
    corpus: Corpus, vlm: VLM, edits: list[Pair], examples: list[Example], kind: str, quarantine: Quarantine
) -> list[Pair]:
    quarantine.start("corrupt")
    return corrupt_pairs(edits, examples, corpus.folder, vlm, LesionOptions(kind=kind), quarantine)


def _keep(corpus: Corpus, name: str, pairs: list[Pair], quarantine: Quarantine | None) -> None:
    write_table(corpus.folder / f"pairs-{name}.parquet", pairs, Pair)
    write_json(corpus.folder / f"numbers-{name}.json", corpus_numbers(pairs, quarantine))
