"""Phantoms and stand-ins for models: what they answer follows from what they are allowed to see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clinalign.imaging.images import read_image
from clinalign.records import Example


@dataclass
class Said:
    token_ids: list[int]
    text: str
    finish_reason: str = "stop"


class Characters:
    """One id a character, offset by one; 0 is the end."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(c) + 1 for c in text]}


class Stand:
    """Answers `speak(question, images)`. Dies after `calls` batches."""

    name, eos_ids, end_id, pad_id, tokenizer = "stand", [0], 0, 0, Characters()
    images_a_question = (0, 0)

    def __init__(self, speak: Callable, calls: int = 10**6) -> None:
        self.speak, self.calls = speak, calls

    def generate(self, prompts, *, max_new_tokens, batch_size):
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        texts = [self.speak(question, images) for question, images in prompts]
        return [Said([*self.tokenizer(t)["input_ids"], 0], t) for t in texts]

    def fingerprint(self):
        return self.name

    def prompt_ids(self, prompt, images):
        return [1 + ord(c) for c in prompt]

    def input_image(self, image):
        return image

    def input_mask(self, mask):
        return mask


@dataclass
class World:
    """A folder of phantoms and its examples; `truth(question, images)` is the clean full answer about that image."""

    folder: Path
    examples: list[Example]

    def truth(self, question: str, images: list[np.ndarray]) -> str:
        seen = images[0].tobytes() if images else b""
        return self.answers.get((question, seen), "I cannot tell.")

    def __post_init__(self) -> None:
        self.answers = {(e.question, read_image(self.folder / e.images[0]).tobytes()): e.full for e in self.examples}
