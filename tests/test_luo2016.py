"""The selection and the loss of luo2016 against independent forms, and at their borders."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import luo2016
from snippets.luo2016 import neuron_loss, select_neurons
from tests import selection
from tests.selection import normal

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def problem(seed=0, n=60, size=8, classes=5):
    """Neurons (n, D) with class signal and shared noise; labels (n,)."""
    draw = normal(classes + 2 * n, size, seed=seed)
    labels = torch.arange(n) % classes
    shared = draw[-n:, :3] @ normal(3, size, seed=seed + 1) / 2
    return draw[:classes][labels] + draw[classes : classes + n] + shared, labels


def power_and_correlation(features, labels):
    """Share of variance between classes and |correlation|, in scalar arithmetic."""
    columns, labels = features.T.tolist(), labels.tolist()
    n = len(labels)

    def centred(column):
        mean = sum(column) / n
        return [x - mean for x in column]

    power, rho = [], []
    for column in map(centred, columns):
        total = sum(x * x for x in column)
        between = 0.0
        for group in set(labels):
            members = [x for x, y in zip(column, labels, strict=True) if y == group]
            between += sum(members) ** 2 / len(members)
        power.append(between / total)
        row = []
        for other in map(centred, columns):
            dot = sum(a * b for a, b in zip(column, other, strict=True))
            row.append(abs(dot) / math.sqrt(total * sum(x * x for x in other)))
        rho.append(row)
    return power, rho


def by_hand(features, labels, count, redundancy):
    power, rho = power_and_correlation(features, labels)
    chosen = []
    for _ in range(count):
        rest = [i for i in range(len(power)) if i not in chosen]
        penalty = {i: sum(rho[i][j] for j in chosen) / max(len(chosen), 1) for i in rest}
        chosen.append(max(rest, key=lambda i: power[i] - redundancy * penalty[i]))
    return chosen


def greedy_share(seed):
    """Where the greedy set of 4 of 12 lies between the mean set, 0, and the best, 1."""
    features, labels = problem(seed, size=12)
    power, rho = power_and_correlation(features, labels)

    def objective(chosen):
        pairs = [rho[i][j] for i, j in itertools.combinations(chosen, 2)]
        return sum(power[i] for i in chosen) / 4 - 2 * sum(pairs) / 16

    every = [objective(chosen) for chosen in itertools.combinations(range(12), 4)]
    mean = sum(every) / len(every)
    found = objective(select_neurons(features, labels, 4).tolist())
    return (found - mean) / (max(every) - mean)


class TestSelection(selection.Selection):
    function = staticmethod(select_neurons)
    amount = "count"
    some = 8
    problem = staticmethod(problem)
    by_hand = staticmethod(by_hand)
    greedy_share = staticmethod(greedy_share)

    def in_old_order(self, chosen, order):
        return chosen  # neurons, whatever the order of the samples

    def test_without_redundancy_it_ranks_fishers_ratio(self):
        features, labels = problem()
        means = torch.stack([features[labels == c].mean(0) for c in range(5)])
        between = (means - features.mean(0)).square().sum(0)
        within = (features - means[labels]).square().sum(0)
        expected = (between / within).argsort(descending=True)
        chosen = select_neurons(features, labels, 8, redundancy=0)
        assert chosen.tolist() == expected.tolist()

    def test_too_large_a_count(self):
        with pytest.raises(ValueError, match="count must be in 1 to 8, got 9"):
            select_neurons(*problem(), 9)


class TestSelectionInvariances:
    @given(SEEDS)
    def test_scale_sign_and_shift_of_a_neuron(self, seed):
        features, labels = problem(seed)
        scale = normal(8, seed=seed + 2).exp() * normal(8, seed=seed + 3).sign()
        moved = features * scale + 5 * normal(8, seed=seed + 4)
        chosen = select_neurons(features, labels, 8)
        assert torch.equal(select_neurons(moved, labels, 8), chosen)

    @given(SEEDS, st.permutations(range(8)))
    def test_order_of_the_neurons(self, seed, neurons):
        features, labels = problem(seed)
        shuffled = select_neurons(features[:, neurons], labels, 8)
        assert torch.tensor(neurons)[shuffled].equal(select_neurons(features, labels, 8))

    @given(SEEDS, st.integers(1, 8))
    def test_the_first_k_are_the_answer_for_k(self, seed, count):
        features, labels = problem(seed)
        longer = select_neurons(features, labels, 8)
        assert longer[:count].equal(select_neurons(features, labels, count))
        assert longer.unique().numel() == 8

    @given(SEEDS, st.integers(0, 7))
    def test_a_copy_waits_until_nothing_else_is_left(self, seed, copied):
        features, labels = problem(seed)
        copy = 3 - 0.01 * features[:, copied : copied + 1]
        both = torch.cat([features, copy], 1)
        *first, last = select_neurons(both, labels, 9).tolist()
        assert last in (copied, 8)
        assert len({copied, 8} & {*first}) == 1

    @given(SEEDS, st.sampled_from([0.0, 0.1, 1e6]))
    def test_constant_neurons_come_last(self, seed, value):
        features, labels = problem(seed)
        features = torch.cat([torch.full((60, 2), value), features, features[:, :1]], 1)
        chosen = select_neurons(features.double(), labels, 11).tolist()
        assert {*chosen[9:]} == {0, 1}
        assert chosen[8] in (2, 10)

    def test_neurons_that_separate_perfectly_or_not_at_all(self):
        labels = torch.arange(6) % 2
        features = torch.stack([labels.double(), torch.arange(6) // 2 * 1.0], 1)
        assert select_neurons(features, labels, 2).tolist() == [0, 1]


def pair(seed=0, dtype=torch.float64):
    draw = normal(2, 6, 4, seed=seed)
    return draw[0].to(dtype), draw[1].to(dtype)


class TestLoss:
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self):
        g, f = pair()
        total = 0.0
        for a, b in zip(g.tolist(), f.tolist(), strict=True):
            total += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 2
        assert neuron_loss(g, f).item() == pytest.approx(total / 6, rel=1e-12)

    @pytest.mark.proves("against", "torch's mse_loss times half the width")
    def test_is_torchs_mean_square_times_half_the_width(self):
        g, f = pair()
        theirs = torch.nn.functional.mse_loss(g, f) * 4 / 2
        torch.testing.assert_close(neuron_loss(g, f), theirs, **F64)

    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self):
        g, f = (x.requires_grad_() for x in pair())
        neuron_loss(g, f).backward()
        torch.testing.assert_close(g.grad, (g - f).detach() / 6, **F64)
        assert f.grad is None

    @pytest.mark.proves("invariances", "student and teacher exchanged")
    def test_value_is_symmetric_by_definition(self):
        g, f = pair()
        assert neuron_loss(g, f) == neuron_loss(f, g)

    def test_gradient_numerically(self):
        g, f = pair()
        assert torch.autograd.gradcheck(lambda x: neuron_loss(x, f), g.requires_grad_())

    @given(SEEDS, st.floats(1e-4, 1e4))
    @pytest.mark.proves("invariances", "a shift of both")
    def test_quadratic_in_the_scale_and_blind_to_a_shift(self, seed, scale):
        g, f = pair(seed)
        loss = neuron_loss(g, f)
        torch.testing.assert_close(
            neuron_loss(scale * g, scale * f), scale**2 * loss, rtol=1e-9, atol=0
        )
        torch.testing.assert_close(neuron_loss(g + scale, f + scale), loss, rtol=1e-7, atol=1e-9)
        assert neuron_loss(f, f) == 0

    @given(SEEDS, st.permutations(range(6)), st.permutations(range(4)))
    @pytest.mark.proves("invariances", "the order of the samples and neurons")
    def test_order_of_samples_and_neurons(self, seed, samples, neurons):
        g, f = (x[samples][:, neurons] for x in pair(seed))
        torch.testing.assert_close(neuron_loss(g, f), neuron_loss(*pair(seed)), **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a batch repeated")
    def test_mean_over_the_batch(self, seed):
        g, f = pair(seed)
        twice = neuron_loss(g.repeat(2, 1), f.repeat(2, 1))
        torch.testing.assert_close(twice, neuron_loss(g, f), **F64)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_neurons_stay_finite(self, dtype, scale):
        g, f = (scale * x.sign() for x in pair())
        g = g.to(dtype).requires_grad_()
        loss = neuron_loss(g, f.to(dtype))
        loss.backward()
        assert loss.isfinite()
        assert g.grad.isfinite().all()
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)

    def test_empty_batch(self):
        with pytest.raises(ValueError, match="student"):
            neuron_loss(torch.zeros(0, 4), torch.zeros(0, 4))

    @pytest.mark.parametrize(
        ("g", "f", "argument"),
        [
            (torch.zeros(4), torch.zeros(4), "student"),
            (torch.zeros(6, 4), torch.zeros(1, 4), "teacher"),
            (torch.zeros(6, 4), torch.zeros(6, 1), "teacher"),
            (torch.zeros(6, 4).long(), torch.zeros(6, 4), "student"),
            (torch.zeros(6, 4), [[0.0] * 4] * 6, "teacher"),
        ],
    )
    def test_wrong_tensor(self, g, f, argument):
        with pytest.raises(TypeError, match=argument):
            neuron_loss(g, f)


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_half_the_mass_is_lost_at_the_margin_over_the_logarithm(classes):
    logits = torch.zeros(classes, dtype=torch.float64)
    logits[0] = 7.0
    share = (logits / (7.0 / math.log(classes - 1))).softmax(0)[0]
    assert share.item() == pytest.approx(0.5, rel=1e-12)


def test_verification_is_the_probability_of_a_right_comparison():
    images, people, _ = luo2016.made_faces(0, 1, people=60, each=8)
    distances = torch.cdist(images, images)
    i, j = torch.triu_indices(len(people), len(people), 1)
    same = people[i] == people[j]
    one = distances[i, j][same]
    two = distances[i, j][~same].sort().values
    right = len(two) - torch.searchsorted(two, one)
    expected = 100 * right.double().mean().item() / len(two)
    assert luo2016.verification(lambda x: x, 0) == pytest.approx(expected, rel=1e-9)


def test_costly_neurons_verify_worse_than_selected_ones_with_one_seed():
    cost = luo2016.attribute_cost(0)
    costly = cost.argsort()[: int(cost.isfinite().sum())][-16:]
    assert luo2016.verified(0, costly) < luo2016.verified(0, luo2016.selected(0)) - 5
