"""Stage 2: the vision tower and the projector learn to see, from dense labels of every patch.

Every projected image token is taught to point along the embeddings of the words that hold for its patch ("nodule",
"left", "upper", "small"), so that the language model meets what is seen in the terms of its own vocabulary. A linear
head that is thrown away afterwards reads presence, side and size of each kind from the mean of the tokens as well.
"""

import math
import time

import numpy as np
import torch
from corpus import NO_LABEL, Corpus
from model import TEXT_WIDTH, pixels
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES
from clinalign.progress import say

COVERED = 0.15  # share of a patch from which it counts as showing a finding
PRESENT_WEIGHT = 3.0
TOKEN_LENGTH = 2.0
WORDS = (*KINDS, *SIDES, *SIZES, *ZONES)


def project(model: LlavaForConditionalGeneration, images: Tensor) -> Tensor:
    """uint8 [n, 64, 64] to projected image tokens [n, 64, 192], as the LLaVA forward computes them (CLS dropped)."""
    states = model.model.vision_tower(pixels(images)).last_hidden_state
    projected: Tensor = model.model.multi_modal_projector(states[:, 1:])
    return projected


def bfloat16_where_native() -> torch.autocast:
    """Autocast to bfloat16 on processors that multiply in it; on others, where it is several times slower, nothing."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=native)


class Heads(nn.Module):
    """Per token how well each word fits; per image presence, side and size of each kind.

    Tokens are read after an RMS norm, as the first layer of the language model reads them: what matters must be large
    in them, not only linearly there.
    """

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions: Tensor
        self.register_buffer("directions", directions)
        self.bias = nn.Parameter(torch.full((len(WORDS),), -3.0))
        self.image = nn.Linear(TEXT_WIDTH, 3 * len(KINDS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, 64, 13] of the words and [n, 6, 3] of presence, side and size."""
        tokens = F.rms_norm(tokens, tokens.shape[-1:])
        words = F.linear(tokens, self.directions) + self.bias
        return words, self.image(tokens.mean(1)).unflatten(-1, (len(KINDS), 3))


def word_directions(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Unit vectors [13, 192]: the mean embedding of each word's tokens."""
    table = model.get_input_embeddings().weight.detach()
    rows = [table[tokenizer(f" {word}", add_special_tokens=False)["input_ids"]].mean(0) for word in WORDS]
    return F.normalize(torch.stack(rows), dim=-1)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """Linear warm-up, then a cosine to a tenth of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def pretrain_vision(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    *,
    steps: int,
    batch: int,
    peak: float,
    seed: int,
) -> None:
    """Train the vision tower and the projector in place."""
    torch.manual_seed(seed)
    heads = Heads(word_directions(model, tokenizer))
    modules = (model.model.vision_tower, model.model.multi_modal_projector, heads)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    order = np.random.default_rng(seed)
    start, recent = time.monotonic(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        rows = order.integers(0, len(corpus.cases), batch)
        loss = _loss(model, heads, corpus, rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            say(f"vision {step + 1}/{steps}: loss {np.mean(recent):.4f} ({time.monotonic() - start:.0f} s)")
            recent = []
    _rescale(model, torch.from_numpy(corpus.images[:batch]))


@torch.no_grad()
def _rescale(model: LlavaForConditionalGeneration, images: Tensor) -> None:
    """Bring the projected tokens to a mean length of TOKEN_LENGTH, about that of a word's embedding."""
    last = model.model.multi_modal_projector.linear_2
    factor = TOKEN_LENGTH / project(model, images).norm(dim=-1).mean()
    last.weight.mul_(factor)
    last.bias.mul_(factor)


def _loss(model: LlavaForConditionalGeneration, heads: Heads, corpus: Corpus, rows: np.ndarray) -> Tensor:
    present = torch.from_numpy(corpus.cover[rows]).amax(-1) > 0
    holds = patch_words(corpus, rows)
    with bfloat16_where_native():
        words, image = (logits.float() for logits in heads(project(model, torch.from_numpy(corpus.images[rows]))))
    weight = torch.where(holds > 0, PRESENT_WEIGHT, 1.0)
    loss = 2 * F.binary_cross_entropy_with_logits(words, holds, weight=weight)
    loss = loss + 0.3 * F.binary_cross_entropy_with_logits(image[..., 0], present.float())
    for index, labels in ((1, corpus.side), (2, corpus.size)):
        target = torch.from_numpy(labels[rows])
        known = target != NO_LABEL
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(image[..., index][known], target[known].float())
    return loss


def patch_words(corpus: Corpus, rows: np.ndarray) -> Tensor:
    """Which words hold for each patch: float [n, 64, 13], 1 where a finding that it shows is, or is said, so."""
    share = torch.from_numpy(corpus.cover[rows]).float() / 255  # [n, 6, 64]
    present = share.amax(-1) > 0
    covered = (share >= COVERED) | ((share == share.amax(-1, keepdim=True)) & present[..., None])
    return (torch.einsum("nkp,nkw->npw", covered.float(), _words(corpus, rows)) > 0).float()


def _words(corpus: Corpus, rows: np.ndarray) -> Tensor:
    """Which words hold for each kind of each case: float [n, 6, 13]; a kind that is absent holds none."""
    out = torch.zeros(len(rows), len(KINDS), len(WORDS))
    for i, row in enumerate(rows):
        for finding in corpus.cases[row].findings:
            for word in (finding.kind, finding.side, finding.size, finding.zone):
                if word is not None:
                    out[i, KINDS.index(finding.kind), WORDS.index(word)] = 1
    return out
