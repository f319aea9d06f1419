"""Preference pairs as packed rows: one row per distinct image.

    [ image | prompt | answer prefix both share | chosen tail | rejected tail ]

The two tails do not see each other, and the positions of each go on from the end of the shared part, so one forward
gives the same hidden states as two separate sequences. Pairs of the same example share the prompt too: a row is a tree
of segments, each of which sees its ancestors and its own past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.dropout import token_keys
from clinalign.models.features import Features
from clinalign.objectives import Counted, Method, Weights
from clinalign.training.encode import SIDES, Sample


@dataclass(frozen=True)
class Plan:
    """What is scored: tokens in the preference sums, the KL and the NLL; the sides under image and corrupted image.

    `whole`: rows hold the answers to their end, for those who look at more than the scored tokens.
    """

    rank: Counted = "spans"
    kl: Counted = "none"
    nll: Counted = "none"
    clean: tuple[str, ...] = SIDES
    corrupt: tuple[str, ...] = ()
    whole: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether anything is compared with the reference."""
        return self.rank != "none" or self.kl != "none"


def plan_for(method: Method, weights: Weights, nll_on: Counted = "answer", *, whole: bool = False) -> Plan:
    """The least a method has to score at the given (already fixed) weights."""
    return Plan(
        rank=method.rank_on,
        kl=method.kl_on if weights.alpha else "none",
        nll=method.nll_on if method.nll_on != "none" else nll_on if weights.nll else "none",
        clean=SIDES if method.rank_on != "none" else SIDES[:1],
        corrupt=method.corrupt if weights.gamma else (),
        whole=whole,
    )


@dataclass(frozen=True)
class Place:
    """Where a pair stands under its clean image: the `row`, the column at which its prompt starts, the prompt's length,
    and the columns whose hidden states predict the tokens of the chosen answer."""

    row: int
    start: int
    prompt: int
    predicts: tuple[int, ...]


@dataclass
class Batch:
    """Packed rows and the tokens to score.

    ids [B, L]; positions [A, B, L]; mask bool [B, 1, L, L]; images: keys per row. For each of R scored tokens, the
    `kl_rows` ones in the KL first: the `row` and `column` whose hidden state predicts it, its `target` id, its `pair`,
    whether it stands under the `corrupt` image, its index in either answer (`slots` [2, R], -1: not in that one), and
    whether it counts: `rank` [2, R] for the chosen and the rejected sum, `nll` [R]. `places`: one a pair. `reads`
    [B, S]: the columns of each row that any of them needs, `at` [R] the token's among them; `prefix`: columns at the
    start of all rows that see everything before them; keys int32 [B, L]: what dropout takes each token for.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    images: list[list[str]]
    row: Tensor
    column: Tensor
    target: Tensor
    pair: Tensor
    corrupt: Tensor
    slots: Tensor
    rank: Tensor
    nll: Tensor
    kl_rows: int
    places: list[Place]
    reads: Tensor
    at: Tensor
    prefix: int
    keys: Tensor
    samples: Sequence[Sample]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self


class _Row:
    """One packed row under construction. A segment is known by its number; -1 is the root's parent."""

    def __init__(self, images: list[str]) -> None:
        self.images = images
        self.ids: list[int] = []
        self.segment: list[int] = []
        self.first: list[int] = []  # column of a segment's first token
        self.ancestors: list[set[int]] = []
        self.last: list[int] = []  # column of a segment's last token, or of its nearest ancestor's
        self.next: list[int] = []  # position that follows it
        self.positions: list[Tensor] = []
        self.keys: list[np.ndarray] = []

    def add(self, ids: Sequence[int], parent: int, owner: tuple[Any, ...], positions: Tensor | None = None) -> int:
        """Appends a segment below `parent`; returns its number. Positions go on from the parent's if none are given.

        `owner` names the segment whatever else is in the row.
        """
        number = len(self.ancestors)
        if positions is None:
            positions = (torch.arange(len(ids)) + self.next[parent]).expand(self.positions[0].shape[0], -1)
        self.ancestors.append({number} | (self.ancestors[parent] if parent >= 0 else set()))
        self.first.append(len(self.ids))
        self.last.append(len(self.ids) + len(ids) - 1 if ids else self.last[parent])
        self.next.append(int(positions.max()) + 1 if len(ids) else self.next[parent])
        self.ids += ids
        self.keys.append(token_keys(*owner, count=len(ids)))
        self.segment += [number] * len(ids)
        self.positions.append(positions)
        return number

    def visible(self) -> Tensor:
        """bool [L, L]: a token sees itself and what comes before it in its own segment and its ancestors."""
        count = len(self.ancestors)
        sees = torch.tensor([[j in self.ancestors[i] for j in range(count)] for i in range(count)])
        segment = torch.tensor(self.segment)
        return sees[segment][:, segment].tril()

    def prefix(self) -> int:
        """Tokens at the start that each see all before them: the first path of the tree."""
        chain = (i for i, above in enumerate(self.ancestors) if len(above) <= i)
        fork = next(chain, None)
        return len(self.ids) if fork is None else self.first[fork]


@dataclass(slots=True)
class _Token:
    row: int
    column: int
    target: int
    pair: int
    corrupt: bool
    slots: tuple[int, int]
    rank: tuple[bool, bool]
    kl: bool
    nll: bool


def pack(vlm: VLM, samples: Sequence[Sample], plan: Plan, *, padding: str = "right") -> Batch:
    """Packs samples into rows on the CPU. Samples of one example with one prompt and the same images share a row."""
    rows: list[_Row] = []
    tokens: list[_Token] = []
    places: dict[int, Place] = {}
    for corrupt, sides in ((False, plan.clean), (True, plan.corrupt)):
        for images, members in _groups(samples, corrupt) if sides else []:
            row, first = _Row(images), samples[members[0]]
            owner = (first.example_id, tuple(first.prompt), tuple(images), corrupt)
            root = row.add(first.prompt, -1, owner, vlm.positions(first.prompt, first.grids))
            for pair in members:
                added, chosen = _add_answers(row, root, len(rows), samples[pair], pair, plan, sides, corrupt)
                tokens += added
                if not corrupt:
                    places[pair] = Place(len(rows), 0, len(first.prompt), tuple(chosen))
            rows.append(row)
    tokens.sort(key=lambda token: not token.kl)
    return _collate(vlm, rows, tokens, padding, [places[pair] for pair in range(len(samples))], samples)


def _groups(samples: Sequence[Sample], corrupt: bool) -> list[tuple[list[str], list[int]]]:
    """Images and members of each row, by example, prompt and images. (Tokens say nothing of which image they show.)"""
    groups: dict[tuple[Any, ...], tuple[list[str], list[int]]] = {}
    for i, sample in enumerate(samples):
        images = sample.corrupted if corrupt else sample.images
        if images is not None:
            key = (sample.example_id, tuple(sample.prompt), tuple(images))
            groups.setdefault(key, (images, []))[1].append(i)
    return list(groups.values())


def _add_answers(
    row: _Row, root: int, number: int, sample: Sample, pair: int, plan: Plan, sides: Sequence[str], corrupt: bool
) -> tuple[list[_Token], list[int]]:
    """Adds the answers of a sample to a row; its scored tokens, and the columns that predict the chosen answer.

    A token after the last scored one changes nothing that is read, and a last token predicts nothing: both are left
    out, unless the plan wants them `whole`.
    """
    shared = sample.fork if len(sides) == 2 else 0
    end = {side: len(sample.answers[side]) if plan.whole else _last(plan, sample, side, corrupt) for side in sides}
    owner = (sample.example_id, sample.id, corrupt)
    trunk = row.add(sample.answers[sides[0]][: min(shared, max(end.values()))], root, owner)
    paths = [(sides, trunk, root, 0)]
    for side in sides:
        own = row.add(sample.answers[side][shared : end[side]], trunk, (*owner, side))
        paths.append(((side,), own, trunk, shared))
    tokens: list[_Token] = []
    predicts: list[int] = []
    for owners, segment, parent, start in paths:
        stop = shared if segment == trunk else len(sample.answers[owners[0]])
        for slot in range(start, min(stop, max(end[side] for side in owners) + 1)):
            column = row.first[segment] + slot - start - 1 if slot > start else row.last[parent]
            if "chosen" in owners:
                predicts.append(column)
            marks = _marks(plan, sample, slot, owners, corrupt)
            if marks is not None:
                slots = (slot if "chosen" in owners else -1, slot if "rejected" in owners else -1)
                target = sample.answers[owners[0]][slot]
                tokens.append(_Token(number, column, target, pair, corrupt, slots, *marks))
    return tokens, predicts


def _marks(
    plan: Plan, sample: Sample, slot: int, owners: Sequence[str], corrupt: bool
) -> tuple[tuple[bool, bool], bool, bool] | None:
    """Whether a token enters the two preference sums, the KL and the NLL; None where it enters nothing."""
    ranks = [side in owners and _counts(plan.rank, sample.spans[side], slot) for side in SIDES]
    clean = "chosen" in owners and not corrupt
    kl = clean and _counts(plan.kl, sample.spans["chosen"], slot)
    nll = clean and _counts(plan.nll, sample.spans["chosen"], slot)
    return ((ranks[0], ranks[1]), kl, nll) if any(ranks) or kl or nll else None


def _last(plan: Plan, sample: Sample, side: str, corrupt: bool) -> int:
    """Index of the last scored token of an answer; 0 where none is."""
    slots = range(len(sample.answers[side]))
    return max((slot for slot in slots if _marks(plan, sample, slot, (side,), corrupt)), default=0)


def _counts(which: Counted, spans: Sequence[bool], slot: int) -> bool:
    return which == "answer" or (which == "spans" and spans[slot])


def _collate(
    vlm: VLM,
    rows: Sequence[_Row],
    tokens: Sequence[_Token],
    padding: str,
    places: Sequence[Place],
    samples: Sequence[Sample],
) -> Batch:
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), vlm.pad_id)
    positions = torch.zeros(vlm.functions.axes, len(rows), longest, dtype=torch.long)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1, 1)
    keys = torch.zeros(len(rows), longest, dtype=torch.int32)
    shift = []
    for i, row in enumerate(rows):
        start = longest - len(row.ids) if padding == "left" else 0
        here = slice(start, start + len(row.ids))
        ids[i, here] = torch.tensor(row.ids)
        keys[i, here] = torch.from_numpy(np.concatenate(row.keys))
        positions[:, i, here] = torch.cat(row.positions, dim=1)
        mask[i, 0, here, here] = row.visible()
        shift.append(start)

    read = [sorted({t.column for t in tokens if t.row == i}) for i in range(len(rows))]
    reads = torch.zeros(len(rows), max(1, *map(len, read)), dtype=torch.long)
    for i, columns in enumerate(read):
        reads[i, : len(columns)] = torch.tensor(columns, dtype=torch.long) + shift[i]

    def column(values: list[Any], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float64 if dtype.is_floating_point else np.int64)).to(dtype)

    return Batch(
        ids=ids,
        positions=positions,
        mask=mask,
        images=[row.images for row in rows],
        row=column([t.row for t in tokens]),
        column=column([t.column + shift[t.row] for t in tokens]),
        target=column([t.target for t in tokens]),
        pair=column([t.pair for t in tokens]),
        corrupt=column([t.corrupt for t in tokens]).bool(),
        slots=column([t.slots for t in tokens]).reshape(-1, 2).t(),
        rank=column([t.rank for t in tokens], torch.float32).reshape(-1, 2).t(),
        nll=column([t.nll for t in tokens], torch.float32),
        kl_rows=sum(t.kl for t in tokens),
        places=[_shifted(place, shift[place.row]) for place in places],
        reads=reads,
        at=column([read[t.row].index(t.column) for t in tokens]),
        keys=keys,
        prefix=0 if padding == "left" else min(row.prefix() for row in rows),
        samples=samples,
    )


def _shifted(place: Place, by: int) -> Place:
    return Place(place.row, place.start + by, place.prompt, tuple(column + by for column in place.predicts))


def packed_rows(
    vlm: VLM, batch: Batch, features: Features, *, bf16: bool = False, watch: Mapping[str, Any] | None = None
) -> Tensor:
    """One forward: the hidden states [R, D] that predict the scored tokens. `watch` goes to `VLM.hidden`.

    A family that is not known (and was asked for all the same) takes separate passes instead.
    """
    if not vlm.functions.known:
        from clinalign.training.separate import separate_rows

        with torch.autocast(vlm.device.type, torch.bfloat16, enabled=bf16):
            return separate_rows(vlm, batch, features)
    if vlm.peft is not None:
        vlm.peft.masks.tokens(batch.keys, batch.reads)
    images = features.get([key for row in batch.images for key in row])
    per_row = [[images.pop(0) for _ in row] for row in batch.images]
    asked: dict[str, Any] = {"reads": batch.reads, "prefix": batch.prefix, **(watch or {})}
    with torch.autocast(vlm.device.type, torch.bfloat16, enabled=bf16):
        hidden = vlm.hidden(batch.ids, per_row, batch.mask, batch.positions, **asked)
    return hidden[batch.row, batch.at]
