"""The bench: claims, checks, data, models, training, plots."""

import io
import types
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from papers import ledger
from snippets.lab import claims, plots, report
from snippets.lab.checks import (
    require_positive,
    require_samples,
    require_share,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim, claims_of, show
from snippets.lab.data import TEST, TRAIN, VALID, digits, jitter, seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.models import cnn, mlp
from snippets.lab.train import accuracy, fit, fit_classifier


def as_main(source):
    """Execute `source` as a script would run."""
    scope = {"__name__": "__main__", "claim": claim, "show": show, "Evidence": Evidence}
    scope["figure"] = plots.figure
    exec(source, scope)
    return scope


CLAIM = """
@claim("Two is two", source="§1", expect={expect})
def two(n=2):
    return Evidence(holds={holds}, measured="2 & <2>", expected="2")
"""


class TestClaims:
    def test_importing_only_registers(self, capsys):
        module = types.ModuleType("some_paper")
        module.__dict__.update(claim=claim, Evidence=Evidence)
        exec(CLAIM.format(expect=True, holds="1/0"), module.__dict__)
        assert [found.name for found in claims_of(module)] == ["two"]
        assert capsys.readouterr().out == ""

    def test_running_shows_the_verdict_below(self, capsys):
        as_main(CLAIM.format(expect=True, holds=True))
        assert "✓ holds: Two is two (§1)" in capsys.readouterr().out

    @pytest.mark.parametrize(("holds", "expect"), [(True, False), (False, True)])
    def test_an_unexpected_verdict_is_an_error(self, holds, expect):
        with pytest.raises(claims.UnexpectedVerdictError, match=f"two: declared.*{expect}"):
            as_main(CLAIM.format(expect=expect, holds=holds))

    def test_a_declared_failure_is_published(self, capsys):
        as_main(CLAIM.format(expect=False, holds=False))
        assert "✗ does not reproduce here" in capsys.readouterr().out

    def test_an_untested_claim_needs_no_expectation(self, capsys):
        as_main(CLAIM.format(expect=True, holds=None))
        assert "– not tested here" in capsys.readouterr().out

    def test_a_claim_that_returns_something_else(self):
        with pytest.raises(TypeError, match="claim two returned bool, expected Evidence"):
            as_main('@claim("…", source="…")\ndef two(): return True')

    def test_a_show_that_returns_something_else(self):
        with pytest.raises(TypeError, match="illustration two returned int"):
            as_main("@show\ndef two(): return 2")

    def test_a_figure_needs_an_alternative_text(self):
        with pytest.raises(ValueError, match="alternative text"):
            as_main('@show\ndef two(): return figure("title", alt="")[0]')

    def test_the_card_is_what_the_ledger_reads(self):
        evidence = Evidence(holds=torch.tensor(True), measured="2 & <2>", expected="2")
        declared = claims.Claim("two", "Two is two", "§1", expect=True)
        card = claims._card(declared, evidence).data
        verdict = ledger.Verdict(paper="some2020", **card[ledger.CLAIM_MIME])
        assert verdict.verdict == "holds"
        assert verdict.page == "notebooks/some2020/#claim-two"
        assert 'id="claim-two"' in card["text/html"]
        assert "2 &amp; &lt;2&gt;" in card["text/html"]

    def test_a_claim_can_be_called_with_other_settings(self):
        module = types.ModuleType("some_paper")
        module.__dict__.update(claim=claim, Evidence=Evidence)
        exec(CLAIM.format(expect=True, holds="n == 3"), module.__dict__)
        assert module.two(n=3).holds
        assert not module.two(n=4).holds

    def test_threads_are_given_back(self):
        before = torch.get_num_threads()
        as_main(CLAIM.format(expect=True, holds=True))
        assert torch.get_num_threads() == before


@typed
def dot(
    left: Float[Tensor, "batch size"], right: Float[Tensor, "batch size"], *, scale: float = 1.0
) -> Float[Tensor, "batch"]:
    return scale * (left * right).sum(-1)


class TestChecks:
    def test_sizes_must_agree(self):
        with pytest.raises(TypeError, match="right"):
            dot(torch.zeros(2, 3), torch.zeros(2, 4))

    def test_calls_that_passed_let_no_others_pass(self):
        @typed
        def scaled(
            x: Float[Tensor, "n"], *, by: Literal["one", "two"] = "one"
        ) -> Float[Tensor, "n"]:
            return x if by == "one" else 2 * x

        for _ in range(2):
            assert scaled(torch.ones(2), by="two").tolist() == [2, 2]
            assert dot(torch.ones(2, 3), torch.ones(2, 3)).tolist() == [3, 3]
            for wrong in (torch.ones(2, 1), torch.ones(2, 3).long(), torch.ones(3, 2)):
                with pytest.raises(TypeError):
                    dot(torch.ones(2, 3), wrong)
            with pytest.raises(TypeError):
                dot(torch.ones(2, 3), torch.ones(2, 3), scale="1.0")
            with pytest.raises(TypeError):
                scaled(torch.ones(2), by="three")

    def test_an_integer_is_a_float(self):
        assert dot(torch.ones(2, 3), torch.ones(2, 3), scale=2).tolist() == [6, 6]

    def test_the_check_steps_aside_when_compiled(self):
        compiled = torch.compile(dot, backend="eager", fullgraph=True)
        assert compiled(torch.ones(2, 3), torch.ones(2, 3)).tolist() == [3, 3]

    def test_the_bare_form_is_reachable(self):
        assert dot.__wrapped__(torch.ones(2, 1).long(), torch.ones(1, 1)).tolist() == [1, 1]

    @pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan")])
    def test_require_positive(self, bad):
        with pytest.raises(ValueError, match=r"width .* got"):
            require_positive(width=bad)

    def test_require_share(self):
        require_share(alpha=0, beta=1)
        with pytest.raises(ValueError, match=r"alpha .* got 1\.5"):
            require_share(alpha=1.5)

    def test_require_samples(self):
        require_samples(at_least=2, features=torch.zeros(2, 1))
        with pytest.raises(ValueError, match=r"features .* 2 .* \(1, 1\)"):
            require_samples(at_least=2, features=torch.zeros(1, 1))

    def test_require_true(self):
        require_true(mask=torch.tensor([False, True]))
        with pytest.raises(ValueError, match=r"mask .* \(2, 3\) without any"):
            require_true(mask=torch.zeros(2, 3, dtype=torch.bool))


class TestDivergence:
    @given(st.integers(0, 2**31))
    def test_equals_torchs(self, seed):
        log_p, log_q = torch.randn(
            2, 6, 4, generator=seeded(seed), dtype=torch.float64
        ).log_softmax(-1)
        theirs = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        torch.testing.assert_close(kl_divergence(log_p, log_q), theirs, rtol=1e-12, atol=1e-12)

    def test_infinite_where_q_alone_is_zero_even_if_p_underflows(self):
        log_p = torch.tensor([0.0, -1e4])
        log_q = torch.tensor([0.0, -torch.inf])
        assert kl_divergence(log_p, log_q) == torch.inf
        assert kl_divergence(log_q, log_p) == 0


class TestData:
    def test_samples_are_drawn_without_repetition(self):
        train = digits().train
        few, more, other = (train.drawn(n, seed=k) for n, k in ((100, 1), (300, 1), (100, 2)))
        assert torch.equal(few.images, more.images[:100])
        assert torch.equal(few.labels, more.labels[:100])
        assert not torch.equal(few.images, other.images)
        assert torch.equal(train.drawn(1000, seed=0).labels.sort()[0], train.labels.sort()[0])

    def test_the_split_is_fixed_and_whole(self):
        data = digits()
        assert [len(part) for part in (data.train, data.valid, data.test)] == [TRAIN, VALID, TEST]
        assert data.train.labels[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]
        images = torch.cat([part.images for part in (data.train, data.valid, data.test)])
        assert images.shape == (1797, 1, 8, 8)
        assert images.dtype == torch.float64
        assert images.min() == 0
        assert images.max() == 1

    def test_jitter_moves_by_at_most_a_pixel(self):
        image = torch.zeros(50, 1, 8, 8)
        image[:, :, 4, 4] = 1
        rows, columns = jitter(image, generator=seeded(0))[:, 0].nonzero().T[1:]
        assert set(rows.tolist()) == set(columns.tolist()) == {3, 4, 5}


class TestModels:
    @pytest.mark.parametrize(
        "make",
        [
            lambda seed: mlp(64, 12, 10, generator=seeded(seed)),
            lambda seed: cnn([4, 8], 10, generator=seeded(seed)),
        ],
    )
    def test_weights_come_from_the_generator_alone(self, make):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first, again, other = make(1), make(1), make(2)
        assert torch.equal(torch.get_rng_state(), state)
        images = digits().test.images[:3]
        assert torch.equal(first(images), again(images))
        assert not torch.equal(first(images), other(images))
        assert first(images).shape == (3, 10)
        assert first(images).dtype == torch.float64

    def test_slices_give_features(self):
        images = digits().test.images[:3]
        assert mlp(64, 12, 9, 10, generator=seeded(0))[:3](images).shape == (3, 12)
        assert cnn([4, 8], 10, generator=seeded(0))[:4](images).shape == (3, 8, 4, 4)


class TestTraining:
    def test_learns_the_digits_and_only_what_it_is_given(self):
        train, test = digits().train, digits().test
        model = mlp(64, 32, 10, generator=seeded(0))
        frozen = model[1].weight.clone()
        state = torch.get_rng_state()

        def loss(batch):
            return nn.functional.cross_entropy(model(train.images[batch]), train.labels[batch])

        head = fit(model[3], loss, len(train), generator=seeded(1), epochs=3)
        assert torch.equal(model[1].weight, frozen)
        history = fit(model, loss, len(train), generator=seeded(1), epochs=15)
        assert len(head) == 3
        assert history[-1] < 0.4 < history[0]
        assert accuracy(model, test.images, test.labels) > 0.9
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_classifier_is_frozen_and_sees_augmented_images(self):
        train = digits().train
        seen = []
        model = fit_classifier(
            mlp(64, 10, generator=seeded(0)),
            train.images,
            train.labels,
            generator=seeded(1),
            augment=lambda images: seen.append(len(images)) or images,
            epochs=2,
            batch_size=500,
        )
        assert seen == [500] * 4
        assert not any(parameter.requires_grad for parameter in model.parameters())


class TestReport:
    def test_an_error_is_held_against_a_bound(self):
        assert report.below(1e-15, 1e-9) == "< 1e-9"
        assert report.below(torch.tensor(float("nan")), 1e-12) == "≥ 1e-12"

    def test_shares_and_seeds(self):
        assert report.percent(0.8449) == "84 %"
        assert report.percent(torch.tensor(0.8449), digits=1) == "84.5 %"
        assert report.mean_sd([0.9, 1.0, 1.1], digits=2) == "1.00 ± 0.10"

    def test_gains_are_paired_and_clear_above_two_standard_errors(self):
        shares = {"new": [0.5, 0.75, 0.5], "old": [0.25, 0.25, 0.5]}
        found = report.gains(lambda way, seed: shares[way][seed], "new", "old", range(3))
        assert found == [25, 50, 0]
        # Of −1, 0 and 1 the standard error is 1 / √3.
        assert report.clear([1.16 + x for x in (-1, 0, 1)])
        assert not report.clear([1.15 + x for x in (-1, 0, 1)])

    def test_slope(self):
        x = torch.linspace(0, 1, 5, dtype=torch.float64)
        assert report.slope(x, 3 - 2 * x) == pytest.approx(-2, abs=1e-12)


class TestPlots:
    def test_strips_have_a_bar_at_the_mean_of_each_row(self):
        _, ax = plots.figure("a finding", alt="two rows of dots")
        plots.strips(ax, {"a": [0.0, 1.0, 5.0], "b": [3.0]}, plots.BLUE, plots.GREEN)
        a, bar_a, b, bar_b, zero = (list(line.get_xdata()) for line in ax.lines)
        assert (a, bar_a, b, bar_b, zero) == ([0, 1, 5], [2, 2], [3], [3, 3], [0, 0])
        assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]

    def test_the_same_bytes_twice(self):
        def draw():
            fig, ax = plots.figure("a finding", alt="a line")
            ax.plot([0, 1], [0, 1])
            plots.label(ax, 1, 1, "line", plots.BLUE)
            return plots.png(fig)

        (first, width), (again, _) = draw(), draw()
        assert first == again
        image = Image.open(io.BytesIO(first))
        assert image.width == 2 * width == 1280
        assert image.convert("RGBA").getpixel((0, image.height // 2))[3] == 0

    @pytest.mark.parametrize("ground", ["#ffffff", "#1e2129"])
    def test_colours_stand_out_on_both_grounds(self, ground):
        def luminance(colour):
            parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

        for colour in (plots.BLUE, plots.VERMILLION, plots.GREEN, plots.PURPLE, plots.GREY):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) > 2.95, colour
