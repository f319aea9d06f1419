"""One variant of `../distill.py`: `distilled.py VARIANT FOLDER`, driven by `step` and `end` on standard input.

With `kept` as a third word it prints the bytes that a forward keeps for its backward pass instead.

`sft`: the plain packed step. `distill`: the same step with both terms of MEDALIGN, `vis`: with the first. `eager`:
both terms as published, from whole attention maps that every layer forms and keeps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from child import Meter, build, corpus, randomise, serve

# isort: split

import numpy as np
import torch
from ours import samples
from torch import Tensor

from clinalign.models import VLM, load_vlm
from clinalign.models.features import Features
from clinalign.models.teachers import PatchFeatures
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.training.distill import Captured, Distill, new_projection
from clinalign.training.options import DistillOptions
from clinalign.training.step import PackedSteps
from clinalign.training.teacher import Teacher


class StandIn:
    """A teacher of BiomedCLIP's shape (14 x 14 patches of 512) that has seen everything: random numbers by image."""

    name, grid, fill, fingerprint = "stand-in", (14, 14), (0, 0, 0), "1"

    def encode(self, images: list[np.ndarray]) -> list[PatchFeatures]:
        """Random features and maps."""
        generators = [torch.Generator().manual_seed(int(image[:8].sum())) for image in images]
        return [PatchFeatures(torch.randn(196, 512, generator=g), torch.rand(196, generator=g)) for g in generators]


class Whole(Distill):
    """As published: every layer forms its whole map with gradient, and all of them live until the backward pass."""

    def capture(self, samples: Any, batch: Any) -> Captured | None:
        """Asks for maps too."""
        self.vlm.language_model.set_attn_implementation("eager")
        self.maps: list[Tensor] = []
        captured = super().capture(samples, batch)
        assert captured is not None
        hooks = [layer.self_attn.register_forward_hook(self._keep) for layer in self.vlm.language_model.layers]
        self.hooks = hooks
        return captured

    def _keep(self, module: Any, args: Any, out: Any) -> None:
        self.maps.append(out[1])

    def terms(self, captured: Captured | None, pairs: int) -> dict[str, Tensor]:
        """The rows are read out of the maps."""
        assert captured is not None
        for hook in self.hooks:
            hook.remove()
        probe, layer = captured.request.probe, self.layers[0]
        assert probe is not None
        rows = probe.queries
        batch = torch.arange(len(rows))[:, None]
        probe[layer] = self.maps[layer].float().transpose(1, 2)[batch, rows].transpose(1, 2).clamp(min=1e-30).log()
        return super().terms(captured, pairs)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as the eager kernel takes it: numbers to be added to the scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def steps_of(variant: str, vlm: VLM, work: Path, shape: dict[str, Any]) -> tuple[PackedSteps, Teacher | None]:
    """The packed SFT step, with or without distillation; image features are kept, as in training."""
    rows = corpus(shape)
    pictures = {f"{i}{view}": row[view] for i, row in enumerate(rows) for view in ("clean", "corrupt")}
    features = Features(vlm, pictures.__getitem__)
    given = samples(vlm, rows, features, shape)
    if variant == "sft":
        return PackedSteps(vlm, given, METHODS["sft"], LossCoefficients(), features), None
    options = DistillOptions(beta=0.0 if variant == "vis" else 0.1)
    teacher = Teacher(StandIn(), features.read, options, work / "cache")
    teacher.prepare([(key, "") for sample in given for key in sample.images])
    if variant == "eager":
        seen = vlm.masks
        vlm.masks = lambda mask, *rest: additive(seen(mask, *rest), vlm.dtype)  # type: ignore[method-assign]
    distill = (Whole if variant == "eager" else Distill)(vlm, features, teacher, options, {})
    return PackedSteps(vlm, given, METHODS["sft"], LossCoefficients(), features, distill=distill), teacher


def kept_bytes(steps: PackedSteps, indexes: range) -> int:
    """Bytes that one forward keeps for its backward pass, every storage once, parameters left out."""
    owned = {p.untyped_storage().data_ptr() for p in steps.vlm.model.parameters()}
    found: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in owned:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        loss, _ = steps.loss(indexes)
    total = sum(found.values())
    del loss
    return total


def main() -> None:
    """Command line."""
    variant, work = sys.argv[1], Path(sys.argv[2])
    shape = json.loads((work / "shape.json").read_text())
    if variant == "build":
        build(work, shape)
        return
    meter = Meter(shape["device"])
    vlm = load_vlm(str(work / "model"), device=shape["device"], dtype=shape["dtype"])
    vlm.attach_lora(**shape["lora"])
    if variant != "sft":
        vlm.attach_projection(new_projection(vlm, DistillOptions(), 0))
    params = randomise(vlm.model.named_parameters())
    params |= {name: value for name, value in vlm.trainable().items() if name.startswith("projection")}
    vlm.model.train()
    steps, teacher = steps_of(variant, vlm, work, shape)
    steps.features.get([key for sample in steps.samples for key in sample.images])
    if sys.argv[3:] == ["kept"]:
        print(kept_bytes(steps, range(shape["micro"])))
        return
    loaded = meter.loaded_mb()

    def step(i: int) -> Tensor:
        if teacher is not None:
            teacher.targets.clear()  # every step reads what the teacher saw and builds the similarities anew
        first = i * shape["batch"] % len(steps.samples)
        loss, _ = steps.loss(range(first, first + shape["batch"]))
        loss.backward()
        return loss.detach()

    serve(step, params, work / f"{variant}.safetensors", meter, loaded)


if __name__ == "__main__":
    main()
