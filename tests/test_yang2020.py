"""The loss of yang2020 against independent forms, and at its borders."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import yang2020
from snippets.lab.data import seeded
from snippets.yang2020 import local_structure_loss

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-10, "atol": 1e-12}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OPTIONS = [
    {"kernel": kernel, "variant": variant}
    for kernel in ("rbf", "linear")
    for variant in ("paper", "code")
]
# Node 4 has one incoming edge, node 5 none; (1, 0) is there twice.
EDGES = torch.tensor(
    [[1, 2, 3, 1, 0, 2, 0, 1, 3, 2, 5, 3, 5], [0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 1]]
)


def features(seed=0, nodes=6, widths=(3, 5), dtype=torch.float64):
    draw = torch.randn(nodes, sum(widths), generator=seeded(seed), dtype=torch.float64)
    return tuple(part.to(dtype) for part in draw.split(widths, dim=1))


def by_hand(student, teacher, edges, kernel="rbf", bandwidth=100.0, variant="paper"):
    """The formula in scalar arithmetic, one node and neighbour at a time."""

    def similarity(a, b):
        if kernel == "linear":
            return sum(x * y for x, y in zip(a, b, strict=True))
        if variant == "code":
            return math.exp(-sum(abs(x - y) for x, y in zip(a, b, strict=True)) / bandwidth)
        square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        return math.exp(-square / (2 * bandwidth))

    def structure(z, node):
        weights = [
            math.exp(similarity(z[node], z[source]))
            for source, target in edges.T.tolist()
            if target == node
        ]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for node in range(len(student)):
        p, q = structure(student.tolist(), node), structure(teacher.tolist(), node)
        if variant == "code":
            p, q = q, p
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


class TestAgainstIndependentForms:
    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("bandwidth", [0.5, 100])
    @pytest.mark.proves("against", "a loop over nodes")
    def test_loop_over_nodes(self, options, bandwidth):
        z, v = features()
        expected = by_hand(z, v, EDGES, bandwidth=bandwidth, **options)
        loss = local_structure_loss(z, v, EDGES, bandwidth=bandwidth, **options)
        assert loss.item() == pytest.approx(expected, rel=1e-10)

    @pytest.mark.proves("against", "a dense form")
    def test_dense_form(self):
        z, v = features(nodes=20)
        linked = torch.rand(20, 20, generator=seeded(3)) < 0.3
        edges = linked.nonzero().T.flip(0)  # row i: the sources of target i
        log_s, log_t = (
            (-torch.cdist(x, x).square() / 4)
            .exp()
            .masked_fill(~linked, -torch.inf)
            .log_softmax(1)[linked]
            for x in (z, v)
        )
        expected = (log_s.exp() * (log_s - log_t)).sum() / 20
        loss = local_structure_loss(z, v, edges, bandwidth=2.0)
        torch.testing.assert_close(loss, expected, **F64)

    @pytest.mark.proves("against", "two neighbours in closed form")
    def test_two_neighbours_in_closed_form(self):
        z = torch.tensor([[0.0], [0.0], [2.0]], dtype=torch.float64)
        v = torch.zeros_like(z)
        edges = torch.tensor([[1, 2], [0, 0]])
        a = math.exp(-2.0)  # exp(−2² / 2)
        p = torch.tensor([1.0, a], dtype=torch.float64).softmax(0)
        expected = (p * (2 * p).log()).sum() / 3  # against ½, ½
        loss = local_structure_loss(z, v, edges, bandwidth=1.0)
        torch.testing.assert_close(loss, expected, **F64)

    def test_the_paper_is_the_default_and_the_code_swaps_the_linear_kernel(self):
        z, v = features()
        linear = functools.partial(local_structure_loss, kernel="linear")
        torch.testing.assert_close(linear(z, v, EDGES, variant="code"), linear(v, z, EDGES), **F64)
        assert local_structure_loss(z, v, EDGES) == local_structure_loss(
            z, v, EDGES, kernel="rbf", bandwidth=100, variant="paper"
        )


class TestWhoLearns:
    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self, options):
        z, v = (x.requires_grad_() for x in features())
        local_structure_loss(z, v, EDGES, **options).backward()
        assert z.grad.abs().sum() > 0
        assert v.grad is None

    @pytest.mark.parametrize("options", OPTIONS)
    def test_swapping_roles_changes_the_value(self, options):
        z, v = features()
        loss = functools.partial(local_structure_loss, bandwidth=1.0, **options)
        assert abs(loss(z, v, EDGES) / loss(v, z, EDGES) - 1) > 1e-3

    @pytest.mark.parametrize("options", OPTIONS)
    def test_gradient_numerically(self, options):
        z, v = features()
        loss = functools.partial(local_structure_loss, bandwidth=2.0, **options)
        assert torch.autograd.gradcheck(lambda x: loss(x, v, EDGES), z.requires_grad_())

    def test_descending_the_loss_approaches_the_teachers_structure(self):
        z, v = features(widths=(3, 3))
        start = local_structure_loss(z, v, EDGES, bandwidth=1.0)
        for _ in range(300):
            z = z.requires_grad_()
            loss = local_structure_loss(z, v, EDGES, bandwidth=1.0)
            z = (z - 5 * torch.autograd.grad(loss, z)[0]).detach()
        assert loss < start / 2


class TestInvariances:
    @given(SEEDS, st.floats(-9, 9))
    @pytest.mark.proves("invariances", "a rotation and shift of either side")
    def test_rotation_and_translation(self, seed, shift):
        z, v = features(seed)
        turn = torch.linalg.qr(features(seed + 1, nodes=5)[1]).Q
        moved = v @ turn + shift
        loss = local_structure_loss(z, v, EDGES, bandwidth=3.0)
        torch.testing.assert_close(
            local_structure_loss(z + shift, moved, EDGES, bandwidth=3.0), loss, **F64
        )

    @given(SEEDS)
    def test_inner_products_see_a_move_but_no_rotation(self, seed):
        z, v = features(seed)
        turn = torch.linalg.qr(features(seed + 1, nodes=5)[1]).Q
        linear = functools.partial(local_structure_loss, kernel="linear")
        torch.testing.assert_close(linear(z, v @ turn, EDGES), linear(z, v, EDGES), **F64)
        assert (linear(z, v + 3, EDGES) - linear(z, v, EDGES)).abs() > 1e-6

    @given(SEEDS, st.permutations(range(6)), st.permutations(range(13)))
    @pytest.mark.proves("invariances", "the numbering of nodes and the order of edges")
    def test_numbering_of_nodes_and_order_of_edges(self, seed, nodes, edges):
        z, v = features(seed)
        place = torch.tensor(nodes).argsort()
        loss = local_structure_loss(z[nodes], v[nodes], place[EDGES][:, edges])
        torch.testing.assert_close(loss, local_structure_loss(z, v, EDGES), **F64)

    @given(SEEDS, st.sampled_from(OPTIONS))
    def test_zero_at_the_teacher_and_never_below(self, seed, options):
        z, v = features(seed)
        assert local_structure_loss(v, v, EDGES, **options).abs() < 1e-15
        assert local_structure_loss(z, v, EDGES, **options) > -1e-15

    @given(SEEDS, st.floats(1e-3, 1e3), st.sampled_from(["paper", "code"]))
    def test_ceiling_of_a_kernel_within_0_and_1(self, seed, scale, variant):
        z, v = features(seed)
        loss = local_structure_loss(scale * z, v, EDGES, bandwidth=1.0, variant=variant)
        assert loss < yang2020.CEILING

    @given(SEEDS, st.floats(1e-3, 1e3))
    def test_bandwidth_is_a_squared_scale_of_the_features(self, seed, scale):
        z, v = features(seed)
        torch.testing.assert_close(
            local_structure_loss(scale * z, scale * v, EDGES, bandwidth=scale**2),
            local_structure_loss(z, v, EDGES, bandwidth=1.0),
            **F64,
        )


class TestNodesWithoutStructure:
    def test_isolated_nodes_and_leaves_dilute_the_mean(self):
        z, v = features()
        leaves = torch.stack([torch.arange(6), torch.arange(6, 12)])
        z_more = z.repeat(3, 1).requires_grad_()
        loss = local_structure_loss(z_more, v.repeat(3, 1), torch.cat([EDGES, leaves], dim=1))
        torch.testing.assert_close(3 * loss, local_structure_loss(z, v, EDGES), **F64)
        loss.backward()
        assert z_more.grad[6:].abs().max() < 1e-15

    def test_one_edge_says_nothing(self):
        z, v = features()
        z.requires_grad_()
        loss = local_structure_loss(z, v, torch.tensor([[0], [1]]))
        loss.backward()
        assert loss == 0
        assert (z.grad == 0).all()

    def test_a_loop_is_an_edge_like_any_other(self):
        z, v = features()
        edges = torch.cat([EDGES, torch.tensor([[0], [0]])], dim=1)
        expected = by_hand(z, v, edges)
        assert local_structure_loss(z, v, edges).item() == pytest.approx(expected, rel=1e-10)

    def test_the_direction_of_edges_counts(self):
        z, v = features()
        assert local_structure_loss(z, v, EDGES) != local_structure_loss(z, v, EDGES.flip(0))


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("options", OPTIONS)
    def test_extreme_features_stay_finite(self, dtype, scale, options):
        z, v = (scale * x.sign() for x in features())
        z, v = z.to(dtype).requires_grad_(), v.to(dtype)
        loss = local_structure_loss(z, v, EDGES, **options)
        loss.backward()
        assert loss.isfinite()
        # Of inner products near 1e8 the true gradient exceeds float16.
        if not (options["kernel"] == "linear" and dtype == torch.float16):
            assert z.grad.isfinite().all()

    @pytest.mark.parametrize("options", OPTIONS)
    def test_duplicated_nodes_and_constant_rows(self, options):
        z = torch.ones(6, 3, dtype=torch.float64).requires_grad_()
        loss = local_structure_loss(z, features()[1], EDGES, **options)
        loss.backward()
        assert loss > 0
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        z, v = features(dtype=dtype)
        loss = local_structure_loss(z, v, EDGES)
        assert loss.dtype == torch.float32
        assert loss == local_structure_loss(z.float(), v.float(), EDGES)

    def test_student_and_teacher_may_differ_in_dtype(self):
        z, v = features()
        loss = local_structure_loss(z, v.float(), EDGES, bandwidth=1.0)
        expected = local_structure_loss(z, v, EDGES, bandwidth=1.0)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-8)
        assert local_structure_loss(z.float(), v, EDGES).dtype == torch.float32

    def test_small_integers_as_edges(self):
        z, v = features()
        assert local_structure_loss(z, v, EDGES.int()) == local_structure_loss(z, v, EDGES)


class TestBadInput:
    @pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.inf, math.nan])
    def test_bandwidth(self, bandwidth):
        with pytest.raises(ValueError, match=f"bandwidth .* got {bandwidth}"):
            local_structure_loss(*features(), EDGES, bandwidth=bandwidth)

    def test_no_edge(self):
        with pytest.raises(ValueError, match=r"edge_index .* got shape"):
            local_structure_loss(*features(), torch.zeros(2, 0).long())

    @pytest.mark.parametrize("node", [-1, 6])
    def test_edge_to_nowhere(self, node):
        with pytest.raises(ValueError, match=rf"edge_index must be in 0 … 5, got .*{node}"):
            local_structure_loss(*features(), torch.tensor([[0, node], [node, 1]]))

    @pytest.mark.parametrize("name", ["student", "teacher"])
    def test_features_of_width_0(self, name):
        z, v = features()
        given = {"student": z, "teacher": v, name: torch.zeros(6, 0)}
        with pytest.raises(ValueError, match=name):
            local_structure_loss(**given, edge_index=EDGES)

    @pytest.mark.parametrize(
        ("z", "v", "argument"),
        [
            (torch.zeros(6), torch.zeros(6, 2), "student"),
            (torch.zeros(6, 2), torch.zeros(1, 2), "teacher"),
            (torch.zeros(6, 2), torch.zeros(5, 2), "teacher"),
            (torch.zeros(6, 2).long(), torch.zeros(6, 2), "student"),
            (torch.zeros(6, 2), [[0.0]] * 6, "teacher"),
        ],
    )
    def test_wrong_features(self, z, v, argument):
        with pytest.raises(TypeError, match=argument):
            local_structure_loss(z, v, EDGES)

    @pytest.mark.parametrize("edges", [EDGES.T, EDGES[0], EDGES.double(), EDGES.tolist()])
    def test_wrong_edges(self, edges):
        with pytest.raises(TypeError, match="edge_index"):
            local_structure_loss(*features(), edges)

    @pytest.mark.parametrize("option", ["kernel", "variant"])
    def test_unknown_options(self, option):
        with pytest.raises(TypeError, match=option):
            local_structure_loss(*features(), EDGES, **{option: "other"})

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            local_structure_loss(*features(), EDGES, "rbf")


@pytest.mark.parametrize(
    "test", [yang2020.invariances, yang2020.ceiling, yang2020.direction], ids=lambda t: t.__name__
)
def test_exact_claims(test):
    evidence = test()
    assert evidence.holds, evidence.measured


def test_a_student_trained_with_the_loss_has_less_of_it():
    graph = yang2020.example("blocks", 0)
    known = (graph.features, graph.propagation())
    teacher, student, plain = (
        model.hidden(*known)
        for model in (
            yang2020.teacher_of("blocks", 0),
            yang2020.student_of("blocks", 0, yang2020.Arm()),
            yang2020.student_of("blocks", 0, yang2020.PLAIN),
        )
    )
    loss = functools.partial(
        local_structure_loss, teacher=teacher, edge_index=graph.edge_index, bandwidth=10.0
    )
    assert loss(student) < 0.7 * loss(plain)
