"""Train the embedded teacher, a small CLIP, on phantom images and captions, and write it as a Hugging Face folder.

    python tools/embedded/teacher.py --out src/clinalign/models/embedded_teacher

Nothing but image and text: no mask and no label is shown to it. Everything follows from --seed. A few minutes on two
CPU cores.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus, load_corpus
from model import IMAGE_SIZE, PATCH, pixels
from pretrain import bfloat16_where_native, learning_rate
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case
from clinalign.data.phantom.reports import caption, report
from clinalign.data.phantom.text import CLAIM_KINDS, questions
from clinalign.progress import say

PATIENTS, STEPS, BATCH, PEAK = 8_000, 700, 128, 1e-3
HELD = 512
ATTEND = 0.3  # weight of the attention on findings, where it is taught
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"
LONGEST = 96
WIDTH, LAYERS, HEADS, JOINT = 96, 4, 4, 96
SHUFFLES = 0.5


def words(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word, lower case; words that `texts` lack become one unknown token."""
    splitter = pre_tokenizers.BertPreTokenizer()
    found = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())})
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, START, *found, END])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, bos_token=START, eos_token=END,
        model_max_length=LONGEST, padding_side="right",
    )  # fmt: skip


def build(tokenizer: PreTrainedTokenizerFast, seed: int) -> CLIPModel:
    """A freshly initialised CLIP: 64 x 64 px, patches of 8, so a grid of 8 x 8."""
    shared = {"intermediate_size": 4 * WIDTH, "hidden_size": WIDTH, "num_attention_heads": HEADS}
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(
        vision_config=shared | {"num_hidden_layers": LAYERS, "image_size": IMAGE_SIZE, "patch_size": PATCH},
        text_config=shared
        | {"num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
        | special
        | {"eos_token_id": tokenizer.eos_token_id},
        projection_dim=JOINT,
    )
    torch.manual_seed(seed)
    return CLIPModel(config)


def image_processor() -> CLIPImageProcessor:
    """64 x 64 px, mean and deviation 0.5."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(size=side, do_center_crop=False, image_mean=half, image_std=half, do_convert_rgb=True)


def text_of(case: Case, rng: random.Random) -> str:
    """A caption or a report of the case."""
    return caption(case, rng) if rng.random() < SHUFFLES else report(case, rng)


def loss_of(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    images: Tensor,
    texts: Sequence[str],
    cover: Tensor | None = None,
    attend: float = 0.0,
) -> Tensor:
    """The symmetric contrastive loss of a batch (arXiv 2103.00020). Captions that are equal are each other's match.

    With `attend` the class token's attention is taught to lie on `cover` [n, 64], the share of each patch that findings
    cover: its cross-entropy to the covered patches is added with this weight, where there are any.
    """
    given = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
    with bfloat16_where_native():
        if cover is None or not attend:
            out = model(pixel_values=pixels(images), **{k: given[k] for k in ("input_ids", "attention_mask")})
            logits, extra = out.logits_per_image.float(), torch.zeros(())
        else:
            vision = model.vision_model(pixel_values=pixels(images), output_attentions=True)
            image = F.normalize(model.visual_projection(vision.pooler_output).float(), dim=-1)
            text = F.normalize(model.get_text_features(**given).pooler_output.float(), dim=-1)
            logits, extra = model.logit_scale.exp() * image @ text.t(), attention_loss(vision.attentions[-1], cover)
    same = torch.tensor([[a == b for b in texts] for a in texts]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2 + attend * extra


def attention_loss(attention: Tensor, cover: Tensor) -> Tensor:
    """Cross-entropy of the class token's attention on the patches to the covered ones; attention [n, heads, 65, 65]."""
    looks = attention.float().mean(1)[:, 0, 1:]
    looks = looks / looks.sum(1, keepdim=True)
    some = cover.sum(1) > 0
    wanted = cover[some] / cover[some].sum(1, keepdim=True)
    return -(wanted * looks[some].clamp_min(1e-6).log()).sum(1).mean() if some.any() else attention.sum() * 0


def train(
    corpus: Corpus, seed: int, steps: int | None = None, attend: float = 0.0
) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """The trained model and its tokenizer; with `attend` findings' masks teach its attention."""
    steps = steps or STEPS
    rng = random.Random(f"teacher/{seed}")
    texts = [text for case in corpus.cases for text in (caption(case, rng), report(case, rng))]
    texts += [question.prompt for case in corpus.cases[:500] for question in questions(case, rng, CLAIM_KINDS)]
    tokenizer = words([*texts, *KINDS, *SIDES, *SIZES, *ZONES])
    model = build(tokenizer, seed)
    if attend:
        model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.02, betas=(0.9, 0.98))
    order = np.random.default_rng(seed)
    began, recent = time.monotonic(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, PEAK)
        rows = order.integers(0, len(corpus.cases), BATCH)
        drawn = [text_of(corpus.cases[row], rng) for row in rows]
        cover = torch.from_numpy(corpus.cover[rows]).float().amax(1) / 255 if attend else None
        loss = loss_of(model, tokenizer, torch.from_numpy(corpus.images[rows]), drawn, cover, attend)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 50 == 0:
            say(f"teacher {step + 1}/{steps}: loss {np.mean(recent):.3f} ({time.monotonic() - began:.0f} s)")
            recent = []
    return model.eval(), tokenizer


def save(folder: Path, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the Hugging Face folder, fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)


@torch.no_grad()
def measure(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, held: Corpus) -> dict[str, float]:
    """On held-out patients: retrieval among `HELD`, and the share of the class token's attention inside the lesions.

    `ratio` is the attention inside the masks over their share of the image, 1 for attention that knows nothing.
    """
    rng = random.Random(0)
    given = tokenizer([caption(case, rng) for case in held.cases], return_tensors="pt", padding=True)
    model.set_attn_implementation("eager")
    vision = model.vision_model(pixel_values=pixels(torch.from_numpy(held.images)), output_attentions=True)
    image = F.normalize(model.visual_projection(vision.pooler_output), dim=-1)
    text = F.normalize(model.get_text_features(**given).pooler_output, dim=-1)
    rank = (image @ text.t()).argsort(dim=1, descending=True)
    found = (rank == torch.arange(len(held.cases))[:, None]).int().argmax(1)
    attention = vision.attentions[-1].mean(1)[:, 0, 1:]
    attention = attention / attention.sum(1, keepdim=True)
    cover = torch.from_numpy(held.cover).float().amax(1) / 255
    some = cover.sum(1) > 0
    inside = (attention * cover).sum(1)[some]
    return {
        "patients": len(held.cases),
        "top_10": round(float((found < 10).float().mean()), 4),
        "median_rank": float(found.median()) + 1,
        "attention_inside": round(float(inside.mean()), 4),
        "ratio": round(float((inside / cover.mean(1)[some]).mean()), 3),
    }


def card(facts: dict) -> str:
    """The model card, from the measurements alone."""
    dev = facts["dev"]
    return f"""\
---
license: apache-2.0
library_name: transformers
tags: [phantom, testing]
---
# The embedded teacher of clinalign

A small CLIP (vision {LAYERS} layers of {WIDTH}, 64 x 64 px in patches of 8; text 2 layers) trained from nothing on
{facts["patients"]:,} phantom chest radiographs and their captions and reports, {facts["steps"]} steps of the symmetric
contrastive loss. No mask and no label was shown to it. It exists to try alignment distillation without a download.

**Never for medicine.** It has seen no patient, no real image and no clinical text.

On {dev["patients"]} other phantoms: the right caption is among the first ten of {dev["patients"]} for
{dev["top_10"]:.0%} of images (median rank {dev["median_rank"]:.0f}); its class token puts {dev["ratio"]:.2f} times an
even share of its attention on findings.
Rebuild: `python tools/embedded/teacher.py --out src/clinalign/models/embedded_teacher` (seeded).
Licence: Apache-2.0.
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="folder of rendered phantoms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, tokenizer = train(load_corpus("train", PATIENTS, options.work, options.threads), options.seed)
    measured = measure(model, tokenizer, load_corpus("dev", HELD, options.work, options.threads))
    save(options.out, model, tokenizer)
    facts = {"seed": options.seed, "patients": PATIENTS, "steps": STEPS, "dev": measured}
    (options.out / "measurements.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "README.md").write_text(card(facts))
    say(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
