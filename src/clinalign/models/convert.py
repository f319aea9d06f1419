"""A checkpoint in the original LLaVA layout (LLaVA 1.5, LLaVA-Med 1.5, HuatuoGPT-Vision-7B) as a Hugging Face folder.

The original layout is a language model with `mm_` keys in its configuration, the projector under `model.mm_projector`,
the CLIP tower under `model.vision_tower.vision_tower` or in a folder of its own, and no processor. Weights are renamed
and copied shard by shard, so memory stays at one shard. No code from the folder is run.
Sources: the layouts of github.com/haotian-liu/LLaVA, microsoft/LLaVA-Med and FreedomIntelligence/HuatuoGPT-Vision.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models.guard import SAFE
from clinalign.storage import atomic_folder
from clinalign.storage.tensors import write_tensors

DECODERS = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen2": "qwen2"}
IMAGE = "<image>"
HEAD_WIDTH = 64
"""Width of an attention head in every published CLIP."""
NAMES = (
    (r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?", "vision_tower.vision_model."),
    (r"^vision_model\.", "vision_tower.vision_model."),
    (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.", "language_model.model."),
)
UNUSED = re.compile(r"inv_freq$|position_ids$|^model\.image_newline$|^text_|^visual_projection|^logit_scale")
FOREIGN = re.compile(
    r"^(mm_|tune_|freeze_|unfreeze_|image_|use_mm|tokenizer_|vision_|_|auto_map|architectures|model_type)"
)
EMBEDDINGS, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
TOWER = "vision_tower.vision_model."
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
)
PROMPTS = {
    "vicuna": (SYSTEM, "USER: ", " ", "ASSISTANT: ", "</s>", "ASSISTANT:"),
    "mistral": ("", "[INST] ", " [/INST]", " ", "</s>", ""),
    "huatuo": ("", "<|user|>\n", "\n", "<|assistant|>\n", " \n", "<|assistant|>\n"),
}
"""System, before and after a question, before and after an answer, and what an answer begins after."""
PROMPT_OF = {"llama": "vicuna", "mistral": "mistral", "qwen2": "huatuo"}


@dataclass(frozen=True)
class Layout:
    """What was found: the configuration, the decoder's family, the tower's folder if it has one, and all the shards."""

    config: dict[str, Any]
    decoder: str
    tower: Path | None
    shards: list[Path]


def convert(source: Path, out: Path, *, vision: str = "", prompt: str = "") -> Path:
    """Writes `out`, a LLaVA folder that transformers and every command here load.

    `vision`: a folder with the CLIP tower, for checkpoints that do not carry it; empty takes the one inside the
    weights, or the subfolder that the configuration names. `prompt`: vicuna, mistral or huatuo; empty follows the
    decoder. Raises `UsageError` where `source` has another layout, weights are missing, or `out` is not empty.
    """
    layout = _read(source, vision)
    prompt = prompt or PROMPT_OF[layout.decoder]
    if prompt not in PROMPTS:
        raise UsageError(f"prompt '{prompt}' is unknown; use one of {', '.join(PROMPTS)}")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already; choose another folder for the converted model")
    shapes = _shapes(layout)
    tokenizer = _tokenizer(source)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    rows = max(shapes[EMBEDDINGS][0], image_id + 1)
    tower = _clip(layout, shapes)
    with atomic_folder(out) as part:
        _write_config(part, layout, tower, tokenizer, rows)
        _write_processor(part, layout, tower, tokenizer, chat_template(*PROMPTS[prompt]))
        _write_weights(part, layout.shards, rows)
    return out


def chat_template(system: str, before: str, after: str, reply: str, end: str, last: str) -> str:
    """A chat template: images first in a turn, one placeholder and a line break each."""
    quoted = [json.dumps(part) for part in (system, before, after, reply, end, last)]
    return (
        f"{{{{- {quoted[0]} -}}}}{{%- for m in messages -%}}"
        f"{{{{- {quoted[1]} if m['role'] == 'user' else {quoted[3]} -}}}}"
        "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}"
        "{%- for p in m['content'] if p['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}"
        "{%- for p in m['content'] if p['type'] == 'text' -%}{{- p['text'] -}}{%- endfor -%}{%- endif -%}"
        f"{{{{- {quoted[2]} if m['role'] == 'user' else {quoted[4]} -}}}}{{%- endfor -%}}"
        f"{{%- if add_generation_prompt -%}}{{{{- {quoted[5]} -}}}}{{%- endif -%}}"
    )


def _read(source: Path, vision: str) -> Layout:
    path = source / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give the folder of an original LLaVA checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a model configuration ({error}); download it again") from error
    kind = config.get("model_type", "")
    if kind not in DECODERS or "text_config" in config:
        raise UsageError(f"{path}: model_type '{kind}' is not the original LLaVA layout ({', '.join(DECODERS)})")
    if config.get("mm_projector_type", "linear") != "mlp2x_gelu":
        raise UsageError(
            f"{path}: mm_projector_type '{config.get('mm_projector_type')}'; only mlp2x_gelu is LLaVA 1.5's"
        )
    named = Path(vision) if vision else source / str(config.get("mm_vision_tower", ""))
    tower = named if (named / "config.json").is_file() and named != source else None
    if vision and tower is None:
        raise UsageError(f"{vision}: no CLIP here (config.json is missing)")
    shards = _shards(source)
    if not any(name.startswith(TOWER) for shard in shards for name in _names(shard)):
        if tower is None:
            raise UsageError(
                f"{source}: carries no vision tower; give its folder ({config.get('mm_vision_tower')}) with --vision"
            )
        shards = [*shards, *_shards(tower)]
    return Layout(config, DECODERS[kind], tower, shards)


def _shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise UsageError(
            f"{folder}: no safetensors files; save the weights as safetensors first (pickles are not read)"
        )
    return found


def _names(shard: Path) -> dict[str, str]:
    """New name of every weight that is kept -> its name in the file."""
    try:
        with safe_open(shard, framework="pt") as file:
            names = [name for name in file.keys() if not UNUSED.search(name)]
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shard}: damaged weights ({error}); download it again") from error
    return {renamed(name): name for name in names}


def renamed(name: str) -> str:
    """The Hugging Face name of an original weight."""
    for pattern, new in NAMES:
        name, count = re.subn(pattern, new, name)
        if count:
            return name
    return name


def _shapes(layout: Layout) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for shard in layout.shards:
        names = _names(shard)
        with safe_open(shard, framework="pt") as file:
            shapes |= {new: list(file.get_slice(old).get_shape()) for new, old in names.items()}
    for needed in (EMBEDDINGS, f"{TOWER}embeddings.class_embedding", "multi_modal_projector.linear_2.weight"):
        if needed not in shapes:
            raise UsageError(f"{layout.shards[0].parent}: weight '{needed}' is missing; download the model again")
    return shapes


def _clip(layout: Layout, shapes: dict[str, list[int]]) -> Any:
    """The tower's configuration: its own where it has a folder, otherwise read off the weights' shapes."""
    from transformers import CLIPVisionConfig

    if layout.tower is not None:
        return CLIPVisionConfig.from_pretrained(layout.tower, **SAFE)
    width, _, patch, _ = shapes[f"{TOWER}embeddings.patch_embedding.weight"]
    positions = shapes[f"{TOWER}embeddings.position_embedding.weight"][0]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shapes[f"{TOWER}encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=1 + max(int(n.split(".")[4]) for n in shapes if n.startswith(f"{TOWER}encoder.layers.")),
        num_attention_heads=width // HEAD_WIDTH,
        patch_size=patch,
        image_size=patch * round((positions - 1) ** 0.5),
    )


def _tokenizer(source: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **SAFE)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{source}: cannot load the tokenizer: {str(error).splitlines()[0][:200]}") from error
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _write_config(part: Path, layout: Layout, tower: Any, tokenizer: Any, rows: int) -> None:
    from transformers import AutoConfig, GenerationConfig, LlavaConfig

    text = {key: value for key, value in layout.config.items() if not FOREIGN.match(key)}
    text |= {"vocab_size": rows, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlavaConfig(
        vision_config=tower.to_dict(),
        text_config=AutoConfig.for_model(layout.decoder, **text).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        projector_hidden_act="gelu",
        vision_feature_layer=layout.config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=_strategy(layout),
        image_seq_length=(tower.image_size // tower.patch_size) ** 2,
        tie_word_embeddings=bool(layout.config.get("tie_word_embeddings", False)),
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(part)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(bos_token_id=tokenizer.bos_token_id, **ids).save_pretrained(part)


def _strategy(layout: Layout) -> Literal["default", "full"]:
    return "default" if layout.config.get("mm_vision_select_feature", "patch") == "patch" else "full"


def _write_processor(part: Path, layout: Layout, tower: Any, tokenizer: Any, template: str) -> None:
    """LLaVA's own image processor: padded to a square with the mean colour where the original pads, then CLIP's."""
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    side = tower.image_size
    pad = layout.decoder == "qwen2" or layout.config.get("image_aspect_ratio") == "pad"
    images = LlavaImageProcessorPil(do_pad=pad, size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    tokenizer.chat_template = template
    LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=tower.patch_size,
        vision_feature_select_strategy=_strategy(layout), num_additional_image_tokens=1, image_token=IMAGE,
        chat_template=template,
    ).save_pretrained(part)  # fmt: skip


def _write_weights(part: Path, shards: list[Path], rows: int) -> None:
    """One file for each shard, and the index. Embedding and head grow to `rows` (the image token's are never used)."""
    where: dict[str, str] = {}
    size = 0
    for number, shard in enumerate(shards, 1):
        with safe_open(shard, framework="pt") as file:
            weights = {new: file.get_tensor(old) for new, old in _names(shard).items()}
        for name in (EMBEDDINGS, HEAD):
            if name in weights:
                weights[name] = _grown(weights[name], rows)
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(part / name, weights)
        where |= dict.fromkeys(weights, name)
        size += sum(value.numel() * value.element_size() for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    (part / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _grown(weight: Tensor, rows: int) -> Tensor:
    """Rows appended that are the mean of the others."""
    missing = rows - len(weight)
    return torch.cat([weight, weight.float().mean(0, keepdim=True).to(weight.dtype).expand(missing, -1)])
