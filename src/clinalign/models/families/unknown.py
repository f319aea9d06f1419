"""A family nobody wrote functions for: its own processor and its own forward, one sequence at a time.

Enough to answer, to train on pairs and to be measured, slowly (`unpacked=True` when loading): what needs the family's
insides is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models.families.family import Family, Grid, cells, plain_positions

MISSING = "this model's family has no functions here; write them in models/families/ (see family.py)"


def inputs(processor: Any, text: str, images: Sequence[np.ndarray], answer: Sequence[int]) -> dict[str, Tensor]:
    """What the model's forward takes for one prompt with its images and an answer behind it: the processor's word."""
    given = processor(text=[text], images=list(images) or None, return_tensors="pt")
    ids = given["input_ids"]
    tail = torch.tensor([list(answer)], dtype=ids.dtype)
    found = dict(given) | {"input_ids": torch.cat([ids, tail], dim=1)}
    for name, value in given.items():  # masks and token types stand beside the ids and grow with them
        if name != "input_ids" and isinstance(value, Tensor) and value.shape == ids.shape:
            found[name] = torch.cat([value, torch.full_like(tail, int(name == "attention_mask"))], dim=1)
    return found


def _grid(processor: Any, image: np.ndarray) -> Grid:
    """As many cells, in one column, as the processor makes placeholders of the image."""
    token = processor.image_token
    ids = processor(text=[token], images=[image], return_tensors="pt")["input_ids"][0]
    return int((ids == processor.tokenizer.convert_tokens_to_ids(token)).sum()), 1


def _refuse(*_: Any, **__: Any) -> Any:
    raise UsageError(MISSING)


def family(model_class: str, language: str) -> Family:
    """The functions of an unknown family; `language` names its decoder."""
    return Family(
        model_class=model_class,
        build_processor=_refuse,
        grid=_grid,
        token_count=cells,
        encode=_refuse,
        place=_refuse,
        positions=plain_positions,
        check=lambda config: None,
        language=language,
        known=False,
    )
