# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/chan2015.md](../papers/chan2015.md).
#
# # Transferring Knowledge from a RNN to a DNN
#
# William Chan, Nan Rosemary Ke and Ian Lane, Interspeech 2015
# ([arXiv:1504.01483](https://arxiv.org/abs/1504.01483)).
#
# A recurrent network reads a whole recording before it says which
# sound is at each moment. A small feed-forward network sees only a few
# frames around that moment. The paper lets the small one learn from
# the large one. What can a window *not* learn from a teacher who has
# heard everything? On a hidden Markov model the question has an exact
# answer: there the best possible teacher is known.

# %%
import functools
import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from snippets.lab.checks import (
    require_samples,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.models import mlp
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear
from snippets.lab.tokens import log_probabilities, real_mean
from snippets.lab.train import fit

# %% [markdown]
# ## The loss
#
# At each frame, teacher and student give a probability to each state.
# (In speech recognition a state is a part of a sound.) The teacher's
# probabilities are called a *soft alignment*. The student minimises
# the divergence from them, frame by frame. There is no temperature.


# %%
@typed
def frame_kd_loss(
    student_logits: Float[Tensor, "batch length states"],
    teacher_logits: Float[Tensor, "batch length states"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    r"""Divergence of the student's from the teacher's frame posteriors.

    $$\frac1N \sum_{b,t} m_{bt} \sum_y p(y \mid x_{b,1:L}, t)
    \log \frac{p(y \mid x_{b,1:L}, t)}{q(y \mid x_{b,t-c:t+c})},
    \qquad N = \sum_{b,t} m_{bt}$$

    $p = \mathrm{softmax}(v)$ has read the whole sequence,
    $q = \mathrm{softmax}(z)$ a window of $2c + 1$ frames; the loss
    itself does not know what they have read. The temperature is 1.
    On a real frame the gradient is $(q - p)/N$, that of the
    cross-entropy under the soft alignment.

    Args:
        student_logits: The student's $z$, (B, L, C).
        teacher_logits: The teacher's $v$, (B, L, C); gets no
            gradient.
        mask: $m$, (B, L); True where there is a real frame.

    Returns:
        A scalar in nats per real frame: 0 where student and teacher
        agree on all of them.

    Raises:
        TypeError: shapes that differ, logits that are no floats, or a
            mask that is not boolean.
        ValueError: an empty batch, or a mask without a real frame.

    Source: the abstract of the paper (Kullback-Leibler divergence
        from soft alignments). There is no official code; the mean
        over real frames is ours.
    """
    require_samples(student_logits=student_logits)
    require_true(mask=mask)
    log_q = log_probabilities(student_logits, mask)  # log q, (B, L, C)
    log_p = log_probabilities(teacher_logits.detach(), mask)  # log p
    return real_mean(kl_divergence(log_p, log_q), mask)


# %% [markdown]
# ## A world in which the best teacher is known
#
# Three states follow one another, each lasting five frames on average.
# Each frame shows one of three symbols; a state shows its own symbol
# with probability 0.7. A sequence has nine frames, so there are
# $3^9 = 19{,}683$ sequences, and every expectation below is a sum over
# all of them: no sampling, no error.
#
# The *teacher* is the exact posterior $p(y_t \mid x_{1:9})$ by the
# forward-backward algorithm. No network that reads the whole sequence
# can do better. The *student* sees the frames from $t - c$ to $t + c$,
# fewer at the two ends.


# %%
STATES, FRAMES, MIDDLE = 3, 9, 4


def circulant(stay: float, onward: float, back: float) -> Tensor:
    """Three states in a circle; the stationary law is uniform."""
    rows = [
        [stay, onward, back],
        [back, stay, onward],
        [onward, back, stay],
    ]
    return torch.tensor(rows, dtype=torch.float64)


TRANSITION = circulant(0.8, 0.15, 0.05)
EMISSION = circulant(0.7, 0.2, 0.1)


def posterior(
    sequences: Tensor, transition: Tensor = TRANSITION
) -> tuple[Tensor, Tensor]:
    """Forward-backward: p(y_t | x) (n, L, C), and p(x) (n,)."""
    seen = EMISSION.T[sequences]  # p(x_t | y), (n, L, C)
    forward = [seen[:, 0] / STATES]
    for frame in seen[:, 1:].unbind(1):
        forward.append(forward[-1] @ transition * frame)
    backward = [torch.ones_like(forward[0])]
    for frame in seen[:, 1:].flip(1).unbind(1):
        backward.append((backward[-1] * frame) @ transition.T)
    joint = torch.stack(forward, 1) * torch.stack(backward[::-1], 1)
    total = joint.sum(-1, keepdim=True)  # p(x), at every frame
    return joint / total, total[:, 0, 0]


def all_sequences(length: int = FRAMES) -> Tensor:
    """List every sequence of symbols, (3^length, length)."""
    symbols = torch.arange(STATES)
    listed = torch.cartesian_prod(*[symbols] * length)
    return listed.view(-1, length)


def number(sequences: Tensor) -> Tensor:
    """Where each sequence stands in `all_sequences`: (n,)."""
    powers = 3 ** torch.arange(sequences.shape[1]).flip(0)
    return sequences @ powers


SEQUENCES = all_sequences()
TEACHER, CHANCE = posterior(SEQUENCES)  # (n, L, C), (n,)


@functools.cache
def window_posterior(width: int) -> Tensor:
    """p(y_t | x from t - width to t + width), (n, L, C).

    It is computed from the windows alone: a window of a stationary
    hidden Markov model is a shorter sequence of the same model.
    """
    per_frame = []
    for t in range(FRAMES):
        first = max(0, t - width)
        window = SEQUENCES[:, first : t + width + 1]
        kinds = all_sequences(window.shape[1])
        p = posterior(kinds)[0][:, t - first]  # one row a kind
        per_frame.append(p[number(window)])
    return torch.stack(per_frame, 1)


def expected(values: Tensor) -> Tensor:
    """Average values (n, …) over all sequences by their chance."""
    return torch.tensordot(CHANCE, values, 1)


# %% [markdown]
# **Soft labels do not move the target.** A student with a window can
# say only one thing for one window. The best it can say, for soft
# labels, is the mean of the teacher's posteriors over all sequences
# that contain the window. By the tower property of conditional
# expectation, that mean is
# $\mathbb E[p(y \mid x_{1:L}) \mid \text{window}]
# = p(y \mid \text{window})$. It is also what infinitely many *hard*
# labels, the true states, would teach. So a soft label cannot make a
# window student better in the end. It can only get it there sooner.


# %%
WINDOWS = 3**3  # of three frames, around the middle one
CODES = number(SEQUENCES[:, MIDDLE - 1 : MIDDLE + 2])


def mean_by_window(labels: Tensor) -> Tensor:
    """Average labels (n, C) over each window's sequences: (27, C)."""
    zeros = torch.zeros(WINDOWS, STATES, dtype=torch.float64)
    total = zeros.index_add(0, CODES, CHANCE[:, None] * labels)
    return total / WINDOW_CHANCE[:, None]


WINDOW_TRUTH, WINDOW_CHANCE = posterior(all_sequences(3))
WINDOW_TRUTH = WINDOW_TRUTH[:, 1]  # p(y | window), (27, C)


@claim(
    "The best window student for soft labels is the best one for hard"
    " labels: the posterior given the window",
    source="not in the paper: tower property",
)
def same_optimum() -> Evidence:
    mean = mean_by_window(TEACHER[:, MIDDLE])
    worst = (mean - WINDOW_TRUTH).abs().max().item()
    return Evidence(
        holds=worst < 1e-12,
        measured=f"largest difference {below(worst, 1e-12)}, over 27"
        " windows of three frames",
        expected="equal",
    )


# %% [markdown]
# **The floor.** Let $q$ be any student of the window. Its expected
# loss splits in two:
#
# $$\mathbb E\,\mathrm{KL}\big(p(y \mid x_{1:L}) \,\|\, q\big)
# = \underbrace{I(y; x_{1:L} \mid \text{window})}_{\text{the floor}}
# + \mathbb E\,\mathrm{KL}\big(p(y \mid \text{window}) \,\|\, q\big).$$
#
# The first term does not contain the student. It is how much the rest
# of the sequence still says about the state, once the window is known.
# Size, depth and training do not touch it. Only the second term can be
# trained away. We compute the floor from entropies and the loss from
# the loss, so the equation is a real check.


# %%
def entropy(p: Tensor) -> Tensor:
    """Entropy in nats over the last dimension."""
    return torch.special.entr(p).sum(-1)


def floor(width: int) -> float:
    """I(y; all | window) = H(y | window) − H(y | all), per frame."""
    left = entropy(window_posterior(width)) - entropy(TEACHER)
    return expected(left).mean().item()


@claim(
    "The expected loss is the information outside the window plus the"
    " distance to the window's posterior, so it has a floor",
    source="not in the paper: chain rule of information",
)
def loss_has_a_floor() -> Evidence:
    whole, truth = TEACHER[:, MIDDLE], window_posterior(1)[:, MIDDLE]
    information = expected(entropy(truth) - entropy(whole))
    jolts = torch.randn(
        20, WINDOWS, STATES, generator=seeded(1), dtype=torch.float64
    )
    # Students from far away to almost at the optimum.
    spread = torch.logspace(-3, 1, 20, dtype=torch.float64)
    worst, least = 0.0, torch.inf
    for shift in spread[:, None, None] * jolts:
        log_q = (WINDOW_TRUTH.log() + shift).log_softmax(-1)[CODES]
        loss = expected(kl_divergence(whole.log(), log_q))
        rest = expected(kl_divergence(truth.log(), log_q))
        worst = max(worst, abs(loss - rest - information).item())
        least = min(least, (loss - information).item())
    return Evidence(
        holds=worst < 1e-12 and least > 0,
        measured=f"floor {information:.3f} nats at the middle frame,"
        " for a window of three; both sides differ by"
        f" {below(worst, 1e-12)} for 20 students, none below the floor",
        expected="equal; never below",
    )


# %% [markdown]
# **Wider windows lower it.** Below is the floor for each width, now
# averaged over all nine frames (the outer ones have less to miss), and
# what small networks of 32 hidden units reach. They learn by
# `frame_kd_loss` from 3,000 sequences drawn by chance, and are then
# judged on all 19,683. There is one network for each width.


# %%
def window_input(width: int) -> Tensor:
    """One-hot windows, zeros beyond the ends: (n, L, features)."""
    frames = nn.functional.one_hot(SEQUENCES, STATES).double()
    padded = nn.functional.pad(frames, (0, 0, width, width))
    return padded.unfold(1, 2 * width + 1, 1).flatten(2)


def trained_student(width: int, samples: int) -> float:
    """Train a small network on the teacher; return its exact loss."""
    generator = seeded(10 + width)
    chosen = torch.multinomial(
        CHANCE, samples, replacement=True, generator=generator
    )
    inputs, teacher = window_input(width), TEACHER.log()
    student = mlp(inputs.shape[-1], 32, STATES, generator=generator)

    def logits(rows: Tensor) -> Tensor:
        flat = student(inputs[rows].flatten(0, 1))
        return flat.unflatten(0, (-1, FRAMES))

    def loss(batch: Tensor) -> Tensor:
        rows = chosen[batch]
        mask = torch.ones(len(rows), FRAMES, dtype=torch.bool)
        return frame_kd_loss(logits(rows), teacher[rows], mask)

    fit(
        student,
        loss,
        samples,
        generator=generator,
        epochs=8,
        batch_size=128,
        learning_rate=1e-2,
    )
    with torch.no_grad():
        log_q = logits(torch.arange(len(SEQUENCES))).log_softmax(-1)
    return expected(kl_divergence(teacher, log_q)).mean().item()


@claim(
    "A wider window lowers the floor; small networks come within 0.01"
    " nats of it and never get below",
    source="not in the paper: the group's question",
)
def wider_windows(samples: int = 3000) -> Evidence:
    widths = range(6)
    floors = [floor(width) for width in widths]
    reached = [trained_student(w, samples) for w in range(4)]
    fig, ax = figure(
        "What lies outside the window cannot be learnt",
        alt="Loss per frame against the number of frames on each side,"
        " on a logarithmic scale. The floor is a nearly straight"
        " falling line from 0.23 to 0.0002. Dots for small networks"
        " lie on it for narrow windows and above it for wider ones.",
    )
    ax.semilogy(widths, floors, "-", color=BLUE)
    label(ax, 4, floors[4], "floor, exact", BLUE, offset=(8, 4))
    ax.semilogy(range(4), reached, "o", color=VERMILLION)
    label(
        ax,
        1,
        reached[1],
        "trained networks",
        VERMILLION,
        offset=(10, 6),
    )
    ax.set(xlabel="frames on each side, c", ylabel="loss, nats a frame")
    above = [r - f for r, f in zip(reached, floors[:4], strict=True)]
    falls = [a / b for a, b in itertools.pairwise(floors)]
    return Evidence(
        holds=min(above) > 0 and max(above) < 0.01 and min(falls) > 2,
        measured="floor "
        + ", ".join(f"{value:.2g}" for value in floors[:4])
        + " for c = 0, 1, 2, 3; networks "
        + ", ".join(f"{value:.2g}" for value in reached),
        expected="the floor falls with c; no network below it",
        figure=fig,
    )


# %% [markdown]
# The floor falls about fourfold for each frame on both sides: this
# world forgets quickly. The networks' distance from it grows with the
# window, because there is more to learn from the same sequences. So a
# wider window has its price.
#
# ## How many frames does it take?
#
# A tabular student keeps one distribution for each of the 27 windows
# of three frames. From $n$ labelled frames it takes each window's mean
# label, the exact minimiser of the loss, after adding 0.3 of each
# state to every sum. (Without that, a window seen once with a true
# state would give the others probability 0.) There are 30 runs. One
# kind of label is better than another if its gain, run by run, has a
# mean above twice its standard error.
#
# **Why should soft labels need fewer?** Both kinds average to the same
# table, but a soft label scatters less around it. To first order in
# $1/n$ the distance from the optimum is
# $\frac{1}{2n} \sum_{w,y} \mathrm{Var}(\text{label}_y \mid w) /
# p(y \mid w)$. For true states the sum is 27 · (3 − 1). For soft labels
# we compute it exactly, so the factor is known before it is measured.


# %%
COUNTS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)


@functools.cache
def wrong_teacher() -> Tensor:
    """Posteriors of a teacher who believes that states last longer."""
    transition = circulant(0.95, 0.03, 0.02)
    return posterior(SEQUENCES, transition)[0][:, MIDDLE]


def distance(students: Tensor) -> Tensor:
    """Exact KL(p(y | window) ‖ student), (…, 27, C) to (…)."""
    truth = WINDOW_TRUTH.log().expand_as(students)
    return kl_divergence(truth, students.log()) @ WINDOW_CHANCE


@functools.cache
def curves(runs: int = 30) -> list[Tensor]:
    """Distances at each of COUNTS in each run, (counts, runs).

    There is one tensor for each kind of label: true states, the exact
    teacher's posteriors, a wrong teacher's. All see the same frames.
    """
    generator = seeded(2)
    rows = torch.multinomial(
        CHANCE, runs * COUNTS[-1], replacement=True, generator=generator
    )
    soft = TEACHER[rows, MIDDLE]
    # The true state is a draw from the exact posterior.
    states = torch.multinomial(soft, 1, generator=generator)[:, 0]
    true = nn.functional.one_hot(states, STATES).double()
    cells = CODES[rows].view(runs, -1)
    cells = cells + WINDOWS * torch.arange(runs)[:, None]  # by run

    def student(labels: Tensor, n: int) -> Tensor:
        seen = labels.view(runs, -1, STATES)[:, :n].flatten(0, 1)
        start = torch.full((runs * WINDOWS, STATES), 0.3).double()
        sums = start.index_add(0, cells[:, :n].flatten(), seen)
        return (sums / sums.sum(-1, keepdim=True)).view(
            runs, WINDOWS, STATES
        )

    return [
        torch.stack([distance(student(kind, n)) for n in COUNTS])
        for kind in (true, soft, wrong_teacher()[rows])
    ]


HARD_NOISE = WINDOWS * (STATES - 1) / 2


def noise(labels: Tensor) -> float:
    """Half the sum above: n times the distance, for large n."""
    mean = mean_by_window(labels)
    variance = mean_by_window((labels - mean[CODES]).square())
    return (variance / mean).sum().item() / 2


def lower(
    curve: Tensor, n: int, other: Tensor, m: int | None = None
) -> bool:
    """Is one kind with n frames clearly nearer than another with m?"""
    a, b = COUNTS.index(n), COUNTS.index(m or n)
    return clear((other[b] - curve[a]).tolist())


@claim(
    "Soft labels need fewer frames: 200 beat 1,000 true states, and for"
    " many frames the gain is what the variances predict",
    source="not in the paper: our explanation of its gain",
)
def soft_labels_need_fewer_frames() -> Evidence:
    runs = curves()
    hard, soft, wrong = (kind.mean(-1) for kind in runs)
    factor = HARD_NOISE / noise(TEACHER[:, MIDDLE])
    fig, ax = figure(
        "Soft labels need fewer frames, if the teacher is right",
        alt="Distance from the optimal student against the number of"
        " frames, both logarithmic. True states fall along a line; the"
        " exact teacher's soft labels do so far below. A wrong"
        " teacher's start low too, but level off at a dashed line, and"
        " true states cross them between 1,000 and 2,000 frames.",
    )
    for name, curve, colour, at in (
        ("true states", hard, VERMILLION, 1),
        ("exact teacher", soft, BLUE, 3),
        ("wrong teacher", wrong, GREEN, 5),
    ):
        ax.loglog(COUNTS, curve, "o-", ms=4, color=colour)
        y = curve[at].item()
        label(ax, COUNTS[at], y, name, colour, offset=(5, 9))
    bias = distance(mean_by_window(wrong_teacher())).item()
    ax.axhline(bias, color=GREY, ls="--", lw=1)
    ax.set(xlabel="labelled frames, n", ylabel="distance, nats")
    earlier = hard[COUNTS.index(1000)] / soft[COUNTS.index(200)]
    ratio = hard / soft
    return Evidence(
        holds=lower(runs[1], 200, runs[0], 1000)
        and abs(ratio[-1].item() / factor - 1) < 0.15,
        measured=f"1,000 true states leave {earlier.item():.2g} times"
        " the distance that 200 soft labels leave; with 50, 200 and"
        f" 10,000 of each they leave {ratio[0].item():.2g},"
        f" {ratio[2].item():.2g} and {ratio[-1].item():.3g} times as"
        " much",
        expected=f"more than 1; a factor of {factor:.3g} for large n,"
        " to within 15 %",
        figure=fig,
    )


# %% [markdown]
# **A wrong teacher.** Real teachers are not exact. The one of the
# green line believes that a state lasts 20 frames, not five. Its soft
# labels scatter little, but average to the wrong table. So they should
# win while frames are few and lose when they are many. The formula
# says where: where the noise of true states equals its bias plus its
# own noise.


# %%
@claim(
    "With a wrong teacher soft labels win while frames are few and lose"
    " against true states when they are many",
    source="not in the paper: control",
)
def wrong_teacher_crosses_over() -> Evidence:
    hard, _, wrong = curves()
    ratio = wrong.mean(-1) / hard.mean(-1)
    bias = distance(mean_by_window(wrong_teacher())).item()
    crossing = (HARD_NOISE - noise(wrong_teacher())) / bias
    few, many = (ratio[COUNTS.index(n)].item() for n in (200, 5000))
    return Evidence(
        holds=lower(wrong, 200, hard) and lower(hard, 5000, wrong),
        measured=f"with 200 frames {few:.2g} times the distance that"
        f" true states leave, with 5,000 {many:.2g} times; in the limit"
        f" {bias:.2g} nats remain",
        expected="below 1, then above; the formula puts the crossing"
        f" near {round(crossing, -2):,.0f} frames",
    )


# %% [markdown]
# **The most likely state is not a label.** A *hard* alignment by the
# teacher keeps only its best state at each frame. Its average is not
# $p(y \mid \text{window})$, and no number of frames repairs that. For
# some windows a certain state is never the teacher's best one. There
# the student's probability for it tends to 0, and the divergence to
# infinity.


# %%
@claim(
    "The teacher's best state alone leads the student to another,"
    " overconfident limit",
    source="not in the paper: control",
)
def hard_alignment_is_biased() -> Evidence:
    best = TEACHER[:, MIDDLE].argmax(-1)
    limit = mean_by_window(nn.functional.one_hot(best, STATES).double())
    none = (limit == 0).any(-1).sum().item()
    sure, should = (
        (table.amax(-1) @ WINDOW_CHANCE).item()
        for table in (limit, WINDOW_TRUTH)
    )
    same = limit.argmax(-1) == WINDOW_TRUTH.argmax(-1)
    return Evidence(
        holds=none > 0 and sure > should + 0.05,
        measured=f"{none} of 27 windows exclude a state altogether;"
        f" mean top probability {sure:.2f} instead of {should:.2f}; top"
        f" state right in {same.sum()} of 27",
        expected="a limit other than the posterior",
    )


# %% [markdown]
# ## What cannot be tested here
#
# The paper's result is about speech: the Wall Street Journal corpus
# must be licensed. And a word error rate also depends on the decoder,
# which puts the frames together again; a frame's divergence does not.


# %%
@claim(
    "A small network trained on the recurrent network's soft alignments"
    " makes over 13 % fewer word errors than one trained directly",
    source="abstract",
)
def word_errors() -> Evidence:
    return Evidence(
        holds=None,
        measured="not run: it needs the Wall Street Journal corpus",
        expected="word error rate on eval92: 3.93 % against 4.54 %",
    )


# %% [markdown]
# ## What we learnt
#
# - The loss of a window student has a floor: what the rest of the
#   sequence says about the state. No student gets below it.
# - In this world the floor falls about fourfold for each frame that
#   the window gains on both sides.
# - Soft labels do not change what a window student should become.
#   They scatter less, so it gets there with far fewer frames.
# - That needs a teacher who is right, and all of its probabilities.
#   Its best state alone, or a wrong belief, leads somewhere else.
