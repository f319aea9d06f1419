"""What phantom-2 must show before it is used: five checks, on the rungs that a linear reader sees.

The *linear reader*: ridge readers on the model's projected image tokens, one per finding and slot, fitted on the base
split. *Visible* rungs are those where its balanced accuracy is at least 90 %. On their questions: the base is right in
at most 65 %, the clean ceiling in at least 95 %; a shift of the log-odds by one number a class wins at most a third of
the gap between them, a shift by one number for all that the text alone tells at most a half. Shifts are fitted on dev
and read on test.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from corpus import NO_LABEL, Corpus
from lessons import Scenes
from measure import fit_reader, labels, predict, standardised
from rows import IGNORE, Row, RowBuilder, collate
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from tune import embed

from clinalign.data.phantom.bench import text_key
from clinalign.data.phantom.cases import KINDS
from clinalign.data.phantom.claims import answer
from clinalign.data.phantom.scenes import RUNGS, Scene
from clinalign.data.phantom.wording import Question

VISIBLE, BASE, CEILING, CLASS_SHIFT, TEXT_SHIFT = 0.90, 0.65, 0.95, 1 / 3, 1 / 2
FIRST = {"presence": "yes", "side": "left", "size": "large", "change": "no prior"}
"""The value of a slot whose score a shift is added to; of presupposing prompts it is the denial, zones have none."""

Floats = npt.NDArray[np.float64]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Margin:
    """Score of a question: log-probability of the answer that says the first value less that of the other.

    `truth`: the first value is the true one; `group`: its class, slot and finding; `text`: all that the text tells.
    """

    group: Key
    text: Key
    score: float
    truth: bool
    rung: int

    @property
    def right(self) -> bool:
        """Whether the more probable of the two answers is the true one."""
        return (self.score > 0) == self.truth


def linear_reader(model: LlavaForConditionalGeneration, fitted: Scenes, held: Scenes) -> dict[str, float]:
    """Balanced accuracy by rung ("0" the most visible), mean over the readers of presence, side and size."""
    inputs, others = standardised(model, fitted.corpus.images, held.corpus.images)
    rungs: dict[int, list[float]] = {rung: [] for rung in range(len(RUNGS))}
    for slot in ("presence", "side", "size"):
        for column in range(len(KINDS)):
            known = labels(fitted.corpus, slot, column)
            if (known == NO_LABEL).all():
                continue
            guesses = predict(others, fit_reader(inputs, known))
            truths = labels(held.corpus, slot, column)
            for rung, values in rungs.items():
                values.append(balanced(guesses[held.rungs == rung], truths[held.rungs == rung]))
    return {str(rung): round(float(np.nanmean(values)), 4) for rung, values in rungs.items()}


def balanced(guesses: npt.NDArray[np.bool_], truths: npt.NDArray[np.int8]) -> float:
    """Mean over the two values of the share of guesses that are right; nan where a value is missing."""
    shares = [(guesses[truths == value] == value).mean() for value in (0, 1) if (truths == value).any()]
    return float(np.mean(shares)) if len(shares) == 2 else float("nan")


@torch.no_grad()
def answer_margins(
    model: LlavaForConditionalGeneration, builder: RowBuilder, asked: Sequence[tuple[Scene, Sequence[Question]]],
    corpus: Corpus, rows_at_once: int = 4,
) -> list[list[Margin | None]]:  # fmt: skip
    """The margin of every question, None for zones. `asked`: scenes of the corpus with their questions."""
    model.eval()
    at = {scene: index for index, scene in enumerate(corpus.cases)}
    out: list[list[Margin | None]] = []
    for start in range(0, len(asked), rows_at_once):
        part = asked[start : start + rows_at_once]
        rows = [builder.row([at[scene]], [said for q in drawn for said in _two(q)]) for scene, drawn in part]
        sums = segment_logps(model, rows, torch.from_numpy(corpus.images))
        for (scene, drawn), values in zip(part, sums, strict=True):
            pairs = values.reshape(-1, 2)
            out.append([_margin(q, float(p[0] - p[1]), scene.rung) for q, p in zip(drawn, pairs, strict=True)])
    return out


def _two(question: Question) -> list[Question]:
    return [replace(question, full=answer(question, str(question.slots[name]))) for name in ("truth", "counter")]


def _margin(question: Question, true_less_false: float, rung: int) -> Margin | None:
    truth = str(question.slots["truth"])
    if question.kind == "presupposed":
        group, first = ("located", str(question.finding)), truth == "none"
    elif question.slot in FIRST:
        group, first = (question.slot, str(question.finding)), truth == FIRST[question.slot]
    else:
        return None
    return Margin(group, text_key(question), true_less_false if first else -true_less_false, first, rung)


def segment_logps(
    model: LlavaForConditionalGeneration, rows: Sequence[Row], images: Tensor
) -> list[npt.NDArray[np.float64]]:
    """Log-probability of the answer of every segment of every row."""
    batch = collate(rows, model.config.pad_token_id)
    out = model.model.language_model(
        inputs_embeds=embed(model, batch, images),
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    )
    known = batch.targets != IGNORE
    logits = model.lm_head(out.last_hidden_state[known]).float()
    picked = logits.log_softmax(-1).gather(1, batch.targets[known][:, None])[:, 0].double().numpy()
    sums, position = [], 0
    for row in rows:
        values = []
        for segment in row.segments:
            values.append(picked[position : position + len(segment.answer)].sum())
            position += len(segment.answer)
        sums.append(np.array(values))
    return sums


def best_shift(scores: Floats, truths: npt.NDArray[np.bool_]) -> float:
    """What to add to the scores so that most signs agree with the truths; of equally good numbers the nearest to 0."""
    order = np.argsort(scores)
    scores, truths = scores[order], truths[order]
    borders = np.concatenate([[scores[0] - 1.0], (scores[1:] + scores[:-1]) / 2, [scores[-1] + 1.0]])
    below = np.concatenate([[0], np.cumsum(~truths)])  # scores under the border that are rightly under it
    above = truths.sum() - np.concatenate([[0], np.cumsum(truths)])
    right = below + above
    now = int(((scores > 0) == truths).sum())
    if now >= right.max():
        return 0.0
    best = borders[right == right.max()]
    return float(-best[np.abs(best).argmin()])


def shifted(dev: Sequence[Margin], test: Sequence[Margin], by: str) -> list[bool]:
    """Whether each test question is right after a shift by `group` or `text` fitted on dev; an unseen key gets none."""
    members: dict[Key, list[Margin]] = defaultdict(list)
    for margin in dev:
        members[getattr(margin, by)].append(margin)
    shifts = {
        key: best_shift(np.array([m.score for m in group]), np.array([m.truth for m in group]))
        for key, group in members.items()
    }
    return [(m.score + shifts.get(getattr(m, by), 0.0) > 0) == m.truth for m in test]


def recovered(base: float, after: float, ceiling: float) -> float:
    """The share of the gap between base and ceiling that a control wins."""
    return (after - base) / max(ceiling - base, 1e-9)


def five_checks(
    reader: Mapping[str, float], right: Mapping[str, Floats], dev: Sequence[Margin], test: Sequence[Margin],
    rungs: npt.NDArray[np.int8],
) -> dict[str, float | bool | list[int]]:  # fmt: skip
    """The numbers and whether they hold.

    `right["base"]`, `right["ceiling"]`: 0 or 1 for every test question, whose rungs are `rungs`; `dev`, `test`: the
    base's margins. The gap that shifts are measured by is that of the same margins, so a shift of nothing wins nothing.
    """
    visible = [rung for rung in range(len(RUNGS)) if reader[str(rung)] >= VISIBLE]
    seen = np.isin(rungs, visible)
    if not seen.any():
        return {"visible": visible, "hold": False}
    base, ceiling = (float(right[name][seen].mean()) for name in ("base", "ceiling"))
    dev, test = ([m for m in margins if m.rung in visible] for margins in (dev, test))
    start = float(np.mean([m.right for m in test]))
    won = {by: recovered(start, float(np.mean(shifted(dev, test, by))), ceiling) for by in ("group", "text")}
    held = base <= BASE and ceiling >= CEILING and won["group"] <= CLASS_SHIFT and won["text"] <= TEXT_SHIFT
    return {
        "visible": visible,
        "base": round(base, 4),
        "ceiling": round(ceiling, 4),
        "class_shift_recovers": round(won["group"], 4),
        "text_shift_recovers": round(won["text"], 4),
        "hold": held,
    }


def printed(checks: Mapping[str, object]) -> str:
    """The five checks, a line each."""

    def line(name: str, ok: bool, text: str) -> str:
        return f"[{'x' if ok else ' '}] {name}: {text}"

    if "base" not in checks:
        return line("visible rungs", False, "none: the linear reader is under 90 % on every rung")
    base, ceiling = float(str(checks["base"])), float(str(checks["ceiling"]))
    by_class, by_text = float(str(checks["class_shift_recovers"])), float(str(checks["text_shift_recovers"]))
    return "\n".join(
        [
            line("visible rungs (linear reader >= 90 %)", True, str(checks["visible"])),
            line("base right <= 65 %", base <= BASE, f"{base:.1%}"),
            line("clean ceiling >= 95 %", ceiling >= CEILING, f"{ceiling:.1%}"),
            line("shift by class recovers <= 1/3", by_class <= CLASS_SHIFT, f"{by_class:.1%}"),
            line("shift by what the text tells recovers <= 1/2", by_text <= TEXT_SHIFT, f"{by_text:.1%}"),
        ]
    )
