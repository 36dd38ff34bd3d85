"""Every public loss on numbers that break losses: finite, and right.

Right means: what the same loss gives in float64 for the same numbers.
"""

import inspect
import math
import re

import pytest
import torch
from jaxtyping import Bool, Float, Int

from snippets.lab.data import seeded
from snippets.study import cases
from tests import public
from tests.public import LOSSES, NO_LOSS, PLAIN, evaluated

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CLASSES = {"classes", "vocabulary"}


def is_logits(argument):
    return argument.name.endswith("logits")


def has_classes(argument):
    """Whether a softmax over its last axis makes it a distribution."""
    return is_logits(argument) and argument.kinds[-1] in CLASSES


def is_features(argument):
    return (
        argument.dtype is Float and not is_logits(argument) and not cases.is_probability(argument)
    )


def changed(which, change):
    """A condition: `change` what `which` picks; nothing where nothing is picked."""

    def condition(method, arguments):
        picked = [a for a in method.arguments if which(a)]
        return arguments | {a.name: change(arguments[a.name]) for a in picked} if picked else None

    return condition


def sided(side, which):
    return lambda argument: argument.side == side and which(argument)


def excluded(tensor):
    """The first class gets no probability; no index points at it."""
    tensor = tensor.clone()
    if tensor.is_floating_point():
        tensor[..., 0] = -torch.inf
    else:
        tensor[tensor == 0] = 1
    return tensor


def has_classes_or_points(argument):
    return has_classes(argument) or (argument.dtype is Int and "ends" not in argument.kinds)


def has_batch(argument):
    return "batch" in argument.kinds and "ends" not in argument.kinds


def first_row(tensor):
    return tensor[:1].expand_as(tensor).contiguous()


def duplicated(tensor):
    """Each other sample is the one before."""
    return tensor[torch.arange(len(tensor)) // 2 * 2]


def constant(tensor):
    return tensor[..., :1].expand_as(tensor).contiguous()


def is_mask(argument):
    return argument.dtype is Bool


def only_the_last(tensor):
    mask = torch.zeros_like(tensor)
    mask.view(-1)[-1] = True
    return mask


def classes_excluded(method, arguments):
    if not any(map(has_classes, method.arguments)):
        return None
    return changed(has_classes_or_points, excluded)(method, arguments)


def having(which):
    """The losses that take such an argument, to parametrise a test."""
    return [
        pytest.param(method, id=method.key)
        for method in LOSSES
        if any(map(which, method.arguments))
    ]


CONDITIONS = {
    "logits of ±10⁴": changed(is_logits, lambda x: 1e4 * x.sign()),
    "logits of ±10⁴, the student's alone": changed(
        sided("student", is_logits), lambda x: 1e4 * x.sign()
    ),
    "logits of 10⁻⁴": changed(is_logits, lambda x: 1e-4 * x),
    "logits with a common offset of 10⁴": changed(is_logits, lambda x: x + 1e4),
    "classes that both exclude (−∞)": classes_excluded,
    "features of scale 10⁻⁴": changed(is_features, lambda x: 1e-4 * x),
    "features of scale 10⁴": changed(is_features, lambda x: 1e4 * x),
    "features with a common offset of 10⁴": changed(is_features, lambda x: x + 1e4),
    "all-zero features, the student's": changed(sided("student", is_features), torch.zeros_like),
    "all-zero features, the teacher's": changed(sided("teacher", is_features), torch.zeros_like),
    "all-zero features on both sides": changed(is_features, torch.zeros_like),
    "constant rows": changed(lambda a: a.dtype is Float and len(a.axes) > 1, constant),
    "duplicated samples": changed(has_batch, duplicated),
    "a batch of one sample, repeated": changed(has_batch, first_row),
    "a mask with a single true element": changed(is_mask, only_the_last),
}
"""What is done to a loss's usual inputs. The names go into the record of trust."""


LOGITS_AS_PRECISE_AS_INPUTS = {"lab.fast.linear.linear_divergence_loss"}
"""It multiplies matrices, in half precision where its inputs are."""

BEYOND = {
    ("phuong2019.distillation_loss", "features of scale 10⁻⁴"): "logits of 10⁻⁸, whose sigmoids"
    " are one half in float32",
    ("yang2020.local_structure_loss", "features of scale 10⁻⁴"): "kernels of 1 less 10⁻⁶",
    ("lab.fast.linear.linear_divergence_loss", "features of scale 10⁴"): "logits of 10⁸, which"
    " float16 does not have",
    ("fang2021.seed_loss", 1e-15): "slopes of 10¹⁴, which float16 does not have",
    ("lab.fast.linear.linear_divergence_loss", "features with a common offset of 10⁴"): "the same",
}
"""What no such loss can get right in 32 or 16 bits, and why: there, only float64 is tested."""

EACH = [
    pytest.param(method, name, id=f"{method.key}-{name}", marks=pytest.mark.proves("inputs", name))
    for method in LOSSES
    for name, condition in CONDITIONS.items()
    if condition(method, cases.arguments_of(method)) is not None
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("method", "name"), EACH)
@pytest.mark.proves("inputs", "float16 and bfloat16, computed in float32")
def test_value_and_gradient_are_those_of_float64(method, name, dtype):
    if (method.key, name) in BEYOND:
        dtype = torch.float64
    usual = cases.arguments_of(method, dtype=dtype)
    arguments = CONDITIONS[name](method, usual)
    for option in public.options_of(method):
        assert_right(method, arguments, usual, option, dtype)


def assert_right(method, arguments, usual, option, dtype):
    """Compare with float64, up to what rounding alone would do.

    It may do as much as rounding the inputs once more, as much as the last
    digits of a nat, and as much as those of the loss and its slope where
    student and teacher differ.
    """
    ours = flat(evaluated(method, arguments, option))
    assert all(x.isfinite().all() for x in ours.values()), option
    assert {x.dtype for x in list(ours.values())[1:]} == {dtype}
    assert ours["value"].dtype == (dtype if dtype == torch.float64 else torch.float32)
    if dtype == torch.float64:
        return
    last = torch.finfo(dtype if method.key in LOGITS_AS_PRECISE_AS_INPUTS else torch.float32).eps
    exact = flat(evaluated(method, public.widened(arguments), option))
    again = [flat(evaluated(method, rounded(arguments, last, s), option)) for s in range(3)]
    apart = arguments | {a.name: usual[a.name] for a in method.of("teacher")}
    common = flat(evaluated(method, public.widened(apart), option))
    for name, number in ours.items():
        right, kept = exact[name], torch.finfo(number.dtype)
        moved = max((other[name] - right).abs().max() for other in again)
        nat = in_nats(method)
        if name != "value":  # what a softened softmax passes back
            nat = nat and "temperature" in option and 1 / option["temperature"]
        bound = (
            max(2e-5, kept.eps) * right.abs().max()
            + 8 * last * (common[name].abs().max() + nat)
            + 16 * moved
            + kept.smallest_normal * kept.eps
        )
        gap = (number.double() - right).abs().max()
        assert gap <= bound, (name, option)


def flat(result):
    value, slopes = result
    return {"value": value, **slopes}


def in_nats(method):
    plain = [m for m in PLAIN if m.key == method.key.removeprefix("lab.fast.")]
    return "nats" in inspect.getdoc((plain or [method])[0].function)


def rounded(arguments, last, seed):
    """The same numbers in float64, each moved by less than its last digit."""
    generator = seeded(seed)
    return {
        name: x * (1 + last * (torch.rand(x.shape, generator=generator) - 0.5).double())
        if isinstance(x, torch.Tensor) and x.is_floating_point()
        else x
        for name, x in public.widened(arguments).items()
    }


TAKES_A_LOGARITHM_OF_THE_STUDENT = {
    "agarwal2024.generalized_jsd_loss": {"beta": 0},
    "chan2015.frame_kd_loss": {},
    "hinton2015.kd_loss": {},
    "hinton2015.distillation_loss": {},
    "kim2016.sequence_kd_loss": {},
    "kim2016.word_kd_loss": {},
    "gu2018.nat_loss": {},
    "ruffy2019.rkd_objective": {},
    "sanh2019.distilbert_loss": {},
    "zhang2022.glnn_loss": {},
    "lab.fast.agarwal2024.generalized_jsd_loss": {"beta": 0},
    "lab.fast.hinton2015.kd_loss": {},
    "lab.fast.kim2016.word_kd_loss": {},
}
"""Losses that are infinite, under an option, where the student alone excludes a class."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", having(sided("student", has_classes)))
@pytest.mark.proves("inputs", "classes that the student alone excludes: inf or finite, never NaN")
def test_a_class_that_the_student_alone_excludes(method, dtype):
    arguments = cases.arguments_of(method, dtype=dtype)
    arguments |= {a.name: arguments[a.name].clone() for a in method.of("student") if has_classes(a)}
    for argument in method.of("student"):
        if has_classes(argument):
            arguments[argument.name][..., 0] = -torch.inf
    endless = TAKES_A_LOGARITHM_OF_THE_STUDENT.get(method.key)
    for option in public.options_of(method):
        value = method.function(**arguments, **option)
        assert not value.isnan()
        if option == endless:
            assert value == torch.inf
        elif endless is None:
            assert value.isfinite()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", having(has_classes))
@pytest.mark.proves("inputs", "one class")
def test_one_class(method, dtype):
    sizes = {("all", "classes"): 1, ("all", "vocabulary"): 1}
    arguments = cases.arguments_of(method, sizes, dtype=dtype)
    for argument in method.arguments:
        if argument.dtype is Int:
            arguments[argument.name] = torch.zeros_like(arguments[argument.name])
    for option in public.options_of(method):
        assert_right(method, arguments, arguments, option, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", having(has_batch))
def test_a_batch_of_one(method, dtype):
    sizes = {(side, "batch"): 1 for side in ("all", *(a.side for a in method.arguments))}
    arguments = cases.arguments_of(method, sizes, dtype=dtype)
    for option in public.options_of(method):
        try:
            value, slopes = evaluated(method, arguments, option)
        except ValueError as error:
            assert method.key in SEVERAL
            assert re.search(r"must have at least [23] .* got shape \(1,", str(error))
        else:
            assert method.key not in SEVERAL
            assert value.isfinite()
            assert all(slope.isfinite().all() for slope in slopes.values())


SEVERAL = {
    "chen2019.orthogonality_loss",
    "park2019.angle_loss",
    "park2019.distance_loss",
    "ruffy2019.rkd_objective",
    "lab.fast.park2019.angle_loss",
    "lab.fast.park2019.distance_loss",
}
"""Losses of the relations between samples: one has none."""

INDEPENDENT = {"chen2019.discriminator_loss"}
"""Losses of a student's and a teacher's samples that are not pairs."""


def pairs(kind):
    """The losses whose student and teacher both have such an axis."""
    return [
        pytest.param(method, kind, id=f"{method.key}-{kind}")
        for method in LOSSES
        if all(any(kind in a.kinds for a in method.of(s)) for s in ("student", "teacher"))
        and method.key not in INDEPENDENT
    ]


@pytest.mark.parametrize(("method", "kind"), pairs("batch") + pairs("length"))
@pytest.mark.proves("inputs", "sizes that differ are refused, not broadcast")
def test_one_teacher_does_not_teach_several_students(method, kind):
    arguments = cases.arguments_of(method, {("teacher", kind): 1})
    with pytest.raises(TypeError):
        method.function(**arguments)


@pytest.mark.parametrize("method", having(is_mask))
@pytest.mark.proves("inputs", "an empty mask is refused")
def test_an_empty_mask(method):
    for mask in filter(is_mask, method.arguments):
        arguments = cases.arguments_of(method)
        arguments[mask.name] = torch.zeros_like(arguments[mask.name])
        option = {"weight": 0.5} if mask.name == "labelled" else {}
        with pytest.raises(ValueError, match=f"{mask.name}.* must have at least one true element"):
            method.function(**arguments, **option)


def turned(tensor):
    """The same numbers with the strides of another order."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def every_second(tensor):
    """Every second number along the last axis of a larger tensor."""
    return torch.stack([tensor, tensor], -1).flatten(-2)[..., ::2]


def channels_last(tensor):
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    return tensor.contiguous(memory_format=last) if last else tensor


@pytest.mark.parametrize("layout", [turned, every_second, channels_last])
@pytest.mark.parametrize("method", LOSSES, ids=lambda m: m.key)
@pytest.mark.proves("inputs", "any memory layout, channels last included")
def test_any_layout(method, layout):
    usual = cases.arguments_of(method)
    floats = [a.name for a in method.arguments if a.dtype is Float]
    turned_round = usual | {name: layout(usual[name]) for name in floats}
    for option in public.options_of(method):
        ours = flat(evaluated(method, turned_round, option))
        for name, right in flat(evaluated(method, usual, option)).items():
            torch.testing.assert_close(ours[name], right, rtol=1e-12, atol=1e-14)


TEMPERATURES = [
    pytest.param(method, name, id=f"{method.key}-{name}")
    for method in LOSSES
    for name in inspect.signature(method.function).parameters
    if "temperature" in name
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1e-15, 1e-3, 1e3, 1e15])
@pytest.mark.parametrize(("method", "name"), TEMPERATURES)
@pytest.mark.proves("inputs", "temperatures of 10⁻¹⁵ to 10¹⁵")
def test_extreme_temperatures(method, name, temperature, dtype):
    if (method.key, temperature) in BEYOND:
        dtype = torch.float64
    usual = cases.arguments_of(method, dtype=dtype)
    assert_right(method, usual, usual, {name: temperature}, dtype)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize(("method", "name"), TEMPERATURES)
def test_temperatures_that_are_none(method, name, temperature):
    with pytest.raises(ValueError, match=f"{name} must be .* got {temperature}"):
        method.function(**cases.arguments_of(method), **{name: temperature})


def test_every_public_loss_is_here():
    """A public function of a script is a loss, and tested; or it is listed, with a reason."""
    assert {m.key for m in PLAIN} | {*NO_LOSS} == public.public_names()
    assert not {m.key for m in PLAIN} & {*NO_LOSS}
    assert {m.key for m in cases.methods()} == {m.key for m in PLAIN}
    for method in LOSSES:
        assert method.function(**cases.arguments_of(method)).shape == ()
