"""What every selection by labels must do, as a class of tests to inherit.

A test module gives the function, a problem for it, its answer in scalar
arithmetic, and how good its greedy answer is:

    class TestSelection(selection.Selection):
        function = staticmethod(select_neurons)
        amount = "count"
        ...
"""

import math

import pytest
import torch

from snippets.lab.data import seeded

seeds = pytest.mark.parametrize("seed", range(5))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


class Selection:
    """Of features (n, d) by labels (n,): an amount of indices."""

    function = None  # staticmethod(…) of the selection
    amount = ""  # the name of its third argument
    some = 4  # an amount that the problem has

    def problem(self, seed=0):
        """Features, and labels from 0 to at most 4."""
        raise NotImplementedError

    def by_hand(self, features, labels, amount, redundancy):
        """The answer in scalar arithmetic, as a list."""
        raise NotImplementedError

    def greedy_share(self, seed):
        """Where the greedy set lies between the mean set, 0, and the best, 1."""
        raise NotImplementedError

    def select(self, features, labels, amount=None, **options):
        amount = self.some if amount is None else amount
        return type(self).function(features, labels, amount, **options)

    @seeds
    @pytest.mark.parametrize("redundancy", [0.0, 0.5, 1.0, 3.0])
    def test_scalar_loop(self, seed, redundancy):
        features, labels = self.problem(seed)
        chosen = self.select(features, labels, redundancy=redundancy)
        assert chosen.tolist() == self.by_hand(features, labels, self.some, redundancy)

    def test_close_to_the_best_set_by_brute_force(self):
        shares = [self.greedy_share(seed) for seed in range(10)]
        assert sum(shares) / len(shares) > 0.85
        assert min(shares) > 0.7

    @seeds
    def test_order_of_the_samples(self, seed):
        features, labels = self.problem(seed)
        order = torch.randperm(len(labels), generator=seeded(seed))
        chosen = self.select(features, labels)
        shuffled = self.select(features[order], labels[order])
        assert self.in_old_order(shuffled, order).equal(chosen)

    def in_old_order(self, chosen, order):
        """What `chosen` of the samples `order` were before."""
        return order[chosen]

    @seeds
    def test_names_of_the_classes(self, seed):
        features, labels = self.problem(seed)
        renamed = torch.tensor([-3, 0, 7, 40, 99], dtype=torch.int32)[labels]
        assert self.select(features, renamed).equal(self.select(features, labels))

    @pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e-4, 1e30, 1e150])
    def test_tiny_and_huge_features(self, scale):
        features, labels = self.problem()
        assert self.select(features * scale, labels).equal(self.select(features, labels))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        features, labels = self.problem()
        rounded = features.to(dtype)
        chosen = self.select(rounded, labels)
        assert chosen.equal(self.select(rounded.float(), labels))
        assert chosen.dtype == torch.int64

    def test_features_in_the_graph_get_no_gradient(self):
        features, labels = self.problem()
        assert not self.select(features.requires_grad_(), labels).requires_grad

    @pytest.mark.parametrize("amount", [0, -1])
    def test_too_small_an_amount(self, amount):
        with pytest.raises(ValueError, match=f"{self.amount} must be .* got {amount}"):
            self.select(*self.problem(), amount)

    def test_the_amount_is_an_integer(self):
        with pytest.raises(TypeError, match=self.amount):
            self.select(*self.problem(), 2.0)

    @pytest.mark.parametrize("redundancy", [-0.1, math.inf, math.nan])
    def test_bad_redundancy(self, redundancy):
        with pytest.raises(ValueError, match=f"redundancy .* got {redundancy}"):
            self.select(*self.problem(), redundancy=redundancy)

    @pytest.mark.parametrize("value", [math.inf, math.nan])
    def test_features_not_finite(self, value):
        features, labels = self.problem()
        features[3, 2] = value
        with pytest.raises(ValueError, match="features must be finite"):
            self.select(features, labels)

    def test_one_class(self):
        features, labels = self.problem()
        with pytest.raises(ValueError, match="labels must hold two classes, got only 4"):
            self.select(features, labels * 0 + 4)

    @pytest.mark.parametrize(
        ("n", "message"), [(0, "features"), (1, "features|labels must hold two")]
    )
    def test_too_few_samples(self, n, message):
        with pytest.raises(ValueError, match=message):
            self.select(torch.zeros(n, 3), torch.zeros(n).long(), 1)

    @pytest.mark.parametrize(
        ("features", "labels", "argument"),
        [
            (torch.zeros(6), torch.zeros(6).long(), "features"),
            (torch.zeros(6, 3).long(), torch.zeros(6).long(), "features"),
            (torch.zeros(6, 3), torch.zeros(1).long(), "labels"),
            (torch.zeros(6, 3), torch.zeros(6), "labels"),
        ],
    )
    def test_wrong_tensor(self, features, labels, argument):
        with pytest.raises(TypeError, match=argument):
            self.select(features, labels, 1)
