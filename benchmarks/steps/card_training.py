"""Parts of `../gpu.py`: packed passes equal to separate ones, and a step's time, memory and share of the peak."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from baselines import baseline
from child import Meter, corpus, image_ids, lora_config, randomise, tensors
from device_card import Card, Found, peak
from flops import bound
from llava import words
from ours import stepper
from qwen3 import model_of
from safetensors.torch import save_file
from step import DPO, FIREMPO, distances, percentiles
from torch import Tensor

SIZES = ((1024, 120), (256, 120), (1024, 15), (400, 120))
"""Image tokens and tokens of an answer."""


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
