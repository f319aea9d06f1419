"""Training rows: one shared prefix with the images, then several questions that cannot see each other.

A row is `prefix + segment 1 + segment 2 + ...`. Every segment is a prompt and its answer; it attends to the prefix and
to itself, and its positions start again after the prefix. So each question sees exactly what it would see alone, and
the image is encoded and read once for all of them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from model import IMAGE_TOKENS
from tokenizer import EOS, IMAGE
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from clinalign.data.phantom.cases import SIDES, SIZES, ZONES, Case
from clinalign.data.phantom.text import Question

IGNORE = -100
FACTS = ("present", *SIDES, *SIZES, *ZONES)


@dataclass(frozen=True)
class Segment:
    """Token ids of one prompt (up to "ASSISTANT:") and of its answer with EOS; trained on the answer.

    `mention` is where the prompt ends naming the finding asked about (-1: nowhere), `facts` what holds for it.
    """

    prompt: list[int]
    answer: list[int]
    mention: int = -1
    facts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """`images`: indices into the image array, one per placeholder of the prefix; `gap`: unused positions after it.

    `odds`: the first segments are pairs of one prompt with two answers, and text gives the first answer of pair k with
    the probability odds[k].
    """

    images: tuple[int, ...]
    prefix: list[int]
    segments: list[Segment] = field(default_factory=list)
    gap: int = 0
    odds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(s.prompt) + len(s.answer) for s in self.segments)


class RowBuilder:
    """Turns questions into rows with the words of the chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.image_id = tokenizer.convert_tokens_to_ids(IMAGE)

    def ids(self, text: str) -> list[int]:
        """Token ids with every image placeholder expanded to its 64 tokens."""
        out: list[int] = []
        for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]:
            out += [token] * (IMAGE_TOKENS if token == self.image_id else 1)
        return out

    def row(
        self,
        images: Sequence[int],
        questions: Sequence[Question],
        *,
        shown: Sequence[tuple[int, Question]] = (),
        gap: int = 0,
        case: Case | None = None,
        odds: Sequence[float] = (),
    ) -> Row:
        """Questions about `images`, after the worked examples `shown` (image index and question) as earlier turns.

        With the `case` of the only image, segments carry what holds for the finding that they ask about.
        """
        before = "".join(f"USER: {IMAGE}\n{q.prompt} ASSISTANT:{q.full}{EOS}" for _, q in shown)
        prefix = before + ("USER: " + "\n".join([IMAGE] * len(images)) if images else "USER:")
        lead = "\n" if images else " "
        segments = [self.segment(lead, question, case) for question in questions]
        return Row((*(index for index, _ in shown), *images), self.ids(prefix), segments, gap, tuple(odds))

    def follow_up(self, image: int, first: Question, questions: Sequence[Question]) -> Row:
        """Further turns about the image of the first turn."""
        prefix = f"USER: {IMAGE}\n{first.prompt} ASSISTANT:{first.full}{EOS}USER:"
        return Row((image,), self.ids(prefix), [self.segment(" ", question) for question in questions])

    def segment(self, lead: str, question: Question, case: Case | None = None) -> Segment:
        prompt, answer = self.ids(f"{lead}{question.prompt} ASSISTANT:"), self.ids(question.full + EOS)
        if case is None or question.finding is None:
            return Segment(prompt, answer)
        name = self.ids(f" {question.finding}")
        ends = [at + len(name) - 1 for at in range(len(prompt)) if prompt[at : at + len(name)] == name]
        return Segment(prompt, answer, ends[-1], facts(case, question.finding)) if ends else Segment(prompt, answer)


def facts(case: Case, kind: str) -> tuple[float, ...]:
    """1.0 for each of FACTS that holds for a kind of finding in a case, else 0.0."""
    found = next((finding for finding in case.findings if finding.kind == kind), None)
    holding = {"present", found.side, found.size, found.zone} if found else set()
    return tuple(float(fact in holding) for fact in FACTS)


@dataclass
class Batch:
    """Tensors of some rows: ids, positions and targets [B, L]; mask bool [B, 1, L, L]; images int64 [m].

    mentions: int64 [k, 2], row and column of each named finding; facts: float [k, 8]. answers [B, L]: the number of the
    answer whose token a position has to predict; weights [B, L]: how often text gives it. pairs: int64 [p], the first
    answer of each pair, odds: float [p], its probability.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    images: Tensor
    mentions: Tensor
    facts: Tensor
    answers: Tensor
    weights: Tensor
    pairs: Tensor
    odds: Tensor


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Right-padded tensors; `targets[t]` is the token that position t has to predict, or IGNORE."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.full((len(rows), length), IGNORE)
    part = torch.full((len(rows), length), -1)
    answers, weights = torch.full((len(rows), length), -1), torch.ones(len(rows), length)
    pairs: list[int] = []
    odds: list[float] = []
    count = 0
    mentions: list[tuple[int, int]] = []
    known: list[tuple[float, ...]] = []
    for i, row in enumerate(rows):
        at = len(row.prefix)
        ids[i, :at] = torch.tensor(row.prefix)
        positions[i, :at] = torch.arange(at)
        part[i, :at] = 0
        pairs += range(count, count + 2 * len(row.odds), 2)
        odds += row.odds
        given = [share for p in row.odds for share in (p, 1 - p)]
        for number, segment in enumerate(row.segments, 1):
            tokens = segment.prompt + segment.answer
            end = at + len(tokens)
            ids[i, at:end] = torch.tensor(tokens)
            positions[i, at:end] = torch.arange(len(tokens)) + len(row.prefix) + row.gap
            first = at + len(segment.prompt) - 1
            targets[i, first : first + len(segment.answer)] = torch.tensor(segment.answer)
            answers[i, first : first + len(segment.answer)] = count
            weights[i, first : first + len(segment.answer)] = given[number - 1] if number <= len(given) else 1.0
            count += 1
            part[i, at:end] = number
            if segment.mention >= 0:
                mentions.append((i, at + segment.mention))
                known.append(segment.facts)
            at = end
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = part[:, :, None] == part[:, None, :]
    mask = causal & (same | (part == 0)[:, None, :]) | torch.eye(length, dtype=torch.bool)
    images = torch.tensor([index for row in rows for index in row.images], dtype=torch.long)
    places = torch.tensor(mentions, dtype=torch.long).reshape(-1, 2)
    return Batch(
        ids, positions, targets, mask[:, None], images, places, torch.tensor(known).reshape(-1, len(FACTS)),
        answers, weights, torch.tensor(pairs, dtype=torch.long), torch.tensor(odds),
    )  # fmt: skip


def batches(rows: Sequence[Row], tokens: int, rng: random.Random) -> Iterator[list[Row]]:
    """Rows of like length, together at most `tokens` long after padding, in random order."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]) // 32, rng.random()))
    groups: list[list[Row]] = [[]]
    longest = 0
    for i in order:
        longest = max(longest, len(rows[i]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > tokens:
            groups.append([])
            longest = len(rows[i])
        groups[-1].append(rows[i])
    rng.shuffle(groups)
    yield from groups
