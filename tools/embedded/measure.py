"""Stage 5: what the model sees (linear probes on its projected image features) against what it says."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from corpus import FIRST_PATIENT, NO_LABEL, Corpus
from judge import is_right, said
from model import IMAGE_SIZE, IMAGE_TOKENS, pixels
from pretrain import project
from tokenizer import IMAGE
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from clinalign.data.phantom.cases import KINDS, render
from clinalign.data.phantom.dataset import select
from clinalign.data.phantom.text import BUILDERS, CLAIM_KINDS, IMAGES, PAIR_KINDS, Question, pair_stream, stream
from clinalign.progress import track

RIDGE = (1e1, 1e2, 1e3, 1e4, 1e5)
FORMAT_KINDS = tuple(kind for kind in BUILDERS if kind not in CLAIM_KINDS)


@dataclass(frozen=True)
class Asked:
    """One question with its images (uint8 [n, 64, 64], n = 0, 1 or 2)."""

    question: Question
    images: npt.NDArray[np.uint8]


def claim_asked(split: str, patients: int, per_case: int = 4) -> list[Asked]:
    """The questions that alignment is about, balanced, of a split's first patients."""
    first = FIRST_PATIENT[split]
    out = []
    for case, drawn in select(range(first, first + patients), per_case=per_case):
        image = render(case, IMAGE_SIZE).image[None]
        out += [Asked(question, image) for question in drawn]
    return out


def format_asked(split: str, patients: int) -> list[Asked]:
    """Two questions of every other format per patient where the case allows them, one of two images per patient."""
    first = FIRST_PATIENT[split]
    block = range(first, first + patients)
    out = []
    for kind in FORMAT_KINDS:
        for case, drawn in stream(block, kinds=(kind,), per_case=2, seed=1):
            image = render(case, IMAGE_SIZE).image[None]
            out += [Asked(question, image[: IMAGES[kind]]) for question in drawn]
    for kind in PAIR_KINDS:
        for pair, question in pair_stream(block, kinds=(kind,), seed=1):
            out.append(Asked(question, np.stack([render(case, IMAGE_SIZE).image for case in pair])))
    return out


@torch.no_grad()
def answer(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[Asked],
    *,
    max_new_tokens: int = 128,
    batch: int = 96,
    label: str = "",
) -> list[tuple[str, bool]]:
    """Greedy answers and whether each ended by itself, in the order of `asked`."""
    model.eval()
    out: list[tuple[str, bool]] = [("", False)] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: (asked[i].question.kind, len(asked[i].question.prompt)))
    starts = range(0, len(order), batch)
    for start in track(starts, label) if label else starts:
        rows = order[start : start + batch]
        for i, result in zip(rows, _generate(model, tokenizer, [asked[i] for i in rows], max_new_tokens), strict=True):
            out[i] = result
    return out


def _generate(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked], limit: int
) -> list[tuple[str, bool]]:
    prompts = [
        "USER: " + f"{IMAGE * IMAGE_TOKENS}\n" * len(one.images) + one.question.prompt + " ASSISTANT:" for one in asked
    ]
    inputs = dict(tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False))
    inputs.pop("token_type_ids", None)
    pictures = np.concatenate([one.images for one in asked])
    if len(pictures):
        inputs["pixel_values"] = pixels(torch.from_numpy(pictures))
    ids = model.generate(**inputs, max_new_tokens=limit, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    ended = (ids == tokenizer.eos_token_id).any(1)
    return list(zip(tokenizer.batch_decode(ids, skip_special_tokens=True), ended.tolist(), strict=True))


def is_intact(text: str, ended: bool) -> bool:
    """Whether an answer ended by itself, has at least four words and never says a word twice in a row."""
    words = text.split()
    return ended and len(words) >= 4 and all(a != b for a, b in zip(words, words[1:], strict=False))


def score(asked: Sequence[Asked], answers: Sequence[tuple[str, bool]]) -> dict[str, dict[str, float]]:
    """Accuracy, parse rate and count of each group: all, every kind, task, prior and side/size/presence by prior."""
    groups: dict[str, list[tuple[float, bool, bool]]] = defaultdict(list)
    for one, (text, ended) in zip(asked, answers, strict=True):
        question, claim = one.question, said(one.question, text)
        result = (is_right(question, claim if ended else None), claim is not None and ended, is_intact(text, ended))
        names = ["all", f"kind {question.kind}", f"task {question.task}", f"prior {question.prior}"]
        if question.kind in CLAIM_KINDS:
            names += [f"slot {question.slot}", f"slot {question.slot}, prior {question.prior}"]
        for name in names:
            groups[name].append(result)
    return {
        name: {
            "accuracy": round(float(np.mean([r[0] for r in results])), 4),
            "parsed": round(float(np.mean([r[1] for r in results])), 4),
            "intact": round(float(np.mean([r[2] for r in results])), 4),
            "count": len(results),
        }
        for name, results in sorted(groups.items())
    }


@torch.no_grad()
def features(model: LlavaForConditionalGeneration, images: npt.NDArray[np.uint8]) -> Tensor:
    """Projected image tokens, flattened: float [n, 64 * 192]."""
    model.eval()
    chunks = [project(model, torch.from_numpy(images[i : i + 256])).flatten(1) for i in range(0, len(images), 256)]
    return torch.cat(chunks)


def probe(model: LlavaForConditionalGeneration, fit: Corpus, held: dict[str, Corpus]) -> dict[str, dict[str, float]]:
    """Accuracy of linear (ridge) probes, one per kind and slot, on patients other than those they were fitted on.

    Fitted on `fit`, the ridge chosen on its last fifth; balanced accuracy (mean over the two values), so that a
    constant answer scores 0.5. Returns per corpus of `held` "side", "size" and "presence" (means over kinds) and each
    kind's.
    """
    inputs, *read = standardised(model, fit.images, *(corpus.images for corpus in held.values()))
    others = dict(zip(held, read, strict=True))
    out: dict[str, dict[str, float]] = {name: {} for name in held}
    for slot in ("side", "size", "presence"):
        for column, kind in enumerate(KINDS):
            known = labels(fit, slot, column)
            if (known == NO_LABEL).all():
                continue
            reader = fit_reader(inputs, known)
            for name, corpus in held.items():
                out[name][f"{slot}, {kind}"] = _balanced(others[name], labels(corpus, slot, column), reader)
        for name in held:
            values = [value for key, value in out[name].items() if key.startswith(f"{slot}, ")]
            out[name][slot] = round(float(np.mean(values)), 4)
    return out


def standardised(model: LlavaForConditionalGeneration, *images: npt.NDArray[np.uint8]) -> list[Tensor]:
    """The features of each array of images, centred and scaled by the first array's."""
    first, *others = (features(model, array) for array in images)
    centre, scale = first.mean(0), first.std(0) + 1e-6
    return [(values - centre) / scale for values in (first, *others)]


def labels(corpus: Corpus, slot: str, column: int) -> npt.NDArray[np.int8]:
    """0, 1 or NO_LABEL of a slot of one kind of finding, for every case."""
    if slot == "presence":
        return corpus.cover[:, column].any(-1).astype(np.int8)
    return (corpus.side if slot == "side" else corpus.size)[:, column]


def fit_reader(inputs: Tensor, labels: npt.NDArray[np.int8]) -> Tensor:
    """Weights and offset [d + 1] of the ridge reader that does best on the last fifth of the rows, refitted on all."""
    rows = np.flatnonzero(labels != NO_LABEL)
    x, y = inputs[torch.from_numpy(rows)], torch.from_numpy(labels[rows]).float() * 2 - 1
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    cut = len(x) * 4 // 5
    kernel = x @ x.T
    best = max(RIDGE, key=lambda ridge: _hits(kernel, y, cut, ridge))
    return x.T @ torch.linalg.solve(kernel + best * torch.eye(len(x)), y)


def _hits(kernel: Tensor, y: Tensor, cut: int, ridge: float) -> float:
    dual = torch.linalg.solve(kernel[:cut, :cut] + ridge * torch.eye(cut), y[:cut])
    return float(((kernel[cut:, :cut] @ dual > 0) == (y[cut:] > 0)).float().mean())


def predict(inputs: Tensor, reader: Tensor) -> npt.NDArray[np.bool_]:
    """What a reader reads in features."""
    return (inputs @ reader[:-1] + reader[-1] > 0).numpy()


def _balanced(inputs: Tensor, labels: npt.NDArray[np.int8], reader: Tensor) -> float:
    known = labels != NO_LABEL
    guess = predict(inputs, reader)[known]
    return round(float(np.mean([(guess[labels[known] == v] == v).mean() for v in (0, 1)])), 4)


def dev_check(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked]
) -> dict[str, float]:
    """The few numbers that training watches on the dev split; leaves the model in training mode."""
    result = score(asked, answer(model, tokenizer, asked, max_new_tokens=40))
    model.train()
    names = (
        "all",
        "slot side",
        "slot size",
        "slot presence",
        "slot zone",
        "prior conflicting",
        "prior aligned",
        "prior neutral",
    )
    numbers = {name: result[name]["accuracy"] for name in names if name in result}
    return {**numbers, "parsed": result["all"]["parsed"], "intact": result["all"]["intact"]}


def shuffled_subset(asked: Sequence[Asked], count: int, seed: int) -> list[Asked]:
    """`count` of the questions, the same for a seed."""
    return random.Random(seed).sample(list(asked), min(count, len(asked)))
