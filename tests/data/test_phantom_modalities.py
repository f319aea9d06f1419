"""Phantom fundus photographs and stacks of slices: exact masks and counterfactuals, things where they should be."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from clinalign.data.phantom import volume
from clinalign.data.phantom.fundus import (
    CORNERS,
    EYES,
    KINDS,
    LARGE_CUP,
    Eye,
    Laterality,
    Lesion,
    counterfactual,
    draw_fundus,
    sample_groups,
)
from clinalign.data.phantom.sheet import second_sheet
from clinalign.data.phantom.volume import SolidNodule, Volume, render_volume, sample_volume, window, without_nodule
from clinalign.errors import UsageError

ALL = tuple(Lesion(kind, corner) for kind, corner in itertools.product(KINDS, CORNERS))
EYE_GOLDEN: dict[tuple[Laterality, int], str] = {
    ("OD", 64): "be8270069947fa4ea0eaba3b",
    ("OS", 64): "74903d808921441ae750edc4",
    ("OS", 128): "cd618a13f90c60a41717b288",
}
STACK_GOLDEN = {(8, 64): "01b6e7f97ed651e92d38fa5e", (16, 32): "9aa7e384fd6c0248c74c25e3"}


def eye_digest(side: Laterality, px: int) -> str:
    drawn = draw_fundus(Eye(7, side, ALL, 75), px)
    arrays = (drawn.image, *drawn.lesions.values(), drawn.disc_mask, drawn.cup_mask, drawn.vessels)
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
@pytest.mark.parametrize("px", [64, 128])
def test_a_group_s_mask_is_exact_and_lies_in_its_quadrant(side: Laterality, px: int) -> None:
    for patient, kind in itertools.product(range(1 if px == 128 else 4), KINDS):
        eye = Eye(patient, side, tuple(Lesion(kind, corner) for corner in CORNERS))
        drawn = draw_fundus(eye, px)
        for lesion, mask in drawn.lesions.items():
            other = counterfactual(eye, lesion, px)
            assert mask.any()
            assert np.array_equal((drawn.image != other).any(axis=2), mask)
            rows, columns = np.nonzero(mask)
            upper, nasal = lesion.corner.startswith("superior"), lesion.corner.endswith("nasal")
            assert (rows < px // 2).all() if upper else (rows >= px // 2).all()
            right = nasal == (side == "OD")  # the nasal side is at image right in a right eye
            assert (columns >= px // 2).all() if right else (columns < px // 2).all()


def test_masks_stay_exact_where_groups_of_several_kinds_share_a_quadrant() -> None:
    eye = Eye(3, "OS", ALL)
    drawn = draw_fundus(eye, 64)
    for lesion, mask in drawn.lesions.items():
        assert np.array_equal((drawn.image != counterfactual(eye, lesion, 64)).any(axis=2), mask)


@pytest.mark.parametrize("side", EYES)
def test_disc_is_nasal_fovea_temporal_of_it_and_vessels_leave_the_disc(side: Laterality) -> None:
    for patient in range(20):
        drawn = draw_fundus(Eye(patient, side), 128)
        nasal = 1 if side == "OD" else -1
        assert (drawn.disc[0] - 512) * nasal > 0 > (drawn.fovea[0] - 512) * nasal
        assert abs(np.nonzero(drawn.disc_mask)[1].mean() - drawn.disc[0] // 8) < 2
        assert drawn.vessels.any() and (drawn.vessels & drawn.disc_mask).any()


def test_a_large_cup_fills_more_of_the_disc() -> None:
    for patient in range(12):
        normal, large = (draw_fundus(Eye(patient, "OD", (), cup), 128) for cup in (30, 75))
        differs = (normal.image != large.image).any(axis=2)
        assert differs.any() and not (differs & ~large.disc_mask).any()
        assert large.image[large.disc_mask].mean() > normal.image[normal.disc_mask].mean()
        assert np.array_equal(normal.disc_mask, large.disc_mask) and (large.cup_mask & ~normal.cup_mask).any()


def test_eyes_of_a_patient_differ_and_samples_follow_the_prevalence() -> None:
    assert (draw_fundus(Eye(3, "OD")).image != draw_fundus(Eye(3, "OS")).image[:, ::-1]).any()
    eyes = [sample_groups(patient, side, 0.3, KINDS) for patient in range(500) for side in EYES]
    assert eyes[7] == sample_groups(3, "OS", 0.3, KINDS)
    for lesion in ALL:  # four deviations of 1 000 draws at .3 are .058
        assert abs(np.mean([lesion in eye.lesions for eye in eyes]) - 0.3) < 0.058
    assert abs(np.mean([eye.cup >= LARGE_CUP for eye in eyes]) - 0.3) < 0.058


def test_order_of_the_groups_does_not_matter() -> None:
    one, other = draw_fundus(Eye(5, "OS", ALL)), draw_fundus(Eye(5, "OS", ALL[::-1]))
    assert np.array_equal(one.image, other.image)
    assert all(np.array_equal(mask, other.lesions[lesion]) for lesion, mask in one.lesions.items())


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
        lambda: Lesion("drusen", "superior nasal"),
        lambda: Eye(1, "left"),  # type: ignore[arg-type]
        lambda: Eye(1, "OD", (ALL[0], ALL[0])),
        lambda: draw_fundus(Eye(1, "OD"), 50),
        lambda: sample_groups(1, "OD", 2.0),
        lambda: counterfactual(Eye(1, "OD"), ALL[0]),
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
