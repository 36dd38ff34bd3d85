"""The selection and the loss of ge2018 against independent forms, and at their borders."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import ge2018
from snippets.ge2018 import select_samples, selective_loss
from tests import selection
from tests.selection import normal

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def problem(seed=0, n=24, width=6, classes=3):
    """Clusters around class centres (n, d) and labels (n,)."""
    draw = normal(classes + n, width, seed=seed)
    labels = torch.arange(n) % classes
    return 1.5 * draw[:classes][labels] + draw[classes:], labels


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def purities(features, labels):
    """Centred features and their purity, in scalar arithmetic."""
    rows = (features - features.mean(0)).tolist()
    labels = labels.tolist()
    centres = {}
    for name in set(labels):
        units = [
            [x / math.hypot(*row) for x in row]
            for row, y in zip(rows, labels, strict=True)
            if y == name
        ]
        centres[name] = [sum(column) for column in zip(*units, strict=True)]
    pure = []
    for row, y in zip(rows, labels, strict=True):
        others = [cosine(row, c) for name, c in centres.items() if name != y]
        pure.append(cosine(row, centres[y]) - max(others))
    return rows, pure


def by_hand(features, labels, per_class, redundancy):
    rows, pure = purities(features, labels)
    answer = []
    for name in sorted(set(labels.tolist())):
        rest = [i for i, y in enumerate(labels.tolist()) if y == name]
        chosen = []
        for _ in range(min(per_class, len(rest))):

            def score(i, chosen=chosen):
                alike = [max(0.0, cosine(rows[i], rows[j])) for j in chosen]
                return pure[i] - redundancy * sum(alike) / max(len(alike), 1)

            chosen.append(max((i for i in rest if i not in chosen), key=score))
        answer += chosen
    return answer


def greedy_share(seed):
    """Where the greedy 3 of 12 in class 0 lie between the mean set, 0, and the best, 1."""
    features, labels = problem(seed, n=24, classes=2)
    rows, pure = purities(features, labels)

    def objective(chosen):
        pairs = itertools.combinations(chosen, 2)
        alike = [max(0.0, cosine(rows[i], rows[j])) for i, j in pairs]
        return sum(pure[i] for i in chosen) / 3 - 2 * sum(alike) / 9

    sets = [objective(chosen) for chosen in itertools.combinations(range(0, 24, 2), 3)]
    mean = sum(sets) / len(sets)
    found = objective(select_samples(features, labels, 3)[:3].tolist())
    return (found - mean) / (max(sets) - mean)


class TestSelection(selection.Selection):
    function = staticmethod(select_samples)
    amount = "per_class"
    problem = staticmethod(problem)
    by_hand = staticmethod(by_hand)
    greedy_share = staticmethod(greedy_share)

    def test_leaves_out_known_dirt_in_well_separated_clusters(self):
        centres = 5 * torch.eye(4, 16, dtype=torch.float64)
        labels = torch.arange(200) % 4
        dirty = torch.arange(200) >= 160
        where = torch.where(dirty, labels + 1, labels) % 4
        features = centres[where] + normal(200, 16)
        chosen = select_samples(features, labels, 30)
        assert not dirty[chosen].any()


class TestSelectionInvariances:
    @given(SEEDS, st.floats(0.01, 100))
    def test_shift_rotation_and_scale_of_all_features(self, seed, scale):
        features, labels = problem(seed)
        turn = torch.linalg.qr(normal(6, 6, seed=seed + 1)).Q
        moved = scale * features @ turn + normal(6, seed=seed + 2)
        assert select_samples(moved, labels, 5).equal(select_samples(features, labels, 5))

    @given(SEEDS, st.integers(1, 8))
    def test_the_first_k_of_a_class_are_the_answer_for_k(self, seed, count):
        features, labels = problem(seed)
        every = select_samples(features, labels, 8).view(3, 8)
        assert every.unique().numel() == 24
        assert (labels[every] == torch.arange(3)[:, None]).all()
        assert every[:, :count].flatten().equal(select_samples(features, labels, count))

    def test_a_small_class_gives_all_it_has(self):
        features, labels = problem()
        kept = (labels != 1) | (torch.arange(24) < 6)
        chosen = select_samples(features[kept], labels[kept], 5)
        assert labels[kept][chosen].bincount().tolist() == [5, 2, 5]

    def test_a_copy_waits_for_an_equally_pure_sample(self):
        own = torch.tensor([[1.0, 0.3], [1.0, 0.3], [1.0, -0.3]])
        features = torch.cat([own, -own]).double()
        labels = torch.tensor([0, 0, 0, 1, 1, 1])
        chosen = select_samples(features, labels, 2).tolist()
        assert len({0, 1} & {*chosen[:2]}) == 1
        assert 2 in chosen[:2]

    @pytest.mark.parametrize("features", [torch.zeros(6, 3), torch.full((6, 3), 0.1)])
    def test_equal_features_still_give_an_answer(self, features):
        labels = torch.arange(6) % 2
        chosen = select_samples(features, labels, 2)
        assert labels[chosen].tolist() == [0, 0, 1, 1]
        assert chosen.unique().numel() == 4


MASK = torch.tensor([True, False, True, True, False, True])


def batch(seed=0, dtype=torch.float64):
    draw = normal(2, 6, 4, seed=seed)
    return draw[0].to(dtype), draw[1].to(dtype)


class TestLossAgainstIndependentForms:
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self):
        student, teacher = batch()
        total = 0.0
        for a, b, real in zip(student.tolist(), teacher.tolist(), MASK.tolist(), strict=True):
            if real:
                total += sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        loss = selective_loss(student, teacher, MASK)
        assert loss.item() == pytest.approx(total / 4, rel=1e-12)

    @pytest.mark.proves("against", "torch's mse_loss times the width")
    def test_is_torchs_mean_square_times_the_width(self):
        student, teacher = batch()
        theirs = torch.nn.functional.mse_loss(student[MASK], teacher[MASK]) * 4
        torch.testing.assert_close(selective_loss(student, teacher, MASK), theirs, **F64)


class TestWhoLearns:
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_selected_students_learn_and_nobody_else(self):
        student, teacher = (x.requires_grad_() for x in batch())
        selective_loss(student, teacher, MASK).backward()
        expected = 2 * (student - teacher).detach() / 4
        torch.testing.assert_close(student.grad[MASK], expected[MASK], **F64)
        assert (student.grad[~MASK] == 0).all()
        assert teacher.grad is None

    @pytest.mark.proves("invariances", "student and teacher exchanged")
    def test_value_is_symmetric_by_definition(self):
        student, teacher = batch()
        loss = selective_loss(student, teacher, MASK)
        assert loss == selective_loss(teacher, student, MASK)

    def test_gradient_numerically(self):
        student, teacher = batch()
        assert torch.autograd.gradcheck(
            lambda x: selective_loss(x, teacher, MASK), student.requires_grad_()
        )


class TestLossInvariances:
    @given(SEEDS, st.permutations(range(6)), st.permutations(range(4)))
    @pytest.mark.proves("invariances", "the order of the samples and coordinates")
    def test_order_of_samples_and_coordinates(self, seed, samples, coordinates):
        student, teacher = batch(seed)
        loss = selective_loss(student, teacher, MASK)
        shuffled = [x[samples][:, coordinates] for x in (student, teacher)]
        torch.testing.assert_close(selective_loss(*shuffled, MASK[samples]), loss, **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of both")
    def test_rotation_of_both(self, seed):
        student, teacher = batch(seed)
        turn = torch.linalg.qr(normal(4, 4, seed=seed + 1)).Q
        turned = selective_loss(student @ turn, teacher @ turn, MASK)
        torch.testing.assert_close(turned, selective_loss(student, teacher, MASK), **F64)

    @pytest.mark.parametrize("value", [0.0, 1e4, math.inf, math.nan])
    @pytest.mark.proves("invariances", "what is not selected")
    def test_what_is_not_selected_has_no_say(self, value):
        student, teacher = batch()
        loss = selective_loss(student, teacher, MASK)
        padding = torch.full((3, 4), value, dtype=torch.float64)
        longer = torch.cat([student, padding]).requires_grad_()
        mask = torch.cat([MASK, torch.zeros(3, dtype=torch.bool)])
        padded = selective_loss(longer, torch.cat([teacher, -padding]), mask)
        padded.backward()
        assert padded == loss
        assert longer.grad.isfinite().all()

    @given(SEEDS)
    def test_zero_only_where_they_agree(self, seed):
        student, teacher = batch(seed)
        assert selective_loss(teacher, teacher, MASK) == 0
        assert selective_loss(student, teacher, MASK) > 0


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_features_stay_finite(self, dtype, scale):
        student, teacher = ((scale * x.sign()).to(dtype) for x in batch())
        student.requires_grad_()
        loss = selective_loss(student, teacher, MASK)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


class TestBadInput:
    def test_nothing_selected(self):
        with pytest.raises(ValueError, match="selected must have at least one true element"):
            selective_loss(*batch(), torch.zeros(6, dtype=torch.bool))

    def test_empty_batch(self):
        with pytest.raises(ValueError, match="student"):
            selective_loss(torch.zeros(0, 4), torch.zeros(0, 4), MASK[:0])

    @pytest.mark.parametrize(
        ("student", "teacher", "selected", "argument"),
        [
            (torch.zeros(6), torch.zeros(6), MASK, "student"),
            (torch.zeros(6, 4), torch.zeros(1, 4), MASK, "teacher"),
            (torch.zeros(6, 4), torch.zeros(6, 1), MASK, "teacher"),
            (torch.zeros(6, 4).long(), torch.zeros(6, 4), MASK, "student"),
            (torch.zeros(6, 4), torch.zeros(6, 4), MASK[:1], "selected"),
            (torch.zeros(6, 4), torch.zeros(6, 4), torch.arange(6), "selected"),
        ],
    )
    def test_wrong_tensor(self, student, teacher, selected, argument):
        with pytest.raises(TypeError, match=argument):
            selective_loss(student, teacher, selected)


def test_pictures_alike_in_low_resolution_get_one_answer():
    images = ge2018.digits().test.images[:4]
    hidden = normal(4, 1, 8, 8)
    hidden = hidden - ge2018.low_resolution(hidden)
    seen = ge2018.low_resolution(images + hidden)
    torch.testing.assert_close(seen, ge2018.low_resolution(images), **F64)
    torch.testing.assert_close(ge2018.low_resolution(seen), seen, **F64)


def test_the_selection_finds_wrong_pictures_with_one_seed():
    assert ge2018.selection_finds_dirt(seeds=(0,)).holds
