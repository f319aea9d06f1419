"""One variant of `../step.py`: `child.py VARIANT FOLDER`, driven by the words `step` and `end` on standard input."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import baseline
from llava import build_llava, words
from safetensors.torch import save_file
from torch import Tensor

EOS = 2
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def say(**values: Any) -> None:
    """One answer to the parent."""
    print("@" + json.dumps(values), flush=True)


def corpus(shape: dict[str, Any]) -> list[dict[str, Any]]:
    """Random pairs: ids of prompt and both answers (EOS included), the span, a clean and a noisy image."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(shape["batch"] * shape["batches"]):
        prompt, chosen = (rng.integers(5, shape["vocab"] - 300, shape[n]).tolist() for n in ("prompt", "answer"))
        chosen[-1] = EOS
        rejected = list(chosen)
        start, end = shape["fork"], shape["fork"] + shape["span"]
        rejected[start:end] = rng.integers(5, shape["vocab"] - 300, shape["span"]).tolist()
        size = (shape["image_size"], shape["image_size"], 3)
        clean = rng.integers(0, 256, size, dtype=np.uint8)
        corrupt = np.where(rng.random(size) < 0.2, rng.integers(0, 256, size, dtype=np.uint8), clean)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "span": (start, end),
                     "clean": clean, "corrupt": corrupt})  # fmt: skip
    return rows


def randomise(named: Iterator[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by a name that does not depend on wrappers, set to the same values in every variant."""
    found = {}
    for name, value in named:
        if "lora_" in name and value.requires_grad:
            generator = torch.Generator().manual_seed(zlib.crc32(short(name).encode()))
            value.data.copy_(torch.randn(value.shape, generator=generator) * 0.05)
            found[short(name)] = value
    return found


def short(name: str) -> str:
    """`layers.3.self_attn.q_proj.lora_A`, whatever stands around it."""
    return name[name.index("layers.") :].replace(".default", "").replace(".weight", "")


def peft_model(work: Path, shape: dict[str, Any]) -> Any:
    """The folder's model with LoRA on the language model."""
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(
        work / "model", attn_implementation="sdpa", dtype=getattr(torch, shape["dtype"])
    )
    return get_peft_model(model.to(shape["device"]), lora_config(shape))


def lora_config(shape: dict[str, Any]) -> Any:
    """PEFT's form of the adapter all variants train."""
    from peft import LoraConfig

    lora = shape["lora"]
    where = r".*language_model.*\.(" + "|".join(TARGETS) + ")"
    return LoraConfig(
        r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], use_rslora=lora["rslora"],
        target_modules=where,
    )  # fmt: skip


def image_ids(shape: dict[str, Any]) -> list[int]:
    """The placeholder tokens of one image."""
    if shape["family"] == "llava":
        return [4] * (shape["image_size"] // shape["patch"]) ** 2
    from qwen3 import image_ids as qwen_ids

    return qwen_ids(shape["vocab"], (shape["image_size"] // shape["patch"] // 2) ** 2)


def tensors(rows: list[dict[str, Any]], work: Path, shape: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The corpus as batches of micro-batches; every row has the same length, so nothing is padded."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(work / "model", backend="pil")
    micro = [micro_tensors(rows[i : i + shape["micro"]], processor, shape) for i in range(0, len(rows), shape["micro"])]
    each = shape["batch"] // shape["micro"]
    return [micro[i : i + each] for i in range(0, len(micro), each)]


def micro_tensors(part: list[dict[str, Any]], processor: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """One micro-batch for the baselines."""
    before = image_ids(shape)
    batch: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        batch[side] = torch.tensor([before + row["prompt"] + row[side] for row in part])
        mask = torch.zeros(batch[side].shape, dtype=torch.bool)
        for i, row in enumerate(part):
            start, end = row["span"]
            mask[i, len(before) + shape["prompt"] + start : len(before) + shape["prompt"] + end] = True
        batch[f"{side}_mask"] = mask
    batch = {name: value.to(shape["device"]) for name, value in batch.items()}
    for view in ("clean", "corrupt"):
        images = dict(processor(images=[row[view] for row in part], return_tensors="pt"))
        if shape["family"] != "llava":
            images["mm_token_type_ids"] = (batch["chosen"] == before[1]).int()
        batch[view] = {name: value.to(shape["device"]) for name, value in images.items()}
    return batch | {"answer": shape["answer"]}


class Meter:
    """Memory of this process, or of the accelerator, and the turn-taking with the parent."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def loaded_mb(self) -> float:
        """After the model is loaded, before the first step."""
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    def peak_mb(self) -> float:
        """Highest so far."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def now(self) -> float:
        """Seconds, after the device has caught up."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def serve(
    step: Callable[[int], Tensor], params: dict[str, torch.nn.Parameter], out: Path, meter: Meter, loaded: float,
    build_seconds: float = 0.0,
) -> None:  # fmt: skip
    """Answers the parent: a `step` is forward, backward and AdamW. The first step's gradient is written to `out`."""
    optimizer = torch.optim.AdamW(params.values(), lr=1e-6, weight_decay=0.0)
    say(loaded_mb=loaded, build_seconds=build_seconds)
    count = 0
    for line in sys.stdin:
        if line.strip() == "end":
            break
        began, cpu = meter.now(), time.process_time()
        loss = step(count)
        if count == 0:
            save_file({name: value.grad.cpu().contiguous() for name, value in params.items()}, out)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        say(seconds=meter.now() - began, cpu_seconds=time.process_time() - cpu, loss=float(loss))
        count += 1
    say(peak_mb=meter.peak_mb())


def run_baseline(variant: str, work: Path, shape: dict[str, Any], meter: Meter) -> None:
    """`published`, `published_checkpointed` and `lean`."""
    model = peft_model(work, shape)
    params = randomise(model.named_parameters())
    model.train()
    if variant == "published_checkpointed":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    batches = tensors(corpus(shape), work, shape)
    step = baseline(model, batches, lean=variant == "lean")
    serve(step, params, work / f"{variant}.safetensors", meter, meter.loaded_mb())


def run_trl(work: Path, shape: dict[str, Any], meter: Meter) -> None:
    """TRL's DPO trainer, its own loop; the parent's turns are taken in a callback around each step."""
    from datasets import Dataset
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"images": [Image.fromarray(row["clean"])], "prompt": "<image> " + words(row["prompt"]),
         "chosen": words(row["chosen"][:-1]) + "</s>", "rejected": words(row["rejected"][:-1]) + "</s>"}
        for row in corpus(shape)
    ]  # fmt: skip
    model = LlavaForConditionalGeneration.from_pretrained(work / "model", attn_implementation="sdpa")
    arguments = DPOConfig(
        output_dir=str(work / "trl"), per_device_train_batch_size=shape["batch"], gradient_accumulation_steps=1,
        gradient_checkpointing=False, max_length=None, beta=0.1, learning_rate=1e-6, lr_scheduler_type="constant",
        max_steps=10**6, logging_strategy="no", save_strategy="no", report_to=[], bf16=False, max_grad_norm=0.0,
        use_cpu=shape["device"] == "cpu", dataloader_num_workers=0, disable_tqdm=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        model, args=arguments, train_dataset=Dataset.from_list(rows), peft_config=lora_config(shape),
        processing_class=LlavaProcessor.from_pretrained(work / "model"),
    )  # fmt: skip
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)  # the order of the other variants
    params = randomise(trainer.model.named_parameters())
    losses: list[Tensor] = []
    compute = trainer.compute_loss

    def compute_and_keep(*args: Any, **kwargs: Any) -> Any:
        loss = compute(*args, **kwargs)
        losses.append((loss[0] if isinstance(loss, tuple) else loss).detach())
        return loss

    trainer.compute_loss = compute_and_keep

    class Turns(TrainerCallback):
        began = cpu = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if sys.stdin.readline().strip() == "end":
                say(peak_mb=meter.peak_mb())
                sys.exit(0)
            self.began, self.cpu = meter.now(), time.process_time()

        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            if len(losses) == 1:
                grads = {name: value.grad.cpu().contiguous() for name, value in params.items()}
                save_file(grads, work / "trl.safetensors")

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            cpu = time.process_time() - self.cpu
            say(seconds=meter.now() - self.began, cpu_seconds=cpu, loss=float(losses[-1]))

    trainer.add_callback(Turns())
    say(loaded_mb=meter.loaded_mb(), build_seconds=0.0)
    trainer.train()


def build(work: Path, shape: dict[str, Any]) -> None:
    """Writes the shape's model folder."""
    if shape["family"] == "llava":
        keys = ("vision", "language", "vocab", "image_size", "patch")
        build_llava(work / "model", **{key: shape[key] for key in keys})
    else:
        from qwen3 import build_qwen3

        build_qwen3(work / "model", shape)


def main() -> None:
    """Command line."""
    variant, work = sys.argv[1], Path(sys.argv[2])
    shape = json.loads((work / "shape.json").read_text())
    if variant == "build":
        build(work, shape)
        return
    meter = Meter(shape["device"])
    if variant == "trl":
        run_trl(work, shape, meter)
    elif variant in ("published", "published_checkpointed", "lean"):
        run_baseline(variant, work, shape, meter)
    else:
        from ours import run_ours

        run_ours(variant, work, shape, meter)


if __name__ == "__main__":
    main()
