"""The frozen reference's numbers: computed once, kept on disk, shared by every method, seed and ablation of one corpus.

For each record: the log-probability of every token of both answers, under the image and under the corrupted image, and
where a KL is on the last hidden states that predict the KL's tokens (D numbers a token instead of the vocabulary's V).
A record's file is named by its content (the record's id, prompt and answer ids, its images' pixels) and lies in a
folder named by the model's weights and processor.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.fingerprint import configuration_hash, hash_tensors
from clinalign.models.head import score_rows
from clinalign.progress import track
from clinalign.storage import write_json
from clinalign.training.batches import Batch, Plan, pack, packed_rows
from clinalign.training.encode import SIDES, Sample

Entry = dict[str, Tensor]
VERSION = 1


@dataclass
class Known:
    """The reference's values for a batch: logps [R] of the scored tokens, hidden [K, D] behind the KL's tokens."""

    logps: Tensor
    hidden: Tensor | None


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
            self._check_meta()

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of what the values depend on besides the record: weights, processor, precision; and of all of them."""
        named = [
            (name.replace(".base_layer", ""), value)
            for name, value in self.vlm.model.named_parameters()
            if self.adapted or "lora_" not in name
        ]
        if self.adapted and self.vlm.steer is not None:
            named += [(f"steer.{name}", value) for name, value in self.vlm.steer.named_parameters()]
        processor = self.vlm.processor
        settings = [
            processor.image_processor.to_json_string(),
            str(processor.chat_template),
            self.vlm.tokenizer.backend_tokenizer.to_str(),
        ]
        parts = {
            "version": str(VERSION),
            "family": self.vlm.family,
            "precision": f"{self.vlm.dtype} bf16={self.bf16} {self.vlm.device.type}",
            "weights": hash_tensors(named),
            "configuration": configuration_hash(self.vlm.model.config),
            "processor": hashlib.sha256("\0".join(settings).encode()).hexdigest(),
        }
        return parts | {"all": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}

    def get(self, samples: Sequence[Sample], batch: Batch, plan: Plan) -> Known:
        """Values for a packed batch, from the cache where there is one."""
        if self.folder is None:
            return self._now(batch)
        entries = self._entries(samples, plan)
        values = [{name: v.tolist() for name, v in e.items() if name not in ("slots", "hidden")} for e in entries]
        logps = [self._pick(values[pair], corrupt, slots) for pair, corrupt, slots in _tokens(batch)]
        hidden = None
        if batch.kl_rows:
            at = [entries[pair]["slots"].tolist().index(slots[0]) for pair, _, slots in _tokens(batch, batch.kl_rows)]
            pairs = batch.pair[: batch.kl_rows].tolist()
            hidden = torch.stack([entries[pair]["hidden"][i] for pair, i in zip(pairs, at, strict=True)])
            hidden = hidden.to(self.vlm.device)
        return Known(torch.tensor(logps, device=self.vlm.device), hidden)

    def fill(self, samples: Sequence[Sample], plan: Plan, *, batch_size: int = 8) -> int:
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
        return len(missing)

    def verify(self, samples: Sequence[Sample], plan: Plan, *, count: int = 4, seed: int = 0) -> int:
        """Computes random cached records again and compares. Returns how many; a difference is a `UsageError`."""
        stored = [s for s in samples if _satisfies(self._read(s), s, plan)] if self.folder is not None else []
        chosen = np.random.default_rng(seed).permutation(len(stored))[:count]
        tolerance = 1e-3 if self.vlm.dtype == torch.float32 and not self.bf16 else 0.2
        for i in chosen:
            sample = stored[i]
            cached, fresh = self._read(sample), self._values([sample], plan)[0]
            for name in (n for n in fresh if n != "slots" and n in cached and fresh[n].shape == cached[n].shape):
                gap = float((fresh[name].float() - cached[name].float()).abs().max()) if fresh[name].numel() else 0.0
                if not gap <= tolerance:
                    raise UsageError(
                        f"{self._path(sample)}: cached '{name}' of record '{sample.id}' is off by {gap:.3g} (allowed "
                        f"{tolerance:g}); delete {self.folder} to compute the reference again"
                    )
        return len(chosen)

    # One record

    def _entries(self, samples: Sequence[Sample], plan: Plan) -> list[Entry]:
        entries = [self._read(sample) for sample in samples]
        missing = [i for i, s in enumerate(samples) if not _satisfies(entries[i], s, plan)]
        if missing and self.adapted:
            raise UsageError(
                f"{self.folder}: record '{samples[missing[0]].id}' is missing; fill the cache before step one"
            )
        if missing:
            for i, entry in zip(missing, self._compute([samples[i] for i in missing], plan), strict=True):
                entries[i] = entry
        return entries

    def _compute(self, samples: Sequence[Sample], plan: Plan) -> list[Entry]:
        entries = self._values(samples, plan)
        for i, sample in enumerate(samples):
            old, new = self._read(sample), entries[i]
            keep = "slots" in old and set(old["slots"].tolist()) >= set(new["slots"].tolist() if "slots" in new else ())
            entries[i] = new | old if keep else old | new
            self._write(sample, entries[i])
        self.computed += len(samples)
        return entries

    def _values(self, samples: Sequence[Sample], plan: Plan) -> list[Entry]:
        """Fresh values: every answer token's logp, and the hidden states behind the KL's tokens."""
        everything = Plan(rank="answer", kl=plan.kl, clean=SIDES, corrupt=SIDES if plan.corrupt else ())
        batch = pack(self.vlm, samples, everything).to(self.vlm.device)
        known = self._now(batch)
        return _by_record(samples, batch, known)

    def _now(self, batch: Batch) -> Known:
        with self.vlm.evaluating() if self.adapted else self.vlm.adapter_off():
            rows = packed_rows(self.vlm, batch, self.features, bf16=self.bf16)
            logps, _, _ = score_rows(rows, self.vlm.head.weight, batch.target)
        return Known(logps, rows[: batch.kl_rows] if batch.kl_rows else None)

    @staticmethod
    def _pick(entry: dict[str, list[float]], corrupt: bool, slots: tuple[int, int]) -> float:
        side = 0 if slots[0] >= 0 else 1
        return entry[("corrupt_" if corrupt else "") + SIDES[side]][slots[side]]

    def _path(self, sample: Sample) -> Path:
        assert self.folder is not None
        images = [self.features.digest(key) for key in sample.images]
        corrupted = [self.features.digest(key) for key in sample.corrupted or []]
        content = [sample.id, sample.prompt, sample.answers["chosen"], sample.answers["rejected"], images, corrupted]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, sample: Sample) -> Entry:
        path = self._path(sample)
        if not path.is_file():
            return {}
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{path}: damaged reference file ({error}); delete it to compute it again") from error

    def _write(self, sample: Sample, entry: Entry) -> None:
        path = self._path(sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        save_file({name: value.detach().cpu().contiguous() for name, value in entry.items()}, temporary)
        temporary.replace(path)

    def _check_meta(self) -> None:
        """The folder says what it was made with; anything else is refused with the reason."""
        assert self.folder is not None
        path = self.folder / "reference.json"
        if not path.is_file():
            write_json(path, self.fingerprint)
            return
        try:
            made = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            made = {}
        different = [name for name, value in self.fingerprint.items() if made.get(name) != value]
        if different:
            what = ", ".join(name for name in different if name != "all") or "settings"
            raise UsageError(
                f"{path}: reference cache made with other {what}; delete {self.folder}, or choose another cache"
            )


def _tokens(batch: Batch, count: int | None = None) -> list[tuple[int, bool, tuple[int, int]]]:
    slots = batch.slots[:, :count].t().tolist()
    pairs, corrupt = batch.pair[:count].tolist(), batch.corrupt[:count].tolist()
    return [(p, c, (s[0], s[1])) for p, c, s in zip(pairs, corrupt, slots, strict=True)]


def _satisfies(entry: Entry, sample: Sample, plan: Plan) -> bool:
    if not all(side in entry for side in SIDES):
        return False
    if plan.corrupt and sample.corrupted is not None and not all(f"corrupt_{side}" in entry for side in SIDES):
        return False
    wanted = _kl_slots(sample, plan)
    return not wanted or ("slots" in entry and wanted <= set(entry["slots"].tolist()))


def _kl_slots(sample: Sample, plan: Plan) -> set[int]:
    if plan.kl == "none":
        return set()
    return {i for i, marked in enumerate(sample.spans["chosen"]) if marked or plan.kl == "answer"}


def _by_record(samples: Sequence[Sample], batch: Batch, known: Known) -> list[Entry]:
    entries: list[Entry] = []
    logps = known.logps.cpu()
    for sample in samples:
        entry = {side: torch.zeros(len(sample.answers[side])) for side in SIDES}
        if sample.corrupted is not None and bool(batch.corrupt.any()):
            entry |= {f"corrupt_{side}": torch.zeros(len(sample.answers[side])) for side in SIDES}
        entries.append(entry)
    for value, (pair, corrupt, slots) in zip(logps, _tokens(batch), strict=True):
        for side, slot in zip(SIDES, slots, strict=True):
            if slot >= 0:
                entries[pair][("corrupt_" if corrupt else "") + side][slot] = value
    if known.hidden is not None:
        owners = batch.pair[: batch.kl_rows].cpu()
        for pair, entry in enumerate(entries):
            mine = owners == pair
            entry["slots"] = batch.slots[0, : batch.kl_rows].cpu()[mine]
            entry["hidden"] = known.hidden.cpu()[mine]
    return entries
