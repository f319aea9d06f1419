"""Teachers of open_clip, on stand-ins of its two kinds of image tower (the package itself needs torchvision)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tiny
import torch
from torch import Tensor, nn

from clinalign.errors import UsageError
from clinalign.models.teachers import OpenClipTeacher, load_teacher

WIDTH, HEADS = 16, 2


class Block(nn.Module):
    """open_clip's residual block, attention alone."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        n = self.ln_1(x)
        self.seen = self.attn(n, n, n, average_attn_weights=False)
        return x + self.seen[0]


class Attention(nn.Module):
    """timm's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.qkv, self.q_norm, self.k_norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        self.seen = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return (self.seen @ v).transpose(1, 2).flatten(2)


class TimmBlock(nn.Module):
    """timm's block, attention alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))


class Standin(nn.Module):
    """A CLIP of one block, 32 x 32 px in patches of 8."""

    def __init__(self, timm: bool, batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = TimmBlock() if timm else Block(batch_first)
        self.conv = nn.Conv2d(3, WIDTH, 8, 8)
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.norm, self.batch_first = nn.LayerNorm(WIDTH), batch_first or timm
        tower = {"image_size": (32, 32), "image_mean": (0.5, 0.4, 0.3), "image_std": (0.5, 0.5, 0.5)}
        trunk = SimpleNamespace(blocks=[self.block], num_prefix_tokens=1, patch_embed=SimpleNamespace(proj=self.conv))
        if timm:
            self.tower = SimpleNamespace(**tower, trunk=trunk)
        else:
            own = {"transformer": SimpleNamespace(resblocks=[self.block]), "conv1": self.conv, "ln_post": self.norm}
            self.tower = SimpleNamespace(**tower, **own, proj=torch.randn(WIDTH, 6))

    @property
    def visual(self) -> SimpleNamespace:
        return self.tower

    def encode_image(self, pixels: Tensor) -> Tensor:
        x = torch.cat([self.start.expand(len(pixels), -1, -1), self.conv(pixels).flatten(2).transpose(1, 2)], dim=1)
        self.out = self.block(x) if self.batch_first else self.block(x.transpose(0, 1)).transpose(0, 1)
        return self.out[:, 0]

    def encode_text(self, ids: Tensor) -> Tensor:
        return ids.float()


@pytest.mark.parametrize(("timm", "batch_first"), [(True, True), (False, True), (False, False)])
def test_last_block_and_its_class_token(timm: bool, batch_first: bool) -> None:
    model = Standin(timm, batch_first)
    teacher_model = OpenClipTeacher(model, lambda texts: torch.eye(6)[: len(texts)])
    looks = teacher_model.encode([tiny.image(0, 40, 40), tiny.image(1, 64, 64)])
    assert teacher_model.grid == (4, 4) and teacher_model.fill == (127, 102, 76)
    maps = model.block.attn.seen if timm else model.block.seen[1]
    for i, look in enumerate(looks):
        assert torch.allclose(look.features, model.out[i, 1:], atol=1e-6)
        assert torch.allclose(look.attention, maps[i].mean(0)[0, 1:], atol=1e-6)
    asked = [tiny.image(0, 40, 40)] * 2
    if timm:
        with pytest.raises(UsageError, match="own transformer"):
            teacher_model.relevance(asked, ["a", "b"])
    else:
        one, two = teacher_model.relevance(asked, ["a", "b"])
        assert one.shape == (16,) and one.min() == 0 and one.max() == 1 and not torch.allclose(one, two)


def test_what_cannot_be_an_expert_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Standin(False)
    model.tower = SimpleNamespace(image_size=32)
    with pytest.raises(UsageError, match="no vision transformer"):
        OpenClipTeacher(model)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install 'clinalign\[open_clip\]'"):
        load_teacher("open_clip:hf-hub:microsoft/BiomedCLIP")
    monkeypatch.setitem(sys.modules, "open_clip", ModuleType("open_clip"))
    with pytest.raises(UsageError, match="pickles are not loaded"):
        load_teacher("open_clip:ViT-B-16:weights.pt")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="only pickled weights"):
        load_teacher(f"open_clip:local-dir:{tmp_path}")


def test_loading_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, asked = ModuleType("open_clip"), []

    def create_model(name: str, **options: object) -> Standin:
        asked.append((name, options["pretrained"], options["require_pretrained"]))
        if "broken" in name:
            raise RuntimeError("no such model\nlong")
        return Standin(False)

    fake.create_model, fake.get_tokenizer = create_model, lambda name: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    assert load_teacher("open_clip:ViT-B-16-quickgelu:unimed.safetensors").grid == (4, 4)
    assert load_teacher("open_clip:hf-hub:microsoft/X").name == "open_clip:hf-hub:microsoft/X"
    assert asked == [("ViT-B-16-quickgelu", "unimed.safetensors", True), ("hf-hub:microsoft/X", None, True)]
    with pytest.raises(UsageError, match="cannot load the teacher: no such model"):
        load_teacher("open_clip:local-dir:broken")
