"""What trains must have had a gradient after the first step: an adapter that nothing reaches stays zero in silence."""

from __future__ import annotations

from collections.abc import Mapping

from torch.nn import Parameter

from clinalign.errors import UsageError


def check_gradients(params: Mapping[str, Parameter]) -> None:
    """`UsageError` with the name of the first group of `params` whose gradients are all missing or zero.

    A group is one kind of weight in one part of the model: all `q_proj` of a language model together. Single layers may
    stay without (an expert that no token chose, keys that another layer's stand in for), and of an adapter's two
    matrices only the second has a gradient at first.
    """
    groups: dict[str, list[Parameter]] = {}
    for name, value in params.items():
        groups.setdefault(_group(name), []).append(value)
    reached = {name: any(v.grad is not None and bool(v.grad.any()) for v in some) for name, some in groups.items()}
    still = [name for name, has in reached.items() if not has]
    if not still:
        return
    more = f" (and {len(still) - 1} more of {len(groups)})" if len(still) > 1 else ""
    raise UsageError(
        f"step 1: no gradient reached '{still[0]}'{more}, so it would never train; freeze it or take it out of what "
        f"trains, or check that the loss of the first batch depends on it"
    )


def _group(name: str) -> str:
    """The path of a parameter without its layer's number and without what an adapter adds."""
    parts = name.removeprefix("base_model.model.").split(".")
    if any(part.startswith("lora_") for part in parts):
        parts = parts[: next(i for i, part in enumerate(parts) if part.startswith("lora_"))]
    return ".".join(part for part in parts if not part.isdigit())
