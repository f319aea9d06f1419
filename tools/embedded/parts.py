"""Train every embedded part for phantom-2 and write them as Hugging Face folders with one card.

    python tools/embedded/parts.py --out build/phantom-2 --start src/clinalign/models/embedded   # as it is shipped
    python tools/embedded/parts.py --out build/quick --quick --start src/clinalign/models/embedded

Parts, each resumable (a finished part is kept in --work and not run again; a changed size, seed, draw or start is
refused there): tokenizer, vision (dense patch labels), look (one-word answers), clean (claims, reports and every
skill), sharpen and refine (mostly visible scenes, and what every patch shows), balance (the same, claims balanced as
the benchmark asks them), priors (the language priors, language model alone), teacher, measure. `measure` prints the
five checks and the accuracy of every skill on held-out patients. `--quick` shows the whole pipeline at small sizes;
with `--start` it sets out from the weights and the tokenizer of an earlier embedded model instead of vision training.
Everything follows from --seed and --draw.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import teacher
import torch
from examine import Examination, watch
from lessons import CLAIMS_PER_SCENE, Lessons, Scenes, load_scenes, one_word_rows
from model import build_model, build_processor
from pretrain import pretrain_vision
from rows import RowBuilder
from tokenizer import train_tokenizer
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
from tune import tune

from clinalign.data.phantom.claims import biased, claim_questions, report_question
from clinalign.data.phantom.scenes import VERSION, sample_scenes
from clinalign.data.phantom.skills import SKILLS
from clinalign.errors import UsageError
from clinalign.progress import say

PARTS = ("vision", "look", "clean", "sharpen", "refine", "balance", "priors")
MODEL = "embedded2"
VOCABULARY = 1024
LARGEST = 16 * 2**20


@dataclass(frozen=True)
class Size:
    """How much of each: scenes drawn, steps of vision and teacher, scenes of each tuning part, held-out scenes."""

    scenes: int = 12_000
    vision: int = 900
    look: int = 3_600
    clean: int = 9_000
    sharpen: int = 7_500
    refine: int = 4_000
    balance: int = 3_500
    priors: int = 1_300
    fitted: int = 3_000
    held: int = 600
    lessons: int = 60
    teacher: int = 250


QUICK = Size(2_000, 60, 400, 1_000, 600, 200, 200, 500, 1_000, 100, 4, 24)
LOOK = {"epochs": 1, "tokens": 2048, "peak": 1.5e-3, "vision_peak": 3e-4}
CLEAN = {"epochs": 1, "tokens": 3072, "peak": 1.5e-3, "vision_peak": 3e-4}
SHARPEN = {"epochs": 1, "tokens": 3072, "peak": 1e-3, "vision_peak": 5e-4}
REFINE = SHARPEN | {"peak": 7e-4}
BALANCE = SHARPEN | {"peak": 5e-4, "vision_peak": 3e-4}
PRIORS = {"epochs": 1, "tokens": 4096, "peak": 1e-3, "vision_peak": 0.0, "last": 1}
TUNED = {"clean": CLEAN, "sharpen": SHARPEN, "refine": REFINE, "balance": BALANCE, "priors": PRIORS}
LOOKS_AGAIN = ("sharpen", "refine", "balance")
EASY_RUNG, FAINT_SHARE, MORE_CLAIMS = 2, 0.15, 10


@dataclass(frozen=True)
class Plan:
    """What a work folder is built for; it takes no other."""

    seed: int
    draw: int
    start: str
    size: Size


class Build:
    """The parts and where each keeps its result."""

    def __init__(self, out: Path, work: Path, plan: Plan, workers: int = 1) -> None:
        self.out, self.work, self.plan, self.workers = out, work, plan, workers
        self.size = plan.size
        work.mkdir(parents=True, exist_ok=True)
        path, wanted = work / "plan.json", {"phantom": VERSION, **asdict(plan)}
        if path.exists() and json.loads(path.read_text()) != wanted:
            raise UsageError(f"{path}: the folder was begun with other settings; use another --work or delete it")
        path.write_text(json.dumps(wanted, indent=1) + "\n")
        self._scenes: dict[str, Scenes] = {}

    def scenes(self, split: str, count: int) -> Scenes:
        """The first scenes of a split, drawn once."""
        if split not in self._scenes:
            self._scenes[split] = load_scenes(split, count, self.work, draw=self.plan.draw, workers=self.workers)
        return self._scenes[split]

    def training(self) -> Scenes:
        """The scenes that parts are trained on."""
        return self.scenes("base", self.size.scenes)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of --start, or one learnt from the texts of phantom-2."""
        folder = Path(self.plan.start) if self.plan.start else self.work / "tokenizer"
        if not folder.exists():
            train_tokenizer(self._texts(), VOCABULARY).save_pretrained(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def _texts(self) -> list[str]:
        rng = random.Random(f"texts/{self.plan.seed}")
        texts = []
        for scene in sample_scenes("base", min(900, self.size.scenes), draw=self.plan.draw):
            asked = [*claim_questions(scene, rng), report_question(scene, rng), report_question(scene, rng, short=True)]
            asked += [biased(question, scene, rng) for question in asked]
            lesson = SKILLS[list(SKILLS)[scene.patient % len(SKILLS)]](scene, rng)
            asked += lesson.questions * 3 if lesson else []
            texts += [f"USER: \n{question.prompt} ASSISTANT:{question.full}" for question in asked]
        return texts

    def part(self, name: str, model: LlavaForConditionalGeneration, run: Callable[[], object]) -> None:
        """Run a training part that changes the model in place, or load what it left the last time."""
        path = self.work / f"{name}.pt"
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            say(f"{name}: kept from {path}")
            return
        began = time.monotonic()
        checks = run()
        record = {"seconds": round(time.monotonic() - began), "checks": checks}
        (self.work / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        partial = path.with_suffix(".part")
        torch.save(model.state_dict(), partial)
        partial.replace(path)
        say(f"{name}: done in {record['seconds']} s")

    def model(self, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
        """The model before its first part."""
        if self.plan.start:
            return LlavaForConditionalGeneration.from_pretrained(self.plan.start, dtype=torch.float32)
        return build_model(tokenizer, self.plan.seed)

    def run(self, until: str = "measure", *, teaches: bool = True) -> dict[str, object]:
        """All parts up to one of them, with a teacher or without; what was measured."""
        tokenizer = self.tokenizer()
        model, seed, size = self.model(tokenizer), self.plan.seed, self.size
        builder = RowBuilder(tokenizer)
        if not self.plan.start:
            self.part("vision", model, lambda: pretrain_vision(
                model, tokenizer, self.training().corpus, seed=seed, steps=size.vision, batch=64, peak=1e-3,
            ))  # fmt: skip
        self.part("look", model, lambda: self._look(model, builder))
        self.part("clean", model, lambda: self._tune(model, builder, "clean"))
        self.part("sharpen", model, lambda: self._tune(model, builder, "sharpen"))
        self.part("refine", model, lambda: self._tune(model, builder, "refine"))
        self.part("balance", model, lambda: self._tune(model, builder, "balance"))
        if until == "clean":
            return {}
        ceiling = self._examined("ceiling", model, builder)
        self.part("priors", model, lambda: self._tune(model, builder, "priors"))
        if until == "priors":
            return {}
        shown = self._teacher() if teaches else {}
        base = self._examined("base", model, builder)
        folder = self.out / MODEL
        folder.mkdir(parents=True, exist_ok=True)
        model.half().save_pretrained(folder)
        build_processor(tokenizer).save_pretrained(folder)
        measured = self._report(ceiling, base, shown)
        (folder / "measurements.json").write_text(json.dumps(measured, indent=1) + "\n")
        (folder / "README.md").write_text(card(measured))
        return measured

    def _look(self, model: LlavaForConditionalGeneration, builder: RowBuilder) -> object:
        rows = one_word_rows(self.training(), builder, range(self.size.look), self.plan.seed)
        return tune(model, rows, self.training().corpus.images, seed=self.plan.seed, label="look", **LOOK)

    def _tune(self, model: LlavaForConditionalGeneration, builder: RowBuilder, name: str) -> object:
        scenes, seed, settings = self.training(), self.plan.seed, TUNED[name]
        drawn = Lessons(
            scenes, builder, priors=name == "priors", seed=seed, skills=tuple(SKILLS),
            claims=CLAIMS_PER_SCENE if name == "clean" else MORE_CLAIMS,
            balanced=name == "balance",
        )  # fmt: skip
        rows = drawn.rows(self._chosen(name, getattr(self.size, name)))
        held = self.scenes("dev", self.size.held)
        return tune(
            model, rows, drawn.images(), seed=seed, label=name, check_every=200,
            check=lambda: watch(model, builder.tokenizer, held),
            corpus=scenes.corpus if name in LOOKS_AGAIN else None, **settings,
        )  # fmt: skip

    def _chosen(self, name: str, count: int) -> list[int]:
        """Which scenes a part is taught; to look again, mostly those of the easier rungs."""
        rng, rungs = random.Random(f"{name}/{self.plan.seed}"), self.training().rungs
        if name not in LOOKS_AGAIN:
            return rng.sample(range(self.size.scenes), count)
        easy, hard = ([i for i, rung in enumerate(rungs) if (rung <= EASY_RUNG) == wanted] for wanted in (True, False))
        faint = min(len(hard), round(count * FAINT_SHARE))
        chosen = rng.sample(easy, min(len(easy), count - faint)) + rng.sample(hard, faint)
        return rng.sample(chosen, len(chosen))

    def _examined(self, name: str, model: LlavaForConditionalGeneration, builder: RowBuilder) -> Examination:
        """The model examined as it is now, or what was found the last time."""
        path = self.work / f"{name}.examined.json"
        if not path.exists():
            held = {split: self.scenes(split, self.size.held) for split in ("dev", "test", "elsewhere")}
            examination = Examination.of(
                model, builder, self.training(), held, readers=self.size.fitted if name == "base" else 0,
                lessons=self.size.lessons, label=name,
            )  # fmt: skip
            path.write_text(json.dumps(examination.record()) + "\n")
        return Examination.read(json.loads(path.read_text()))

    def _teacher(self) -> dict[str, float]:
        folder = self.out / f"{MODEL}_teacher"
        path = self.work / "teacher.json"
        if not path.exists() or not folder.exists():
            began = time.monotonic()
            model, tokenizer = teacher.train(
                self.training().corpus, self.plan.seed, steps=self.size.teacher, attend=teacher.ATTEND
            )
            measured = teacher.measure(model, tokenizer, self.scenes("dev", self.size.held).corpus)
            teacher.save(folder, model, tokenizer)
            path.write_text(json.dumps({**measured, "seconds": round(time.monotonic() - began)}) + "\n")
        return dict(json.loads(path.read_text()))

    def _report(self, ceiling: Examination, base: Examination, shown: dict[str, float]) -> dict[str, object]:
        kept = {name: self.work / f"{name}.json" for name in PARTS}
        seconds = {name: json.loads(path.read_text())["seconds"] for name, path in kept.items() if path.exists()}
        seconds |= {"teacher": shown["seconds"]} if shown else {}
        folders = (MODEL, f"{MODEL}_teacher") if shown else (MODEL,)
        files = [path for name in folders for path in (self.out / name).iterdir() if path.is_file()]
        return {
            "phantom": VERSION,
            "plan": asdict(self.plan) | {"start": Path(self.plan.start).name},
            "bytes": sum(path.stat().st_size for path in files),
            "seconds": seconds,
            "teacher": shown,
            **base.against(ceiling),
        }


def card(measured: dict) -> str:
    """The card of all parts, from the measurements alone."""

    def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
        return (
            "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *lines)) + "\n"
        )

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    skills = [[name, percent(clean), percent(base)] for name, (clean, base) in measured["skills"].items()]
    priors = [[name, *map(percent, values)] for name, values in measured["priors"].items()]
    rungs = [[rung, *map(percent, values)] for rung, values in measured["rungs"].items()]
    minutes = sum(measured["seconds"].values()) / 60
    start = measured["plan"]["start"]
    origin = f", from the weights of `{start}`" if start else ""
    shown = f", the teacher's\n{measured['teacher']['ratio']:.2f}" if measured["teacher"] else ""
    what = f"A small vision-language model{' and a teacher' if shown else ''}"
    size = f"{'Together ' if shown else ''}{measured['bytes'] / 2**20:.1f} MB"
    return f"""\
# The embedded parts of phantom-2

{what}, trained from nothing on phantoms ({measured["phantom"]}), not on patients.
**Never for medicine.** {size}; trained in {minutes:.0f} minutes on one thread
beside other work (seeded{origin}).

## The five checks
```
{measured["printed"]}
```

## Rungs, test, %
{table(("rung", "linear reader", "base", "clean ceiling"), rungs)}
## Language priors, test, right %
{table(("prior", "base, conflicting", "base, aligned", "ceiling, conflicting", "ceiling, aligned"), priors)}
## Skills, held-out patients, right %
{table(("skill", "clean ceiling", "base"), skills)}
Attention on findings, in shares of an even one: the model's own {measured["own_attention"]:.2f}{shown}.

The other hospital, visible rungs: base {percent(measured["elsewhere"])} % right, clean ceiling
{percent(measured["elsewhere_ceiling"])} %.
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the parts to")
    parser.add_argument("--work", type=Path, help="folder of the parts' results (default: beside --out)")
    parser.add_argument("--start", default="", help="folder of an earlier embedded model to set out from")
    parser.add_argument("--until", choices=("clean", "priors", "measure"), default="measure")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows the pipeline, proves nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=int, default=0, help="patients of their own: an independently drawn base")
    parser.add_argument("--no-teacher", action="store_true", help="the model alone: a base to compare methods on")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    plan = Plan(options.seed, options.draw, options.start, QUICK if options.quick else Size())
    work = options.work or options.out.with_name(options.out.name + "-work")
    measured = Build(options.out, work, plan, options.threads).run(options.until, teaches=not options.no_teacher)
    if measured:
        say(str(measured["printed"]))
        if int(str(measured["bytes"])) > LARGEST:
            say(f"the parts take {measured['bytes']} bytes, more than {LARGEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
