"""Floating point operations of one packed step at the shape of Qwen3-VL-4B, counted on the meta device, over the bound.

    python benchmarks/flops.py --out flops.json

The decoder and the head run from input embeddings, forward and backward, without memory or time; the operations that
PyTorch dispatches are counted: as the step runs, with nothing after the last span token and the last layer for the
read tokens alone, and once more for rows that hold both answers to their end. The bound is that of such whole rows:
every block parameter once for each token forward and once backward (the base is frozen), attention over what each
token may see, and the head on the scored rows (forward, its gradient, and the reference's for the KL). The vision
tower is encoded once an image and cached; it stands in neither number. The adapter's own operations are in the count
and not in the bound.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from clinalign.models.adapter import PROJECTIONS
from clinalign.models.attention import REQUEST, AttentionRequest, install
from clinalign.models.head import score_rows
from clinalign.models.lora import fuse

VOCAB = 151936
TEXT: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20],
                        "mrope_interleaved": True},
}  # fmt: skip
PROMPT, SPAN = 40, 3
SHAPES = [(image, answer) for image in (400, 1024) for answer in (15, 120)]


def decoder(rank: int) -> Any:
    """The language model on the meta device, frozen, with LoRA on attention and MLP."""
    from peft import LoraConfig, get_peft_model
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

    config = Qwen3VLTextConfig(**TEXT)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = Qwen3VLTextModel(config)
        install(model)
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_dropout=0.0, target_modules=list(PROJECTIONS)))
    fuse(adapted)
    return adapted


def counted(model: Any, length: int, scored: int, known: int, reads: int = 0) -> float:
    """Operations of one packed row of `length` tokens with `scored` rows at the head, `known` of them in the KL, and
    `reads` tokens in the last layer (0: all)."""
    hidden, meta = TEXT["hidden_size"], {"device": "meta"}
    columns = torch.empty(1, reads, dtype=torch.long, **meta) if reads else None
    with FlopCounterMode(display=False) as counter:
        out = model.base_model.model(
            inputs_embeds=torch.empty(1, length, hidden, **meta),
            attention_mask=torch.empty(1, 1, length, length, dtype=torch.bool, **meta),
            position_ids=torch.empty(3, 1, length, dtype=torch.long, **meta),
            use_cache=False,
            **{REQUEST: AttentionRequest(query_columns=columns)},
        ).last_hidden_state[0]
        targets = torch.empty(scored, dtype=torch.long, **meta)
        head, reference = torch.empty(VOCAB, hidden, **meta), torch.empty(known, hidden, **meta)
        logps, forward, reverse = score_rows(out[:1].expand(scored, -1), head, targets, reference)
        (logps.sum() + forward.sum() + reverse.sum()).backward()
    return float(counter.get_total_flops())


def bound(image: int, answer: int, scored: int, known: int, text: dict[str, Any] = TEXT, vocab: int = VOCAB) -> float:
    """The least a row that holds both answers to their end can cost; the fork stands in the middle of the answer."""
    width, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    inner = heads * text["head_dim"]
    keys = text["num_key_value_heads"] * text["head_dim"]
    block = layers * (2 * width * inner + 2 * width * keys + 3 * width * text["intermediate_size"])
    shared, tail = image + PROMPT + answer // 2, answer - answer // 2
    seen = shared**2 / 2 + 2 * (tail * shared + tail**2 / 2)
    attention = 4 * layers * inner * seen
    return 4 * block * (shared + 2 * tail) + 3 * attention + (6 * scored + 4 * known) * width * vocab


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter")
    args = parser.parse_args()
    model, rows = decoder(args.rank), []
    for image, answer in SHAPES:
        shared, tail = image + PROMPT + answer // 2, answer - answer // 2
        whole, cut = shared + 2 * tail, shared + 2 * (SPAN - 1)
        views = (SPAN, 0)  # tokens in the KL: under the image, and under the corrupted one
        full = sum(counted(model, whole, 2 * SPAN, known) for known in views)
        step = sum(counted(model, cut, 2 * SPAN, known, 2 * SPAN - 1) for known in views)
        least = sum(bound(image, answer, 2 * SPAN, known) for known in views)
        rows.append({"image_tokens": image, "answer_tokens": answer, "row_tokens": cut, "whole_row_tokens": whole,
                     "tflop_a_pair": step / 1e12, "bound_tflop": least / 1e12, "ratio": step / least,
                     "ratio_of_whole_rows": full / least})  # fmt: skip
    result = {
        "flops_over_bound": max(row["ratio"] for row in rows),
        "flops_over_bound_of_whole_rows": max(row["ratio_of_whole_rows"] for row in rows),
        "rank": args.rank, "torch": torch.__version__,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result | {"shapes": rows}, indent=1) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()
