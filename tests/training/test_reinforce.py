"""Reinforcement on tiny models: what trains, whether it follows a reward, what is counted, how it resumes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import VLM
from clinalign.records import Example
from clinalign.storage import Quarantine
from clinalign.training.grpo import PolicyTrainer
from clinalign.training.options import TrainOptions
from clinalign.training.reinforce import reinforce
from clinalign.training.result import TrainResult

OWN = """
import math
wanted = ''
def has(text, example): return float(text == wanted)
def lacks(text, example): return float(text != wanted)
def many(text, example): return len(text) / 20
def same(text, example): return 0.5
def nothing(text, example): return math.nan
def wrong(text, example): raise ValueError("not today")
left = [10_000]
def stopping(text, example):
    left[0] -= 1
    if left[0] < 0: raise KeyboardInterrupt
    return len(text) / 20
"""
FAST = {"prompts": 2, "group": 4, "steps": 2, "max_new_tokens": 6, "lr": 1e-2, "kl": 0.0, "weight_decay": 0.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for n in range(2):
        write_png(tmp_path / f"{n}.png", tiny.image(n))
    return tmp_path


def examples(images: bool = True) -> list[Example]:
    shown = [[f"{n}.png"] if images else [] for n in range(2)]
    return [Example(f"e{n}", shown[n], f"Where is {n}?", "There is a nodule.", "report") for n in range(2)]


def run(
    folder: Path, reward: str, *, vlm: VLM | None = None, stage: str = "textual", out: str = "run",
    asked: list[Example] | None = None, quarantine: Quarantine | None = None, every: int = 0, **settings: Any,
) -> tuple[VLM, TrainResult, list[dict[str, Any]]]:  # fmt: skip
    vlm = vlm or tiny.tiny_llava()
    stages: dict[str, Any] = {"textual": None, "visual": None}
    stages[stage] = FAST | {"rewards": {reward: 1.0}} | settings
    options = TrainOptions(
        method="sft", lora={"r": 4, "alpha": 8, "dropout": 0.0}, reinforce=stages, checkpoint_every=every
    )
    result = reinforce(vlm, asked or examples(), folder, options, folder / out, label="valor", quarantine=quarantine)
    return vlm, result, [json.loads(line) for line in result.metrics.read_text().splitlines()]


def state(vlm: VLM) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in vlm.model.state_dict().items()}


def test_the_first_variant_changes_the_projector_and_nothing_else(folder: Path) -> None:
    vlm = tiny.tiny_llava()
    before = state(vlm)
    _, result, _ = run(folder, "own_rewards:many", vlm=vlm, stage="visual", variant="v1")
    after = state(vlm)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)
    assert [p.name for p in result.adapter.glob("*.safetensors")] == ["image_weights.safetensors"]


def test_the_second_variant_changes_the_adapter_and_nothing_else(folder: Path) -> None:
    vlm = tiny.tiny_llava()
    before = state(vlm)
    run(folder, "own_rewards:many", vlm=vlm, stage="visual", variant="v2")
    lora = {name: value for name, value in state(vlm).items() if "lora_" in name}
    rest = {name.replace(".base_layer", ""): v for name, v in state(vlm).items() if "lora_" not in name}
    assert all(torch.equal(rest[name], value) for name, value in before.items())
    assert any(bool(value.any()) for name, value in lora.items() if "lora_B" in name)


@pytest.mark.parametrize("stage", ["textual", "visual"])
def test_equal_rewards_have_no_gradient(folder: Path, stage: str) -> None:
    vlm, _, rows = run(folder, "own_rewards:same", stage=stage)
    assert [row["grad_norm"] for row in rows] == [0, 0]
    assert not any(bool(value.any()) for name, value in state(vlm).items() if "lora_B" in name)


def first_tokens(vlm: VLM) -> torch.Tensor:
    """The probabilities of an answer's first token."""
    asked = vlm.processor(
        text=vlm.prompt_text("Where is 0?", 1), images=[Image.fromarray(tiny.image(0))], return_tensors="pt"
    )
    with torch.no_grad():
        found: torch.Tensor = vlm.model.eval()(**asked).logits[0, -1].softmax(-1)
    return found


def peaked() -> VLM:
    """A tiny model that is sure enough of its words to say some of them often."""
    vlm = tiny.tiny_llava()
    with torch.no_grad():
        vlm.head.weight.mul_(5)
    return vlm


@pytest.mark.slow
def test_the_policy_follows_a_reward_and_its_opposite(folder: Path) -> None:
    before, found = first_tokens(peaked()), {}
    words = [peaked().tokenizer.decode([n]) for n in range(len(before))]
    often = [int(n) for n in before.argsort(descending=True) if words[n].strip() and 0.05 < before[n] < 0.5]
    import own_rewards

    own_rewards.wanted = words[often[0]]
    for name in ("has", "lacks"):
        vlm, _, _ = run(folder, f"own_rewards:{name}", vlm=peaked(), out=name, steps=20, group=8, max_new_tokens=1)
        found[name] = float(first_tokens(vlm)[often[0]])
    assert found["lacks"] < before[often[0]] / 2 and found["has"] > 1.5 * before[often[0]]


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(folder: Path) -> None:
    _, whole, rows = run(folder, "own_rewards:many", out="whole", steps=4, every=2)
    import own_rewards

    own_rewards.left[0] = 8 * 3 - 1  # in the third step
    with pytest.raises(KeyboardInterrupt):
        run(folder, "own_rewards:stopping", out="cut", steps=4, every=2)
    own_rewards.left[0] = 10_000
    _, again, resumed = run(folder, "own_rewards:stopping", out="cut", steps=4, every=2)
    assert own_rewards.left[0] == 10_000 - 8 * 2
    plain = [
        {k: v for k, v in row.items() if k not in ("seconds", "step_time") and "rewards/" not in k} for row in rows
    ]
    assert plain == [{k: row[k] for k in part} for row, part in zip(resumed, plain, strict=True)]
    adapters = [(one.adapter / "adapter_model.safetensors").read_bytes() for one in (whole, again)]
    assert adapters[0] == adapters[1]
    _, third, _ = run(folder, "own_rewards:stopping", out="cut", steps=4, every=2)
    assert third.steps == 4 and own_rewards.left[0] == 10_000 - 8 * 2  # nothing was asked a third time


@pytest.mark.parametrize("reward", ["nothing", "wrong"])
def test_a_reward_that_gives_no_number_is_said_and_changes_nothing(folder: Path, reward: str) -> None:
    vlm, result, rows = run(folder, f"own_rewards:{reward}")
    what = "no number" if reward == "nothing" else "error"
    assert f"reward own_rewards:{reward} {what}".split()[1] in "".join(result.warnings)
    assert any("no reward at all" in text for text in result.warnings.values())
    assert any("times" in text for text in result.warnings.values())
    assert not any(bool(value.any()) for name, value in state(vlm).items() if "lora_B" in name)
    assert "no reward at all" in (result.adapter / "README.md").read_text()


def test_prompts_with_and_without_an_image_stand_in_one_step(folder: Path) -> None:
    mixed = [examples()[0], examples(images=False)[1]]
    vlm, _, rows = run(folder, "own_rewards:many", asked=mixed)
    assert len(rows) == 2 and all(np.isfinite(row["grad_norm"]) for row in rows)
    _, _, bare = run(folder, "own_rewards:many", asked=examples(images=False), out="bare")
    assert len(bare) == 2


def test_what_cannot_be_asked_goes_to_the_quarantine(folder: Path) -> None:
    bad = [
        *examples(),
        Example("gone", ["gone.png"], "?", "No.", "report"),
        Example("empty", ["0.png"], "?", "", "report"),
    ]
    quarantine = Quarantine(folder / "quarantine.jsonl")
    run(folder, "own_rewards:many", asked=bad, quarantine=quarantine)
    assert [(row["id"], row["reason"]) for row in quarantine.rows] == [
        ("gone", "missing_image"), ("empty", "no_reference"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="none of the 1 examples can be asked"):
        run(folder, "own_rewards:many", asked=[Example("x", [], "?", "No.", "closed")], out="other")


def test_an_engine_that_is_not_installed_is_refused_by_name(folder: Path) -> None:
    options = TrainOptions(method="sft", reinforce={"engine": "vllm"})
    with pytest.raises(UsageError, match="engine vllm needs vllm; install it"):
        reinforce(tiny.tiny_llava(), examples(), folder, options, folder / "run", label="valor")


def test_both_stages_one_after_another_and_their_adapter_loads_again(folder: Path) -> None:
    vlm = tiny.tiny_llava()
    model = tiny.save(vlm, folder / "model")
    assert model.is_dir()
    both = {name: FAST | {"rewards": {"own_rewards:many": 1.0}} for name in ("textual", "visual")}
    both["visual"] |= {"variant": "v1", "rewards": {"similarity": 1.0}}
    options = TrainOptions(method="sft", lora={"r": 4, "alpha": 8, "dropout": 0.0}, reinforce=both)
    result = reinforce(vlm, examples(), folder, options, folder / "run", label="valor")
    rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("textual", 1), ("textual", 2), ("visual", 3), ("visual", 4),
    ]  # fmt: skip
    asked = [("Where is it?", [tiny.image(0)])]
    base, again = tiny.tiny_llava(), tiny.tiny_llava()
    again.load_adapter(result.adapter)
    trained = dict(vlm.model.named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in again.model.named_parameters())
    image, moved = base.image_features([tiny.image(0)])[0], again.image_features([tiny.image(0)])[0]
    assert not torch.equal(image, moved)
    with again.adapter_off():
        assert torch.equal(again.image_features([tiny.image(0)])[0], image)
    assert torch.equal(again.image_features([tiny.image(0)])[0], moved)
    said = again.generate(asked, max_new_tokens=4)
    again.merge_adapter()
    assert again.generate(asked, max_new_tokens=4)[0].token_ids == said[0].token_ids
    assert torch.equal(again.image_features([tiny.image(0)])[0], moved)


def test_removing_the_adapter_gives_the_base_back(folder: Path) -> None:
    _, result, _ = run(folder, "own_rewards:many", stage="visual", variant="v1")
    base, vlm = tiny.tiny_llava(), tiny.tiny_llava()
    vlm.load_adapter(result.adapter)
    assert vlm.fingerprint() != base.fingerprint()
    vlm.remove_adapter()
    assert vlm.fingerprint() == base.fingerprint()


def test_the_trainer_asks_as_the_model_is_asked() -> None:
    vlm = tiny.tiny_llava()
    picture = Image.fromarray(tiny.image(0))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Where is it?"}]
    asked = vlm.processor.apply_chat_template(
        conversation=[[{"role": "user", "content": content}]], add_generation_prompt=True, tokenize=True,
        return_dict=True,
    )  # fmt: skip
    assert list(asked["input_ids"][0]) == vlm.prompt_ids("Where is it?", [tiny.image(0)])


def test_a_report_is_mended_from_its_reference() -> None:
    trainer = PolicyTrainer.__new__(PolicyTrainer)
    trainer.eos_token_ids, trainer.encode = [2], lambda text: [7, 2]
    trainer.mended = Counter()
    truth = Example("e", [], "?", "There is a nodule in the left upper zone. There is no pleural effusion.", "report")
    text, ids = trainer._mended("There is no nodule.", [5, 2], truth) or ("", [])
    assert text == "There is a nodule in the left upper zone." and ids == [7, 2]
    assert trainer._mended("There is no nodule.", [5, 5], truth) is None  # cut off
    assert trainer._mended(truth.answer, [5, 2], truth) is None
    assert trainer.mended == {"replace": 1, "cut off": 1, "nothing to mend": 1}
