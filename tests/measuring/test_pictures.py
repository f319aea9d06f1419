"""Token rewards and attention maps of the shown examples against plain forwards, one answer and prompt at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from clinalign.imaging.images import read_image, write_png
from clinalign.measuring.attention import to_images
from clinalign.measuring.pictures import GENERAL, look, picture_examples, raster
from clinalign.models.attention import AttentionRequest, Probe
from clinalign.models.features import from_arrays
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.tree import Fork, score, tree_of
from clinalign.records import Example, Outcome, Region

QUESTION = "Where is the nodule?"
ANSWERS = ("There is a nodule in the left upper lung.", "There is a large nodule in the right lower lung.")


def prompt_attention(vlm, prompt, images):
    """Attention of the last prompt token to the image tokens, [layers, H, N], from a prefill of the prompt alone."""
    ids, features, grids = encode_prompts(vlm, [(prompt, images)])
    probe = Probe(torch.tensor([[len(ids[0]) - 1]]))
    prefill(vlm, ids, features, grids, AttentionRequest(probe=probe))
    image = torch.tensor(ids[0]) == vlm.image_token_id
    return torch.stack([probe[i][0, :, 0][:, image] for i in sorted(probe)])


def outcome(example: Example, system: str, text: str) -> Outcome:
    return Outcome(example.id, "open", "t", system, "greedy", 0, "clean", text, True, "rules")


@pytest.fixture
def example(tmp_path: Path) -> Example:
    write_png(tmp_path / "images" / "a.png", tiny.image(3))
    region = Region("nodule", [8.0, 8.0, 12.0, 12.0])
    return Example("../odd/" + "x" * 300, ["images/a.png"], QUESTION, "left", regions=[region], patient_id="p")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_answers_read_together_score_as_each_alone(family: str, example: Example, tmp_path: Path) -> None:
    vlm = tiny.tiny(family)
    images = [read_image(tmp_path / example.images[0])]
    features = [vlm.image_features(images)]
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]
    encoded, [keys] = from_arrays(vlm, [images])
    tree = tree_of(vlm, QUESTION, images, keys, [Fork([answer]) for answer in ids])
    [scored] = score(vlm, [tree], encoded, attention=True)
    together = [found[0].tolist() for found in scored.logps]
    attention = to_images(vlm, tree, scored.attention, images)[0].mean(0)
    before = vlm.prompt_ids(QUESTION, images)
    grids = [vlm.image_grid(images[0])]
    for answer, values in zip(ids, together):
        row = torch.tensor([[*before, *answer]])
        start = vlm.positions(before, grids)
        after = (start.max() + 1 + torch.arange(len(answer))).expand(len(start), -1)
        mask = torch.ones(row.shape[1], row.shape[1], dtype=torch.bool).tril()[None, None]
        hidden = vlm.hidden_states(row, features, mask, vlm.axes(torch.cat([start, after], 1)[:, None]))
        logps = vlm.logits(hidden[0, len(before) - 1 : -1]).log_softmax(-1)
        alone = logps[torch.arange(len(answer)), torch.tensor(answer)]
        assert torch.allclose(torch.tensor(values), alone, atol=1e-4)
    probed = prompt_attention(vlm, QUESTION, images).mean((0, 1)).numpy()
    assert np.allclose(attention, probed, atol=1e-6)


def test_the_map_is_relative_to_a_general_prompt(example: Example, tmp_path: Path) -> None:
    vlm = tiny.tiny("llava")
    seen = look(vlm, example, tmp_path, dict.fromkeys(("base", "method"), ANSWERS[0]))
    image = read_image(tmp_path / example.images[0])
    rows = [prompt_attention(vlm, prompt, [image]).mean((0, 1)).numpy() for prompt in (QUESTION, GENERAL)]
    expected = raster(rows[0] / rows[1], vlm.image_token_rects(image), image.shape[:2])
    assert np.allclose(seen["map"], expected, atol=1e-4) and seen["logps"]["base"] == seen["logps"]["method"]


def test_a_raster_puts_each_value_where_its_token_lies() -> None:
    """Four quarters of an 8 x 4 image (wide): 48 columns, 24 rows; a class token over the whole image is left out."""
    rects = np.array([[0, 0, 8, 4], [0, 0, 4, 2], [4, 0, 4, 2], [0, 2, 4, 2], [4, 2, 4, 2]], float)
    out = raster(np.array([9.0, 1.0, 2.0, 3.0, 4.0]), rects, (4, 8))
    assert out.shape == (24, 48)
    assert [out[0, 0], out[0, 47], out[23, 0], out[23, 47]] == [1.0, 2.0, 3.0, 4.0]
    assert (out[12:, 24:] == 4.0).all() and (out[:12, :24] == 1.0).all()


def test_pictures_stay_in_the_folder_and_rewards_are_policy_minus_reference(example: Example, tmp_path: Path) -> None:
    reference, policy = tiny.tiny("llava", 0), tiny.tiny("llava", 1)
    outcomes = [outcome(example, name, text) for name, text in zip(("base", "m"), ANSWERS)]
    path = picture_examples({"base": lambda: reference, "m": lambda: policy}, [example], outcomes, tmp_path, 45.0)
    row = json.loads(path.read_text())["examples"][example.id]
    written = [*row["images"].values(), *row["attention"].values()]
    assert set(row["images"]) >= {"lesion_noise", "inpainted"} and all((tmp_path / name).is_file() for name in written)
    assert {p.parent.name for p in tmp_path.rglob("*.png")} == {"images", "attention"}
    texts = dict(zip(("base", "m"), ANSWERS))
    for name, text in texts.items():
        seen = [look(vlm, example, tmp_path, texts)["logps"][name] for vlm in (policy, reference)]
        rewards = [a - b for a, b in zip(seen[0][1], seen[1][1])]
        assert np.allclose([r[2] for r in row["tokens"][name]], rewards, atol=1e-3) and max(map(abs, rewards)) > 0.1
        assert "".join(text[a:b] for a, b, _ in row["tokens"][name]) == text


def test_a_question_without_an_image_has_rewards_and_no_map(tmp_path: Path) -> None:
    text_only = Example("t", [], QUESTION, "left")
    vlm = tiny.tiny("llava")
    outcomes = [outcome(text_only, name, ANSWERS[0]) for name in ("base", "m")]
    path = picture_examples({"base": lambda: vlm, "m": lambda: vlm}, [text_only], outcomes, tmp_path, 45.0)
    row = json.loads(path.read_text())["examples"]["t"]
    assert row["images"] == {} and row["attention"] == {} and {r[2] for r in row["tokens"]["m"]} == {0.0}
