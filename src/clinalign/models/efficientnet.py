"""EfficientNet-Lite0 as the tower of a LLaVA: 7 x 7 tokens of width 1280 at 224 px.

Transformers has no such tower, so it lives here and `register` makes it known to `AutoModel`: a folder that names
`efficientnet_lite` in its `vision_config` is then an ordinary LLaVA folder, and no code from the folder is run.
Source: arXiv 1905.11946 without squeeze-and-excitation and with ReLU6, the shape that its authors call "lite"; padding
is TensorFlow's "same", as the published weights expect.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

MODEL_TYPE = "efficientnet_lite"
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""(blocks, kernel, stride of the first, expansion, channels out) of Lite0."""
EPSILON = 1e-3


class EfficientNetLiteConfig(PretrainedConfig):
    """Lite0; only the image side can differ (a multiple of 32). `patch_size` is the stride of the last features."""

    model_type = MODEL_TYPE
    base_config_key = "vision_config"

    def __init__(self, image_size: int = 224, hidden_size: int = 1280, patch_size: int = 32, **options: Any) -> None:
        self.image_size, self.hidden_size, self.patch_size = image_size, hidden_size, patch_size
        super().__init__(**options)


class SamePadded(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) cells; an odd padding goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        sides = zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1])
        pads = [max((-(-side // s) - 1) * s + k - side, 0) for side, k, s in sides]
        return super().forward(functional.pad(x, [part for p in pads for part in (p // 2, p - p // 2)]))


class Block(nn.Module):
    """Expansion, depthwise convolution, projection; a shortcut where the shape stays."""

    def __init__(self, wide: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        inner = wide * expansion
        if expansion > 1:
            self.expand, self.expand_norm = nn.Conv2d(wide, inner, 1, bias=False), _norm(inner)
        self.depthwise = SamePadded(inner, inner, kernel, stride, groups=inner, bias=False)
        self.depthwise_norm = _norm(inner)
        self.project, self.project_norm = nn.Conv2d(inner, out, 1, bias=False), _norm(out)
        self.shortcut = stride == 1 and wide == out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.expand_norm(self.expand(x))) if hasattr(self, "expand") else x
        y = functional.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.shortcut else y


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class EfficientNetLiteModel(PreTrainedModel):
    """Pixels [B, 3, S, S] to `last_hidden_state` [B, (S / 32)^2, 1280], row by row. BatchNorm never leaves eval mode:
    the tower is frozen, and its statistics are part of its weights."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["Block"]

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.stem, self.stem_norm = SamePadded(3, 32, 3, 2, bias=False), _norm(32)
        blocks, wide = [], 32
        for count, kernel, stride, expansion, out in STAGES:
            for i in range(count):
                blocks.append(Block(wide, kernel, stride if i == 0 else 1, expansion, out))
                wide = out
        self.blocks = nn.ModuleList(blocks)
        self.top, self.top_norm = nn.Conv2d(wide, config.hidden_size, 1, bias=False), _norm(config.hidden_size)
        self.post_init()

    def train(self, mode: bool = True) -> EfficientNetLiteModel:
        return super().train(False)

    def forward(self, pixel_values: Tensor, **unused: Any) -> BaseModelOutput:
        x = functional.relu6(self.stem_norm(self.stem(pixel_values)))
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.top_norm(self.top(x)))
        tokens = x.flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def register() -> None:
    """Makes the tower known to `AutoConfig` and `AutoModel`; doing it twice changes nothing."""
    AutoConfig.register(MODEL_TYPE, EfficientNetLiteConfig, exist_ok=True)
    AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)


NAMES = {
    "_conv_stem": "stem",
    "_bn0": "stem_norm",
    "_conv_head": "top",
    "_bn1": "top_norm",
}
BLOCK_NAMES = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


def published_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published PyTorch checkpoint's names as ours; its classifier is left out."""
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "_fc":
            continue
        if first == "_blocks":
            number, part, last = rest.split(".")
            renamed[f"blocks.{number}.{BLOCK_NAMES[part]}.{last}"] = value
        else:
            renamed[f"{NAMES[first]}.{rest}"] = value
    return renamed


def load_published(path: Any, image_size: int = 224) -> EfficientNetLiteModel:
    """The tower with the weights of a published checkpoint, read with `weights_only=True`."""
    model = EfficientNetLiteModel(EfficientNetLiteConfig(image_size=image_size))
    model.load_state_dict(published_weights(torch.load(path, map_location="cpu", weights_only=True)))
    return model.eval()
