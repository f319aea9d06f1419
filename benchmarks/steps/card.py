"""The parts of `../gpu.py`: each a generator of (name, value), so that what is measured is written as it comes."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from baselines import baseline
from child import Meter, corpus, image_ids, lora_config, randomise, tensors
from flops import bound
from llava import words
from ours import stepper
from qwen3 import model_of, write_processor
from safetensors.torch import save_file
from step import DPO, FIREMPO, LORA, QWEN, SHAPES, distances, percentiles
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.families import FAMILIES
from clinalign.models.processors import of_family

Found = Iterator[tuple[str, Any]]
PEAK = {
    "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A10": 125, "L40S": 362,
    "L4": 121, "RTX 4090": 165, "RTX 6000 Ada": 364,
}  # fmt: skip
"""TFLOP/s of dense bf16 products by what a card's name holds, from the vendor's data sheets; the first that fits."""
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "torchvision", "triton", "flash-attn", "bitsandbytes")
PROMPTS, GB = 8, 2**30
SIZES = ((1024, 120), (256, 120), (1024, 15), (400, 120))
"""Image tokens and tokens of an answer."""


@dataclass
class Card:
    """Where it runs, at which shape, until when."""

    name: str
    device: str
    work: Path
    deadline: float
    rounds: int = 3
    gradients: bool = True
    """Whether gradients are written and compared: at the first shape alone, since they take a GB a variant."""

    @property
    def tiny(self) -> bool:
        return self.name == "tiny"

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def empty(self) -> None:
        """Gives cached memory back to the card."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def shape(self, image_tokens: int = 0, answer: int = 0, **more: Any) -> dict[str, Any]:
        """The full shape with so many image tokens and answers so long; of the tiny one there is but one."""
        found = SHAPES["tiny_qwen"] if self.tiny else QWEN | {"answer": 120, "fork": 60}
        if image_tokens and not self.tiny:
            found |= {"image_size": int(image_tokens**0.5) * 2 * found["patch"], "answer": answer, "fork": answer // 2}
        return {"lora": LORA, **found, "device": self.device, **more}

    def few_layers(self, dtype: str) -> dict[str, Any]:
        """Full width, four layers."""
        layers = {} if self.tiny else {"language": [4, 2560], "vision": [4, 1024], "deepstack": [0, 1, 2], "batch": 2}
        return self.shape(256, 40, **layers, dtype=dtype)

    def load(self, shape: dict[str, Any], model: Any = None) -> VLM:
        """The library's model around one with random weights; nothing goes over the disk but the processor."""
        folder, family = self.work / "model", FAMILIES["qwen3_vl"]
        write_processor(folder, shape)
        model = (model_of(shape) if model is None else model).eval()
        model.config.save_pretrained(folder)
        return VLM(model, of_family(str(folder), str(folder), family, model.config), family=family, name="random")


def environment(card: Card) -> Found:
    """The card, the versions, and what its products really reach."""
    versions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    yield "versions", versions | {"python": platform.python_version(), "system": platform.platform()}
    if card.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        yield (
            "card",
            {
                "name": about.name,
                "gb": round(about.total_memory / GB, 1),
                "capability": list(torch.cuda.get_device_capability(0)),
                "cuda": torch.version.cuda,
                "bf16": torch.cuda.is_bf16_supported(),
                "peak_tflops": peak(about.name),
            },
        )
    else:
        yield "card", {"name": platform.processor() or platform.machine(), "peak_tflops": None}
    size = 256 if card.tiny else 8192
    a, b = (torch.randn(size, size, device=card.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = clock(card, lambda: a @ b, 5)
    yield "product_tflops", round(2 * size**3 / seconds / 1e12, 3)


def peak(name: str) -> int | None:
    """TFLOP/s that the vendor gives for a card, None for one that is not in the table."""
    return next((value for part, value in PEAK.items() if part in name), None)


def parity(card: Card) -> Found:
    """Packed against separate passes at a random adapter: loss and gradient in fp32 and bf16, and bf16 against fp32."""
    grads: dict[tuple[str, bool], tuple[float, dict[str, Tensor]]] = {}
    exact = model_of(card.few_layers("float32"))
    for dtype in ("float32", "bfloat16"):
        shape = card.few_layers(dtype)
        vlm = card.load(shape, exact.to(getattr(torch, dtype)))
        vlm.attach_lora(**shape["lora"])
        params = randomise(vlm.model.named_parameters())
        vlm.model.train()
        for unpacked in (False, True):
            vlm.unpacked = unpacked
            step, _ = stepper("packed", vlm, corpus(shape), card.work / "none", shape)
            loss = float(step(0))
            grads[dtype, unpacked] = loss, {name: p.grad.float().cpu() for name, p in params.items()}
            for parameter in params.values():
                parameter.grad = None
        yield dtype, apart(grads[dtype, False], grads[dtype, True])
        vlm.close()
        exact = model_of(card.few_layers("float32"))
    true = grads["float32", True]
    yield "bfloat16_packed_to_float32", apart(grads["bfloat16", False], true)
    yield "bfloat16_separate_to_float32", apart(grads["bfloat16", True], true)


def apart(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> dict[str, float]:
    """|loss - loss'| / |loss'| and ||g - g'|| / ||g'||."""
    gap = sum(float(((one[1][k].double() - v.double()) ** 2).sum()) for k, v in other[1].items())
    norm = sum(float((v.double() ** 2).sum()) for v in other[1].values())
    return {"loss": abs(one[0] - other[0]) / abs(other[0]), "gradient": (gap / norm) ** 0.5}


def step(card: Card, sizes: Sequence[tuple[int, int]] = SIZES[:2]) -> Found:
    """A step of batch 8 by image tokens and answer's length, each variant with time, peak memory and gradient."""
    for tokens, answer in sizes[:1] if card.tiny else sizes:
        if card.left() < 0:
            return
        shape = card.shape(tokens, answer)
        found: dict[str, Any] = {"image_tokens": len(image_ids(shape)) - 2, "answer_tokens": shape["answer"]}
        found["variants"] = variants = {}
        key = f"{found['image_tokens']}_{found['answer_tokens']}"
        for name, timed in _variants(card, shape):
            variants[name] = timed
            found |= utilisation(card, shape, found)
            yield key, found
        if not card.gradients:
            continue
        card.gradients = False
        losses = {name: value["first_loss"] for name, value in variants.items() if "first_loss" in value}
        together = {name: loss for name, loss in losses.items() if name in FIREMPO + DPO}
        yield key, found | {"errors": distances(card.work, together)}


def _variants(card: Card, shape: dict[str, Any]) -> Found:
    rows = corpus(shape)
    yield from _ours(card, shape, rows)
    for name, measured in (("published_checkpointed", _published), ("trl", _trl)):
        gc.collect()
        card.empty()
        yield name, measured(card, shape, rows)


def _ours(card: Card, shape: dict[str, Any], rows: list[dict[str, Any]]) -> Found:
    vlm = card.load(shape)
    vlm.attach_lora(**shape["lora"])
    params = randomise(vlm.model.named_parameters())
    vlm.model.train()
    caches = card.work / f"caches_{shape['image_size']}_{shape['answer']}"
    for label, name, most in (
        ("packed_cached", "packed_cached", shape["micro"]),
        ("packed", "packed", shape["micro"]),
        ("dpo_cached", "dpo_cached", shape["micro"]),
        ("dpo", "dpo", shape["micro"]),
        ("packed_cached_whole_batch", "packed_cached", shape["batch"]),
    ):

        def prepare(micro: int, name: str = name) -> tuple[Callable[[int], Tensor], Callable[[], float]]:
            randomise(vlm.model.named_parameters())  # the steps of the variant before have moved it
            return stepper(name, vlm, rows, caches / name, shape | {"micro": micro})

        yield label, timed(card, prepare, params, most, label)
    vlm.close()


def timed(
    card: Card,
    prepare: Callable[[int], tuple[Callable[[int], Tensor], Callable[[], float]]],
    params: dict[str, Tensor],
    micro: int,
    name: str,
) -> dict[str, Any]:
    """A warm-up step, whose gradient is kept, and timed ones, with the largest micro-batch up to `micro` that fits."""
    while True:
        try:
            return _timed(card, *prepare(micro), params, name) | {"micro": micro}
        except torch.OutOfMemoryError:
            for parameter in params.values():
                parameter.grad = None
            gc.collect()
            card.empty()
            if micro == 1:
                return {"out_of_memory": True, "micro": 1}
            micro //= 2


def _timed(
    card: Card, run: Callable[[int], Tensor], build: Callable[[], float], params: dict[str, Tensor], name: str
) -> dict[str, Any]:
    meter, seconds = Meter(card.device), []
    built = build()
    loaded = meter.loaded_mb()
    optimizer = torch.optim.AdamW(params.values(), lr=1e-6, weight_decay=0.0)
    first = 0.0
    for turn in range(card.rounds + 1):
        began = meter.now()
        loss = run(turn)
        if turn == 0:
            first = float(loss)
            if card.gradients:
                grads = {key: value.grad.float().cpu().contiguous() for key, value in params.items()}
                save_file(grads, card.work / f"{name}.safetensors")
        else:
            optimizer.step()
        for value in params.values():
            value.grad = None
        seconds.append(meter.now() - began)
        if turn and card.left() < 0:
            break
    return {
        "seconds": percentiles(seconds[1:]), "peak_gb": round(meter.peak_mb() / 2**10, 2),
        "loaded_gb": round(loaded / 2**10, 2), "build_seconds": round(built, 2), "first_loss": first,
    }  # fmt: skip


def _adapted(shape: dict[str, Any]) -> Any:
    from peft import get_peft_model

    return get_peft_model(model_of(shape), lora_config(shape))


def _published(card: Card, shape: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    model = _adapted(shape)
    params = randomise(model.named_parameters())
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()

    def prepare(micro: int) -> tuple[Callable[[int], Tensor], Callable[[], float]]:
        return baseline(model, tensors(rows, card.work, shape | {"micro": micro}), lean=False), lambda: 0.0

    return timed(card, prepare, params, shape["micro"], "published_checkpointed")


def _trl(card: Card, shape: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """TRL's own loss, head and reference on the tensors of the other variants; its collator's processor would need
    torchvision."""
    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer
    except ImportError as error:
        return {"not_run": str(error)}
    from transformers import PreTrainedTokenizerFast

    arguments = DPOConfig(
        output_dir=str(card.work / "trl"), per_device_train_batch_size=1, gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False}, max_length=None, beta=0.1, report_to=[],
        bf16=shape["dtype"] == "bfloat16", use_cpu=card.device == "cpu", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    texts = [{"prompt": words([5, 6]), "chosen": words([7]), "rejected": words([8])}] * 2
    trainer = DPOTrainer(
        model_of(shape), args=arguments, train_dataset=Dataset.from_list(texts), peft_config=lora_config(shape),
        processing_class=PreTrainedTokenizerFast.from_pretrained(card.work / "model"),
    )  # fmt: skip
    model = trainer.model
    params = randomise(model.named_parameters())
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()

    def prepare(micro: int) -> tuple[Callable[[int], Tensor], Callable[[], float]]:
        batches = [[_for_trl(part) for part in batch] for batch in tensors(rows, card.work, shape | {"micro": micro})]

        def run(i: int) -> Tensor:
            losses = []
            for inputs in (parts := batches[i % len(batches)]):
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(model, inputs) / len(parts)
                loss.backward()
                losses.append(loss.detach())
            return torch.stack(losses).sum()

        return run, lambda: 0.0

    return timed(card, prepare, params, shape["micro"], "trl")


def _for_trl(part: dict[str, Any]) -> dict[str, Tensor]:
    """Chosen above rejected, the images twice, as TRL's collator gives them."""
    ids = torch.cat([part["chosen"], part["rejected"]])
    completion = torch.zeros_like(ids)
    completion[:, -part["answer"] :] = 1
    twice = {name: torch.cat([value, value]) for name, value in part["clean"].items()}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion, **twice}


def utilisation(card: Card, shape: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The bound of a cached packed step over its time and the card's peak (of the vendor)."""
    seconds = found["variants"].get("packed_cached", {}).get("seconds", {}).get("median")
    if not seconds:
        return {}
    heads = shape.get("heads", [4, 2, 16])
    text = {
        "hidden_size": shape["language"][1], "num_hidden_layers": shape["language"][0],
        "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": heads[2],
        "intermediate_size": shape.get("inner", 4 * shape["language"][1]),
    }  # fmt: skip
    span = shape["span"]
    views = (
        bound(found["image_tokens"], shape["answer"], 2 * span, known, text, shape["vocab"]) for known in (span, 0)
    )
    tflop = shape["batch"] * sum(views) / 1e12
    most = peak(torch.cuda.get_device_name(0)) if card.device == "cuda" else None
    reached = tflop / seconds
    return {"bound_tflop": tflop, "tflops": reached, "utilisation": reached / most if most else None}


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


def clock(card: Card, run: Callable[[], Any], times: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    meter, found = Meter(card.device), []
    run()
    for _ in range(times):
        began = meter.now()
        run()
        found.append(meter.now() - began)
    return sorted(found)[len(found) // 2]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


PARTS: dict[str, Callable[[Card], Found]] = {
    "environment": environment,
    "parity": parity,
    "step": step,
    "attention": attention,
    "speed": speed,
    "decoders": decoders,
    "more_steps": lambda card: step(card, () if card.tiny else SIZES[2:]),
}
"""In the order in which they run."""
