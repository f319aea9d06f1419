"""Proof at load: a packed forward is used only where it gives the numbers of the model's own forward.

Before anything is trained or measured a real row (a question with two images, two short answers that share a start) and
one without images are scored as they will be, and by plain separate passes of the model's own forward: positions,
log-probabilities of every answer token and the gradient of a weight below them. Where they differ, or no packed row is
possible, the model works by its own forward, one answer at a time (`VLM.unpacked`); where even that does not give the
model's own numbers, or looks ahead, the model is refused. That its answers do not change with the image is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import clinalign
from clinalign.errors import UsageError, first_line
from clinalign.models import own
from clinalign.models.families import FAMILIES
from clinalign.models.features import from_arrays
from clinalign.models.fingerprint import files_hash
from clinalign.models.head import PLAIN, Readout
from clinalign.models.tree import Fork, Target, Tree, fork_of, pack, score_tokens, tree_of
from clinalign.progress import say
from clinalign.storage import cache_folder, key_of, parse_json, write_text

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM

PROMPT = "Is there a nodule in the left lung?"
ANSWERS = ("Yes, in the upper part.", "Yes, near the heart.")
SIZES = ((224, 160), (160, 192))
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Nats; rounding of a whole forward. A wrong position may hide below it in half precision: they are compared too."""
GRADIENT = {torch.float32: 1e-2, torch.bfloat16: 0.3, torch.float16: 0.15}
"""Relative error of the gradient."""
COST = "every answer is a pass of its own with its image: several times slower, no feature cache, decoder greedy alone"


Rows = Sequence[tuple[list[np.ndarray], list[list[int]]]]
"""Images and answers (token ids) of each row."""


class Proof(NamedTuple):
    """`packed`, or the `reason` why not; `gap`: the largest difference of a log-probability, in nats."""

    packed: bool
    reason: str
    gap: float
    readout: Readout = PLAIN
    images: tuple[int, int] = (0, 0)
    """Fewest and most images a question may have; 0: any."""
    uses_image: bool = True
    """Whether the answers' probabilities changed with the image."""
    column_subset: bool = True
    """Whether the last layer may compute the columns that are read alone."""

    def line(self, name: str) -> str:
        """One line for a reader."""
        equal = f"equal to the model's own forward within {self.gap:.1e} nats"
        least, most = self.images
        equal += f", {'exactly one image' if least else 'at most one image'} a question" if most else ""
        equal += ", no question without an image" if least and not most else ""
        equal += "" if self.uses_image else "; BUT its answers did not change with the image: it does not see it"
        if self.packed:
            return f"{name}: packed, {equal}"
        return f"{name}: unpacked, {equal}, because {self.reason}; {COST}"


class Own(NamedTuple):
    """The model's own numbers: its ids, positions (None: 0, 1, 2, ...) and log-probabilities for each answer of each
    row, the gradient of one weight, and by how much the first answer's change with the images."""

    ids: list[list[int]]
    positions: list[Tensor | None]
    logps: list[list[Tensor]]
    gradient: Tensor
    uses_image: float


_proved: dict[str, Proof] = {}
_announced: set[str] = set()


def prove(vlm: VLM, name: str, processor: str, options: list[Any]) -> None:
    """`settle`, once for a model's files and how they were loaded; that a model is not packed is said in one line.

    `vlm.proof` is the proof. Kept under the cache folder; a damaged one is made again.
    """
    versions = [clinalign.__version__, *(metadata.version(part) for part in ("transformers", "torch"))]
    files = [files_hash(name), files_hash(processor)]
    key = key_of([versions, files, options, vlm.family.name, vlm.family.name in FAMILIES, vlm.family.known])
    folder = cache_folder()
    path = None if folder is None else folder / "proofs" / f"{key}.json"
    if key not in _proved and path is not None and path.is_file():
        with suppress(OSError, ValueError, TypeError, KeyError):
            stored = parse_json(path.read_text(encoding="utf-8"))
            stored |= {"readout": Readout(*stored["readout"]), "images": tuple(stored["images"])}
            _proved[key] = Proof(**stored)
    if key not in _proved:
        _proved[key] = settle(vlm)
        if path is not None:
            write_text(path, json.dumps(_proved[key]._asdict()))
    elif not _proved[key].packed and not vlm.unpacked:
        vlm.by_own_forward(_proved[key].reason)
    vlm.proof = _proved[key]
    if vlm.column_subset and not vlm.proof.column_subset:
        vlm.whole_last_layer()
    vlm.readout, vlm.images_a_question = vlm.proof.readout, vlm.proof.images
    if not (vlm.proof.packed and vlm.proof.uses_image) and key not in _announced:
        _announced.add(key)
        say(vlm.proof.line(vlm.name))


def settle(vlm: VLM) -> Proof:
    """Leaves a loaded model packed where that is proved, else unpacked; `UsageError` where neither is right."""
    vlm.images_a_question, rows = _rows(vlm)
    try:
        vlm.readout = own.readout(vlm, own.inputs(vlm, PROMPT, rows[0][0], rows[0][1][0]))
        measured = _own(vlm, rows)
    except Exception as error:  # whatever a model's own forward raises
        raise UsageError(f"{vlm.name}: this {vlm.family.name} model cannot be used: {first_line(error)}") from error
    problem, gap = _compare(vlm, rows, measured)
    if problem and vlm.family.known and vlm.column_subset:
        vlm.whole_last_layer()
        problem, gap = _compare(vlm, rows, measured)
    reason = problem or vlm.not_packed
    if problem and vlm.family.known:
        vlm.by_own_forward(problem)
        problem, gap = _compare(vlm, rows, _own(vlm, rows))
    if problem:
        raise UsageError(f"{vlm.name}: this {vlm.family.name} model cannot be used: {problem}")
    return Proof(
        not vlm.unpacked, reason, gap, vlm.readout, vlm.images_a_question, measured.uses_image > 0, vlm.column_subset
    )


def _rows(vlm: VLM) -> tuple[tuple[int, int], Rows]:
    """How many images a question may have, and the rows: as many images as the model takes, and none where it can."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (h // 16, w // 16, 3), dtype=np.uint8) for h, w in SIZES]
    images = [picture.repeat(16, axis=0).repeat(16, axis=1) for picture in coarse]
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]
    several, none = _takes(vlm, images), _takes(vlm, [])
    shown = images if several else images[:1]
    return (0 if none else 1, 0 if several else 1), [(shown, ids), *([([], ids[:1])] if none else [])]


@torch.no_grad()
def _takes(vlm: VLM, images: Sequence[np.ndarray]) -> bool:
    """Whether the model's own processor and forward take a question with these images."""
    try:
        own.logits(vlm, own.inputs(vlm, PROMPT, images), 1)
    except Exception:  # they raise what they like
        return False
    return True


def _own(vlm: VLM, rows: Rows) -> Own:
    """By the model's own forward alone, a pass an answer."""
    found = Own([], [], [], torch.zeros(0), 0.0)
    with _watched(vlm) as (weight, total):
        for images, answers in rows:
            logps = [_answer(vlm, images, answer) for answer in answers]
            total.append(torch.cat(logps).sum())
            given = own.inputs(vlm, PROMPT, images, answers[-1])
            found.logps.append([values.detach() for values in logps])
            found.ids.append(given["input_ids"][0, : -len(answers[-1])].tolist())
            found.positions.append(own.call_of(vlm.language_model, vlm.model, given).get("position_ids"))
        gradient = torch.autograd.grad(sum(total[1:], total[0]), weight, allow_unused=True)[0]
    images, answers = rows[0]
    with torch.no_grad():
        other = _answer(vlm, [255 - image for image in images], answers[0])
    own.forget(vlm.model)
    uses_image = float((other - found.logps[0][0]).abs().max())
    return found._replace(gradient=torch.zeros_like(weight) if gradient is None else gradient, uses_image=uses_image)


def _answer(vlm: VLM, images: Sequence[np.ndarray], answer: Sequence[int]) -> Tensor:
    rows = own.logits(vlm, own.inputs(vlm, PROMPT, images, answer), len(answer) + 1)[:-1].log_softmax(-1)
    return rows.gather(1, torch.tensor(answer, device=rows.device)[:, None])[:, 0]


def _compare(vlm: VLM, rows: Rows, measured: Own) -> tuple[str, float]:
    """What is wrong with the scorer's numbers beside the model's own, "" if nothing; the largest difference."""
    try:
        ids, positions, logps, gradient = _scored(vlm, rows)
    except Exception as error:  # a decoder that takes no mask, no request, no embeddings: each raises its own
        return f"its packed forward fails ({first_line(error)})", float("nan")
    if vlm.family.known and ids != measured.ids:
        return "its prompt's tokens are not those of its own processor", float("nan")
    own_logps = [values for row in measured.logps for values in row]
    gap = max(float((a - b).abs().max()) for a, b in zip(logps, own_logps, strict=True))
    for mine, other in zip(positions, measured.positions, strict=True):
        if not vlm.unpacked and not _same_positions(mine, other):
            return "its tokens stand at other positions than in its own forward", gap
    limit = TOLERANCE[vlm.dtype]
    if not gap <= limit:
        return f"log-probabilities differ from its own forward's by up to {gap:.2g} nats", gap
    apart = float((gradient - measured.gradient).norm() / measured.gradient.norm().clamp(min=1e-12))
    if not apart <= GRADIENT[vlm.dtype]:
        return f"gradients differ from its own forward's ({apart:.0%})", gap
    first, second = measured.logps[0]
    shared = fork_of(rows[0][1]).shared
    ahead = float((first[:shared] - second[:shared]).abs().max()) if shared else 0.0
    if not ahead <= limit:
        return "in its own forward an answer's tokens see those behind them", gap
    return "", gap


def _scored(vlm: VLM, rows: Rows) -> tuple[list[list[int]], list[Tensor], list[Tensor], Tensor]:
    """Prompt ids, positions of the first answer's sequence [A, L], log-probabilities, and the weight's gradient."""
    features, keys = from_arrays(vlm, [images for images, _ in rows])
    trees: list[Tree] = []
    for (images, answers), names in zip(rows, keys, strict=True):
        forks = [fork_of(answers)] if len(answers) > 1 else [Fork(answers)]
        trees.append(tree_of(vlm, PROMPT, images, names, forks))
    targets = [
        Target(t, 0, a, offset, token)
        for t, tree in enumerate(trees)
        for a, answer in enumerate(tree.forks[0].answers)
        for offset, token in enumerate(answer)
    ]
    packed = pack(vlm, trees, targets).to(vlm.device)
    with _watched(vlm) as (weight, _):
        scores = score_tokens(vlm, packed, features)
        found = torch.autograd.grad(scores.logps.sum(), weight, allow_unused=True)[0]
        gradient = torch.zeros_like(weight) if found is None else found
    counts = [len(answer) for tree in trees for answer in tree.forks[0].answers]
    positions = [vlm.positions(tree.ids, tree.grids) for tree in trees]
    return [list(tree.ids) for tree in trees], positions, list(scores.logps.detach().split(counts)), gradient


def _same_positions(mine: Tensor, other: Tensor | None) -> bool:
    """Whether a prompt's positions [A, P] are those of the model's own call [(A,) 1, L], an answer behind."""
    count = mine.shape[1]
    if other is None:
        return bool((mine == torch.arange(count)).all())
    positions = (other if other.ndim == 3 else other[None])[:, 0, :count].cpu()
    return bool((positions[-mine.shape[0] :] == mine).all())


@contextmanager
def _watched(vlm: VLM) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """A norm of the decoder's first layer, or its smallest weight, for its gradient; and a list to put things in."""
    named = [(name, p) for name, p in vlm.language_model.layers[0].named_parameters() if p.is_floating_point()]
    weight = min(named, key=lambda pair: ("norm" not in pair[0] or "bias" in pair[0], pair[1].numel()))[1]
    before = weight.requires_grad
    weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield weight, []
    finally:
        weight.requires_grad_(before)
        weight.grad = None
