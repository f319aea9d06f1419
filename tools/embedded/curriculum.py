"""What the model is taught: rows of every prompt format, clean or contaminated along the language prior."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from corpus import Corpus
from model import IMAGE_SIZE
from rows import Row, RowBuilder

from clinalign.data.phantom.cases import Case, render
from clinalign.data.phantom.text import (
    BUILDERS,
    CLAIM_KINDS,
    IMAGES,
    PAIR_KINDS,
    Question,
    contaminate,
    draw,
    pair_questions,
    questions,
)
from clinalign.data.phantom.two_images import follow_up
from clinalign.data.phantom.wording import pick
from clinalign.progress import track

TEXT_ONLY = tuple(kind for kind in BUILDERS if IMAGES[kind] == 0)
OTHER_KINDS = tuple(kind for kind in BUILDERS if IMAGES[kind] == 1 and kind not in CLAIM_KINDS)
ONE_WORD_PER_CASE = 14
CLAIMS_PER_CASE, OTHERS_PER_CASE = 5, 3
GAP_SHARE, LONGEST_GAP = 0.05, 1600  # rows whose questions stand far from their image, so that long prompts work
LONG_TURNS = 9

Rewrite = Callable[[Question, random.Random], Question]


def one_word_rows(corpus: Corpus, builder: RowBuilder, cases: Sequence[int], seed: int) -> list[Row]:
    """Claim questions answered in one word: the shortest way to learn to look a named finding up in the image."""
    rng = random.Random(f"one word/{seed}")
    out = []
    for index in cases:
        asked = [replace(q, full=str(q.slots[q.slot])) for q in questions(corpus.cases[index], rng, CLAIM_KINDS)]
        rng.shuffle(asked)
        out.append(builder.row([index], asked[:ONE_WORD_PER_CASE], case=corpus.cases[index]))
    return out


class Curriculum:
    """Draws rows about the cases of a corpus; `images` grows by the follow-up images that rows need."""

    def __init__(self, corpus: Corpus, builder: RowBuilder, *, contaminated: bool, seed: int) -> None:
        self.corpus, self.builder = corpus, builder
        self.rewrite: Rewrite = contaminate if contaminated else lambda question, rng: question
        self.rng = random.Random(f"curriculum/{seed}/{contaminated}")
        self.extra: list[npt.NDArray[np.uint8]] = []

    def rows(self, cases: Sequence[int]) -> list[Row]:
        """One row of single-image questions per case, and for every eighth each of the rarer forms of prompt."""
        out = []
        for number, index in enumerate(track(cases, "rows")):
            out.append(self._single(index))
            if number % 8 == 0:
                out += self._text_only(index)
            elif number % 8 in (1, 2):
                out += self._two_images(index)
            elif number % 8 == 3:
                out += self._turns(index)
            elif number % 64 == 4:
                out.append(self._long(index))
        return out

    def images(self) -> npt.NDArray[np.uint8]:
        """All images that the rows refer to, uint8 [n, 64, 64]."""
        return np.concatenate([self.corpus.images, np.stack(self.extra)]) if self.extra else self.corpus.images

    def _taught(self, drawn: Sequence[Question]) -> list[Question]:
        return [self.rewrite(question, self.rng) for question in drawn]

    def _other(self) -> int:
        return int(self.rng.random() * len(self.corpus.cases))

    def _single(self, index: int) -> Row:
        case = self.corpus.cases[index]
        asked = draw(case, self.rng, CLAIM_KINDS, CLAIMS_PER_CASE) + draw(case, self.rng, OTHER_KINDS, OTHERS_PER_CASE)
        asked += draw(case, self.rng, ("options",), 1)  # a letter takes more practice than a word
        gap = int(self.rng.random() * LONGEST_GAP) if self.rng.random() < GAP_SHARE else 0
        return self.builder.row([index], self._taught(asked), gap=gap, case=case)

    def _text_only(self, index: int) -> list[Row]:
        asked = [q for _ in range(4) for q in questions(self.corpus.cases[index], self.rng, TEXT_ONLY)]
        return [self.builder.row([], self._taught(asked[:12]))]

    def _two_images(self, index: int) -> list[Row]:
        kind = pick(self.rng, PAIR_KINDS)
        first, other = self.corpus.cases[index], self._other()
        second: Case = self.corpus.cases[other]
        if kind == "resolved":
            pair = follow_up(first, self.rng)
            if pair is None:
                return []
            second, other = pair[1], len(self.corpus.cases) + len(self.extra)
            self.extra.append(render(second, IMAGE_SIZE).image)
        asked = pair_questions(first, second, self.rng, (kind,))
        self.rng.shuffle(asked)
        return [self.builder.row([index, other], self._taught(asked[:6]))] if asked else []

    def _turns(self, index: int) -> list[Row]:
        """A worked example as an earlier turn about another image, or an earlier turn about the same image."""
        asked = self._taught(draw(self.corpus.cases[index], self.rng, CLAIM_KINDS, 6))
        if self.rng.random() < 0.5:
            return [self.builder.follow_up(index, asked[0], asked[1:])]
        other = self._other()
        shown = self._taught(draw(self.corpus.cases[other], self.rng, CLAIM_KINDS, 1))
        return [self.builder.row([index], asked, shown=[(other, question) for question in shown])]

    def _long(self, index: int) -> Row:
        """More than 1 000 tokens: many worked examples, each with its image, before the questions."""
        others = [self._other() for _ in range(LONG_TURNS)]
        shown = [(other, q) for other in others for q in draw(self.corpus.cases[other], self.rng, CLAIM_KINDS, 1)]
        shown = [(other, self.rewrite(question, self.rng)) for other, question in shown]
        asked = self._taught(draw(self.corpus.cases[index], self.rng, CLAIM_KINDS, 6))
        return self.builder.row([index], asked, shown=shown)
