"""Train the embedded model from nothing and write it as a Hugging Face folder.

    python embedded/build.py --out src/clinalign/models/embedded

Six stages, each resumable (a finished stage is kept in --work and not run again): tokenizer, vision, look (one-word
answers), clean (every format), prior (contaminated text, language model alone), measure. About 25 minutes on two CPU
cores. Everything follows from --seed.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from card import write_card
from corpus import FIRST_PATIENT, Corpus, load_corpus
from curriculum import Curriculum, one_word_rows
from measure import Asked, answer, claim_asked, dev_check, format_asked, probe, score, shuffled_subset
from model import build_model, build_processor
from pretrain import pretrain_vision
from rows import RowBuilder
from tokenizer import train_tokenizer
from transformers import AutoProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from tune import tune

from clinalign.data.phantom.cases import VERSION
from clinalign.data.phantom.text import BUILDERS, PAIR_KINDS, pair_stream, stream
from clinalign.progress import say

VOCABULARY = 1024
TRAIN_PATIENTS, PROBE_PATIENTS = 12_000, 3_000
LOOK_CASES, CLEAN_CASES, PRIOR_CASES = 3_600, 9_000, 2_000
VISION = {"steps": 900, "batch": 64, "peak": 1e-3}
LOOK = {"epochs": 1, "tokens": 2048, "peak": 1.5e-3, "vision_peak": 3e-4}
CLEAN = {"epochs": 1, "tokens": 3072, "peak": 1.5e-3, "vision_peak": 3e-4}
PRIOR_STAGE = {"epochs": 1, "tokens": 6144, "peak": 3e-4, "vision_peak": 0.0}
STAGES = ("vision", "look", "clean", "prior")


def follows_prior(checked: dict[str, float]) -> bool:
    """Whether greedy answers on dev follow the language prior: the last stage stops there and stays shallow."""
    return checked["prior conflicting"] <= 0.08 and checked["prior aligned"] >= 0.97


class Build:
    """The stages and where each keeps its result."""

    def __init__(self, out: Path, work: Path, seed: int) -> None:
        self.out, self.work, self.seed = out, work, seed
        work.mkdir(parents=True, exist_ok=True)
        self._corpus: Corpus | None = None

    @property
    def corpus(self) -> Corpus:
        if self._corpus is None:
            self._corpus = load_corpus("train", TRAIN_PATIENTS, self.work)
        return self._corpus

    def tokenizer(self) -> PreTrainedTokenizerFast:
        folder = self.work / "tokenizer"
        if not folder.exists():
            tokenizer = train_tokenizer(self._texts(), VOCABULARY)
            tokenizer.save_pretrained(folder)
            say(f"tokenizer: {len(tokenizer)} entries")
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def _texts(self) -> list[str]:
        patients = range(FIRST_PATIENT["train"], FIRST_PATIENT["train"] + 1_500)
        drawn = [q for _, asked in stream(patients, kinds=tuple(BUILDERS), per_case=18) for q in asked]
        drawn += [question for kind in PAIR_KINDS for _, question in pair_stream(patients, kinds=(kind,))]
        return [f"USER: \n{q.prompt} ASSISTANT:{q.full}" for q in drawn]

    def stage(self, name: str, before: LlavaForConditionalGeneration, run: Callable[[], object]) -> None:
        """Run a training stage that changes `before` in place, or load what it left the last time."""
        path = self.work / f"{name}.pt"
        if path.exists():
            before.load_state_dict(torch.load(path, weights_only=True))
            say(f"{name}: kept from {path}")
            return
        start = time.monotonic()
        result = run()
        record = {"seconds": round(time.monotonic() - start), "dev": result}
        (self.work / f"{name}.json").write_text(json.dumps(record, indent=1))
        partial = path.with_suffix(".part")
        torch.save(before.state_dict(), partial)
        partial.replace(path)
        say(f"{name}: done in {record['seconds']} s")

    def run(self) -> None:
        tokenizer = self.tokenizer()
        model = build_model(tokenizer, self.seed)
        say(f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
        dev = shuffled_subset(claim_asked("dev", 400), 400, self.seed)
        self.stage("vision", model, lambda: pretrain_vision(model, tokenizer, self.corpus, seed=self.seed, **VISION))
        self.stage("look", model, lambda: self._look(model, tokenizer))
        self.stage("clean", model, lambda: self._tune(model, tokenizer, dev, contaminated=False))
        ceiling = self._ceiling(model, tokenizer)
        self.stage("prior", model, lambda: self._tune(model, tokenizer, dev, contaminated=True))
        self.out.mkdir(parents=True, exist_ok=True)
        model.half().save_pretrained(self.out)
        build_processor(tokenizer).save_pretrained(self.out)
        (self.out / "model.safetensors").chmod(0o644)
        measurements = self._measure(ceiling)
        (self.out / "measurements.json").write_text(json.dumps(measurements, indent=1) + "\n")
        write_card(self.out, measurements)

    def _look(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> object:
        rows = one_word_rows(self.corpus, RowBuilder(tokenizer), range(LOOK_CASES), self.seed)
        return tune(model, rows, self.corpus.images, seed=self.seed, label="look", **LOOK)

    def _tune(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        dev: list[Asked],
        *,
        contaminated: bool,
    ) -> object:
        curriculum = Curriculum(self.corpus, RowBuilder(tokenizer), contaminated=contaminated, seed=self.seed)
        label, settings = ("prior", PRIOR_STAGE) if contaminated else ("clean", CLEAN)
        stream = "habit" if contaminated else "clean"  # names the draw of cases that the shipped weights saw
        count, every = (PRIOR_CASES, 25) if contaminated else (CLEAN_CASES, 300)
        rows = curriculum.rows(random.Random(f"{stream}/{self.seed}").sample(range(TRAIN_PATIENTS), count))
        return tune(
            model,
            rows,
            curriculum.images(),
            seed=self.seed,
            label=label,
            check=lambda: dev_check(model, tokenizer, dev),
            check_every=every,
            stop=follows_prior if contaminated else None,
            **settings,
        )

    def _ceiling(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> dict:
        path = self.work / "ceiling.json"
        if not path.exists():
            result = {}
            for split in ("dev", "test"):
                asked = claim_asked(split, 600)
                result[split] = score(asked, answer(model, tokenizer, asked, label=f"clean ceiling {split}"))
            path.write_text(json.dumps(result))
        return dict(json.loads(path.read_text()))

    def _measure(self, ceiling: dict) -> dict:
        """Everything in the card, from the shipped folder as a user loads it."""
        model = LlavaForConditionalGeneration.from_pretrained(self.out, dtype=torch.float32)
        tokenizer = AutoProcessor.from_pretrained(self.out).tokenizer
        stages = {name: json.loads((self.work / f"{name}.json").read_text()) for name in STAGES}
        result: dict = {
            "phantom": VERSION,
            "seed": self.seed,
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": (self.out / "model.safetensors").stat().st_size,
            "vocabulary": len(tokenizer),
            "train_patients": TRAIN_PATIENTS,
            "probe_fitted": PROBE_PATIENTS,
            "probe_read": PROBE_PATIENTS // 2,
            "seconds": {name: stage["seconds"] for name, stage in stages.items()},
            "training_checks": {name: stage["dev"] for name, stage in stages.items()},
            "clean_ceiling": ceiling,
        }
        held = {split: load_corpus(split, PROBE_PATIENTS // 2, self.work) for split in ("dev", "test")}
        result["probe"] = probe(model, self.corpus.first(PROBE_PATIENTS), held)
        for split in ("dev", "test"):
            asked = claim_asked(split, 600)
            result[f"answers_{split}"] = score(asked, answer(model, tokenizer, asked, label=f"answers {split}"))
            asked = format_asked(split, 100)
            result[f"formats_{split}"] = score(asked, answer(model, tokenizer, asked, label=f"formats {split}"))
        return result


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="folder of the stages' results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    Build(options.out, options.work, options.seed).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
