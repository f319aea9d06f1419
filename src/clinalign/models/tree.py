"""The one scorer: answers to prompts, scored by teacher forcing.

What is scored is a tree under each set of images,

    [ image | prompt | start that some answers share | rest of one | rest of another | ... ]

Packed, a tree is one row of one forward: rests do not see each other and the positions of each go on from the end of
what it shares, so the hidden states are those of separate sequences. The image is encoded once, whatever hangs below
it, and the head touches only the tokens that are asked for. The unpacked backend (`VLM.unpacked`) scores every answer
in a plain pass of its own; it needs nothing of a family but the model's own forward, and its numbers are the same.

Training packs preference pairs into trees (`training/batches.py`), the reference scores the same trees; margins, the
probability of yes, token rewards and attention maps ask `score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models.attention import NOTHING, AttentionRequest, Probe
from clinalign.models.dropout import token_keys
from clinalign.models.head import score_rows

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM


class ImageFeatures(Protocol):
    """Where features come from: `models.features.Features`, or whatever else knows images by their keys."""

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """Features [N_i, F] of the images, in order."""
        ...

    def read(self, key: str) -> np.ndarray:
        """The image itself, uint8 [H, W, 3]."""
        ...


class Fork(NamedTuple):
    """Answers (token ids) that agree in their first `shared` tokens, as far as each goes. `owner` names the fork,
    whatever else is scored with it: dropout masks follow from it."""

    answers: Sequence[Sequence[int]]
    shared: int = 0
    owner: tuple[Any, ...] = ()

    @property
    def longest(self) -> int:
        """The answer that holds all of the shared start that any of them has."""
        return max(range(len(self.answers)), key=lambda i: len(self.answers[i]))


@dataclass(frozen=True, slots=True)
class Tree:
    """One prompt and what hangs below it. `prompt`: its words; `ids`: its tokens, those of the images included;
    `images`: their keys; `grids`: their token grids; `owner`: as of a fork."""

    prompt: str
    ids: Sequence[int]
    images: Sequence[str]
    grids: Sequence[tuple[int, int]]
    forks: Sequence[Fork] = ()
    owner: tuple[Any, ...] = ()


class Target(NamedTuple):
    """A token to score: the id `token`, behind the first `offset` tokens of an answer of a fork of a tree."""

    tree: int
    fork: int
    answer: int
    offset: int
    token: int


@dataclass
class TokenScores:
    """Of R targets, fp32: log-probabilities [R], the states [R, D] that predict them and, for the first K of them that
    have a reference, KL(reference || policy) and KL(policy || reference) [K]."""

    logps: Tensor
    states: Tensor
    kl_forward: Tensor
    kl_reverse: Tensor


class Row:
    """One packed row under construction. A segment is known by its number; -1 is the root's parent."""

    def __init__(self, tree: Tree, positions: Tensor) -> None:
        self.ids: list[int] = []
        self.segment: list[int] = []
        self.first: list[int] = []  # column of a segment's first token
        self.ancestors: list[set[int]] = []
        self.next: list[int] = []  # position that follows it
        self.positions: list[Tensor] = []
        self.keys: list[np.ndarray] = []
        self.forks: list[tuple[int, int, list[int]]] = []  # of a fork: length of its shared start, where this and the
        root = self._add(tree.ids, -1, tree.owner, positions)  # rests begin
        self.prompt = len(self.ids)
        for fork in tree.forks:
            start = fork.answers[fork.longest][: fork.shared]
            shared = self._add(start, root, fork.owner)
            rests = [self._add(a[fork.shared :], shared, (*fork.owner, i)) for i, a in enumerate(fork.answers)]
            self.forks.append((len(start), self.first[shared], [self.first[rest] for rest in rests]))

    def _add(self, ids: Sequence[int], parent: int, owner: tuple[Any, ...], positions: Tensor | None = None) -> int:
        """Appends a segment below `parent`; returns its number. Positions go on from the parent's if none are given."""
        number = len(self.ancestors)
        if positions is None:
            positions = (torch.arange(len(ids)) + self.next[parent]).expand(self.positions[0].shape[0], -1)
        self.ancestors.append({number} | (self.ancestors[parent] if parent >= 0 else set()))
        self.first.append(len(self.ids))
        self.next.append(int(positions.max()) + 1 if len(ids) else self.next[parent])
        self.ids += ids
        self.keys.append(token_keys(*owner, count=len(ids)))
        self.segment += [number] * len(ids)
        self.positions.append(positions)
        return number

    def before(self, target: Target) -> int:
        """The column whose hidden state predicts a target."""
        if target.offset == 0:
            return self.prompt - 1
        length, start, rests = self.forks[target.fork]
        at = target.offset - 1
        return start + at if at < length else rests[target.answer] + at - length

    def visible(self) -> Tensor:
        """bool [L, L]: a token sees itself and what comes before it in its own segment and its ancestors."""
        count = len(self.ancestors)
        visible = torch.tensor([[j in self.ancestors[i] for j in range(count)] for i in range(count)])
        segment = torch.tensor(self.segment)
        return visible[segment][:, segment].tril()

    def prefix(self) -> int:
        """Tokens at the start that each see all before them: the first path of the tree."""
        chain = (i for i, above in enumerate(self.ancestors) if len(above) <= i)
        fork = next(chain, None)
        return len(self.ids) if fork is None else self.first[fork]


@dataclass
class PackedTrees:
    """Trees as rows of one forward, and the tokens to score.

    ids [B, L]; positions [A, B, L]; mask bool [B, 1, L, L]; `prefix`: columns at the start of all rows that see all
    before them. Of the R targets: `tokens` [R] their ids, `row` [R] and, among the `columns` [B, S] of each row that
    any target needs, `at` [R]. `start` [B]: the column of each row's first token; `keys` int32 [B, L]: what dropout
    takes each token for.
    """

    trees: Sequence[Tree]
    targets: Sequence[Target]
    rows: Sequence[Row]
    ids: Tensor
    positions: Tensor
    mask: Tensor
    prefix: int
    start: Sequence[int]
    tokens: Tensor
    row: Tensor
    columns: Tensor
    at: Tensor
    keys: Tensor

    def to(self, device: torch.device) -> PackedTrees:
        """The same on another device."""
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def column(self, tree: int, fork: int, answer: int, offset: int) -> int:
        """The column of a tree's row whose hidden state predicts token `offset` of an answer."""
        return self.start[tree] + self.rows[tree].before(Target(tree, fork, answer, offset, -1))

    def prompt_columns(self, tree: int) -> range:
        """Columns of a tree's prompt."""
        return range(self.start[tree], self.start[tree] + self.rows[tree].prompt)


def pack(vlm: VLM, trees: Sequence[Tree], targets: Sequence[Target], *, padding: str = "right") -> PackedTrees:
    """Trees into rows, on the CPU."""
    rows = [Row(tree, vlm.positions(tree.ids, tree.grids).cpu()) for tree in trees]
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), vlm.pad_id)
    positions = torch.zeros(len(rows[0].positions[0]), len(rows), longest, dtype=torch.long)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1, 1)
    keys = torch.zeros(len(rows), longest, dtype=torch.int32)
    start = [longest - len(row.ids) if padding == "left" else 0 for row in rows]
    for i, row in enumerate(rows):
        here = slice(start[i], start[i] + len(row.ids))
        ids[i, here] = torch.tensor(row.ids)
        positions[:, i, here] = torch.cat(row.positions, dim=1)
        mask[i, 0, here, here] = row.visible()
        keys[i, here] = torch.from_numpy(np.concatenate(row.keys))

    found = [start[t.tree] + rows[t.tree].before(t) for t in targets]
    query_columns: list[set[int]] = [set() for _ in rows]
    for target, column in zip(targets, found, strict=True):
        query_columns[target.tree].add(column)
    columns = torch.zeros(len(rows), max(1, *map(len, query_columns)), dtype=torch.long)
    slots: list[dict[int, int]] = []
    for i, some in enumerate(query_columns):
        columns[i, : len(some)] = torch.tensor(sorted(some), dtype=torch.long)
        slots.append({column: k for k, column in enumerate(sorted(some))})
    return PackedTrees(
        trees=trees,
        targets=targets,
        rows=rows,
        ids=ids,
        positions=positions,
        mask=mask,
        prefix=0 if padding == "left" else min(row.prefix() for row in rows),
        start=start,
        tokens=_column([t.token for t in targets]),
        row=_column([t.tree for t in targets]),
        columns=columns,
        at=_column([slots[t.tree][column] for t, column in zip(targets, found, strict=True)]),
        keys=keys,
    )


def _column(values: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def score_tokens(
    vlm: VLM,
    packed: PackedTrees,
    features: ImageFeatures,
    reference: Tensor | None = None,
    *,
    request: AttentionRequest = NOTHING,
    bf16: bool = False,
) -> TokenScores:
    """Scores every target: one forward over the packed rows (or, unpacked, a pass an answer), one sweep of the head.

    `reference` [K, D]: states of the reference behind the first K targets, for the KLs. Gradients flow.
    """
    with torch.autocast(vlm.device.type, torch.bfloat16, enabled=bf16):
        states = _unpacked(vlm, packed, features) if vlm.unpacked else _packed(vlm, packed, features, request)
    logps, forward, reverse = score_rows(
        states, vlm.head.weight, packed.tokens, reference, vlm.reference_head, readout=vlm.readout
    )
    return TokenScores(logps, states, forward, reverse)


def score_states(vlm: VLM, states: Tensor, tokens: Tensor, *, reference: bool = False) -> Tensor:
    """Log-probabilities [R] of other `tokens` [R] behind states [R, D] of `score_tokens`; by the reference's head."""
    head = vlm.head.weight
    if reference:
        head = head.detach() if vlm.reference_head is None else vlm.reference_head
    return score_rows(states, head, tokens, readout=vlm.readout)[0]


def _packed(vlm: VLM, packed: PackedTrees, features: ImageFeatures, request: AttentionRequest) -> Tensor:
    if vlm.peft is not None:
        vlm.peft.masks.tokens(packed.keys, packed.columns)
    encoded = iter(features.get([key for tree in packed.trees for key in tree.images]))
    per_row = [[next(encoded) for _ in tree.images] for tree in packed.trees]
    asked = replace(request, query_columns=packed.columns, prefix=packed.prefix)
    hidden = vlm.hidden_states(packed.ids, per_row, packed.mask, packed.positions, asked)
    return hidden[packed.row, packed.at]


def _unpacked(vlm: VLM, packed: PackedTrees, features: ImageFeatures) -> Tensor:
    passes: dict[tuple[int, int, int], Tensor] = {}
    states = []
    for target in packed.targets:
        key = target[:3]
        if key not in passes:
            passes[key] = answer_states(vlm, packed.trees[target.tree], target.fork, target.answer, features)
        states.append(passes[key][target.offset])
    return torch.stack(states) if states else torch.zeros(0, vlm.head.weight.shape[1], device=vlm.device)


def answer_states(vlm: VLM, tree: Tree, fork: int, answer: int, features: ImageFeatures) -> Tensor:
    """The states [T + 1, D] that predict each of the T tokens of an answer and the one behind it, from a plain pass.

    Of a family that is not known the pass is the model's own forward on what its own processor makes of the prompt.
    """
    ids, owner = tree.forks[fork].answers[answer], (*tree.forks[fork].owner, answer)
    if not vlm.family.known:
        if vlm.peft is not None and vlm.peft.training:
            # One answer alone: a random stream of its own is enough, and checkpointing restores it.
            vlm.peft.masks.tokens(None)
            torch.manual_seed(int(token_keys(*owner, vlm.peft.masks.draw, count=1)[0]))
        images = [features.read(key) for key in tree.images]
        return vlm.forward_hidden(tree.prompt, images, ids)
    alone = replace(tree, forks=[Fork([ids], 0, owner)])
    targets = [Target(0, 0, 0, i, vlm.pad_id) for i in range(len(ids) + 1)]
    return _packed(vlm, pack(vlm, [alone], targets).to(vlm.device), features, NOTHING)


@dataclass
class TreeScores:
    """Of one tree: `logps[fork][answer]`, log-probabilities fp64 [T] of the tokens asked for; `attention` [layers, H,
    P]: of the last prompt token to the P prompt tokens, None where it was not asked for or cannot be had."""

    logps: list[list[Tensor]]
    attention: Tensor | None = None


@torch.no_grad()
def score(
    vlm: VLM,
    trees: Sequence[Tree],
    features: ImageFeatures,
    *,
    batch_size: int = 8,
    rests: bool = False,
    attention: bool = False,
) -> list[TreeScores]:
    """Scores all answers of the trees, in their order; `batch_size` trees a forward, similar lengths together.

    `rests`: only the tokens behind each fork's shared start. `attention`: also the last prompt token's attention in
    every layer that has any; unpacked, a `UsageError` where the family is not known.
    """
    order = sorted(range(len(trees)), key=lambda i: _size(trees[i]))
    found: dict[int, TreeScores] = {}
    size = 1 if vlm.unpacked else batch_size
    for start in range(0, len(order), size):
        part = order[start : start + size]
        batch = [trees[i] for i in part]
        found |= zip(part, _score_batch(vlm, batch, features, rests, attention), strict=True)
    return [found[i] for i in range(len(trees))]


def _size(tree: Tree) -> int:
    return len(tree.ids) + sum(len(answer) for fork in tree.forks for answer in fork.answers)


def _score_batch(
    vlm: VLM, trees: Sequence[Tree], features: ImageFeatures, rests: bool, attention: bool
) -> list[TreeScores]:
    targets, owners = [], []
    for t, tree in enumerate(trees):
        for f, fork in enumerate(tree.forks):
            for a, answer in enumerate(fork.answers):
                for offset in range(min(fork.shared, len(answer)) if rests else 0, len(answer)):
                    targets.append(Target(t, f, a, offset, answer[offset]))
                    owners.append((t, f, a))
    packed = pack(vlm, trees, targets).to(vlm.device)
    probe = _last_prompt_token(vlm, packed) if attention else None
    scores = score_tokens(vlm, packed, features, request=AttentionRequest(probe=probe))
    if probe is not None and vlm.unpacked:
        prompts = pack(vlm, [replace(tree, forks=[]) for tree in trees], []).to(vlm.device)
        _packed(vlm, prompts, features, AttentionRequest(probe=probe))
    split: dict[tuple[int, int, int], list[float]] = {}
    for owner, value in zip(owners, scores.logps.double().tolist(), strict=True):
        split.setdefault(owner, []).append(value)
    return [
        TreeScores(
            [
                [torch.tensor(split.get((t, f, a), []), dtype=torch.double) for a in range(len(fork.answers))]
                for f, fork in enumerate(tree.forks)
            ],
            None if probe is None else _to_prompt(probe, t, packed),
        )
        for t, tree in enumerate(trees)
    ]


def _last_prompt_token(vlm: VLM, packed: PackedTrees) -> Probe:
    if not vlm.family.known:
        raise UsageError(f"{vlm.name}: attention is not measured for a family that is not known ({vlm.family.name})")
    return Probe(torch.tensor([[packed.prompt_columns(i)[-1]] for i in range(len(packed.trees))]))


def _to_prompt(probe: Probe, tree: int, packed: PackedTrees) -> Tensor:
    columns = packed.prompt_columns(tree)
    return torch.stack([probe[layer][tree, :, 0, columns.start : columns.stop] for layer in sorted(probe)])


def tree_of(
    vlm: VLM, prompt: str, images: Sequence[np.ndarray], keys: Sequence[str], forks: Sequence[Fork] = ()
) -> Tree:
    """A tree from words and images [H, W, 3]."""
    grids = [vlm.image_grid(image) for image in images]
    return Tree(prompt, vlm.expand(prompt, grids), list(keys), grids, list(forks))


def fork_of(answers: Sequence[Sequence[int]]) -> Fork:
    """Answers with what they all have in common at their start."""
    shared = 0
    for tokens in zip(*answers, strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    return Fork(answers, shared)
