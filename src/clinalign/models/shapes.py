"""A model without its weights: configuration, processor, names, shapes, on torch's meta device. Seconds for any size.

What loading a folder would refuse is refused here too: weights that are missing, damaged, pickled or outside it.
"""

from __future__ import annotations

from clinalign.models import load, processors
from clinalign.models.families import FAMILIES
from clinalign.models.vlm import VLM

META = {"device_map": "meta"}


@load._bordered
def load_shapes(name: str, *, dtype: str = "float32", processor: str = "", unpacked: bool = False) -> VLM:
    """A `VLM` that makes prompts and knows its parts, but cannot run. `UsageError` for whatever `load_vlm` refuses
    before it runs the model; whether its answers may be packed is proved only when it is loaded.

    Weights that only a hub has are fetched, as loading would.
    """
    source = load.source_of(name)
    config = load._config(source)
    family = FAMILIES.get(config.model_type)
    if family is None or family.check(config):
        return load._generic(source, name, load.DTYPES[dtype], "meta", META, processor, True)
    parts = processors.of_family(source, load.source_of(processor) if processor else source, family, config)
    model = load._weights(source, family.model_class, load.DTYPES[dtype], META)
    return VLM(model, parts, family=family, name=name, unpacked=unpacked)


def adapter_size(vlm: VLM, rank: int) -> int:
    """Parameters of a LoRA of this rank on the language model's projections."""
    from clinalign.models.adapter import target_modules

    modules = dict(vlm.model.named_modules())
    wide = (modules[name] for name in target_modules(vlm.model, vlm.family.language))
    return sum(rank * (module.in_features + module.out_features) for module in wide)
