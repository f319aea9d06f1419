"""What a model takes: token ids, the images' grids and rectangles, prompts. None of it needs the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clinalign.errors import RowError, UsageError
from clinalign.language.offsets import answer_end
from clinalign.models import boxes, geometry, own
from clinalign.models.families import FAMILIES, Family
from clinalign.models.guard import TEMPLATE_SECONDS, within
from clinalign.records import PLACE, Box

MANY_TEXTS = 4096
"""Prompts whose text is kept."""


class Inputs:
    """A model, its processor and tokenizer, and how words and images become its input ids. `family`: an object, or the
    name of one in `FAMILIES`; `images_a_question`: fewest and most (0: any)."""

    def __init__(self, model: Any, processor: Any, family: Family | str, name: str = "") -> None:
        self.model, self.processor, self.tokenizer = model.eval(), processor, processor.tokenizer
        self.family = FAMILIES[family] if isinstance(family, str) else family
        self.name = name or self.family.name
        self.images_a_question = (0, 0)
        self.boxes = "auto"
        self._spelt, self._unspelt = (0, 0), set[int]()
        self._ends: dict[tuple[Any, Any], int] = {}
        self._texts: dict[tuple[str, int, str], str] = {}
        if not isinstance(self.head, nn.Linear) or self.head.bias is not None:
            raise UsageError(
                f"{self.name}: the head is a {type(self.head).__name__} with a bias or an adapter; expected a plain one"
            )

    # What it is made of

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self.model.dtype

    @property
    def language_model(self) -> Any:
        """The decoder without its head. Its layers are `language_model.layers`."""
        return self.model.get_submodule(self.family.language)

    @property
    def head(self) -> Any:
        """The head, a linear layer without bias: weight [V, D]."""
        return self.model.get_output_embeddings()

    @property
    def image_token_id(self) -> int:
        """The placeholder that stands once for each image token."""
        config = self.model.config
        known = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        return int(known or self.tokenizer.convert_tokens_to_ids(self.processor.image_token))

    @property
    def eos_ids(self) -> list[int]:
        """Ids that end an answer."""
        eos = self.model.generation_config.eos_token_id
        eos = self.tokenizer.eos_token_id if eos is None else eos
        return [int(i) for i in (eos if isinstance(eos, list | tuple) else [eos])]

    @property
    def end_id(self) -> int:
        """The id by which answers that are encoded from words end: what the chat template puts behind an assistant's
        words where an answer may end in it, or else the first of `eos_ids`."""
        templates = (self.processor.chat_template, self.tokenizer.chat_template)
        if templates not in self._ends:
            self._ends[templates] = answer_end(self.tokenizer, templates[0])
        eos, end = self.eos_ids, self._ends[templates]
        return end if end in eos else eos[0]

    @property
    def pad_id(self) -> int:
        """Fills batches; never attended to and never scored."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.eos_ids[0])

    @property
    def banned_ids(self) -> list[int]:
        """Ids that must not be sampled in an answer: image, video and padding tokens, and ids that the tokenizer does
        not have (an end of answer stays legal)."""
        config = self.model.config
        count, width = len(self.tokenizer), len(self.head.weight)
        if self._spelt != (count, width):  # rows of the head that pad the vocabulary have no token
            known = set(self.tokenizer.get_vocab().values())
            self._spelt, self._unspelt = (count, width), {i for i in range(width) if i not in known}
        names = ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"]
        names += ["boi_token_index", "eoi_token_index"]
        ids = {getattr(config, name, None) for name in names} | {self.tokenizer.pad_token_id} | self._unspelt
        return sorted(i for i in ids if i is not None and i < width and i not in self.eos_ids)

    @property
    def max_positions(self) -> int:
        """Longest sequence the language model can place; a sliding window that `masks` does not know is the limit."""
        text = self.model.config.get_text_config()
        if self.family.masks is not None:
            return int(text.max_position_embeddings)
        windowed = "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"])
        window = getattr(text, "sliding_window", None) if windowed else None
        return int(min(text.max_position_embeddings, window or text.max_position_embeddings))

    def describe(self) -> str:
        """One line: family, size, what it can take."""
        count = sum(p.numel() for p in self.model.parameters())
        return (
            f"{self.name}: a {self.family.name} model, {count / 1e6:,.1f} million parameters, {self.dtype}, vocabulary "
            f"{len(self.head.weight):,}, up to {self.max_positions:,} positions"
        )

    # Images

    def input_image(self, image: np.ndarray) -> np.ndarray:
        """The image at the model's input resolution, uint8 [H, W, 3], before normalisation. Idempotent."""
        if not self.family.geometry:
            return geometry.as_rgb(image)
        return geometry.input_image(self.processor.image_processor, image)

    def input_mask(self, mask: np.ndarray) -> np.ndarray:
        """A bool [H, W] mask through the image's geometry, nearest neighbour."""
        if not self.family.geometry:
            return mask
        return geometry.input_mask(self.processor.image_processor, mask)

    def image_grid(self, image: np.ndarray) -> tuple[int, int]:
        """Rows and columns of the image's token grid. `RowError` for a picture that the image processor refuses."""
        try:
            return self.family.grid(self.processor, self.input_image(image))
        except (ValueError, ArithmeticError, OSError) as error:
            height, width = image.shape[:2]
            ratio = max(width, height) / max(1, min(width, height))
            what = f"{width} x {height} pixels, one side {ratio:.1f} times the other"
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise RowError("images", "picture_refused", f"{what}: {first}") from error

    def image_token_rects(self, image: np.ndarray) -> np.ndarray:
        """Each image token's rectangle [x, y, w, h] in source pixels, float [N, 4], in the order of the tokens.

        A class token, where the model keeps one, comes first and covers the image; with tiles, a token at the end of a
        row is no place and has no area. Raises `UsageError` where it is not known (see `located`).
        """
        if self.family.rects is not None:
            return self.family.rects(self.processor, geometry.as_rgb(image))
        if not self.family.geometry:
            raise UsageError(
                f"{self.name}: which pixels an image token stands for is not known of a {self.family.name} model"
            )
        grid = self.image_grid(image)
        rects = geometry.token_rects(self.processor.image_processor, image, grid)
        extra = self.family.token_count(self.processor, grid) - len(rects)
        whole = np.array([[0.0, 0.0, image.shape[1], image.shape[0]]])
        return np.concatenate([np.repeat(whole, extra, axis=0), rects])

    def image_places(self, image: np.ndarray) -> np.ndarray:
        """Which of an image's tokens stand for a part of it, bool [N]: not a class token, not the end of a row."""
        rects = self.image_token_rects(image)
        if self.family.rects is not None:
            return np.asarray(rects[:, 2] * rects[:, 3] > 0)
        rows, columns = self.image_grid(image)
        return np.arange(len(rects)) >= len(rects) - rows * columns

    @property
    def located(self) -> bool:
        """Whether the decoder's attention can be read and it is known which pixels an image token stands for."""
        return self.family.known and (self.family.geometry or self.family.rects is not None)

    # Prompts

    def prompt_text(self, prompt: str, images: int) -> str:
        """The chat template around a prompt, ending where the answer begins: images first, or where the prompt has
        their places (`records.PLACE`), as far as the template keeps the order of parts. Places without images go."""
        least, most = self.images_a_question
        if images < least or (most and images > most):
            wants = f"{most} image{'s' * (most > 1)}" if images > most else "an image"
            raise RowError("images", "number_of_images", f"{self.name} takes {wants} a question, this one has {images}")
        key = (prompt, images, str(self.processor.chat_template))
        if key not in self._texts:  # a question is asked many times, and a template's clock is a thread of its own
            if len(self._texts) >= MANY_TEXTS:
                self._texts.clear()
            self._texts[key] = self._templated(prompt, images)
        return self._texts[key]

    def _templated(self, prompt: str, images: int) -> str:
        content = _content(prompt, images)
        asked = [{"role": "user", "content": content}]
        try:
            text: str = within(
                TEMPLATE_SECONDS,
                lambda: self.processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False),
            )
            return text
        except TimeoutError as error:
            raise UsageError(f"{self.name}: the chat template has {error}; replace chat_template.jinja") from error
        except Exception as error:  # a template raises what it likes
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise RowError("prompt", "chat_template_failed", f"the model's chat template: {first}") from error

    def prompt_ids(self, prompt: str, images: Sequence[np.ndarray]) -> list[int]:
        """Token ids of the prompt, each image's placeholder repeated as often as the image has tokens.

        Raises `RowError` where the prompt's own words contain an image placeholder, where it leaves the model no
        position for an answer, and for a picture that the image processor refuses.
        """
        ids = self.expand(prompt, [self.image_grid(image) for image in images])
        if len(ids) >= self.max_positions:
            limit = self.max_positions
            raise RowError("question", "too_long", f"question and images take {len(ids)} tokens, the model has {limit}")
        return ids

    def expand(self, prompt: str, grids: Sequence[tuple[int, int]]) -> list[int]:
        """`prompt_ids` for images of which only the token grid is at hand."""
        text = self.prompt_text(prompt, len(grids))
        token = own.placeholder(self.processor)
        soft = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        if text.count(token) != len(grids) or soft in prompt:
            raise RowError("prompt", "image_token_in_prompt", f"take '{token}' out of the text")
        first, *rest = text.split(token)
        pictures = [self.family.image_text(self.processor, grid) for grid in grids]
        text = first + "".join(picture + part for picture, part in zip(pictures, rest, strict=True))
        bos = self.tokenizer.bos_token
        special = bos is None or not text.startswith(bos)
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    @property
    def box_convention(self) -> boxes.Convention:
        """How it writes boxes; `UsageError` for pixels of a resized image where that size is not known."""
        rule = boxes.convention(self.model.config.model_type, self.boxes)
        if not rule.scale and not self.family.geometry:
            raise UsageError(
                f"boxes: resized_pixels, but the size at which a {self.family.name} model sees an image is not known "
                "here; use another convention"
            )
        return rule

    def in_words(self, text: str, images: Sequence[np.ndarray], field: str = "question") -> str:
        """A prompt or an answer with its boxes (`<box>x,y,w,h</box>`, pixels of the image) as this family writes them;
        `RowError` of `field` for one that cannot be read."""
        if boxes.MARK.search(text) is None:
            return text
        return boxes.in_words(text, self.box_convention, [self._sizes(image) for image in images], field)

    def boxes_said(self, text: str, image: np.ndarray) -> list[Box]:
        """The boxes that an answer of this family names on an image, [x, y, w, h] in its pixels."""
        return boxes.read(text, self.box_convention, *self._sizes(image))

    def _sizes(self, image: np.ndarray) -> tuple[boxes.Size, boxes.Size]:
        """Height and width of an image, and of it as the model is shown it."""
        shown = self.input_image(image).shape
        return (image.shape[0], image.shape[1]), (shown[0], shown[1])

    def positions(self, ids: Sequence[int], grids: Sequence[tuple[int, int]]) -> Tensor:
        """Position ids [A, L] of one sequence, A = 1, or 3 where positions have three axes."""
        return self.family.positions(ids, grids, self.image_token_id)


def _content(prompt: str, images: int) -> list[dict[str, str]]:
    """A prompt and its images as parts of a message."""
    first, *behind = prompt.split(PLACE)
    if not images or not behind:
        return [{"type": "image"}] * images + [{"type": "text", "text": prompt.replace(PLACE, "")}]
    if len(behind) != images:
        detail = f"it has places for {len(behind)} images, the question has {images}; correct the captions"
        raise RowError("prompt", "image_places", detail)
    parts = [{"type": "text", "text": first}] if first else []
    for text in behind:
        parts += [{"type": "image"}] + ([{"type": "text", "text": text}] if text else [])
    return parts
