"""What a model of phantom-2 sees, says and can: claims by rung and prior, skills, attention, the five checks."""

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from checks import Margin, answer_margins, five_checks, linear_reader, printed
from judge import overlap, said
from lessons import Scenes
from measure import Asked, answer
from model import IMAGE_TOKENS
from rows import RowBuilder, collate
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
from tune import embed

from clinalign.data.phantom import claims
from clinalign.data.phantom.bench import select
from clinalign.data.phantom.claims import CHANGE_STYLES
from clinalign.data.phantom.scenes import RUNGS
from clinalign.data.phantom.skills import SKILLS, lessons
from clinalign.data.phantom.wording import Question, fill

_BOX = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")
WATCHED = 120


def is_right(question: Question, text: str, ended: bool) -> bool:
    """Whether a whole answer says the true value of a claim, or is the right answer of a skill.

    Boxes are right from an IoU of a half on, four-step answers by their last step; other skills have one right text.
    """
    if not ended:
        return False
    if question.kind == "boxes":
        told, true = (_BOX.search(value) for value in (text, question.full))
        return bool(told and true and overlap(*(tuple(map(int, m.groups())) for m in (told, true))) >= 0.5)
    if question.kind == "steps":
        return text.endswith(f"The answer is {question.answer}.")
    if question.kind in SKILLS:
        return text == question.full
    truth = str(question.slots["truth"])
    if text == claims.answer(question, truth):
        return True
    if question.slot == "change":
        return text in {fill(style, str(question.finding)) for style in CHANGE_STYLES[truth]}
    return said(question, text) == truth


def claims_of(scenes: Scenes, limit: int | None = None) -> list[tuple[int, Question]]:
    """Balanced claim questions of the scenes, with the index of their scene."""
    at = {scene: index for index, scene in enumerate(scenes.corpus.cases)}
    drawn = [(at[scene], question) for scene, questions in select(scenes.corpus.cases) for question in questions]
    return drawn if limit is None else random.Random(0).sample(drawn, min(limit, len(drawn)))


def answered(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, scenes: Scenes,
    drawn: Sequence[tuple[int, Question]], label: str = "",
) -> list[bool]:  # fmt: skip
    """Whether each greedy answer is right."""
    asked = [Asked(question, scenes.corpus.images[index][None]) for index, question in drawn]
    texts = answer(model, tokenizer, asked, max_new_tokens=40, label=label)
    return [is_right(one.question, *text) for one, text in zip(asked, texts, strict=True)]


def watch(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, scenes: Scenes) -> dict[str, float]:
    """What training prints: right answers by how the truth stands to the prior, on the two most visible rungs."""
    drawn = [(i, q) for i, q in claims_of(scenes) if scenes.rungs[i] <= 1][:WATCHED]
    marks: dict[str, list[bool]] = defaultdict(list)
    for (_, question), right in zip(drawn, answered(model, tokenizer, scenes, drawn), strict=True):
        marks[question.prior].append(right)
        marks[f"kind {question.kind}"].append(right)
    model.train()
    return {name: round(float(np.mean(values)), 3) for name, values in sorted(marks.items())}


@dataclass
class Examination:
    """What was found about one model.

    reader: linear reader by rung (test); right: 0 or 1 by split for every claim question; priors: [name, stance, rung]
    of every question by split; margins: by split; skills: accuracy by name; attention: on findings, in even shares.
    """

    reader: dict[str, float] = field(default_factory=dict)
    right: dict[str, list[int]] = field(default_factory=dict)
    priors: dict[str, list[list[Any]]] = field(default_factory=dict)
    margins: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    skills: dict[str, float] = field(default_factory=dict)
    attention: float = 0.0

    @classmethod
    def of(
        cls, model: LlavaForConditionalGeneration, builder: RowBuilder, fitted: Scenes, held: Mapping[str, Scenes], *,
        readers: int, lessons: int, label: str,
    ) -> "Examination":  # fmt: skip
        """Examine a model; `readers`: scenes to fit linear readers on, 0 for no reader, margin and attention."""
        found = cls()
        for split, scenes in held.items():
            drawn = claims_of(scenes)
            found.right[split] = [int(r) for r in answered(model, builder.tokenizer, scenes, drawn, f"{label} {split}")]
            found.priors[split] = [[q.slots["prior"] or q.kind, q.prior, int(scenes.rungs[i])] for i, q in drawn]
            if readers and split != "elsewhere":
                found.margins[split] = [asdict(m) for m in _margins(model, builder, scenes)]
        found.skills = skills_right(model, builder.tokenizer, held["test"], lessons)
        if readers:
            first = Scenes(fitted.corpus.first(readers), fitted.rungs[:readers])
            found.reader = linear_reader(model, first, held["test"])
            found.attention = own_attention(model, builder, held["test"])
        return found

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Examination":
        """From `record`."""
        return cls(**record)

    def against(self, ceiling: "Examination") -> dict[str, Any]:
        """This base against its clean ceiling: the five checks, and tables for the card."""
        right = {"base": np.array(self.right["test"], float), "ceiling": np.array(ceiling.right["test"], float)}
        rungs = np.array([rung for _, _, rung in self.priors["test"]])
        dev, test = ([_read_margin(m) for m in self.margins[split]] for split in ("dev", "test"))
        checks = five_checks(self.reader, right, dev, test, rungs)
        visible = np.isin(rungs, checks["visible"])
        away = np.isin([rung for _, _, rung in self.priors["elsewhere"]], checks["visible"])
        return {
            "checks": checks,
            "printed": printed(checks),
            "rungs": {
                str(r): [self.reader[str(r)], *(mean(right[n][rungs == r]) for n in right)] for r in range(len(RUNGS))
            },
            "priors": _by_prior(self.priors["test"], right, visible),
            "skills": {name: [ceiling.skills[name], self.skills[name]] for name in self.skills},
            "own_attention": self.attention,
            "elsewhere": mean(np.array(self.right["elsewhere"], float)[away]),
            "elsewhere_ceiling": mean(np.array(ceiling.right["elsewhere"], float)[away]),
        }


def mean(values: np.ndarray) -> float | None:
    """Rounded mean, None of nothing."""
    return round(float(values.mean()), 4) if len(values) else None


def _by_prior(
    priors: Sequence[Sequence[Any]], right: Mapping[str, np.ndarray], visible: np.ndarray
) -> dict[str, list[float | None]]:
    """Right answers on visible rungs by prior: base conflicting and aligned, ceiling conflicting and aligned."""
    names, stances = (np.array([row[column] for row in priors]) for column in (0, 1))
    seen = visible if visible.any() else np.ones(len(priors), bool)
    return {
        str(name): [
            mean(
                values[
                    seen & (names == name) & ((stances == stance) | ((stances == "neutral") & (stance == "aligned")))
                ]
            )
            for values in (right["base"], right["ceiling"])
            for stance in ("conflicting", "aligned")
        ]
        for name in sorted(set(names))
    }


def _read_margin(record: Mapping[str, Any]) -> Margin:
    return Margin(tuple(record["group"]), tuple(record["text"]), record["score"], record["truth"], record["rung"])


def _margins(model: LlavaForConditionalGeneration, builder: RowBuilder, scenes: Scenes) -> list[Margin]:
    asked = list(select(scenes.corpus.cases))
    found = answer_margins(model, builder, asked, scenes.corpus)
    return [margin for margins in found for margin in margins if margin is not None]


def skills_right(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, scenes: Scenes, count: int
) -> dict[str, float]:
    """Accuracy of every skill on lessons of the most visible scenes."""
    seen = [scene for scene in scenes.corpus.cases if scene.rung == 0][:count]
    result = {}
    for name in SKILLS:
        rng = random.Random(f"skill/{name}")
        asked = [
            Asked(question, np.array(lesson.images, np.uint8).reshape(-1, 64, 64))
            for lesson in lessons(seen, name, rng)
            for question in lesson.questions
        ]
        texts = answer(model, tokenizer, asked, max_new_tokens=80)
        result[name] = round(
            float(np.mean([is_right(one.question, *text) for one, text in zip(asked, texts, strict=True)])), 4
        )
    return result


@torch.no_grad()
def own_attention(model: LlavaForConditionalGeneration, builder: RowBuilder, scenes: Scenes, count: int = 60) -> float:
    """Attention of the last prompt token inside the masks of the findings, over their share of the image; 1 is even.

    Mean over layers and heads; among the image tokens alone.
    """
    model.eval()
    model.set_attn_implementation("eager")
    ratios = []
    for index, question in claims_of(scenes):
        cover = torch.from_numpy(scenes.corpus.cover[index]).float().amax(0) / 255
        if scenes.rungs[index] or not cover.any():
            continue
        row = builder.row([index], [question])
        batch = collate([row], model.config.pad_token_id)
        out = model.model.language_model(
            inputs_embeds=embed(model, batch, torch.from_numpy(scenes.corpus.images)),
            use_cache=False,
            output_attentions=True,
        )
        last = len(row.prefix) + len(row.segments[0].prompt) - 1
        first = row.prefix.index(builder.image_id)
        looks = torch.stack(out.attentions)[:, 0, :, last, first : first + IMAGE_TOKENS].mean((0, 1))
        ratios.append(float((looks / looks.sum() * cover).sum() / cover.mean()))
        if len(ratios) == count:
            break
    model.set_attn_implementation("sdpa")
    return round(float(np.mean(ratios)), 3) if ratios else float("nan")
