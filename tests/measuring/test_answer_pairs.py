"""The packed margin equals two separate teacher-forced passes."""

import numpy as np
import pytest
import torch
from torch import nn

from clinalign.measuring.evidence import AnswerPair, margins
from clinalign.models.attention import NOTHING
from clinalign.models.head import PLAIN

IMAGE, WIDTH, VOCABULARY = 99, 16, 100


class Tiny:
    """Two attention layers that obey mask and positions; an image is one token, its mean on every coordinate."""

    device = torch.device("cpu")
    pad_id, unpacked, reference_head, peft, readout = 3, False, None, None, PLAIN
    image_version, images_train, image_base = (), False, ()

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = [nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(4)]) for _ in range(2)]
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.forwards = 0

    def expand(self, prompt, grids):
        return [1, *[IMAGE] * len(grids), *(2 + ord(c) % 90 for c in prompt)]

    def image_grid(self, image):
        return (1, 1)

    def positions(self, ids, grids):
        assert ids.count(IMAGE) == len(grids)
        return torch.arange(len(ids))[None]

    def image_features(self, images):
        return [torch.full((1, WIDTH), float(image.mean()) / 50) for image in images]

    def hidden_states(self, ids, features, mask, positions, request=NOTHING):
        self.forwards += 1
        x = self.embed(ids)
        for row, given in enumerate(features):
            if given:
                x = x.clone()
                x[row, ids[row] == IMAGE] = torch.cat(given)
        x = x + self.place(positions[0])
        for q, k, v, o in self.layers:
            scores = (q(x) @ k(x).transpose(1, 2) / WIDTH**0.5).masked_fill(~mask[:, 0], -torch.inf)
            x = x + o(scores.softmax(-1) @ v(x)).tanh()
        return x if request.query_columns is None else x[torch.arange(len(x))[:, None], request.query_columns]

    def logits(self, rows):
        return self.head(rows)


@torch.no_grad()
def naive(vlm: Tiny, pair: AnswerPair) -> float:
    totals = []
    for answer in (pair.answer, pair.counterfactual):
        prompt = vlm.expand(pair.prompt, pair.images)
        ids = torch.tensor([prompt + answer])
        length = ids.shape[1]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
        features = [vlm.image_features(pair.images)] if pair.images else [[]]
        logps = vlm.logits(vlm.hidden_states(ids, features, mask, torch.arange(length)[None, None])[0]).log_softmax(-1)
        totals.append(sum(logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)))
    return totals[0] - totals[1]


def pairs() -> list[AnswerPair]:
    rng = np.random.default_rng(0)
    image = [rng.integers(0, 255, (4, 4, 3), dtype=np.uint8) for _ in range(6)]
    return [
        AnswerPair("where is it", [image[0]], [5, 6, 7, 8, 0], [5, 6, 9, 8, 0]),
        AnswerPair("is", [image[1]], [5, 6, 0], [7, 6, 8, 8, 0]),  # nothing in common
        AnswerPair("a much longer question?", [image[2]], [5, 6, 7, 0], [5, 6, 0]),  # one is the start of the other
        AnswerPair("two", [image[3], image[4]], [5, 6, 7, 0], [5, 8, 6, 7, 0]),  # an insertion
        AnswerPair("text only", [], [5, 6, 0], [5, 7, 0]),
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_packed_equals_naive(batch_size):
    vlm = Tiny()
    got = margins(vlm, pairs(), batch_size=batch_size)
    assert vlm.forwards == -(-5 // batch_size)
    assert got == pytest.approx([naive(vlm, c) for c in pairs()], abs=1e-5)
    assert len({round(x, 3) for x in got}) == 5 and min(abs(x) for x in got) > 1e-3


def test_equal_answers_have_no_margin():
    pair = pairs()[0]
    assert margins(Tiny(), [AnswerPair("q", pair.images, [5, 6, 0], [5, 6, 0])], batch_size=1) == [0.0]


def test_swapping_the_answers_turns_the_sign():
    one = pairs()[1]
    two = AnswerPair(one.prompt, one.images, one.counterfactual, one.answer)
    first, second = margins(Tiny(), [one, two], batch_size=2)
    assert first == pytest.approx(-second, abs=1e-5)
