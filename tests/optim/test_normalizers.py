"""The normalizers by themselves: the length of each block, worked out by hand, without an optimizer around them."""

import dataclasses
import math

import numpy as np
import pytest

from minibng.backend import BlockNorms, Group, get_backend
from minibng.optim.normalize import (
    EUCLIDEAN,
    NORMALIZERS,
    Adaptive,
    Clip,
    ClipGlobal,
    Except,
    NonFiniteError,
    Norm,
    Unit,
    norm_of,
    normalize_blocks,
    sizes_of,
)

NORMS = [Norm(2), Norm("rms"), Norm(1), Norm(math.inf)]
every_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: str(norm.name))


def norms_of(device, root, exponent):
    return BlockNorms(device.array(root), device.array(np.array(exponent, np.int32)))


def lengths(device, normalizer, root=(3.0, 4.0, 0.0), exponent=(0, 0, 0), sizes=(1.0, 4.0, 9.0), parameters=None):
    """ℓ on the host; who asks for the parameters' norms where there are none gets an error."""
    given = lambda: device.array(np.array(parameters))  # noqa: E731
    norms = norms_of(device, np.array(root), exponent)
    return device.host(normalizer.lengths(norms, device.array(np.array(sizes)), parameters and given))


# --- lengths -----------------------------------------------------------------------------------------------------


def test_unit_is_one_for_every_block(device):
    assert lengths(device, Unit()).tolist() == [1, 1, 1]


def test_clip_is_the_norm_up_to_the_clip(device):
    assert lengths(device, Clip(3.5)).tolist() == [3.0, 3.5, 0]
    assert lengths(device, Clip()).tolist() == [1, 1, 0]
    assert lengths(device, Clip(2.0), exponent=(1, 2, 0)).tolist() == [1.5, 1.0, 0]


@pytest.mark.parametrize("clip, told", [(5.0, [3, 4, 0]), (5.0000001, [3, 4, 0]), (2.5, [1.5, 2, 0])], ids=str)
def test_clip_global_shortens_all_by_one_factor(device, clip, told):
    assert lengths(device, ClipGlobal(clip)).tolist() == told


def test_a_gradient_of_the_length_of_the_clip_is_left_alone_bit_for_bit(device):
    assert 7 / 25 * 25 != 7
    assert lengths(device, ClipGlobal(25.0), (7.0, 24.0, 0.0)).tolist() == [7, 24, 0]


# the norm of the blocks of 1 and 4 entries and norms 3 and 4 taken together
WHOLE = {2: 5.0, "rms": math.sqrt((1 * 9 + 4 * 16) / 5), 1: 7.0, math.inf: 4.0}


@every_norm
@pytest.mark.parametrize("exponent", [0, 3, -3, 1020, -1020])
def test_clip_global_measures_the_whole_in_its_norm(device, norm, exponent):
    got = lengths(device, ClipGlobal(0.5, norm), (3.0, 4.0), (exponent, exponent), (1.0, 4.0))
    shorter = 0.5 / WHOLE[norm.name] if math.ldexp(WHOLE[norm.name], -exponent) > 0.5 else math.ldexp(1, -exponent)
    np.testing.assert_allclose(got, [3 * shorter, 4 * shorter], rtol=1e-15)


@every_norm
def test_norms_of_blocks_with_several_exponents_make_one(device, norm):
    """12·2⁻² and 0.25·2⁴: 3 and 4 again, and a block with nothing in it."""
    sizes = device.array(np.array([1.0, 4.0, 0.0]))
    root, exponent = device.host(norm.of_all(norms_of(device, np.array([12.0, 0.25, 0.0]), [2, -4, 0]), sizes))
    assert exponent == -4
    assert math.ldexp(root, 4) == pytest.approx(WHOLE[norm.name], rel=1e-15)


@every_norm
@pytest.mark.parametrize("root", [0.0, 5e-324, 1e-300, 1e300], ids=str)
def test_norms_of_everything_neither_over_nor_underflow(device, norm, root):
    sizes = device.array(np.array([4.0, 4.0]))
    got, exponent = device.host(norm.of_all(norms_of(device, np.array([root, root]), [7, 7]), sizes))
    assert exponent == 7 and got == pytest.approx({2: math.sqrt(2), 1: 2}.get(norm.name, 1) * root, rel=1e-15)


@every_norm
@pytest.mark.parametrize("root, size", [(3.0, 1.0), (0.0, 0.0)], ids=str)
def test_one_block_of_one_entry_or_of_none_has_the_norm_of_everything(device, norm, root, size):
    got, _ = norm.of_all(norms_of(device, np.array([root]), [0]), device.array(np.array([size])))
    assert device.host(got) == root


@every_norm
def test_the_norm_of_ones(device, norm):
    ones = {2: [0, 1, 2, 3], "rms": [1, 1, 1, 1], 1: [0, 1, 4, 9], math.inf: [1, 1, 1, 1]}
    assert device.host(norm.of_ones(device.array(np.array([0.0, 1.0, 4.0, 9.0])))).tolist() == ones[norm.name]


def test_adaptive_is_the_norm_of_the_parameters_or_the_floor(device):
    x = [0.5, 0.0, 7.0]
    assert lengths(device, Adaptive(0.25), parameters=x).tolist() == [0.5, 0.5, 7]
    assert lengths(device, Adaptive(0.25, Norm(1)), parameters=x).tolist() == [0.5, 1, 7]
    assert lengths(device, Adaptive(0.0), parameters=x).tolist() == x
    assert lengths(device, Adaptive(), parameters=[0.0, 0.0, 0.0]).tolist() == [1e-3, 2e-3, 3e-3]


def test_excepted_blocks_keep_their_length(device):
    kept = device.array(np.array([True, False, True]))
    assert lengths(device, Except(Unit(), kept)).tolist() == [3, 1, 0]


# --- settings ----------------------------------------------------------------------------------------------------


def test_who_may_make_lengths_that_are_not_finite_says_so():
    """Only the adaptive form measures the parameters, which may be anything."""
    assert {name: kind().safe for name, kind in NORMALIZERS.items()} == {
        "clip": True,
        "clip-global": True,
        "unit": True,
        "adaptive": False,
    }


@pytest.mark.parametrize("settled", [Norm(2), Clip(), ClipGlobal(), Adaptive()], ids=repr)
def test_checked_settings_stay_as_they_are(settled):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settled, dataclasses.fields(settled)[0].name, -1.0)


def test_equal_settings_are_equal():
    assert (Clip(2.0), ClipGlobal(2.0), Adaptive(0.5)) == (
        Clip(2.0),
        ClipGlobal(2.0, EUCLIDEAN),
        Adaptive(0.5, Norm(2)),
    )
    assert ClipGlobal(1.0, Norm(1)) != ClipGlobal() != Clip()


@pytest.mark.parametrize("kind", [Clip, ClipGlobal])
def test_clips_are_positive_and_finite(kind):
    for right in (5e-324, 1.7e308):
        assert kind(right).clip == right
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"clip must be positive and finite, got {wrong}"):
            kind(wrong)


def test_floors_are_finite_and_not_negative():
    for right in (0.0, 5e-324, 1.7e308):
        assert Adaptive(right).floor == right
    for wrong in (-5e-324, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"floor must be finite and not negative, got {wrong}"):
            Adaptive(wrong)


def test_norms_by_what_they_are_called():
    called = {2: 2, 1.0: 1, "rms": "rms", math.inf: math.inf, "inf": math.inf, np.float32(2): 2, np.int64(1): 1}
    assert {name: norm_of(name).name for name in called} == called
    for wrong in (True, False, "2", "Inf", 0, 3, -1, math.nan, None, (), [2], 2 + 0j, np.array(2)):
        with pytest.raises(ValueError, match="norm is 2, 'rms', 1 or inf, got "):
            norm_of(wrong)


# --- measuring ---------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_blocks(device):
    shapes = [(4, 3), (3,), (0,)]
    groups = [Group.whole("both", [0, 1], shapes), Group.whole("none", [2], shapes)]
    sizes = sizes_of(groups, get_backend(device.name))
    assert device.host(sizes).tolist() == [15, 0] and sizes.dtype == np.float64


@every_norm
def test_norms_measure_blocks_of_several_tensors_of_one_entry_and_of_none(device, norm):
    tensors = device.arrays([np.array([[3.0, 0.0], [-4.0, 0.0]]), np.zeros(0), np.array([12.0]), np.array(-7.0)])
    shapes = [t.shape for t in tensors]
    groups = [Group.whole(str(members), members, shapes) for members in ([0, 2], [1], [3])]
    backend = get_backend(device.name)
    got = device.host(norm.measure(backend, tensors, groups, sizes_of(groups, backend)).values())
    want = {2: 13.0, "rms": 13 / math.sqrt(5), 1: 19.0, math.inf: 12.0}[norm.name]
    np.testing.assert_allclose(got, [want, 0, 7], rtol=1e-15)


def test_the_norm_is_the_euclidean_one_unless_told(device):
    g = device.arrays([np.array([3.0, -4.0])])
    for told, want in (({}, [0.6, -0.8]), ({"norm": 1}, [3 / 7, -4 / 7]), ({"norm": math.inf}, [0.75, -1.0])):
        np.testing.assert_allclose(device.host(normalize_blocks(g, **told)[0]), want, rtol=1e-15)
    assert ClipGlobal().norm is Adaptive().norm is EUCLIDEAN == Norm(2)


# --- errors of normalize_blocks ----------------------------------------------------------------------------------


def test_the_first_bad_array_is_named_and_there_is_no_step():
    arrays = [np.ones(2), np.array([np.inf, 1.0]), np.array([np.nan, 1.0])]
    with pytest.raises(NonFiniteError, match=r"^array 1 has NaN or infinite entries: it has no direction$") as caught:
        normalize_blocks(arrays)
    assert caught.value.step is None and isinstance(caught.value, ArithmeticError)
    with pytest.raises(NonFiniteError, match=r"^array 0 has"):
        normalize_blocks(arrays[2:])
    assert NonFiniteError("step 3: …", 3).step == 3


KINDS = {"int64": np.arange(3, dtype="int64"), "complex128": np.ones(1, complex), "list": [1.0], "float": 1.0}


@pytest.mark.parametrize("told", KINDS)
def test_what_is_no_floating_point_array_is_refused_by_its_kind(told):
    with pytest.raises(TypeError, match=f"^blocks are arrays of float16, float32 or float64; array 0 is {told}$"):
        normalize_blocks([KINDS[told]])


def test_arrays_on_two_devices_are_refused_by_name():
    arrays = [get_backend(name).asarray(np.ones(2)) for name in ("strict", "cpu", "strict")]
    with pytest.raises(TypeError, match=r"^the blocks are on cpu and strict: bring them to one by bng.asarray$"):
        normalize_blocks(arrays)
