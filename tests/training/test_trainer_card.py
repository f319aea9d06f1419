"""The model card: written by training, completed by evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clinalign.training import write_card


def facts(**more: Any) -> dict[str, Any]:
    final = {"loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 0.1}
    return {
        "label": "firempo", "base": "embedded", "method": "firempo", "tune": "lora", "pairs": 12,
        "data": {"pairs": 12, "with a corrupted image": 9}, "settings": {"beta": 0.1}, "steps": 4, "final": final,
        "warnings": ["chosen reward falls"],
    } | more  # fmt: skip


def test_card_states_use_data_settings_and_warnings(tmp_path: Path) -> None:
    text = write_card(tmp_path, facts()).read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "embedded" and head["library_name"] == "peft"
    for part in ("Not a medical device", "| with a corrupted image | 9 |", "| beta | 0.1 |", "chosen reward falls"):
        assert part in text
    assert "Not evaluated yet" in text and "reward accuracy 0.75" in text


def test_evaluation_fills_in_numbers_and_keeps_the_rest(tmp_path: Path) -> None:
    write_card(tmp_path, facts())
    row = {"metric": "accuracy", "base": "69.7", "value": "78.8", "difference": "+9.1 [7.0, 11.0]"}
    text = write_card(tmp_path, {"evaluation": [row], "evaluated": "12 questions of 6 patients."}).read_text()
    assert "\n\n12 questions of 6 patients.\n\n| metric |" in text
    assert "| accuracy | 69.7 | 78.8 | +9.1 [7.0, 11.0] |" in text
    assert "Not evaluated yet" not in text and "| beta | 0.1 |" in text


def test_sft_has_no_reward_numbers(tmp_path: Path) -> None:
    text = write_card(tmp_path, facts(method="sft", final={"loss": 0.5, "rewards/accuracies": None})).read_text()
    assert "reward accuracy" not in text
