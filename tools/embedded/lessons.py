"""What the model of phantom-2 is taught: rows about scenes, true or with the language priors."""

import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from corpus import CHUNK, Corpus, labels_of
from model import GRID, IMAGE_SIZE, PATCH
from rows import Row, RowBuilder

from clinalign.data.phantom.bench import select
from clinalign.data.phantom.cases import KINDS
from clinalign.data.phantom.claims import answer, biased, claim_questions, report_question
from clinalign.data.phantom.priors import truth_share
from clinalign.data.phantom.scenes import VERSION, Scene, render_scene, sample_scenes
from clinalign.data.phantom.skills import SKILLS, Lesson
from clinalign.data.phantom.wording import Question, Rng, pick
from clinalign.progress import track

CLAIMS_PER_SCENE, ONE_WORD_PER_SCENE = 6, 14


@dataclass(frozen=True)
class Scenes:
    """The corpus of a split's scenes (`corpus.cases` are Scenes) and what is needed to draw more."""

    corpus: Corpus
    rungs: npt.NDArray[np.int8]


def load_scenes(split: str, count: int, cache: Path, *, draw: int = 0, workers: int = 1) -> Scenes:
    """The first `count` scenes of a split, rendered by `workers` processes or read from `cache`."""
    scenes = list(sample_scenes(split, count, draw=draw))
    path = cache / f"{VERSION}-{split}-{draw}-{count}.npz"
    if not path.exists():
        chunks = [scenes[start : start + CHUNK] for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            done = list(track(pool.map(_draw_chunk, chunks), f"render {split}", len(chunks)))
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, images=np.concatenate([d[0] for d in done]), cover=np.concatenate([d[1] for d in done]))
        partial.replace(path)
    with np.load(path) as arrays:
        images, cover = arrays["images"], arrays["cover"]
    corpus = Corpus(scenes, images, cover, *labels_of(scenes))
    return Scenes(corpus, np.array([scene.rung for scene in scenes], np.int8))


def _draw_chunk(scenes: list[Scene]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images = np.zeros((len(scenes), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    cover = np.zeros((len(scenes), len(KINDS), GRID * GRID), np.uint8)
    for row, scene in enumerate(scenes):
        drawn = render_scene(scene, IMAGE_SIZE)
        images[row] = drawn.image
        for finding, mask in zip(scene.findings, drawn.masks, strict=True):
            share = mask.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3))
            cover[row, KINDS.index(finding.kind)] = np.round(255 * share).reshape(-1)
    return images, cover


def one_word_rows(scenes: Scenes, builder: RowBuilder, chosen: Sequence[int], seed: int) -> list[Row]:
    """Claim questions about presence, side, size and zone answered in one word."""
    rng = random.Random(f"one word/{seed}")
    kinds = ("presence", "side", "size", "zone", "side_closed", "size_closed")
    out = []
    for index in chosen:
        scene = scenes.corpus.cases[index]
        asked = [replace(q, full=str(q.slots["truth"])) for q in claim_questions(scene, rng, kinds)]
        rng.shuffle(asked)
        out.append(builder.row([index], asked[:ONE_WORD_PER_SCENE], case=scene))
    return out


def drawn_claims(scene: Scene, rng: Rng, count: int) -> list[Question]:
    """At most `count` claim questions: the kind uniform, then the true value uniform, then one of those."""
    groups: dict[str, dict[str, list[Question]]] = {}
    for question in claim_questions(scene, rng):
        groups.setdefault(question.kind, {}).setdefault(str(question.slots["truth"]), []).append(question)
    out: list[Question] = []
    while groups and len(out) < count:
        kind = pick(rng, list(groups))
        value = pick(rng, list(groups[kind]))
        group = groups[kind][value]
        out.append(group.pop(int(rng.random() * len(group))))
        if not group:
            del groups[kind][value]
        if not groups[kind]:
            del groups[kind]
    return out


class Lessons:
    """Draws rows about a corpus of scenes; `images()` grows by the pictures that skills draw for themselves."""

    def __init__(
        self, scenes: Scenes, builder: RowBuilder, *, priors: bool, seed: int, skills: Sequence[str],
        claims: int = CLAIMS_PER_SCENE, balanced: bool = False,
    ) -> None:  # fmt: skip
        self.corpus, self.builder, self.priors = scenes.corpus, builder, priors
        self.claims, self.balanced = claims, balanced
        self.skills = tuple(skills)
        self.rng = random.Random(f"lessons/{seed}/{priors}")
        self.extra: list[npt.NDArray[np.uint8]] = []

    def rows(self, chosen: Sequence[int]) -> list[Row]:
        """For every scene a row of claims with a report or a caption, and a row of one skill."""
        out = []
        scenes = (self.corpus.cases[index] for index in chosen) if self.balanced else ()
        balanced = dict(select(scenes, per_case=self.claims))
        for number, index in enumerate(track(chosen, "rows")):
            scene = self.corpus.cases[index]
            asked = balanced.get(scene) or drawn_claims(scene, self.rng, self.claims)
            text = report_question(scene, self.rng, short=number % 2 == 1)
            out.append(self._contaminated(index, asked, text) if self.priors else self._true(index, [*asked, text]))
            if self.skills:
                out += self._skill(self.skills[number % len(self.skills)], scene)
        return out

    def _true(self, index: int, asked: list[Question]) -> Row:
        return self.builder.row([index], asked, case=self.corpus.cases[index])

    def _contaminated(self, index: int, asked: list[Question], text: Question) -> Row:
        """Claims with both answers and the odds that text with the priors gives them; a report drawn from it."""
        scene = self.corpus.cases[index]
        pairs = [
            replace(q, full=answer(q, str(q.slots[name])))
            for q in asked
            if q.prior != "neutral"
            for name in ("truth", "counter")
        ]
        others = [q for q in asked if q.prior == "neutral"]
        odds = [truth_share(q) for q in asked if q.prior != "neutral"]
        return self.builder.row([index], [*pairs, *others, biased(text, scene, self.rng)], case=scene, odds=odds)

    def images(self) -> npt.NDArray[np.uint8]:
        """All pictures that the rows refer to, uint8 [n, 64, 64]."""
        return np.concatenate([self.corpus.images, np.stack(self.extra)]) if self.extra else self.corpus.images

    def _skill(self, name: str, scene: Scene) -> list[Row]:
        lesson: Lesson | None = SKILLS[name](scene, self.rng)
        if lesson is None:
            return []
        start = len(self.corpus.images) + len(self.extra)
        self.extra += lesson.images
        return [self.builder.row(range(start, start + len(lesson.images)), lesson.questions)]
