"""The frozen reference's numbers: computed once, kept on disk, shared by every method, seed and ablation of one corpus.

For each record: the log-probability of every token of both answers, under the image and under the corrupted image, and
where a KL is on the last hidden states that predict the KL's tokens (D numbers a token instead of the vocabulary's V).
A record's key is its content (the record's id, prompt and answer ids, its images' pixels); the store lies in a folder
named by the model's weights and processor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.fingerprint import configuration_hash, hash_tensors
from clinalign.models.tree import score_tokens
from clinalign.objectives import EXTRA, HELD
from clinalign.progress import track
from clinalign.storage.tensors import Record, TensorStore
from clinalign.training.batches import NAMES, PLAIN, PREFIX, PairBatch, ScoringPlan, counts, held_of, pack_pairs
from clinalign.training.encode import SIDES, Sample

VERSION = 2
STATES = ("index", "states")


@dataclass
class ReferenceValues:
    """The reference's values for a batch: logps [R] of the scored tokens, states [K, D] behind the KL's tokens."""

    logps: Tensor
    states: Tensor | None


class Reference:
    """With a `folder` values are read from it and written to it; without, each batch costs a second forward.

    The reference is the model with its adapter off, or, `adapted`, with the adapter as it is now. The latter must be
    filled before the adapter trains on. `complete`: what is missing is not computed, since that would be a forward of
    one process alone.
    """

    def __init__(
        self, vlm: VLM, features: Features, folder: Path | None = None, *, bf16: bool = False, adapted: bool = False
    ) -> None:
        self.vlm, self.features, self.bf16, self.adapted = vlm, features, bf16, adapted
        self.computed, self.complete = 0, False
        self.folder: Path | None = None
        if folder is not None:
            self.folder = Path(folder) / "reference" / self.fingerprint["all"][:16]
            self.store = TensorStore(self.folder, self.fingerprint, "reference")

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of what the values depend on besides the record: weights, processor, precision; and of all of them."""
        named = [
            (name.replace(".base_layer", ""), value)
            for name, value in self.vlm.model.named_parameters()
            if self.adapted or "lora_" not in name
        ]
        if self.adapted and self.vlm.projection is not None:
            named += [(f"projection.{name}", value) for name, value in self.vlm.projection.named_parameters()]
        processor = self.vlm.processor
        settings = [
            processor.image_processor.to_json_string(),
            str(processor.chat_template),
            self.vlm.tokenizer.backend_tokenizer.to_str(),
        ]
        parts = {
            "version": str(VERSION),
            "family": self.vlm.family.name,
            "precision": f"{self.vlm.dtype} bf16={self.bf16} {self.vlm.device.type}",
            "weights": hash_tensors(named),
            "configuration": configuration_hash(self.vlm.model.config),
            "adapter": self.vlm.fingerprint() if self.adapted else "",
            "processor": hashlib.sha256("\0".join(settings).encode()).hexdigest(),
        }
        return parts | {"all": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}

    def get(self, samples: Sequence[Sample], batch: PairBatch, plan: ScoringPlan) -> ReferenceValues:
        """Values for a packed batch, from the cache where there is one."""
        if self.folder is None:
            return self._now(batch)
        records = self._records(samples, plan)
        values = [{name: v.tolist() for name, v in r.items() if not name.endswith(STATES)} for r in records]
        logps = [values[pair][answer][index] for pair, answer, index in _tokens(batch, plan)]
        states = None
        if batch.kl_tokens:
            found = []
            for pair, answer, index in _tokens(batch, plan, kl=True):
                at, held = (records[pair][name] for name in _states_of(answer))
                found.append(held[at.tolist().index(index)])
            states = torch.stack(found).to(self.vlm.device)
        return ReferenceValues(torch.tensor(logps, device=self.vlm.device), states)

    def fill(self, samples: Sequence[Sample], plan: ScoringPlan, *, batch_size: int = 8) -> int:
        """Computes what is missing for these records and returns how many that were."""
        if self.folder is None:
            raise UsageError("the reference cache is off; set `cache` to a folder")
        if not plan.needs_reference:
            return 0
        missing = [(s.size(), n) for n, s in enumerate(samples) if not _satisfies(self._read(s), s, plan)]
        missing.sort()
        starts = range(0, len(missing), batch_size)
        for start in track(starts, "reference", len(starts)) if missing else []:
            self._compute([samples[n] for _, n in missing[start : start + batch_size]], plan)
        self.store.flush()
        return len(missing)

    def verify(self, samples: Sequence[Sample], plan: ScoringPlan, *, count: int = 4, seed: int = 0) -> int:
        """Computes random cached records again and compares. Returns how many; a difference is a `UsageError`."""
        known = self.folder is not None
        stored = [n for n, s in enumerate(samples) if known and _satisfies(self._read(s), s, plan)]
        chosen = np.random.default_rng(seed).permutation(len(stored))[:count]
        tolerance = 1e-3 if self.vlm.dtype == torch.float32 and not self.bf16 else 0.2
        for i in chosen:
            sample = samples[stored[i]]
            cached, fresh = self._read(sample), self._values([sample], plan)[0]
            cached |= _states_at(cached, fresh)
            for name in (n for n in fresh if not n.endswith("index") and n in cached):
                gap = float((fresh[name].float() - cached[name].float()).abs().max()) if fresh[name].numel() else 0.0
                if not gap <= tolerance:
                    raise UsageError(
                        f"{self.folder}: cached '{name}' of record '{sample.id}' is off by {gap:.3g} (allowed "
                        f"{tolerance:g}); delete the folder to compute the reference again"
                    )
        return len(chosen)

    # One record

    def _records(self, samples: Sequence[Sample], plan: ScoringPlan) -> list[Record]:
        records = [self._read(sample) for sample in samples]
        missing = [i for i, s in enumerate(samples) if not _satisfies(records[i], s, plan)]
        if missing and (self.adapted or self.complete):
            raise UsageError(
                f"{self.folder}: record '{samples[missing[0]].id}' is missing; fill the cache before step one"
            )
        if missing:
            for i, record in zip(missing, self._compute([samples[i] for i in missing], plan), strict=True):
                records[i] = record
        return records

    def _compute(self, samples: Sequence[Sample], plan: ScoringPlan) -> list[Record]:
        records = self._values(samples, plan)
        for i, sample in enumerate(samples):
            records[i] = _joined(self._read(sample), records[i])
        self.store.put({self._key(sample): record for sample, record in zip(samples, records, strict=True)})
        self.computed += len(samples)
        return records

    def _values(self, samples: Sequence[Sample], plan: ScoringPlan) -> list[Record]:
        """Fresh values: every answer token's logp, and the hidden states behind the KL's tokens."""
        scored = _scored(plan)
        everything = replace(
            plan, preference="answer", nll="none", whole=False, span_weights=PLAIN, clean=scored["clean"],
            corrupt=scored["corrupt"],
        )  # fmt: skip
        batch = pack_pairs(self.vlm, samples, everything).to(self.vlm.device)
        return _by_record(samples, batch, everything, self._now(batch))

    def _now(self, batch: PairBatch) -> ReferenceValues:
        with self.vlm.evaluating() if self.adapted else self.vlm.adapter_off():
            scores = score_tokens(self.vlm, batch.trees, self.features, bf16=self.bf16)
        return ReferenceValues(scores.logps, scores.states[: batch.kl_tokens] if batch.kl_tokens else None)

    def _key(self, sample: Sample) -> str:
        images = [self.features.digest(key) for key in sample.images]
        corrupted = [self.features.digest(key) for key in sample.corrupted or []]
        content = [sample.id, sample.prompt, sample.answers["chosen"], sample.answers["rejected"], images, corrupted]
        content += [sample.answers[side] for side in EXTRA if side in sample.answers]
        if sample.ladder:
            content.append([self.features.digest(key) for step in sample.ladder for key in step])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _read(self, sample: Sample) -> Record:
        return self.store.get(self._key(sample)) or {}


def _scored(plan: ScoringPlan) -> dict[str, tuple[str, ...]]:
    """The answers that a record holds for a plan, by view. Under the image and under the corrupted one both sides where
    it has one of them (under the image always), so that methods share them, and those beside the pair's own."""
    clean, corrupt = (tuple(side for side in view if side not in SIDES) for view in (plan.clean, plan.corrupt))
    shared = {"clean": SIDES + clean, "corrupt": (SIDES if set(SIDES) & set(plan.corrupt) else ()) + corrupt}
    return shared | dict(plan.views)


def _answers(sample: Sample, plan: ScoringPlan) -> dict[str, tuple[str, str]]:
    """Names of the answers whose log-probabilities a record has to hold, and their view and side."""
    return {
        PREFIX[view] + side: (view, side)
        for view, sides in _scored(plan).items()
        for side in sides
        if (side in sample.answers if view == "clean" else plan.images(sample, view) is not None)
    }


def _tokens(batch: PairBatch, plan: ScoringPlan, *, kl: bool = False) -> list[tuple[int, str, int]]:
    """Of each scored token (or of those in the KL): pair, an answer that it stands in, its index there."""
    count = batch.kl_tokens if kl else len(batch.pair)
    inside = (batch.kl > 0 if kl else batch.index >= 0)[:, :count]
    first = inside.int().argmax(0)
    index = batch.index[:, :count].gather(0, first[None])[0].tolist()
    pairs, views = batch.pair[:count].tolist(), batch.view[:count].tolist()
    names = [PREFIX[NAMES[v]] + plan.sides[s] for v, s in zip(views, first.tolist(), strict=True)]
    return list(zip(pairs, names, index, strict=True))


def _states_of(answer: str) -> tuple[str, str]:
    """Names, in a record, of the indexes of an answer's tokens in the KL and of the states behind them."""
    prefix = "" if answer == "chosen" else f"{answer}_"
    return f"{prefix}index", f"{prefix}states"


def _joined(old: Record, new: Record) -> Record:
    """A record with all that either holds; of a state that both hold, the older."""
    joined = old | new
    for answer in HELD:
        at, states = _states_of(answer)
        if at in old and at in new:
            fresh = ~torch.isin(new[at], old[at])
            index, order = torch.cat([old[at], new[at][fresh]]).sort()
            joined |= {at: index, states: torch.cat([old[states], new[states][fresh]])[order]}
    return joined


def _states_at(cached: Record, fresh: Record) -> Record:
    """The cached states at the indexes that a fresh record has, in its order."""
    names = [_states_of(answer) for answer in HELD]
    held = ((at, states) for at, states in names if at in fresh and at in cached)
    return {states: cached[states][[cached[at].tolist().index(i) for i in fresh[at].tolist()]] for at, states in held}


def _satisfies(record: Record, sample: Sample, plan: ScoringPlan) -> bool:
    if not all(answer in record for answer in _answers(sample, plan)):
        return False
    wanted = _kl_indexes(sample, plan)
    names = {answer: _states_of(answer)[0] for answer in wanted}
    return all(names[a] in record and indexes <= set(record[names[a]].tolist()) for a, indexes in wanted.items())


def _kl_indexes(sample: Sample, plan: ScoringPlan) -> dict[str, set[int]]:
    """Of each held answer with tokens in the KL, their indexes."""
    indexes: dict[str, set[int]] = {}
    for answer in plan.held:
        view, side = held_of(answer)
        if side in plan.seen.get(view, ()) and plan.images(sample, view) is not None:
            spans = sample.spans[side]
            indexes[answer] = {i for i in range(len(spans)) if counts(plan.kl, spans, i)}
    return {answer: found for answer, found in indexes.items() if found}


def _by_record(samples: Sequence[Sample], batch: PairBatch, plan: ScoringPlan, known: ReferenceValues) -> list[Record]:
    logps, owners, views = known.logps.cpu(), batch.pair.cpu(), batch.view.cpu()
    records: list[Record] = []
    for pair, sample in enumerate(samples):
        record: Record = {}
        for answer, (view, side) in _answers(sample, plan).items():
            at = batch.index[plan.sides.index(side)].cpu()
            mine = (owners == pair) & (views == NAMES.index(view)) & (at >= 0)
            record[answer] = torch.zeros(len(sample.answers[side])).index_put((at[mine],), logps[mine])
            kl = (batch.kl[plan.sides.index(side)].cpu() > 0) & mine
            if known.states is not None and answer in plan.held and bool(kl.any()):
                kl = kl[: batch.kl_tokens]
                record |= dict(zip(_states_of(answer), (at[: len(kl)][kl], known.states.cpu()[kl]), strict=True))
        records.append(record)
    return records
