"""Against TRL's DPO trainer on the same tokens, images and adapter: the same loss and the same gradient."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from trl import DPOConfig, DPOTrainer

from clinalign.models import VLM
from clinalign.models.adapter import target_modules
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients, SequenceLogps
from clinalign.objectives.kto import kto
from clinalign.training.encode import Sample
from clinalign.training.step import PackedSteps

ANSWERS = [("in the left upper lung.", "in the right lower lung."), ("Yes, a large effusion.", "No.")]
PICTURES = {"0": tiny.image(0), "1": tiny.image(1)}


def samples(vlm: VLM) -> list[Sample]:
    out = []
    for i, sides in enumerate(ANSWERS):
        ids = [vlm.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] + vlm.eos_ids for text in sides]
        answers = dict(zip(("chosen", "rejected"), ids, strict=True))
        grids = [vlm.image_grid(PICTURES[str(i)])]
        spans = {side: [True] * len(answer) for side, answer in answers.items()}
        out.append(Sample(str(i), str(i), vlm.expand("Where is it?", grids), grids, answers, spans, [str(i)], None))
    return out


def trl_trainer(vlm: VLM, folder: Path, weights: LossCoefficients, pairs: int = 2, **settings: Any) -> DPOTrainer:
    """TRL's trainer on the same model with the same adapter weights, for the first pairs."""
    from peft import LoraConfig

    tiny.save(vlm, folder)  # before the adapter: TRL puts its own in
    rows = [
        {"images": [Image.fromarray(PICTURES[str(i)])], "prompt": vlm.prompt_text("Where is it?", 1),
         "chosen": f" {chosen}</s>", "rejected": f" {rejected}</s>"}
        for i, (chosen, rejected) in enumerate(ANSWERS[:pairs])
    ]  # fmt: skip
    arguments = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=2, gradient_checkpointing=False, max_length=None,
        beta=weights.beta, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no", **settings,
    )  # fmt: skip
    return DPOTrainer(
        LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa"),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=LlavaProcessor.from_pretrained(folder),
        peft_config=LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, target_modules=target_modules(vlm.model, vlm.family.language)
        ),
    )


@pytest.mark.parametrize(
    "name, pairs, settings",
    [
        ("dpo", 2, {}),
        ("firempo", 2, {}),
        ("ipo", 2, {"loss_type": "ipo"}),
        # TRL's anchor is the token mean of the batch, ours that of each pair: the same for one pair
        ("rpo", 1, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
    ],
)
def test_equals_trl(name: str, pairs: int, settings: dict[str, Any], tmp_path: Path) -> None:
    """FiRe-MPO with gamma = alpha = 0 and spans = all tokens is DPO too."""
    vlm, weights = tiny.tiny_llava(), LossCoefficients(beta=0.3, gamma=0, alpha=0, nll=0.7 if name == "rpo" else 0)
    trainer = trl_trainer(vlm, tmp_path, weights, pairs, **settings)
    vlm.attach_lora(r=4, alpha=8, dropout=0.0, rslora=False)
    tiny.perturb(vlm)
    ours = vlm.trainable()
    adapted = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    theirs = {name.removeprefix("base_model.model."): p for name, p in adapted.items()}
    assert set(ours) == set(theirs)
    with torch.no_grad():
        for key, value in theirs.items():
            value.copy_(ours[key])
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()
    loss, found = PackedSteps(vlm, samples(vlm), METHODS[name], weights, Features(vlm, PICTURES.__getitem__)).loss(
        range(pairs)
    )
    loss.backward()
    assert found["rewards/margins"].abs().min() > 1e-3  # the adapter has moved away from the reference
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gap = torch.cat([(ours[key].grad - theirs[key].grad).flatten() for key in ours])
    assert gap.norm() <= 1e-4 * torch.cat([p.grad.flatten() for p in theirs.values()]).norm()


def random_logps() -> SequenceLogps:
    """Sums of six pairs of answers with 1 to 9 tokens."""
    generator = torch.Generator().manual_seed(0)
    out = SequenceLogps.zeros(6)
    out.chosen_tokens, out.rejected_tokens = torch.randint(1, 10, (2, 6), generator=generator).float()
    out.chosen, out.rejected = -torch.rand(2, 6, generator=generator) * out.chosen_tokens - 0.1
    out.ref_chosen, out.ref_rejected = -torch.rand(2, 6, generator=generator) * out.rejected_tokens - 0.1
    out.nll = -out.chosen / out.chosen_tokens
    return out


def test_simpo_equals_trl() -> None:
    from trl.experimental.cpo import CPOTrainer

    given = random_logps()
    means = (given.chosen / given.chosen_tokens, given.rejected / given.rejected_tokens)
    trainer = SimpleNamespace(
        loss_type="simpo", beta=2.5, simpo_gamma=0.9, alpha=0.0, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    expected, *_ = CPOTrainer.cpo_loss(trainer, *means)
    ours = METHODS["simpo"].loss(given, LossCoefficients(beta=2.5, gamma=0.9)).loss
    assert torch.allclose(ours, expected, atol=1e-6) and ours.std() > 0.01


def test_orpo_equals_trl() -> None:
    """TRL adds the loss of the odds ratio to the NLL with a minus."""
    from trl.experimental.orpo import ORPOTrainer

    given = random_logps()
    means = (given.chosen / given.chosen_tokens, given.rejected / given.rejected_tokens)
    trainer = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    losses, *_ = ORPOTrainer.odds_ratio_loss(trainer, *means)
    ours = METHODS["orpo"].loss(given, LossCoefficients(beta=0.4)).loss
    assert torch.allclose(ours, given.nll - losses, atol=1e-5) and ours.std() > 0.01


def test_kto_equals_trl() -> None:
    """TRL's own step on a model whose log-probabilities are given: pairs as six good and six bad answers."""
    from trl import KTOTrainer

    given = random_logps()
    mismatched, ref_mismatched = torch.tensor([-1.0, -2.0]), torch.tensor([-1.6, -2.2])
    z0 = 0.4  # mean of 0.6 and 0.2
    logps = torch.cat([given.chosen, given.rejected])
    width = 3
    tokens = torch.zeros(12, width)
    tokens[:, -1] = logps
    batch = {
        "input_ids": torch.zeros(12, width + 1, dtype=torch.long),
        "attention_mask": torch.ones(12, width + 1, dtype=torch.long),
        "completion_mask": torch.ones(12, width + 1, dtype=torch.long),
        "label": torch.tensor([True] * 6 + [False] * 6),
        "ref_logps": torch.cat([given.ref_chosen, given.ref_rejected]),
        "ref_KL_logps": ref_mismatched,
    }
    zeros = torch.zeros(12, width)
    outputs = SimpleNamespace(log_probs=tokens, entropy=zeros, mean_logits=zeros)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), loss_type="kto", beta=0.3, desirable_weight=1.0, undesirable_weight=1.0,
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda value: value), calculate_KL=True,
        precompute_ref_logps=True, aux_loss_enabled=False, _compute_kl_logps=lambda *_: mismatched,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    expected = KTOTrainer._compute_loss(trainer, lambda **_: outputs, batch, False)
    given.baseline += z0
    ours = kto(given, LossCoefficients(beta=0.3)).loss.mean()
    assert ours.item() == pytest.approx(float(expected), abs=1e-6)
