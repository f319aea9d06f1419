"""Corrupted images of pairs, drawn at the model's input resolution."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinalign.imaging.images import read_image, read_mask, write_png
from clinalign.lesions import corrupt_pairs
from clinalign.lesions.options import LesionOptions
from clinalign.lesions.regions import input_mask, region_of
from clinalign.lesions.variants import example_conditions
from clinalign.records import Example, Pair, Region
from clinalign.storage import Quarantine, read_table, write_table


class Resizing:
    """The two operations corruption asks of a model: here a resize to 32 x 32."""

    side = 32

    def input_image(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == (self.side, self.side):
            return image
        return np.asarray(Image.fromarray(image).resize((self.side, self.side), Image.Resampling.BOX))

    def input_mask(self, mask: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(mask).resize((self.side, self.side), Image.Resampling.NEAREST))


def pair(example: Example, number: int = 0) -> Pair:
    return Pair(
        f"{example.id}/{number}", example.id, 0, example.images, example.question, "a", "b",
        [], [], "chosen", [], [], True, "side", "rule",
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    image = np.zeros((128, 128), dtype=np.uint8)
    image[8:120, 8:120] = rng.integers(100, 156, (112, 112))
    write_png(tmp_path / "images" / "a.png", image)
    write_png(tmp_path / "images" / "b.png", 255 - image)
    without = image.copy()
    without[30:60, 20:50] = 110
    write_png(tmp_path / "images" / "without.png", without)
    mask = np.zeros((128, 128), dtype=bool)
    mask[30:60, 20:50] = True
    write_png(tmp_path / "masks" / "a.png", mask)
    return tmp_path


def example(**changes) -> Example:
    base = Example("e1", ["images/a.png"], "Where?", "left", regions=[Region("nodule", None, "masks/a.png")])
    return replace(base, **changes)


def run(folder: Path, examples: list[Example], **options) -> tuple[list[Pair], Quarantine]:
    quarantine = Quarantine(folder / "quarantine.jsonl")
    pairs = [pair(e) for e in examples]
    return corrupt_pairs(pairs, examples, folder, Resizing(), LesionOptions(**options), quarantine), quarantine


def index(folder: Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in (folder / "corrupted" / "index.jsonl").read_text().splitlines()]
    return {row["file"]: row for row in rows}


@pytest.mark.parametrize("kind", ["noise", "inpaint"])
def test_at_input_resolution_only_the_region_changes(folder: Path, kind: str) -> None:
    [done], _ = run(folder, [example()], kind=kind)
    vlm = Resizing()
    before = vlm.input_image(read_image(folder / "images/a.png"))
    mask = vlm.input_mask(read_mask(folder / "masks/a.png"))
    after = read_image(folder / done.corrupted_images[0])
    control = read_image(folder / done.control_images[0])
    row = index(folder)[done.corrupted_images[0]]
    assert (vlm.input_image(after) == after).all(), "the model's own resize leaves it as it is"
    assert (after[~mask] == before[~mask]).all() and (after[mask] != before[mask]).any()
    assert (read_mask(folder / row["mask"]) == mask).all() and row["pixels"] == mask.sum()
    elsewhere = read_mask(folder / row["control_mask"])
    assert elsewhere.sum() == mask.sum() and not (elsewhere & mask).any()
    assert (control[~elsewhere] == before[~elsewhere]).all() and (control[elsewhere] != before[elsewhere]).any()
    assert (done.corruption, done.corruption_area, done.region_source) == (kind, "lesion", "dataset")
    assert done.region == Region("nodule", None, "masks/a.png") and done.sigma == (45.0 if kind == "noise" else 0.0)


def test_noise_drawn_at_native_size_is_averaged_away(folder: Path) -> None:
    """128 -> 32 pixels averages 4 x 4: SD 45 becomes about 11 at the model's input; drawn there it stays 45."""
    [at_input], _ = run(folder, [example()])
    realised = index(folder)[at_input.corrupted_images[0]]["realised_sd"]
    [native], _ = run(folder, [example()], draw_at="native")
    averaged = index(folder)[native.corrupted_images[0]]
    assert realised == pytest.approx(45, rel=0.2)
    assert averaged["draw_at"] == "native" and averaged["realised_sd"] == pytest.approx(45 / 4, rel=0.25)


def files_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "corrupted").rglob("*") if path.is_file()]


def every_file(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files_in(folder)}


@pytest.mark.parametrize("kind", ["noise", "inpaint", "counterfactual", "crop", "black"])
def test_a_rebuild_is_byte_identical(folder: Path, kind: str) -> None:
    examples = [example(counterfactual="images/without.png"), example(id="e2", regions=[])]
    first, _ = run(folder, examples, kind=kind)
    before = every_file(folder)
    for path in files_in(folder):
        path.unlink()
    second, _ = run(folder, examples, kind=kind)
    assert first == second and every_file(folder) == before


def test_a_second_round_keeps_the_first_rounds_rows(folder: Path) -> None:
    run(folder, [example()])
    one = index(folder)
    run(folder, [example(id="e2", images=["images/b.png"])])
    assert one.items() < index(folder).items()


def test_the_counterfactual_and_its_stand_in(folder: Path) -> None:
    examples = [example(counterfactual="images/without.png"), example(id="e2", images=["images/b.png"])]
    [exact, stand_in], _ = run(folder, examples, kind="counterfactual")
    without = Resizing().input_image(read_image(folder / "images/without.png"))
    assert (read_image(folder / exact.corrupted_images[0]) == without).all()
    assert (exact.corruption, stand_in.corruption) == ("counterfactual", "inpaint"), "what was done is on the record"


def test_fallbacks_are_recorded(folder: Path) -> None:
    examples = [example(regions=[]), example(id="r", task="report"), example(id="t", images=[], regions=[])]
    [none, report, text], _ = run(folder, examples)
    for done in (none, report):
        assert (done.corruption, done.corruption_area, done.region_source) == ("noise", "image", "none")
        assert done.sigma == 12.0 and done.control_images is None
        assert index(folder)[done.corrupted_images[0]]["realised_sd"] == pytest.approx(12, rel=0.2)
    assert (text.corruption, text.corrupted_images) == ("none", None)
    [left_alone], _ = run(folder, [example(regions=[])], fallback="none")
    assert (left_alone.corruption, left_alone.corrupted_images) == ("none", None)
    [whole], _ = run(folder, [example()], area="image")
    assert (whole.corruption_area, whole.sigma) == ("image", 45.0)


def test_ablations_take_the_whole_image(folder: Path) -> None:
    [black], _ = run(folder, [example()], kind="black")
    assert not read_image(folder / black.corrupted_images[0]).any() and black.corruption_area == "image"
    [nothing], _ = run(folder, [example()], kind="none")
    assert nothing.corrupted_images is None


def test_only_the_first_of_several_images_is_touched(folder: Path) -> None:
    [done], _ = run(folder, [example(images=["images/a.png", "images/b.png"])])
    assert done.corrupted_images[1] == done.control_images[1] == "images/b.png"
    [whole], _ = run(folder, [example(images=["images/a.png", "images/b.png"], regions=[])])
    assert len(set(whole.corrupted_images)) == 2 and all(
        name.startswith("corrupted/") for name in whole.corrupted_images
    )


def test_each_image_region_and_kind_is_computed_once(folder: Path, monkeypatch) -> None:
    from clinalign.lesions import pairs

    calls = []
    real = pairs.views
    monkeypatch.setattr(pairs, "views", lambda *a: calls.append(1) or real(*a))
    examples = [example(), example(id="e2", question="Which side?"), example(id="e3", regions=[])]
    done, _ = run(folder, examples)
    assert len(calls) == 2 and done[0].corrupted_images == done[1].corrupted_images != done[2].corrupted_images


def test_what_cannot_be_read_is_quarantined(folder: Path) -> None:
    write_png(folder / "masks" / "small.png", np.ones((4, 4), dtype=bool))
    examples = [
        example(images=["images/none.png"]),
        example(id="e2", regions=[Region("x", None, "masks/small.png")]),
        example(id="e3"),
    ]
    done, quarantine = run(folder, examples)
    assert [p.example_id for p in done] == ["e3"]
    assert [row["reason"] for row in quarantine.rows] == ["missing_image", "mask_size"]
    assert quarantine.rows[0]["id"] == "e1/0"
    lost = corrupt_pairs([pair(example())], [], folder, Resizing(), LesionOptions(), quarantine)
    assert not lost and quarantine.rows[-1]["reason"] == "unknown_example"


def test_a_box_is_a_region_and_a_tiny_one_is_not_lost(folder: Path) -> None:
    [done], _ = run(folder, [example(regions=[Region("nodule", [20, 30, 30, 30])])])
    row = index(folder)[done.corrupted_images[0]]
    mask = Resizing().input_mask(read_mask(folder / "masks/a.png"))
    assert (read_mask(folder / row["mask"]) == mask).all()
    for x in range(8):
        tiny = np.zeros((128, 128), dtype=bool)
        tiny[64, 60 + x] = True
        found = input_mask(Resizing(), tiny)
        assert found is not None and 1 <= found.sum() <= 4


def test_a_region_outside_the_models_crop_falls_back() -> None:
    class Cropping(Resizing):
        def input_mask(self, mask: np.ndarray) -> np.ndarray:
            return mask[48:80, 48:80]

    corner = np.zeros((128, 128), dtype=bool)
    corner[0, 0] = True
    assert input_mask(Cropping(), corner) is None


def test_conditions_of_an_example(folder: Path) -> None:
    seen = example_conditions(example(images=["images/a.png", "images/b.png"]), folder, Resizing())
    assert set(seen) == {"clean", "blank", "lesion_noise", "control", "inpainted"}
    assert all(len(images) == 2 for images in seen.values())
    assert not any(image.any() for image in seen["blank"])
    [done], _ = run(folder, [example()])
    assert (read_image(folder / done.corrupted_images[0]) == seen["lesion_noise"][0]).all(), "one implementation"
    assert example_conditions(example(images=[]), folder, Resizing()) == {}
    assert region_of(example(task="report")) is None


def test_a_control_avoids_the_other_findings(folder: Path) -> None:
    mirrored = read_mask(folder / "masks/a.png")[:, ::-1]
    write_png(folder / "masks" / "other.png", mirrored)
    regions = [Region("nodule", None, "masks/a.png"), Region("effusion", None, "masks/other.png")]
    [done], _ = run(folder, [example(regions=regions)])
    control = read_mask(folder / index(folder)[done.corrupted_images[0]]["control_mask"])
    assert not (control & Resizing().input_mask(mirrored)).any()


@pytest.fixture
def stack(folder: Path) -> Example:
    """Four slices; the lesion crosses the second and the third, where it is smaller, beside another finding."""
    rng = np.random.default_rng(1)
    regions, images, without = [], [], []
    for number, side in enumerate((0, 30, 18, 0)):
        image = np.zeros((128, 128), dtype=np.uint8)
        image[8:120, 8:120] = rng.integers(100, 156, (112, 112))
        images.append(f"images/slice{number}.png")
        write_png(folder / images[-1], image)
        if side:
            mask = np.zeros((128, 128), dtype=bool)
            mask[30 : 30 + side, 20 : 20 + side] = True
            write_png(folder / f"masks/slice{number}.png", mask)
            regions.append(Region("nodule", None, f"masks/slice{number}.png", number))
            image = np.where(mask, 110, image).astype(np.uint8)
        without.append(f"images/without{number}.png")
        write_png(folder / without[-1], image)
    regions.append(Region("cyst", [80, 80, 20, 20], None, 2))
    return example(images=images, regions=regions, counterfactuals=without)


def pixels(folder: Path, names: list[str] | None) -> list[np.ndarray]:
    return [Resizing().input_image(read_image(folder / name)) for name in names or []]


@pytest.mark.parametrize("kind", ["noise", "inpaint", "counterfactual"])
@pytest.mark.parametrize("draw_at", ["input", "native"])
def test_every_slice_that_the_lesion_crosses_is_drawn_and_no_other(
    folder: Path, stack: Example, kind: str, draw_at: str
) -> None:
    [done], _ = run(folder, [stack], kind=kind, draw_at=draw_at)
    assert done.corruption == kind and done.region == stack.regions[0] and done.region.image == 1
    assert done.corrupted_images[::3] == done.control_images[::3] == stack.images[::3]
    before, after, control = (
        pixels(folder, names) for names in (stack.images, done.corrupted_images, done.control_images)
    )
    for number in (1, 2):
        mask = Resizing().input_mask(read_mask(folder / f"masks/slice{number}.png"))
        row = index(folder)[done.corrupted_images[number]]
        assert row["image"] == stack.images[number] and row["pixels"] == mask.sum()
        assert (after[number][mask] != before[number][mask]).any()
        elsewhere = read_mask(folder / row["control_mask"])
        assert elsewhere.sum() == mask.sum() and not (elsewhere & mask).any()
        assert (control[number][~elsewhere] == before[number][~elsewhere]).all()
        if kind == "counterfactual":
            assert (after[number] == pixels(folder, stack.counterfactuals)[number]).all()
        elif draw_at == "input":
            assert (after[number][~mask] == before[number][~mask]).all()
    cyst = np.zeros((128, 128), dtype=bool)
    cyst[80:100, 80:100] = True
    row = index(folder)[done.corrupted_images[2]]
    assert not (read_mask(folder / row["control_mask"]) & Resizing().input_mask(cyst)).any(), (
        "keeps off the other finding"
    )


def test_conditions_of_a_stack_hold_all_its_slices(folder: Path, stack: Example) -> None:
    drawn = example_conditions(stack, folder, Resizing())
    assert set(drawn) == {"clean", "blank", "lesion_noise", "counterfactual", "control"}
    clean = pixels(folder, stack.images)
    for name in ("lesion_noise", "counterfactual", "control"):
        changed = [bool((a != b).any()) for a, b in zip(drawn[name], clean, strict=True)]
        assert changed == [False, True, True, False], name
    assert not any(image.any() for image in drawn["blank"]) and len(drawn["blank"]) == 4
    inpainted = example_conditions(replace(stack, counterfactuals=[]), folder, Resizing())
    assert "counterfactual" not in inpainted and (inpainted["inpainted"][2] != clean[2]).any()


def test_a_condition_that_one_slice_does_not_allow_is_left_out(folder: Path, stack: Example) -> None:
    """On the third slice the other finding covers all that is not the lesion: no place for a control is left."""
    crowded = replace(stack, regions=[*stack.regions[:2], Region("cyst", [0, 0, 128, 128], None, 2)])
    drawn = example_conditions(crowded, folder, Resizing())
    assert "control" not in drawn and "lesion_noise" in drawn
    [done], _ = run(folder, [crowded])
    assert done.control_images is None and done.corrupted_images[1] != stack.images[1]


def test_a_region_on_an_image_that_is_not_there_is_quarantined(folder: Path, stack: Example) -> None:
    _, quarantine = run(folder, [replace(stack, regions=[replace(stack.regions[0], image=4)])])
    assert [(row["field"], row["reason"]) for row in quarantine.rows] == [("regions", "no_such_image")]


def test_a_ladder_takes_away_more_with_every_step(folder: Path) -> None:
    """Shares of each pixel's change, of the first image alone where corruption leaves the second; a table keeps it."""
    given = example(images=["images/a.png", "images/b.png"], counterfactual="images/without.png")
    [done], _ = run(folder, [given], kind="counterfactual", levels=[0.25, 0.5])
    assert [images[1] for images in done.ladder_images] == ["images/b.png"] * 2
    whole, gone = (
        Resizing().input_image(read_image(folder / images[0])).astype(float)
        for images in (done.images, done.corrupted_images or [])
    )
    for share, images in zip((0.25, 0.5), done.ladder_images, strict=True):
        assert np.abs(read_image(folder / images[0]) - (whole + share * (gone - whole))).max() <= 0.5
    assert np.abs(gone - whole).max() > 20
    write_table(folder / "p.parquet", [done], Pair)
    assert read_table(folder / "p.parquet", Pair) == [done]
    [plain], _ = run(folder, [given], kind="counterfactual")
    assert plain == replace(done, ladder_images=[])
    with pytest.raises(ValueError, match="sort them"):
        LesionOptions(levels=[0.5, 0.25])
