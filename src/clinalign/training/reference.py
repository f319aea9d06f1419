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
from dataclasses import dataclass
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
from clinalign.progress import track
from clinalign.storage.tensors import Record, TensorStore
from clinalign.training.batches import PairBatch, ScoringPlan, pack_pairs
from clinalign.training.encode import SIDES, Sample

VERSION = 2


@dataclass
class ReferenceValues:
    """The reference's values for a batch: logps [R] of the scored tokens, states [K, D] behind the KL's tokens."""

    logps: Tensor
    states: Tensor | None


class Reference:
    """With a `folder` values are read from it and written to it; without, each batch costs a second forward.

    The reference is the model with its adapter off, or, `adapted`, with the adapter as it is now. The latter must be
    filled before the adapter trains on.
    """

    def __init__(
        self, vlm: VLM, features: Features, folder: Path | None = None, *, bf16: bool = False, adapted: bool = False
    ) -> None:
        self.vlm, self.features, self.bf16, self.adapted = vlm, features, bf16, adapted
        self.computed = 0
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
        values = [{name: v.tolist() for name, v in r.items() if name not in ("index", "states")} for r in records]
        logps = [self._pick(values[pair], corrupt, index) for pair, corrupt, index in _tokens(batch)]
        states = None
        if batch.kl_tokens:
            tokens = _tokens(batch, batch.kl_tokens)
            at = [records[pair]["index"].tolist().index(index[0]) for pair, _, index in tokens]
            found = [records[pair]["states"][i] for (pair, _, _), i in zip(tokens, at, strict=True)]
            states = torch.stack(found).to(self.vlm.device)
        return ReferenceValues(torch.tensor(logps, device=self.vlm.device), states)

    def fill(self, samples: Sequence[Sample], plan: ScoringPlan, *, batch_size: int = 8) -> int:
        """Computes what is missing for these records and returns how many that were."""
        if self.folder is None:
            raise UsageError("the reference cache is off; set `cache` to a folder")
        if not plan.needs_reference:
            return 0
        missing = [s for s in samples if not _satisfies(self._read(s), s, plan)]
        missing.sort(key=lambda sample: sample.size)
        starts = range(0, len(missing), batch_size)
        for start in track(starts, "reference", len(starts)) if missing else []:
            self._compute(missing[start : start + batch_size], plan)
        self.store.flush()
        return len(missing)

    def verify(self, samples: Sequence[Sample], plan: ScoringPlan, *, count: int = 4, seed: int = 0) -> int:
        """Computes random cached records again and compares. Returns how many; a difference is a `UsageError`."""
        stored = [s for s in samples if _satisfies(self._read(s), s, plan)] if self.folder is not None else []
        chosen = np.random.default_rng(seed).permutation(len(stored))[:count]
        tolerance = 1e-3 if self.vlm.dtype == torch.float32 and not self.bf16 else 0.2
        for i in chosen:
            sample = stored[i]
            cached, fresh = self._read(sample), self._values([sample], plan)[0]
            for name in (n for n in fresh if n != "index" and n in cached and fresh[n].shape == cached[n].shape):
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
        if missing and self.adapted:
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
            old, new = self._read(sample), records[i]
            keep = "index" in old and set(old["index"].tolist()) >= set(new["index"].tolist() if "index" in new else ())
            records[i] = new | old if keep else old | new
        self.store.put({self._key(sample): record for sample, record in zip(samples, records, strict=True)})
        self.computed += len(samples)
        return records

    def _values(self, samples: Sequence[Sample], plan: ScoringPlan) -> list[Record]:
        """Fresh values: every answer token's logp, and the hidden states behind the KL's tokens."""
        corrupt = SIDES if plan.corrupt else ()
        everything = ScoringPlan(preference="answer", kl=plan.kl, clean=SIDES, corrupt=corrupt)
        batch = pack_pairs(self.vlm, samples, everything).to(self.vlm.device)
        return _by_record(samples, batch, self._now(batch))

    def _now(self, batch: PairBatch) -> ReferenceValues:
        with self.vlm.evaluating() if self.adapted else self.vlm.adapter_off():
            scores = score_tokens(self.vlm, batch.trees, self.features, bf16=self.bf16)
        return ReferenceValues(scores.logps, scores.states[: batch.kl_tokens] if batch.kl_tokens else None)

    @staticmethod
    def _pick(record: dict[str, list[float]], corrupt: bool, index: tuple[int, int]) -> float:
        side = 0 if index[0] >= 0 else 1
        return record[("corrupt_" if corrupt else "") + SIDES[side]][index[side]]

    def _key(self, sample: Sample) -> str:
        images = [self.features.digest(key) for key in sample.images]
        corrupted = [self.features.digest(key) for key in sample.corrupted or []]
        content = [sample.id, sample.prompt, sample.answers["chosen"], sample.answers["rejected"], images, corrupted]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _read(self, sample: Sample) -> Record:
        return self.store.get(self._key(sample)) or {}


def _tokens(batch: PairBatch, count: int | None = None) -> list[tuple[int, bool, tuple[int, int]]]:
    """Of the first `count` scored tokens: pair, whether under the corrupted image, index in either answer."""
    index = batch.index[:, :count].t().tolist()
    pairs, corrupt = batch.pair[:count].tolist(), batch.corrupt[:count].tolist()
    return [(p, c, (i[0], i[1])) for p, c, i in zip(pairs, corrupt, index, strict=True)]


def _satisfies(record: Record, sample: Sample, plan: ScoringPlan) -> bool:
    if not all(side in record for side in SIDES):
        return False
    if plan.corrupt and sample.corrupted is not None and not all(f"corrupt_{side}" in record for side in SIDES):
        return False
    wanted = _kl_indexes(sample, plan)
    return not wanted or ("index" in record and wanted <= set(record["index"].tolist()))


def _kl_indexes(sample: Sample, plan: ScoringPlan) -> set[int]:
    if plan.kl == "none":
        return set()
    return {i for i, marked in enumerate(sample.spans["chosen"]) if marked or plan.kl == "answer"}


def _by_record(samples: Sequence[Sample], batch: PairBatch, known: ReferenceValues) -> list[Record]:
    records: list[Record] = []
    logps = known.logps.cpu()
    for sample in samples:
        record = {side: torch.zeros(len(sample.answers[side])) for side in SIDES}
        if sample.corrupted is not None and bool(batch.corrupt.any()):
            record |= {f"corrupt_{side}": torch.zeros(len(sample.answers[side])) for side in SIDES}
        records.append(record)
    for value, (pair, corrupt, index) in zip(logps, _tokens(batch), strict=True):
        for side, at in zip(SIDES, index, strict=True):
            if at >= 0:
                records[pair][("corrupt_" if corrupt else "") + side][at] = value
    if known.states is not None:
        owners = batch.pair[: batch.kl_tokens].cpu()
        for pair, record in enumerate(records):
            mine = owners == pair
            record["index"] = batch.index[0, : batch.kl_tokens].cpu()[mine]
            record["states"] = known.states.cpu()[mine]
    return records
