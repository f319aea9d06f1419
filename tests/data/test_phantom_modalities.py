"""Phantom fundus photographs and stacks of slices: exact masks and counterfactuals, things where they should be."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from clinalign.data.phantom import fundus, volume
from clinalign.data.phantom.fundus import (
    EYES,
    LESIONS,
    QUADRANTS,
    Eye,
    EyeLesion,
    render_eye,
    sample_eye,
    without_lesion,
)
from clinalign.data.phantom.sheet import second_sheet
from clinalign.data.phantom.volume import SolidNodule, Volume, render_volume, sample_volume, window, without_nodule
from clinalign.errors import UsageError

ALL = tuple(EyeLesion(kind, quadrant) for kind, quadrant in itertools.product(LESIONS, QUADRANTS))
EYE_GOLDEN = {
    ("OD", 32): "1ad524772ed2b37093fae281",
    ("OD", 64): "1964a9d5cee37ea5740db3c8",
    ("OS", 64): "ada5c638cdcab4828a1a87f4",
    ("OS", 128): "72ccf936be1dda246278f20c",
}
STACK_GOLDEN = {(8, 64): "01b6e7f97ed651e92d38fa5e", (16, 32): "9aa7e384fd6c0248c74c25e3"}


def eye_digest(side: str, px: int) -> str:
    drawn = render_eye(Eye(7, side, ALL, "large"), px)
    arrays = (drawn.image, *drawn.masks, drawn.disc, drawn.fovea, drawn.vessels)
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:24]


def stack_digest(slices: int, px: int) -> str:
    drawn = render_volume(Volume(7, slices, SolidNodule("left", "middle", "large")), px)
    return hashlib.sha256(drawn.hounsfield.astype("<i2").tobytes() + drawn.mask.tobytes()).hexdigest()[:24]


@pytest.mark.parametrize(("side", "px"), list(EYE_GOLDEN))
def test_golden_eyes(side: str, px: int) -> None:
    assert eye_digest(side, px) == EYE_GOLDEN[side, px]


@pytest.mark.parametrize(("slices", "px"), list(STACK_GOLDEN))
def test_golden_stacks(slices: int, px: int) -> None:
    assert stack_digest(slices, px) == STACK_GOLDEN[slices, px]


@pytest.mark.parametrize("side", EYES)
@pytest.mark.parametrize("px", [32, 64, 128])
def test_a_group_s_mask_is_exact_and_lies_in_its_quadrant(side: str, px: int) -> None:
    for patient in range(1 if px == 128 else 4):
        eye = Eye(patient, side, ALL)
        drawn = render_eye(eye, px)
        for lesion, mask in zip(eye.lesions, drawn.masks, strict=True):
            other = render_eye(without_lesion(eye, lesion), px).image
            assert mask.any()
            assert np.array_equal((drawn.image != other).any(axis=2), mask)
            rows, columns = np.nonzero(mask)
            upper, nasal = lesion.quadrant.startswith("supero"), lesion.quadrant.endswith("nasal")
            assert (rows < px // 2).all() if upper else (rows >= px // 2).all()
            right = nasal == (side == "OD")  # the nasal side is at image right in a right eye
            assert (columns >= px // 2).all() if right else (columns < px // 2).all()
            assert not (mask & drawn.disc).any()


@pytest.mark.parametrize("side", EYES)
def test_disc_is_nasal_fovea_temporal_of_it_and_vessels_leave_the_disc(side: str) -> None:
    for patient in range(20):
        drawn = render_eye(Eye(patient, side), 128)
        disc, fovea = (np.nonzero(mask)[1].mean() for mask in (drawn.disc, drawn.fovea))
        assert (disc > 64) == (side == "OD")
        assert abs(fovea - 64) < 8 < abs(fovea - disc)
        assert drawn.vessels.any() and (drawn.vessels & drawn.disc).any()


def test_a_large_cup_fills_more_of_the_disc() -> None:
    for patient in range(12):
        normal, large = (render_eye(Eye(patient, "OD", (), cup), 128) for cup in ("normal", "large"))
        differs = (normal.image != large.image).any(axis=2)
        assert differs.any() and not (differs & ~np.pad(large.disc, 2)[2:-2, 2:-2] & ~_grown(large.disc)).any()
        assert large.image[large.disc].mean() > normal.image[normal.disc].mean()


def _grown(mask: np.ndarray) -> np.ndarray:
    wide = np.pad(mask, 2)
    return np.any([np.roll(wide, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3)], axis=0)[2:-2, 2:-2]


def test_eyes_of_a_patient_differ_and_samples_follow_the_prevalence() -> None:
    assert (render_eye(Eye(3, "OD")).image != render_eye(Eye(3, "OS")).image[:, ::-1]).any()
    eyes = [sample_eye(patient, side) for patient in range(500) for side in EYES]
    assert eyes[7] == sample_eye(3, "OS")
    for lesion in ALL:  # four deviations of 1 000 draws at .3 are .058
        assert abs(np.mean([lesion in eye.lesions for eye in eyes]) - 0.3) < 0.058
    assert abs(np.mean([eye.cup == "large" for eye in eyes]) - 0.3) < 0.058


def test_order_of_the_groups_does_not_matter() -> None:
    one, other = render_eye(Eye(5, "OS", ALL)), render_eye(Eye(5, "OS", ALL[::-1]))
    assert np.array_equal(one.image, other.image)
    assert all(np.array_equal(a, b) for a, b in zip(one.masks, other.masks[::-1], strict=True))


@pytest.mark.parametrize("slices", [4, 6, 32])
def test_a_nodule_lies_over_neighbouring_slices_of_its_side_and_zone(slices: int) -> None:
    for patient, side, zone, size in itertools.product(
        range(1), ("left", "right"), ("upper", "middle", "lower"), ("small", "large")
    ):
        stack = Volume(patient, slices, SolidNodule(side, zone, size))
        drawn, other = render_volume(stack, 32), render_volume(without_nodule(stack), 32)
        assert np.array_equal(drawn.hounsfield != other.hounsfield, drawn.mask)
        touched = drawn.touched()
        assert touched and touched == tuple(range(touched[0], touched[-1] + 1))
        columns = np.nonzero(drawn.mask)[2]
        assert (columns >= 16).all() if side == "left" else (columns < 16).all()
        largest = int(drawn.mask.sum(axis=(1, 2)).argmax())
        assert not other.mask.any()
        if slices == 32:
            assert volume.ZONES.index(zone) == min(2, max(0, (volume.depth(stack, largest) - 700) // 1100))


def test_large_nodules_span_more_than_small_ones() -> None:
    for patient in range(10):
        sizes = [
            render_volume(Volume(patient, 16, SolidNodule("right", "middle", size)), 32).mask.sum()
            for size in ("small", "large")
        ]
        assert 2 * sizes[0] < sizes[1]


def test_window_by_hand() -> None:
    """(45 - -135) * 255 // 350 = 131; under the window 0, over it 255."""
    values = np.array([[-135, 45, 215, -900, 3000]], dtype=np.int16)
    assert window(values, -135, 215).tolist() == [[0, 131, 255, 0, 255]]


def test_sampled_volumes_are_deterministic_and_half_hold_a_nodule() -> None:
    drawn = [sample_volume(patient) for patient in range(600)]
    assert drawn[5] == sample_volume(5)
    assert abs(np.mean([one.nodule is not None for one in drawn]) - 0.5) < 0.082  # four deviations


@pytest.mark.parametrize(
    "call",
    [
        lambda: EyeLesion("drusen", "superonasal"),
        lambda: Eye(1, "left"),
        lambda: Eye(1, "OD", (ALL[0], ALL[0])),
        lambda: render_eye(Eye(1, "OD"), 50),
        lambda: sample_eye(1, "OD", 2.0),
        lambda: without_lesion(Eye(1, "OD"), ALL[0]),
        lambda: Volume(1, 2),
        lambda: SolidNodule("left", "apex", "small"),
        lambda: without_nodule(Volume(1)),
        lambda: render_volume(Volume(1), 33),
        lambda: sample_volume(1, prevalence=-1.0),
        lambda: window(np.zeros((1, 1), np.int16), 5, 5),
    ],
)
def test_mistakes_are_refused_in_one_line(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_second_sheet_has_a_row_for_each_hospital_for_eyes_and_for_slices() -> None:
    assert second_sheet(zoom=1).shape == (4 * 64, 5 * 64, 3)


def test_whole_roots_are_exact() -> None:
    assert fundus._root(np.array([0, 1, 2, 3, 4, 15, 16, 17, 4096**2 - 1])).tolist() == [0, 1, 1, 1, 2, 3, 4, 4, 4095]
