"""Parts of `../gpu.py`: attention kernels for packed rows, answers and margins a second, decoders against greedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from child import corpus, image_ids
from device_card import Card, Found, clock
from torch import Tensor

PROMPTS = 8


def attention(card: Card) -> Found:
    """Packed rows through the kernels that could carry them, forward and backward, against separate causal rows."""
    from clinalign.models.attention import _plain

    shape = card.shape(1024, 120)
    heads, groups, width = shape.get("heads", [4, 2, 16])
    prefix = len(image_ids(shape)) + shape["prompt"] + shape["fork"]
    tail, pairs = shape["answer"] - shape["fork"], shape["micro"]
    length = prefix + 2 * tail
    seen = torch.ones(length, length, dtype=torch.bool, device=card.device).tril()
    seen[prefix + tail :, prefix : prefix + tail] = False
    dtype = getattr(torch, shape["dtype"])

    def of(count: int, rows: int, batch: int) -> Tensor:
        made = torch.Generator(card.device).manual_seed(count)
        return torch.randn(batch, count, rows, width, device=card.device, dtype=dtype, generator=made).requires_grad_()

    query, key, value = of(heads, length, pairs), of(groups, length, pairs), of(groups, length, pairs)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    mask = seen[None, None].expand(pairs, 1, -1, -1)

    def separate() -> Tensor:
        rows = [torch.cat([t[:, :, :prefix], t[:, :, start : start + tail]], 2)
                for start in (prefix, prefix + tail) for t in (query, key, value)]  # fmt: skip
        both = [torch.cat([rows[i], rows[i + 3]]) for i in range(3)]
        out = sdpa(*both, is_causal=True, enable_gqa=True)  # flash has groups of its own
        return torch.cat([out[:pairs], out[pairs:, :, prefix:]], 2)

    kernels: dict[str, Callable[[], Tensor]] = {
        "masked": lambda: sdpa(query, *(t.repeat_interleave(heads // groups, 1) for t in (key, value)), attn_mask=mask),
        "prefix_causal": lambda: _plain(None, query, key, value, mask, prefix, {}).transpose(1, 2),
        "separate_causal": separate,
        "flex": _flex(card, query, key, value, prefix, tail),
    }
    expected = kernels["masked"]().detach()
    for name, kernel in kernels.items():
        both = name != "flex" or card.device == "cuda"  # on a CPU there is no backward of FlexAttention

        def run(kernel: Callable[[], Tensor] = kernel, both: bool = both) -> None:
            out = kernel()
            if both:
                out.sum().backward()

        try:
            gap = float((kernel().detach() - expected).abs().max())
            yield name, {"seconds": clock(card, run, 5), "backward": both, "gap_to_masked": gap}
        except Exception as error:
            if name != "flex" or card.device != "cuda":
                raise
            yield name, {"not_run": f"{type(error).__name__}: {error}"[:500]}  # it needs a compiler there


def _flex(card: Card, query: Tensor, key: Tensor, value: Tensor, prefix: int, tail: int) -> Callable[[], Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        other = (q >= prefix + tail) & (k >= prefix) & (k < prefix + tail)
        return (q >= k) & ~other

    length = query.shape[2]
    blocks = create_block_mask(sees, None, None, length, length, device=card.device)
    kernel: Any = torch.compile(flex_attention) if card.device == "cuda" else flex_attention
    if card.device == "cuda":
        return lambda: kernel(query, key, value, block_mask=blocks, enable_gqa=True)
    return lambda: kernel(query.detach(), key.detach(), value.detach(), block_mask=blocks, enable_gqa=True)


def speed(card: Card) -> Found:
    """Answers' tokens a second, and margins a second: an answer against another of the same start."""
    from decoding import asked

    from clinalign.models.features import from_arrays
    from clinalign.models.tree import fork_of, score, tree_of

    shape = card.shape(256, 40)
    vlm, tokens = card.load(shape), 4 if card.tiny else 64
    prompts = asked(shape | {"vocab": shape["vocab"] - 300}, 2 if card.tiny else PROMPTS)
    answers: list[Any] = []

    def answer() -> None:
        answers[:] = vlm.generate(prompts, max_new_tokens=tokens, batch_size=len(prompts))

    seconds = clock(card, answer, 1)
    count = sum(len(one.token_ids) for one in answers)
    yield "generation", {"tokens_a_second": count / seconds, "batch": len(prompts), "tokens": count}
    features, keys = from_arrays(vlm, [images for _, images in prompts])
    rows = corpus(shape)
    pairs = [[rows[i % len(rows)][side] for side in ("chosen", "rejected")] for i in range(len(prompts))]
    trees = [
        tree_of(vlm, text, images, key, [fork_of(pair)])
        for (text, images), key, pair in zip(prompts, keys, pairs, strict=True)
    ]
    seconds = clock(card, lambda: score(vlm, trees, features, batch_size=len(trees)), 3)
    yield "margins", {"margins_a_second": len(trees) / seconds, "batch": len(trees)}
    vlm.close()


def decoders(card: Card) -> Found:
    """Seconds a batch over greedy's, at the same number of tokens. A decoder that this family cannot have says why."""
    from decoders import NAMES
    from decoding import asked, options_of

    from clinalign.decoding import decode
    from clinalign.decoding.cai import calibrate
    from clinalign.errors import UsageError

    shape = card.shape(256, 40)
    vlm, tokens = card.load(shape), 3 if card.tiny else 32
    prompts = asked(shape | {"vocab": shape["vocab"] - 300}, 2 if card.tiny else PROMPTS)
    texts, pictures = [text for text, _ in prompts], [images[0] for _, images in prompts]
    greedy = 0.0
    for name in NAMES:
        if card.left() < 0:
            return
        try:
            if name == "cai":
                calibrate(vlm, pictures, texts, captions=texts[:2]).save(card.work / "cai.safetensors")
            options = options_of(name, card.work, {})
            with torch.no_grad():
                seconds = clock(card, lambda options=options: decode(  # type: ignore[misc]
                    vlm, prompts, options, max_new_tokens=tokens, batch_size=len(prompts)
                ), 1)  # fmt: skip
        except UsageError as error:
            yield name, {"not_for_this_family": str(error)}
            continue
        greedy = seconds if name == "greedy" else greedy
        yield name, {"seconds": seconds, "relative": seconds / greedy}
    vlm.close()
