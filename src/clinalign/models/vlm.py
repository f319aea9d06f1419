"""One loaded vision-language model, its family's knowledge behind it.

The order of a sequence is always [prompt with image tokens | answer]. Where encoder and projector are frozen, as by
default, an image is encoded once and its features are put in wherever its tokens stand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clinalign.engine import held
from clinalign.errors import UsageError
from clinalign.models import adapter as adapters
from clinalign.models import attention, geometry, image_projection, own
from clinalign.models import generate as generation
from clinalign.models.attention import NOTHING, REQUEST, AttentionRequest
from clinalign.models.families import Family
from clinalign.models.families.family import Change
from clinalign.models.head import PLAIN, row_logits
from clinalign.models.inputs import Inputs

if TYPE_CHECKING:
    from clinalign.models.proof import Proof


class Generated(NamedTuple):
    """An answer: the sampled ids (EOS included where sampled), their text, and "stop" or "length"."""

    token_ids: list[int]
    text: str
    finish_reason: str


class VLM(Inputs):
    """A model that runs and trains. `model` stays the Hugging Face model; `peft` wraps it when adapted."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        family: Family | str,
        name: str = "",
        unpacked: bool = False,
        not_packed: str = "unpacked=true asks for it",
    ) -> None:
        super().__init__(model, processor, family, name)
        self.unpacked = unpacked or not self.family.known
        self.not_packed = not_packed if self.unpacked else ""
        self.undecided = False
        """Whether it is known only with its weights if answers may be packed."""
        self.proof: Proof | None = None
        self.readout = PLAIN
        self.peft: Any = None
        self.projection: image_projection.ImageProjection | None = None
        self._projection_hooks: list[Any] = []
        self.reference_head: Tensor | None = None
        self.fine_tuned = False
        self.image_base: dict[str, Tensor] = {}
        self._image_off = False
        self.origin: Callable[[], tuple[Any, ...]] | None = None
        """What `engine.held` loads it anew from in another process, for a model that a recipe loaded."""
        model.requires_grad_(False)
        self._restore = attention.install(self.language_model) if self.family.known else None
        self.column_subset = self.family.known and attention.takes_query_columns(self.language_model)

    def __reduce__(self) -> tuple[Any, ...]:
        """A model travels to workers as what it was loaded from."""
        if self.origin is None:
            raise UsageError(f"{self.name}: workers load a recipe's model themselves; this one was made by hand")
        return held, self.origin()

    # Forward

    def image_features(
        self, images: Sequence[np.ndarray], change: Change | None = None, *, gradient: bool = False
    ) -> list[Tensor]:
        """Encoder and projector, without gradient unless asked: one [N_i, F] tensor an image (F: see `Family`).

        `change(i, pixels)`, where the family knows `normals`, gives what the tower sees of image i instead.
        """
        if not images:
            return []
        kwargs = {} if change is None else {"change": change}
        with self.evaluating(gradient=gradient):
            rgb = [geometry.as_rgb(image) for image in images]
            return self.family.encode(self.model, self.processor, rgb, **kwargs)

    def hidden_states(
        self,
        ids: Tensor,
        features: Sequence[Sequence[Tensor]],
        mask: Tensor,
        positions: Tensor,
        request: AttentionRequest = NOTHING,
    ) -> Tensor:
        """Last hidden states [B, L, D], final norm applied; those of `request.query_columns` [B, S] alone, [B, S, D].

        ids [B, L]; features: for each row its images' features in order; mask bool [B, 1, L, L], True where a token may
        look; positions [B, L], or [3, B, L] where the family has three axes.
        """
        embeddings, extra = self.embed(ids, features)
        allowed = self.masks(mask, positions, positions, ids)
        last, columns, probe = len(self.language_model.layers) - 1, request.query_columns, request.probe
        needs_subset = columns is not None and columns.shape[1] < ids.shape[1] and self.column_subset
        needs_subset = needs_subset and not (probe is not None and probe.wants(last))
        asked = replace(
            request, prefix=request.prefix if allowed is mask else 0, query_columns=columns if needs_subset else None
        )
        out = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=allowed,
            position_ids=self.axes(positions),
            use_cache=False,
            **extra,
            **self.asking(asked, ids),
        ).last_hidden_state
        return (
            out if columns is None or needs_subset else out[torch.arange(len(ids), device=ids.device)[:, None], columns]
        )

    def forward_hidden(self, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int] = ()) -> Tensor:
        """The states [T + 1, D] that predict an answer's T tokens and the one behind it in the model's own forward."""
        return own.states(self, own.inputs(self, prompt, images, answer), len(answer) + 1)

    def asking(self, request: AttentionRequest, ids: Tensor) -> dict[str, Any]:
        """The request as an argument of the language model; an image projection gets the image tokens of ids [B, L]."""
        return {REQUEST: request if self.projection is None else replace(request, images=ids == self.image_token_id)}

    def masks(self, mask: Tensor, queries: Tensor, keys: Tensor, ids: Tensor | None = None) -> Any:
        """What the language model takes as its mask: `mask` bool [B, 1, Q, K] itself, or one for each kind of layer.

        queries, keys: positions [(A,) B, Q] and [(A,) B, K]; ids [B, K] where images are among the queries (Q = K).
        """
        if self.family.masks is None:
            return mask
        images = None if ids is None else ids == self.image_token_id
        queries, keys = (p[0] if p.ndim == 3 else p for p in (queries, keys))
        return self.family.masks(self.language_model.config, mask, queries, keys, images)

    def axes(self, positions: Tensor) -> Tensor:
        """Positions as the language model takes them: [A, B, L] loses a single axis."""
        return positions[0] if positions.ndim == 3 and positions.shape[0] == 1 else positions

    def embed(self, ids: Tensor, features: Sequence[Sequence[Tensor]]) -> tuple[Tensor, dict[str, Any]]:
        """Input embeddings [B, L, D] with the image features in place, and further arguments of the language model."""
        embeddings = self.language_model.get_input_embeddings()(ids)
        flat = [f for row in features for f in row]
        where, more_of_ids = ids == self.image_token_id, self.token_inputs(ids)
        if not flat:
            return embeddings, more_of_ids
        joined = torch.cat(flat)
        if int(where.sum()) != len(joined):
            raise ValueError(f"{int(where.sum())} image tokens for {len(joined)} features")
        embeddings, more = self.family.place(embeddings, where, joined)
        return embeddings, more | more_of_ids

    def token_inputs(self, ids: Tensor) -> dict[str, Any]:
        """What the language model is told of tokens [B, L] beside their embeddings."""
        if self.family.token_inputs is None:
            return {}
        return self.family.token_inputs(self.language_model, ids, ids == self.image_token_id)

    def logits(self, rows: Tensor) -> Tensor:
        """Head on hidden rows [R, D] -> [R, V], fp32."""
        return row_logits(rows, self.head.weight, self.readout)

    def generate(
        self, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], *, max_new_tokens: int = 64, batch_size: int = 8
    ) -> list[Generated]:
        """Greedy answers, in the order of the prompts. Image and padding ids are never sampled."""
        answers = generation.greedy(self, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
        return [
            Generated(ids, self.decode(ids), "stop" if ids and ids[-1] in self.eos_ids else "length") for ids in answers
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, special tokens left out, nothing cleaned up."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # Training

    def attach_lora(
        self, *, r: int = 128, alpha: int = 256, dropout: float = 0.05, rslora: bool = True, seed: int = 0
    ) -> None:
        """Puts a fresh adapter on the language model's attention and MLP; only it trains."""
        self._refuse_second_adapter()
        self.peft = adapters.attach(
            self.model, self.family.language, r=r, alpha=alpha, dropout=dropout, rslora=rslora, seed=seed
        )
        self.model.eval()

    def load_adapter(self, folder: Path) -> None:
        """Loads an adapter written by PEFT, or the language model's weights after full fine-tuning; both may go on."""
        self._refuse_second_adapter()
        images = folder / adapters.IMAGE_WEIGHTS
        if (folder / adapters.FULL_WEIGHTS).is_file():
            adapters.load_full(self.model, folder / adapters.FULL_WEIGHTS)
            self.fine_tuned = True
        elif not images.is_file() or (folder / "adapter_config.json").is_file():
            self.peft = adapters.load(self.model, folder)
            self.model.eval()
        if images.is_file():
            self.image_base = adapters.load_full(self.model, images, keep=True)
        if (folder / image_projection.FILE).is_file():
            self.attach_projection(image_projection.read_projection(folder / image_projection.FILE, self))

    def attach_projection(self, chosen: image_projection.ImageProjection) -> None:
        """Puts an image projection before its layers; it is trained, saved, loaded, switched off with the adapter."""
        if self.projection is not None:
            raise UsageError(
                f"{self.name}: has an image projection already; load the model again, or remove its adapter first"
            )
        self.projection, self._projection_hooks = chosen, image_projection.install(self, chosen)

    def save_language_model(self, folder: Path) -> None:
        """Writes all weights that train (the language model and its head) as one safetensors file."""
        weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        adapters.save_full(weights, folder / adapters.FULL_WEIGHTS)
        if self.projection is not None:
            self.projection.save(folder)

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter as PEFT does (safetensors), and the parts that images go through where they trained."""
        if self.peft is None and not self.image_base:
            raise UsageError(f"{self.name}: no adapter to save")
        if self.peft is not None:
            adapters.save(self.peft, folder)
        if self.image_base:
            weights = dict(self.model.named_parameters())
            adapters.save_full({name: weights[name] for name in self.image_base}, folder / adapters.IMAGE_WEIGHTS)
        if self.projection is not None:
            self.projection.save(folder)

    def merge_adapter(self) -> None:
        """Adds the adapter to the weights it adapts; a plain model again, which another adapter may go on."""
        if self.projection is not None:
            raise UsageError(
                f"{self.name}: its image projection acts on image tokens and is no part of any weight; keep the adapter"
            )
        if self.peft is None and not self.image_base:
            raise UsageError(f"{self.name}: no adapter to merge")
        if self.peft is not None:
            self.model = self.peft.merge_and_unload()
        self.peft, self.image_base = None, {}
        self.model.requires_grad_(False)
        self.model.eval()

    def remove_adapter(self) -> None:
        """Takes the adapter out again; the model is what it was before."""
        while self._projection_hooks:
            self._projection_hooks.pop().remove()
        self.projection = None
        if self.peft is not None:
            self.model = self.peft.unload()
            self.peft = None
        self._exchange_image_weights()
        self.image_base = {}
        self.model.requires_grad_(False)

    def whole_last_layer(self) -> None:
        """From here on the last layer computes all columns, whichever are read."""
        self.column_subset = False
        attention.whole_last_layer(self.language_model)

    def by_own_forward(self, why: str) -> None:
        """From here on only the model's own forward is used, one answer at a time."""
        self.close()
        self.family = replace(self.family, known=False)
        self.unpacked, self.not_packed = True, why

    def close(self) -> None:
        """Gives the Hugging Face model back as it was loaded: its own attention, its last layer, no hooks."""
        while self._projection_hooks:
            self._projection_hooks.pop().remove()
        if self._restore is not None:
            self._restore()
            self._restore = None

    def unfreeze_language_model(self) -> None:
        """Trains all weights of the language model and its head. The head's first values are kept for the reference."""
        self._refuse_second_adapter()
        self.language_model.requires_grad_(True)
        self.head.requires_grad_(True)
        self.reference_head = self.head.weight.detach().clone()

    def train_images(self, parts: Collection[str]) -> None:
        """Lets parts that images go through train ("projector", "tower"), beside an adapter or alone. Their first
        values are kept: they are the reference's. What no feature depends on (layers behind the one that is read) stays
        frozen. `UsageError` for a model without such a part."""
        named = adapters.image_parameters(self.model, parts)
        for value in named.values():
            value.requires_grad_(True)
        [features] = self.image_features([np.zeros((224, 224, 3), np.uint8)], gradient=True)
        found = torch.autograd.grad(features.float().sum(), list(named.values()), allow_unused=True)
        for (name, value), gradient in zip(named.items(), found, strict=True):
            value.requires_grad_(gradient is not None)
            if gradient is not None:
                self.image_base.setdefault(name, value.detach().clone())

    @property
    def images_train(self) -> bool:
        """Whether image features are no constants: a part that images go through trains."""
        return any(value.requires_grad for name, value in self._image_weights())

    @property
    def image_version(self) -> tuple[int, ...]:
        """What image features depend on besides the image; changes with every step of a part that images go through."""
        return (self._image_off, *(value._version for _, value in self._image_weights()))

    def _image_weights(self) -> list[tuple[str, nn.Parameter]]:
        weights = dict(self.model.named_parameters()) if self.image_base else {}
        return [(name, weights[name]) for name in self.image_base]

    def _exchange_image_weights(self) -> None:
        """What trained and what stood there before change places."""
        for name, value in self._image_weights():
            value.data, self.image_base[name] = self.image_base[name], value.data

    @contextlib.contextmanager
    def _images_off(self) -> Iterator[None]:
        self._exchange_image_weights()
        self._image_off = bool(self.image_base)
        try:
            yield
        finally:
            self._image_off = False
            self._exchange_image_weights()

    def trainable(self) -> dict[str, nn.Parameter]:
        """What trains, by name, in a fixed order."""
        found = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return found | {
            f"projection.{name}": p for name, p in (self.projection.named_parameters() if self.projection else ())
        }

    def trainable_table(self) -> str:
        """One line per part of the model: its parameters and how many of them train."""
        return adapters.trainable_table(self.model)

    @contextlib.contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The reference: the same weights with the adapter disabled, in eval mode, without gradient."""
        if self.reference_head is not None:
            raise UsageError(
                "with all weights training there is no adapter to turn off; fill the reference cache before step one"
            )
        off = self.peft.disable_adapter() if self.peft is not None else contextlib.nullcontext()
        straight = self.projection.off() if self.projection is not None else contextlib.nullcontext()
        with self.evaluating(), off, straight, self._images_off():
            yield

    def fingerprint(self) -> str:
        """Hash of all that its outputs depend on, as it is now; see `models.fingerprint`."""
        from clinalign.models.fingerprint import fingerprint

        return fingerprint(self)

    @contextlib.contextmanager
    def evaluating(self, *, gradient: bool = False) -> Iterator[None]:
        """Eval mode, no gradient unless asked; afterwards the mode is what it was."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.set_grad_enabled(gradient):
                yield
        finally:
            self.model.train(training)

    def _refuse_second_adapter(self) -> None:
        if self.peft is not None or self.reference_head is not None:
            raise UsageError(f"{self.name}: already being trained; load the model again, or remove its adapter first")
