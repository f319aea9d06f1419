"""Against TRL's DPO trainer on the same tokens, images and adapter: the same loss and the same gradient."""

from __future__ import annotations

from pathlib import Path

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
from clinalign.objectives import METHODS, LossCoefficients
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


def trl_trainer(vlm: VLM, folder: Path, weights: LossCoefficients) -> DPOTrainer:
    """TRL's trainer on the same model with the same adapter weights."""
    from peft import LoraConfig

    tiny.save(vlm, folder)  # before the adapter: TRL puts its own in
    rows = [
        {"images": [Image.fromarray(PICTURES[str(i)])], "prompt": vlm.prompt_text("Where is it?", 1),
         "chosen": f" {chosen}</s>", "rejected": f" {rejected}</s>"}
        for i, (chosen, rejected) in enumerate(ANSWERS)
    ]  # fmt: skip
    arguments = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=2, gradient_checkpointing=False, max_length=None,
        beta=weights.beta, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no",
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


@pytest.mark.parametrize("name", ["dpo", "firempo"])
def test_dpo_equals_trl(name: str, tmp_path: Path) -> None:
    """FiRe-MPO with gamma = alpha = 0 and spans = all tokens is DPO too."""
    vlm, weights = tiny.tiny_llava(), LossCoefficients(beta=0.3, gamma=0, alpha=0)
    trainer = trl_trainer(vlm, tmp_path, weights)
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
        [0, 1]
    )
    loss.backward()
    assert found["rewards/margins"].abs().min() > 1e-3  # the adapter has moved away from the reference
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gap = torch.cat([(ours[key].grad - theirs[key].grad).flatten() for key in ours])
    assert gap.norm() <= 1e-4 * torch.cat([p.grad.flatten() for p in theirs.values()]).norm()
