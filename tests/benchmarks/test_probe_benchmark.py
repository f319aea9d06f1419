"""The probe benchmark on shapes that take seconds: equal to eager attention, and a fraction of its memory."""

import pytest
import torch
from probe import LAYERS, SHAPES, TOKENS, build, error, memory, rows, visible
from torch.utils._python_dispatch import TorchDispatchMode

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("padding", [[0, 0], [0, 17], [30, 5]])
def test_rows_equal_eager_attention(heads: int, padding: list[int]) -> None:
    assert error(SMALL | {"num_key_value_heads": heads}, padding, tokens=48, layers=3) < 1e-6


def test_peak_memory_at_600_tokens_and_32_layers() -> None:
    assert (TOKENS, LAYERS) == (600, 32)
    found = memory(SMALL | {"num_key_value_heads": 2})
    assert found["ratio"] <= 1 / 20 and found["added_ratio"] <= 1 / 100
    assert found["eager_mb"] > LAYERS * 4 * TOKENS**2 * 4 / 1e6, "the eager route holds every map"


def test_no_map_of_all_heads_is_ever_formed() -> None:
    """Nothing larger than the mask has the sequence in both of its last dimensions."""
    tokens = 200
    formed: list[tuple[int, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor) and tensor.shape[-2:] == (tokens, tokens):
                    formed.append(tuple(tensor.shape))
            return out

    model = build(SMALL | {"num_key_value_heads": 2}, 3)
    ids, mask = torch.zeros(1, tokens, dtype=torch.long), visible(tokens, [0])
    with Watch():
        rows(model, ids, mask, torch.tensor([[tokens - 1]]))
    assert all(shape[:-2] in ((), (1,), (1, 1)) for shape in formed)


def test_the_shapes_that_are_reported() -> None:
    assert {name: shape["num_attention_heads"] // shape["num_key_value_heads"] for name, shape in SHAPES.items()} == {
        "heads": 1,
        "grouped": 4,
        "7B": 1,
    }
