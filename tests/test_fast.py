"""The forms to run are the plain forms: in value, gradient and errors, on easy and hard inputs."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import snippets.lab.fast
import snippets.lab.fast.park2019
from snippets.agarwal2024 import generalized_jsd_loss
from snippets.gu2024 import reverse_kl_loss
from snippets.kim2016 import word_kd_loss
from snippets.lab.data import seeded
from snippets.lab.fast import linear, rows
from snippets.lab.fast.linear import linear_divergence_loss

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""How far value and gradient may be off, relative to the largest."""

SHARED = {"gradients", "linear", "rows"}
"""Modules that hold no paper's form."""

FORMS = [
    (module.name, name)
    for module in pkgutil.iter_modules(snippets.lab.fast.__path__)
    if module.name not in SHARED
    for name, value in vars(importlib.import_module(f"snippets.lab.fast.{module.name}")).items()
    if name.endswith("_loss") and inspect.isfunction(value)
]


def forms(key, name):
    """The form to run, and the plain one."""
    fast = importlib.import_module(f"snippets.lab.fast.{key}")
    plain = importlib.import_module(f"snippets.{key}")
    return getattr(fast, name), getattr(plain, name)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let every input need several blocks, and the last one be smaller."""
    for module in pkgutil.iter_modules(snippets.lab.fast.__path__):
        loaded = importlib.import_module(f"snippets.lab.fast.{module.name}")
        if hasattr(loaded, "BLOCK"):
            monkeypatch.setattr(loaded, "BLOCK", 50)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def inputs(key, dtype=torch.float64):
    """Student and teacher tensors of a loss, and its mask if it has one."""
    if key in ("kim2016", "gu2024", "agarwal2024"):
        mask = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
        shape = (3, 5, 11)
    else:
        mask = None
        shape = {
            "hinton2015": (13, 7),
            "park2019": (9, 5),
        }.get(key, (7, 4, 3, 2))
    student, teacher = (2 * normal(*shape, seed=seed, dtype=dtype) for seed in (0, 1))
    return student, teacher, *([] if mask is None else [mask])


def options(key, name):
    """The options under which the two forms are compared."""
    given = inspect.signature(forms(key, name)[1]).parameters
    chosen = [{}]
    if "variant" in given:
        chosen.append({"variant": "code"})
    if "p" in given:
        chosen += [{"p": p, **option} for p in (1, 1.5, 2, 3) for option in chosen[:2]]
    if "beta" in given:
        chosen += [{"beta": beta} for beta in (0, 1e-6, 0.1, 0.9, 1)]
    if "temperature" in given:
        extreme = [1e-15, 1e15] if key == "hinton2015" else [1e-30, 1e30]
        chosen += [{"temperature": temperature} for temperature in (0.1, 20, *extreme)]
    return chosen


def evaluated(loss, student, *rest, **given):
    """The value and the student's gradient."""
    student = student.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(student, *rest, **given)
    value.backward()
    return value.detach(), student.grad


def assert_same(key, name, student, *rest, tolerance, least=1e-30, **given):
    """Compare gradients relative to their largest entry, but no smaller than `least`."""
    fast, plain = forms(key, name)
    ours, slope = evaluated(fast, student, *rest, **given)
    value, gradient = evaluated(plain, student, *rest, **given)
    assert ours.dtype == value.dtype
    assert slope.dtype == gradient.dtype
    torch.testing.assert_close(ours, value, rtol=tolerance, atol=tolerance * 1e-3)
    bound = tolerance * float(gradient.abs().max().clamp_min(least))
    torch.testing.assert_close(slope, gradient, rtol=0, atol=bound)


EVERY = [(key, name, given) for key, name in FORMS for given in options(key, name)]


def test_there_are_forms():
    assert {key for key, _ in FORMS} == {
        "agarwal2024",
        "gu2024",
        "hinton2015",
        "kim2016",
        "kim2018",
        "park2019",
        "romero2015",
        "zagoruyko2017",
    }


@pytest.mark.parametrize(("key", "name"), FORMS)
def test_the_signature_is_the_plain_one(key, name):
    fast, plain = forms(key, name)
    assert str(inspect.signature(fast)) == str(inspect.signature(plain))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("key", "name", "given"), EVERY)
@pytest.mark.proves("against", "its form to run, by other formulas")
def test_value_and_gradient_are_the_same(key, name, given, dtype):
    # Near its ends the divergence is a small difference of large terms, in both forms.
    least = 1 if given.get("beta") == 1e-6 else 1e-30
    assert_same(key, name, *inputs(key, dtype), tolerance=TOLERANCE[dtype], least=least, **given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("key", "name"), FORMS)
def test_half_precision(key, name, dtype):
    # The gradients differ by a last digit where the rounding does.
    fast, plain = forms(key, name)
    ours, slope = evaluated(fast, *inputs(key, dtype))
    value, gradient = evaluated(plain, *inputs(key, dtype))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, value, rtol=2e-5, atol=1e-8)
    assert slope.dtype == dtype
    bound = torch.finfo(dtype).eps * float(gradient.abs().max())
    torch.testing.assert_close(slope, gradient, rtol=0, atol=bound)


def turned(tensor):
    """The same numbers with the strides of another order."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def doubled(tensor):
    """Every second row of a larger tensor."""
    return torch.stack([tensor, tensor], 1)[:, 0]


@pytest.mark.parametrize("layout", [turned, doubled])
@pytest.mark.parametrize(("key", "name"), FORMS)
def test_any_layout(key, name, layout):
    student, teacher, *rest = inputs(key)
    student, teacher = layout(student), layout(teacher)
    assert not student.is_contiguous()
    assert_same(key, name, student, teacher, *rest, tolerance=1e-12)


@pytest.mark.parametrize(("key", "name"), FORMS)
def test_channels_last(key, name):
    student, teacher, *rest = inputs(key)
    if student.dim() == 4:
        student, teacher = (
            x.contiguous(memory_format=torch.channels_last) for x in (student, teacher)
        )
    assert_same(key, name, student, teacher, *rest, tolerance=1e-12)


HARD = {
    "large": lambda s, t: (s * 5e3, t * 5e3),
    "one-sided": lambda s, t: (s * 5e3, t),
    "small": lambda s, t: (s * 1e-4, t * 1e4),
    "zero student": lambda s, t: (s * 0, t),
    "zero teacher": lambda s, t: (s, t * 0),
    "both zero": lambda s, t: (s * 0, t * 0),
    "equal": lambda s, t: (t, t),
    "constant rows": lambda s, t: (s[..., :1].expand_as(s), t),
    "duplicated samples": lambda s, t: (torch.cat([s[:1], s[:-1]]), torch.cat([t[1:], t[-1:]])),
    "common offset": lambda s, t: (s + 1e4, t + 1e4),
}


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("key", "name"), FORMS)
def test_hard_numbers(key, name, dtype, hard):
    student, teacher, *rest = inputs(key, dtype)
    student, teacher = HARD[hard](student, teacher)
    fast, _ = forms(key, name)
    value, gradient = evaluated(fast, student, teacher, *rest)
    assert value.isfinite()
    assert gradient.isfinite().all()
    # The numbers themselves have lost that much.
    eps = torch.finfo(dtype).eps * (1e4 if hard in ("large", "one-sided", "common offset") else 1)
    tolerance = max(TOLERANCE[dtype], 20 * eps)
    # There the slope is 0, for some losses.
    flat = hard in ("equal", "both zero", "constant rows")
    flat = flat or (key, hard) == ("zagoruyko2017", "zero teacher")  # a distance of 1 from 0
    least = 1 if flat else 1e-30
    assert_same(key, name, student, teacher, *rest, tolerance=tolerance, least=least)


@pytest.mark.parametrize("sides", ["both", "student", "teacher"])
@pytest.mark.parametrize("key", ["hinton2015", "kim2016", "gu2024", "agarwal2024"])
def test_excluded_classes(key, sides):
    ((name,),) = [[name for other, name in FORMS if other == key]]
    student, teacher, *rest = inputs(key)
    if sides != "teacher":
        student[..., 2] = -torch.inf
    if sides != "student":
        teacher[..., 2] = -torch.inf
    fast, plain = forms(key, name)
    ours, slope = evaluated(fast, student, teacher, *rest)
    value, gradient = evaluated(plain, student, teacher, *rest)
    torch.testing.assert_close(ours, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, gradient, rtol=1e-12, atol=1e-15, equal_nan=False)


@pytest.mark.parametrize("key", ["kim2016", "gu2024", "agarwal2024"])
@pytest.mark.proves("invariances", "what stands in the padding, even NaN", linear_divergence_loss)
def test_padding_counts_nothing_whatever_stands_in_it(key):
    ((name,),) = [[name for other, name in FORMS if other == key]]
    student, teacher, mask = inputs(key)
    fast, _ = forms(key, name)
    value, gradient = evaluated(fast, student, teacher, mask)
    for number in (torch.nan, torch.inf):
        student[~mask], teacher[~mask] = number, number
        again, slope = evaluated(fast, student, teacher, mask)
        assert torch.equal(again, value)
        assert torch.equal(slope, gradient)
        assert not slope[~mask].any()


@pytest.mark.parametrize("key", ["hinton2015", "kim2016", "gu2024", "agarwal2024"])
def test_a_row_of_the_largest_numbers_beside_an_excluded_class(key):
    """The short formulas fail, and the plain ones are taken: they must not overflow, either."""
    ((name,),) = [[name for other, name in FORMS if other == key]]
    student, teacher, *rest = inputs(key)
    student[0] = 0.9 * torch.finfo(student.dtype).max
    student[..., 2] = teacher[..., 2] = -torch.inf
    assert_same(key, name, student, teacher, *rest, tolerance=1e-12)


SCALES = {
    torch.float64: (1e-200, 1e-160, 1e160, 1e200),
    torch.float32: (1e-30, 1e-22, 1e22, 1e30),
}
"""Squares of such numbers vanish, keep few digits, or become infinite."""


@pytest.mark.parametrize(
    ("dtype", "scale"), [(dtype, scale) for dtype, some in SCALES.items() for scale in some]
)
@pytest.mark.parametrize(
    ("key", "name", "given"),
    [one for one in EVERY if one[0] in ("kim2018", "zagoruyko2017")],
)
def test_samples_of_very_different_scales(key, name, given, dtype, scale):
    student, teacher = inputs(key, dtype)
    student[::3] *= scale
    teacher[::2] *= scale
    fast, plain = forms(key, name)
    ours, slope = evaluated(fast, student, teacher, **given)
    value, gradient = evaluated(plain, student, teacher, **given)
    torch.testing.assert_close(ours, value, rtol=TOLERANCE[dtype], atol=0)
    for some in (slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)):
        bound = TOLERANCE[dtype] * float(gradient[some].abs().max())
        assert bound > 0
        torch.testing.assert_close(slope[some], gradient[some], rtol=0, atol=bound)


class TestPowers:
    """Where the powers of a map just keep within the range of float32."""

    def test_a_high_power_is_hardly_above_zero(self):
        student, teacher = inputs("zagoruyko2017", torch.float32)
        # The largest power of each sample is the smallest number that keeps all digits.
        largest = torch.finfo(student.dtype).tiny ** (1 / 100)
        student *= largest / student.abs().amax((1, 2, 3), keepdim=True)
        args = ("zagoruyko2017", "attention_transfer_loss", student, teacher)
        assert_same(*args, p=100, tolerance=2e-5)

    def test_a_small_slope_of_large_powers_keeps_its_digits(self):
        student, teacher = inputs("zagoruyko2017", torch.float32)
        teacher = student * (1 + 1e-3 * teacher)
        args = ("zagoruyko2017", "attention_transfer_loss", student * 1e18, teacher * 1e18)
        assert_same(*args, variant="code", tolerance=2e-5, least=0)


POINTS = {
    "many": lambda x: x,
    "few": lambda x: x[:5],  # several middles fit a block, the last one is smaller
    "far away": lambda x: x + torch.arange(5) * 1e4,
    "an outlier": lambda x: torch.cat([x[:1] + 50, x[1:]]),  # its distances are off by over 2
}


class TestRelations:
    """Of points that are apart, and of others."""

    @pytest.mark.parametrize("points", POINTS)
    @pytest.mark.parametrize("name", ["distance_loss", "angle_loss"])
    def test_points_that_are_apart_need_no_differences(self, name, points, monkeypatch):
        monkeypatch.setattr(snippets.lab.fast.park2019, f"_exact_{name[:-5]}s", None)
        student, teacher = inputs("park2019")
        student = POINTS[points](student)
        # The numbers themselves have lost as much.
        tolerance = 1e-10 if points == "far away" else 1e-12
        assert_same("park2019", name, student, teacher[: len(student)], tolerance=tolerance)

    @pytest.mark.parametrize("name", ["distance_loss", "angle_loss"])
    def test_close_pairs_in_a_large_batch(self, name):
        student, teacher = normal(40, 5), normal(40, 5, seed=1)
        student[::2] = student[1::2] + 1e-5 * student[::2]
        assert_same("park2019", name, student, teacher, tolerance=1e-9)

    @pytest.mark.parametrize("name", ["distance_loss", "angle_loss"])
    def test_an_empty_teacher_is_named(self, name):
        fast, _ = forms("park2019", name)
        with pytest.raises(ValueError, match=r"teacher .* got shape \(4, 0\)"):
            fast(normal(4, 3), normal(4, 0))


class TestRows:
    def test_neighbours_are_a_slice(self):
        mask = torch.tensor([0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1]).bool()
        first, second, third = rows._blocks(12, 3, mask)
        assert first == slice(1, 4)
        assert second.tolist() == [5, 7, 8]
        assert third == slice(10, 12)
        two_holes = torch.tensor([1, 0, 1, 0, 1]).bool()
        (block,) = rows._blocks(5, 3, two_holes)
        assert block.tolist() == [0, 2, 4]

    def test_all_rows_of_any_shape(self):
        student, teacher, _ = inputs("kim2016")
        value, flat = (
            rows.mean_divergence(z, v, rows.FORWARD, plain="")
            for z, v in ((student, teacher), (student.flatten(0, 1), teacher.flatten(0, 1)))
        )
        assert torch.equal(value, flat)

    @pytest.mark.parametrize("key", ["hinton2015", "kim2016"])
    def test_no_room_is_made_for_a_gradient_that_nobody_wants(self, key, monkeypatch):
        ((name,),) = [[name for other, name in FORMS if other == key]]
        monkeypatch.setattr(rows, "like_in_full", None)
        forms(key, name)[0](*inputs(key))


@pytest.mark.parametrize(("key", "name"), FORMS)
class TestGradient:
    def test_it_is_numerically_right(self, key, name):
        fast, _ = forms(key, name)
        student, *rest = inputs(key)
        student = student.requires_grad_()
        assert torch.autograd.gradcheck(lambda s: fast(s, *rest), student)

    def test_the_teacher_gets_none(self, key, name):
        fast, _ = forms(key, name)
        student, teacher, *rest = inputs(key)
        teacher.requires_grad_()
        assert not fast(student, teacher, *rest).requires_grad
        fast(student.requires_grad_(), teacher, *rest).backward()
        assert teacher.grad is None

    def test_a_second_pass_gives_the_same_again(self, key, name):
        fast, _ = forms(key, name)
        student, *rest = inputs(key)
        student.requires_grad_()
        loss = fast(student, *rest)
        (first,) = torch.autograd.grad(loss, student, retain_graph=True)
        kept = first.clone()
        (second,) = torch.autograd.grad(3 * loss, student)
        assert torch.equal(first, kept)
        torch.testing.assert_close(second, 3 * first, rtol=1e-14, atol=0)

    def test_a_second_derivative_names_the_plain_form(self, key, name):
        fast, _ = forms(key, name)
        student, *rest = inputs(key)
        student.requires_grad_()
        (slope,) = torch.autograd.grad(fast(student, *rest), student, create_graph=True)
        torch.testing.assert_close(slope.detach(), evaluated(fast, student, *rest)[1])
        with pytest.raises(NotImplementedError, match=f"snippets.{key}.{name}, the plain form"):
            slope.square().sum().backward()

    def test_nothing_is_computed_that_nobody_wants(self, key, name):
        fast, _ = forms(key, name)
        student, *rest = inputs(key)
        student.requires_grad_()
        with torch.no_grad():
            value = fast(student, *rest)
        assert not value.requires_grad
        torch.testing.assert_close(value, fast(student, *rest).detach(), rtol=1e-14, atol=0)


# Dynamo looks at the .grad of a tensor that has none.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize(("key", "name"), FORMS)
def test_it_runs_inside_a_compiled_function(key, name):
    fast, _ = forms(key, name)
    student, *rest = inputs(key)
    compiled = torch.compile(lambda s: 2 * fast(s, *rest), backend="eager")
    value, gradient = evaluated(compiled, student)
    torch.testing.assert_close(value, 2 * evaluated(fast, student, *rest)[0])
    torch.testing.assert_close(gradient, 2 * evaluated(fast, student, *rest)[1])


@pytest.mark.parametrize(("key", "name"), FORMS)
def test_bad_input_is_refused_as_by_the_plain_form(key, name):
    fast, plain = forms(key, name)
    student, teacher, *rest = inputs(key)
    bad = [
        (TypeError, (student, teacher[1:], *rest), {}),
        (TypeError, (student.long(), teacher, *rest), {}),
        (ValueError, (student[:0], teacher[:0], *(mask[:0] for mask in rest)), {}),
    ]
    if rest:
        bad.append((ValueError, (student, teacher, torch.zeros_like(rest[0])), {}))
    for option, value in {"temperature": -1, "beta": 1.1, "p": 0.5}.items():
        if option in inspect.signature(plain).parameters:
            bad.append((ValueError, (student, teacher, *rest), {option: value}))
    for error, args, given in bad:
        with pytest.raises(error) as expected:
            plain(*args, **given)
        with pytest.raises(error) as raised:
            fast(*args, **given)
        if error is ValueError:
            assert str(raised.value) == str(expected.value)


class TestLinear:
    """The last layer and the divergence, fused."""

    WIDTHS = (6, 4)

    def tensors(self, dtype=torch.float64, tokens=11, vocabulary=13):
        return [
            part
            for number, width in enumerate(self.WIDTHS)
            for part in (
                normal(tokens, width, seed=2 * number, dtype=dtype),
                normal(vocabulary, width, seed=2 * number + 1, dtype=dtype),
            )
        ]

    def mask(self, tokens=11):
        return torch.arange(tokens) % 3 != 1

    def dense(self, student, head, teacher, teacher_head, mask, *, divergence, beta=0.5):
        """The logits whole, and the plain loss of a paper."""
        z, v, m = (student @ head.T)[None], (teacher @ teacher_head.T)[None], mask[None]
        if divergence == "jsd":
            return generalized_jsd_loss(z, v, m, beta=beta)
        if divergence == "reverse":
            return reverse_kl_loss(z, v, m)
        # The cross-entropy less the teacher's own.
        return word_kd_loss(z, v, m) - word_kd_loss(v.detach(), v, m)

    def evaluated(self, loss, tensors, *rest, **given):
        tensors = [x.clone().requires_grad_() for x in tensors]
        value = loss(*tensors, *rest, **given)
        value.backward()
        assert tensors[2].grad is tensors[3].grad is None
        return [value.detach(), tensors[0].grad, tensors[1].grad]

    @pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 7, 8, 128])
    @pytest.mark.parametrize(
        "given",
        [
            {"divergence": "forward"},
            {"divergence": "reverse"},
            *({"divergence": "jsd", "beta": beta} for beta in (0, 0.1, 0.5, 0.9, 1)),
        ],
    )
    @pytest.mark.proves(
        "against",
        "the losses of kim2016, gu2024 and agarwal2024 on the whole logits",
        linear_divergence_loss,
    )
    def test_it_is_the_dense_form(self, given, chunk_tokens):
        ours = self.evaluated(
            linear_divergence_loss,
            self.tensors(),
            self.mask(),
            chunk_tokens=chunk_tokens,
            **given,
        )
        dense = self.evaluated(self.dense, self.tensors(), self.mask(), **given)
        for one, other in zip(ours, dense, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

    def test_the_default_is_half_and_half(self):
        args = (*self.tensors(), self.mask())
        half = linear_divergence_loss(*args, divergence="jsd", beta=0.5)
        assert torch.equal(linear_divergence_loss(*args), half)

    @pytest.mark.proves(
        "invariances", "what stands in the padding, even NaN", linear_divergence_loss
    )
    def test_padding_counts_nothing_whatever_stands_in_it(self):
        tensors, mask = self.tensors(), self.mask()
        before = self.evaluated(linear_divergence_loss, tensors, mask)
        tensors[0][~mask] = tensors[2][~mask] = torch.nan
        after = self.evaluated(linear_divergence_loss, tensors, mask)
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one, other)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        halves = self.tensors(dtype)
        ours = self.evaluated(linear_divergence_loss, halves, self.mask(), chunk_tokens=3)
        assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
        exact = self.evaluated(linear_divergence_loss, [x.double() for x in halves], self.mask())
        eps = torch.finfo(dtype).eps
        for one, other in zip(ours, exact, strict=True):
            bound = 8 * eps * float(other.abs().max())
            torch.testing.assert_close(one.double(), other, rtol=0, atol=bound)

    def test_no_more_logits_than_a_chunk_exist_at_a_time(self):
        vocabulary, chunk = 4096, 4
        tensors = self.tensors(torch.float32, 64, vocabulary)
        with Largest() as largest:
            self.evaluated(linear_divergence_loss, tensors, self.mask(64), chunk_tokens=chunk)
        # Of the last layer's size there is one gradient; scratch is four chunks.
        assert largest.numel <= max(4 * chunk * vocabulary, vocabulary * max(self.WIDTHS))

    @pytest.mark.parametrize("learned", [0, 1])
    def test_one_side_alone_can_learn(self, learned):
        tensors = self.tensors()
        tensors[learned].requires_grad_()
        loss = linear_divergence_loss(*tensors, self.mask())
        (slope,) = torch.autograd.grad(loss, tensors[learned], create_graph=True)
        whole = self.evaluated(linear_divergence_loss, [x.detach() for x in tensors], self.mask())
        assert torch.equal(slope, whole[1 + learned])
        (thrice,) = torch.autograd.grad(3 * loss, tensors[learned])
        torch.testing.assert_close(thrice, 3 * slope.detach(), rtol=1e-14, atol=0)

    def test_gradcheck(self):
        tensors = [x.requires_grad_(number < 2) for number, x in enumerate(self.tensors())]
        assert torch.autograd.gradcheck(
            lambda *learned: linear_divergence_loss(*learned, *tensors[2:], self.mask()),
            tensors[:2],
        )

    def test_a_second_derivative_names_the_plain_form(self):
        hidden, *rest = self.tensors()
        hidden.requires_grad_()
        loss = linear_divergence_loss(hidden, *rest, self.mask())
        (slope,) = torch.autograd.grad(loss, hidden, create_graph=True)
        plain = "logits and the loss of snippets.kim2016, gu2024 or agarwal2024, the plain form"
        with pytest.raises(NotImplementedError, match=f"second derivative; take {plain}$"):
            slope.sum().backward()

    @pytest.mark.parametrize("learned", [(), (0,), (1,), (0, 1)])
    def test_room_is_made_for_the_gradients_that_are_wanted(self, learned, monkeypatch):
        made = []

        def like(tensor):
            made.append(tensor.shape)
            return torch.empty_like(tensor)

        monkeypatch.setattr(linear, "like_in_full", like)
        tensors = self.tensors()
        for number in learned:
            tensors[number].requires_grad_()
        linear_divergence_loss(*tensors, self.mask())
        assert made == [tensors[number].shape for number in learned]

    @pytest.mark.parametrize("side", ["student", "teacher"])
    def test_states_without_a_width_are_named(self, side):
        tensors = self.tensors()
        first = 0 if side == "student" else 2
        tensors[first : first + 2] = [x[:, :0] for x in tensors[first : first + 2]]
        with pytest.raises(ValueError, match=f"{side}_hidden .* got shape"):
            linear_divergence_loss(*tensors, self.mask())

    @pytest.mark.parametrize(
        ("error", "change"),
        [
            (ValueError, {"chunk_tokens": 0}),
            (ValueError, {"beta": -0.1}),
            (TypeError, {"divergence": "kl"}),
            (ValueError, {"mask": torch.zeros(11, dtype=torch.bool)}),
            (TypeError, {"mask": torch.ones(10, dtype=torch.bool)}),
            (TypeError, {"teacher_head": normal(12, 4)}),
        ],
    )
    def test_bad_input_is_refused(self, error, change):
        names = ("student_hidden", "student_head", "teacher_hidden", "teacher_head")
        given = {**dict(zip(names, self.tensors(), strict=True)), "mask": self.mask(), **change}
        with pytest.raises(error, match=next(iter(change))):
            linear_divergence_loss(**given)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how large the largest tensor is that anything computes."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize(
    ("dtype", "scale"), [(dtype, scale) for dtype, some in SCALES.items() for scale in some]
)
@pytest.mark.parametrize(
    ("key", "name", "given"),
    [one for one in EVERY if one[0] in ("kim2018", "zagoruyko2017")],
)
def test_one_sample_of_any_scale(key, name, given, dtype, scale):
    student, teacher = (x[:1] for x in inputs(key, dtype))
    args = (key, name, student * scale, teacher)
    assert_same(*args, tolerance=TOLERANCE[dtype], least=0, **given)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["distance_loss", "angle_loss"])
def test_close_points_near_the_origin_far_from_the_mean(name, dtype, side):
    """Centring would round them."""
    both = list(inputs("park2019", dtype))
    both[side][:3] *= 1e-6
    both[side][3:] += 10
    both[1] *= torch.finfo(dtype).max ** 0.75
    assert_same("park2019", name, *both, tolerance=TOLERANCE[dtype])
