"""Toy languages that can be enumerated: every probability is exact.

A language has V tokens and sentences of L, so V**L sentences in all.
A distribution over them is one row of numbers, in the order in which
`sentences` lists them. What a model learns can then be read off
without sampling, and the best model of a kind is known in closed form.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def sentences(vocabulary: int, length: int) -> Tensor:
    """List all sentences (V**L, L), the last token moving fastest."""
    row = torch.arange(vocabulary**length)[:, None]
    place = vocabulary ** torch.arange(length - 1, -1, -1)
    return row // place % vocabulary


def row_of(tokens: Tensor, vocabulary: int) -> Tensor:
    """Find the rows (…) of sentences (…, L) in the list of all."""
    length = tokens.shape[-1]
    place = vocabulary ** torch.arange(length - 1, -1, -1)
    return (tokens * place).sum(-1)


def untied(sources: int, length: int) -> Tensor:
    """Number the words of all sources apart (S, L): nothing is shared.

    With these contexts a `TabularModel` has a table for each source
    and position. A model with fewer contexts, such as the source word
    itself, must use the same table in several sentences.
    """
    return torch.arange(sources * length).view(sources, length)


class TabularModel(nn.Module):
    """A model of a sentence given its source, made of one table.

    The logits of token t depend on the context of its place and on the
    `order` tokens before it. Order L − 1 sees the whole prefix and is
    fully autoregressive; order 0 is non-autoregressive: given the
    source, its tokens are independent.

    Args:
        context: Which part of the table the places (S, L) of each
            source use, such as `untied(S, L)` or the source words.
        vocabulary: The number of tokens V.
        order: How many tokens back the model sees.
        generator: Draws standard normal logits; without it they are 0.
    """

    def __init__(
        self,
        context: Tensor,
        vocabulary: int,
        *,
        order: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.context = context  # (S, L)
        self.vocabulary = vocabulary
        self.order = order
        # One more than V, for the places before the first token.
        histories = (vocabulary + 1) ** order
        shape = (int(context.max()) + 1, histories, vocabulary)
        table = torch.zeros(shape, dtype=torch.float64)
        if generator is not None:
            table.normal_(generator=generator)
        self.table = nn.Parameter(table)

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Score each next token: (N,) and (N, L) to (N, L, V)."""
        return self.table[self.context[source], self.history(tokens)]

    def history(self, tokens: Tensor) -> Tensor:
        """Number the `order` tokens before each place: (…, L)."""
        number = torch.zeros_like(tokens)
        for back in range(1, min(self.order, tokens.shape[-1]) + 1):
            earlier = nn.functional.pad(
                tokens[..., :-back] + 1, (back, 0)
            )
            number = number * (self.vocabulary + 1) + earlier
        return number

    def logits(self) -> Tensor:
        """Score every sentence of every source: (S, V**L, L, V)."""
        size, length = self.context.shape
        every = sentences(self.vocabulary, length)
        source = torch.arange(size).repeat_interleave(len(every))
        flat = self(source, every.repeat(size, 1))
        return flat.view(size, len(every), length, self.vocabulary)

    def log_probabilities(self) -> Tensor:
        """Return all log-probabilities of sentences, (S, V**L)."""
        every = sentences(self.vocabulary, self.context.shape[1])
        return log_likelihood(
            self.logits(), every.expand(len(self.context), -1, -1)
        )

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """Return all probabilities (S, V**L), without gradient."""
        return self.log_probabilities().exp()

    @torch.no_grad()
    def greedy(self) -> Tensor:
        """Decode each source (S, L), the likeliest token each time."""
        tokens = torch.zeros_like(self.context)
        source = torch.arange(len(tokens))
        for place in range(tokens.shape[1]):
            tokens[:, place] = self(source, tokens)[:, place].argmax(-1)
        return tokens

    @torch.no_grad()
    def mode(self) -> Tensor:
        """Find each source's likeliest sentence (S, L), by search."""
        best = self.log_probabilities().argmax(-1)
        return sentences(self.vocabulary, self.context.shape[1])[best]


def log_likelihood(logits: Tensor, tokens: Tensor) -> Tensor:
    """Sum log-probabilities: (…, L, V) and (…, L) to (…)."""
    chosen = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1))
    return chosen.squeeze(-1).sum(-1)


@torch.no_grad()
def best_fit(
    context: Tensor,
    weights: Tensor,
    vocabulary: int,
    *,
    order: int,
    targets: Tensor | None = None,
) -> TabularModel:
    """Return the `TabularModel` of least cross-entropy, in closed form.

    It says what a student of this kind learns from endless data: each
    row of its table is the mean of the targets that fall on it.

    Args:
        context: As for `TabularModel`, (S, L).
        weights: How often each sentence occurs in the data, (S, V**L).
        vocabulary: The number of tokens V.
        order: How many tokens back the model sees.
        targets: What is to be said at each place of each sentence, as
            probabilities (S, V**L, L, V); the sentence's own token if
            None.

    Returns:
        The model. A row on which no data fall stays uniform.
    """
    model = TabularModel(context, vocabulary, order=order)
    size, length = context.shape
    every = sentences(vocabulary, length)
    if targets is None:
        targets = nn.functional.one_hot(every, vocabulary).expand(
            size, -1, -1, -1
        )
    mass = weights[..., None, None] * targets  # (S, V**L, L, V)
    where = (
        context[:, None].expand(-1, len(every), -1),
        model.history(every).expand(size, -1, -1),
    )
    counts = torch.zeros_like(model.table).index_put_(
        where, mass, accumulate=True
    )
    seen = counts.sum(-1, keepdim=True) > 0
    model.table.copy_(torch.where(seen, counts.log(), 0.0))
    return model


def only(rows: Tensor, size: int) -> Tensor:
    """Put all mass on one sentence a source: (S,) to (S, size)."""
    return nn.functional.one_hot(rows, size).double()


def interpolated(
    references: Tensor, p: Tensor, every: Tensor, *, count: int
) -> Tensor:
    """Replace each reference by the nearest of a model's best outputs.

    This is sequence-level interpolation, with the number of equal
    tokens for a similarity; of equally near outputs, the likeliest.

    Args:
        references: A distribution over sentences, (S, n).
        p: The model's distribution over the same sentences, (S, n).
        every: The sentences themselves, (n, L).
        count: How many of the model's best to choose from.

    Returns:
        The distribution of the replacements, (S, n).
    """
    ranked = p.argsort(dim=-1, descending=True, stable=True)
    best = ranked[:, :count]  # (S, count)
    equal = every[None, :, None] == every[best][:, None]
    # (S, n, count); a rank of 0 to count − 1 only breaks ties.
    score = equal.sum(-1) * count - torch.arange(count)
    nearest = best.gather(1, score.argmax(-1))  # (S, n)
    return torch.zeros_like(references).scatter_add_(
        1, nearest, references
    )


@dataclass(frozen=True)
class Translation:
    """A translation in which each source word has K synonyms.

    A target sentence has the length of its source, and its tokens say
    which synonym each word takes: token k of the word w is the target
    word w·K + k.

    Attributes:
        sources: The source sentences, words in 0 … W − 1, (S, L).
        styles: The probability of each style, (K,).
        by_style: Target distributions given the style, (K, S, K**L).
    """

    sources: Tensor
    styles: Tensor
    by_style: Tensor

    @property
    def synonyms(self) -> int:
        """K, the size of the target's vocabulary."""
        return len(self.styles)

    @property
    def p(self) -> Tensor:
        """The distribution of target sentences, (S, K**L)."""
        return torch.einsum("k,ksn->sn", self.styles, self.by_style)

    def table(self, corpus: Tensor) -> Tensor:
        """Read off how a corpus translates each word.

        Args:
            corpus: A distribution over target sentences, (S, K**L).

        Returns:
            The share of each word's synonyms, (W, K). Sentences count
            alike, and so do the words in them.
        """
        every = sentences(self.synonyms, self.sources.shape[1])
        shown = nn.functional.one_hot(every, self.synonyms).to(corpus)
        return self.table_of(torch.einsum("sn,nlk->slk", corpus, shown))

    def table_of(self, said: Tensor) -> Tensor:
        """Average what is said at each place: (S, L, K) to (W, K)."""
        table = said.new_zeros(
            int(self.sources.max()) + 1, self.synonyms
        )
        table.index_add_(0, self.sources.flatten(), said.flatten(0, 1))
        return table / table.sum(-1, keepdim=True)

    def teacher(self) -> TabularModel:
        """Return the translation itself, as a full model."""
        size, length = self.sources.shape
        context = untied(size, length)
        return best_fit(
            context, self.p, self.synonyms, order=length - 1
        )


def translation(
    *,
    generator: torch.Generator,
    styles: tuple[float, ...] = (0.3, 0.27, 0.23, 0.2),
    words: int = 8,
    length: int = 4,
    size: int = 48,
    consistency: float = 0.6,
    spread: float = 1.0,
) -> Translation:
    """Make a translation with correlated synonyms.

    A sentence draws a style. Each of its words then takes the synonym
    of that style, or, with probability 1 − `consistency`, one by the
    word's own preference, which is the same in every sentence.

    Args:
        generator: Draws the sources and the preferences.
        styles: The probability of each of the K styles.
        words: The number of source words W.
        length: Words in a sentence, L.
        size: The number of source sentences S.
        consistency: How strongly the style binds: at 1, sentences that
            mix styles do not occur; at 0, words are independent.
        spread: How much preferences vary; at 0 they are uniform.

    Returns:
        The translation, with exact probabilities.
    """
    sources = torch.randint(words, (size, length), generator=generator)
    draw = torch.randn(
        words, len(styles), generator=generator, dtype=torch.float64
    )
    prefer = (spread * draw).softmax(-1)  # (W, K)
    same = torch.eye(len(styles), dtype=torch.float64)[
        :, None
    ]  # (K, 1, K)
    # The probability of a synonym given style and word, (K, W, K).
    choice = consistency * same + (1 - consistency) * prefer
    every = sentences(len(styles), length)
    picked = choice[:, sources[:, None], every]  # (K, S, K**L, L)
    prior = torch.tensor(styles, dtype=torch.float64)
    return Translation(sources, prior, picked.prod(-1))
