"""Stages 3 and 4: instruction tuning on packed rows, first of everything, then of the language model alone."""

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from corpus import Corpus
from model import TEXT_WIDTH
from pretrain import PRESENT_WEIGHT, WORDS, bfloat16_where_native, learning_rate, patch_words, project
from rows import FACTS, IGNORE, Batch, Row, batches, collate
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from clinalign.progress import say

READ_AFTER, READER_WEIGHT, PATCH_WEIGHT = 2, 1.0, 2.0
Check = Callable[[], dict[str, float]]


class Reader(nn.Module):
    """A linear head, thrown away afterwards, that reads the facts of a finding where the prompt has just named it.

    It reads the language model half-way up, and so teaches it to look the named finding up in the image early enough
    for the answer to use it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(TEXT_WIDTH)
        self.facts = nn.Linear(TEXT_WIDTH, len(FACTS))

    def loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Mean binary cross-entropy over the named findings; hidden [B, L, 192]."""
        named = hidden[batch.mentions[:, 0], batch.mentions[:, 1]]
        return F.binary_cross_entropy_with_logits(self.facts(self.norm(named.float())).float(), batch.facts)


class Patches(nn.Module):
    """A linear head, thrown away afterwards, that reads from every projected token what its patch shows.

    It keeps faint findings in the tokens while the answers are learnt, which alone teach the tower little about them.
    """

    def __init__(self, corpus: Corpus) -> None:
        super().__init__()
        self.corpus = corpus
        self.words = nn.Linear(TEXT_WIDTH, len(WORDS))

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Mean weighted binary cross-entropy; tokens [m, 64, 192] of pictures `images`, only the corpus's own read."""
        known = images < len(self.corpus.cases)
        if not known.any():
            return tokens.sum() * 0
        holds = patch_words(self.corpus, images[known].numpy())
        words = self.words(F.rms_norm(tokens[known], tokens.shape[-1:])).float()
        return F.binary_cross_entropy_with_logits(words, holds, weight=torch.where(holds > 0, PRESENT_WEIGHT, 1.0))


def embed(model: LlavaForConditionalGeneration, batch: Batch, images: Tensor) -> Tensor:
    """[B, L, 192]: the tokens' embeddings, each image placeholder replaced by its projected token."""
    return _placed(model, batch, project(model, images[batch.images]) if len(batch.images) else None)


def _placed(model: LlavaForConditionalGeneration, batch: Batch, tokens: Tensor | None) -> Tensor:
    embedded: Tensor = model.model.get_input_embeddings()(batch.ids)
    if tokens is not None:
        wanted = (batch.ids == model.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(wanted, tokens.flatten(0, 1).to(embedded.dtype))
    return embedded


def answer_loss(
    model: LlavaForConditionalGeneration, batch: Batch, images: Tensor, reader: Reader | None = None,
    patches: Patches | None = None,
) -> Tensor:  # fmt: skip
    """Mean cross-entropy of the answers' tokens, the head applied to their rows alone; plus those of heads and odds."""
    tokens = project(model, images[batch.images]) if len(batch.images) else None
    out = model.model.language_model(
        inputs_embeds=_placed(model, batch, tokens),
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=reader is not None,
    )
    asked = batch.targets != IGNORE
    logits = model.lm_head(out.last_hidden_state[asked]).float()
    losses = F.cross_entropy(logits, batch.targets[asked], reduction="none")
    weights = batch.weights[asked]
    loss = (losses * weights).sum() / weights.sum()
    if len(batch.pairs):
        loss = loss + odds_loss(losses, batch.answers[asked], batch)
    if reader is not None and len(batch.mentions):
        loss = loss + READER_WEIGHT * reader.loss(out.hidden_states[READ_AFTER], batch)
    if patches is not None and tokens is not None:
        loss = loss + PATCH_WEIGHT * patches.loss(tokens, batch.images)
    return loss


def odds_loss(losses: Tensor, answers: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of the log-odds of the pairs' two answers to the odds that text gives them.

    It is what the answers' own cross-entropy teaches, at the one place where they differ; losses, answers [n]: of every
    token that is predicted its negative log-probability and the number of its answer.
    """
    sums = losses.new_zeros(int(batch.answers.max()) + 1).index_add(0, answers, losses)
    return F.binary_cross_entropy_with_logits(sums[batch.pairs + 1] - sums[batch.pairs], batch.odds)


def tune(
    model: LlavaForConditionalGeneration,
    rows: Sequence[Row],
    images: np.ndarray,
    *,
    epochs: int,
    tokens: int,
    peak: float,
    vision_peak: float,
    corpus: Corpus | None = None,
    last: int = 0,
    seed: int,
    label: str,
    check: Check | None = None,
    check_every: int = 200,
    stop: Callable[[dict[str, float]], bool] | None = None,
) -> list[dict[str, float]]:
    """Train in place; `vision_peak` 0 freezes the vision tower and the projector, and of the language model only so
    many `last` layers train, unless 0. Returns the checks' numbers.

    With the `corpus` that `images` begins with, what patches show is taught beside the answers.

    Every `check_every` steps `check` measures the model on the dev split, and `stop` may end the training there.
    """
    rng = random.Random(seed)
    order = [group for _ in range(epochs) for group in batches(rows, tokens, rng)]
    eyes = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    for parameter in eyes:
        parameter.requires_grad_(vision_peak > 0)
    torch.manual_seed(seed)
    reader = Reader() if vision_peak > 0 else None
    patches = Patches(corpus) if vision_peak > 0 and corpus is not None else None
    heads = [parameter for head in (reader, patches) if head for parameter in head.parameters()]
    spoken = model.model.language_model
    trained = [p for layer in spoken.layers[-last:] for p in layer.parameters()] if last else [*spoken.parameters()]
    for parameter in spoken.parameters():
        parameter.requires_grad_(False)
    words = [*trained, *heads]
    for parameter in words:
        parameter.requires_grad_(True)
    groups = [{"params": words, "peak": peak}]
    if vision_peak > 0:
        groups.append({"params": eyes, "peak": vision_peak})
    optimizer = torch.optim.AdamW(groups, lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    pad_id, pictures = model.config.pad_token_id, torch.from_numpy(images)
    start, recent, history = time.monotonic(), [], []
    for step, group in enumerate(order):
        for part in optimizer.param_groups:
            part["lr"] = learning_rate(step, len(order), part["peak"])
        with bfloat16_where_native():
            loss = answer_loss(model, collate(group, pad_id), pictures, reader, patches)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 25 == 0:
            say(f"{label} {step + 1}/{len(order)}: loss {np.mean(recent):.4f} ({time.monotonic() - start:.0f} s)")
            recent = []
        if check and (step + 1) % check_every == 0:
            history.append({"step": step + 1, **check()})
            say(f"{label} dev {history[-1]}")
            if stop and stop(history[-1]):
                break
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return history
