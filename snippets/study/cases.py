"""What the atlas calls: every loss of the scripts, with inputs for it.

A loss declares the axes of its tensors in its signature, and inputs
are made from them. The tables here say what the names of axes and
arguments *mean*, and how a script's own module is put before its loss.
None of them says what a loss can do: that is for `atlas` to find out.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papers import catalog
from snippets.kim2018 import Paraphraser, Translator
from snippets.lab.data import seeded
from snippets.lab.notebooks import script_keys
from snippets.luo2016 import select_neurons
from snippets.romero2015 import Regressor

KINDS = {
    "batch": "batch",
    "samples": "batch",
    "nodes": "batch",
    "students": "batch",
    "teachers": "batch",
    "n": "batch",
    "length": "length",
    "tokens": "length",
    "classes": "classes",
    "states": "classes",
    "vocabulary": "vocabulary",
    "words": "vocabulary",
    "layers": "depth",
    "heads": "heads",
    "height": "spatial",
    "map_width": "spatial",
    "width": "width",
    "d": "width",
    "neurons": "width",
    "features": "width",
    "student_width": "width",
    "teacher_width": "width",
    "shared_width": "width",
    "private_width": "width",
    "channels": "width",
    "channels_s": "width",
    "channels_t": "width",
    "factors": "width",
    "colours": "colours",
    "queue": "queue",
    "edges": "edges",
    "2": "ends",
    "source": "types",
    "target": "types",
}
"""What an axis measures. `map_width` is a `width` after a `height`."""

SEVERAL = {
    "*rest": ("channels", "height", "map_width"),
    "*dims": ("neurons",),
    "*image": ("colours", "height", "map_width"),
}
"""The axes that stand for any number of them."""

SIZES = {
    "batch": 6,
    "length": 5,
    "classes": 7,
    "vocabulary": 8,
    "depth": 3,
    "heads": 2,
    "spatial": 6,
    "width": 8,  # above the batch, see `_same_answers`
    "colours": 3,
    "queue": 9,
    "ends": 2,
}
"""Sizes at which the atlas is measured, on both sides."""

FEATURES = ("width", "classes", "vocabulary")
"""Axes along which a vector of features, or of logits, lies."""

SIDES = {
    "weights": "student",
    "logits": "student",
    "shared": "student",
    "private": "student",
    "queue": "teacher",
    "features": "teacher",  # of a selection
    "nat_loss.targets": "teacher",  # its translation
    "targets": "labels",
    "ratings": "labels",
    "labels": "labels",
    "distilbert_loss.targets": "text",  # words of the input itself
    "inputs": "input",
}
"""Whose an argument is, where its name does not start with it."""

SOURCES = {
    "teacher_logits": "logits",
    "teacher_predictions": "logits",
    "teacher_tokens": "tokens",
    "nat_loss.targets": "tokens",
    "teacher_weights": "weights",
    "teacher_gradient": "gradient",
    # A network of the method's own has read the features, detached.
    "discriminator_loss.teacher_logits": "judged features",
}
"""What of the teacher an argument holds; all others hold features."""

BLACK_BOX = ("logits", "tokens")
"""What a teacher behind an interface gives away."""

COUNTS: Mapping[str, int] = {"count": 2, "per_class": 2}
"""Arguments of the selections that are numbers."""

Sizes = Mapping[tuple[str, str], int]
"""Sizes other than usual, by side (or "all") and kind of axis."""

Arguments = dict[str, Any]


class AtlasError(Exception):
    """A loss that the tables do not describe."""


@dataclass(frozen=True)
class Argument:
    """One tensor that a loss takes.

    Attributes:
        name: As in the signature.
        dtype: Float, Int or Bool.
        axes: Their names, `map_width` for the width of a map.
        side: student, teacher, labels, text, input or both.
        source: What it holds of the teacher; empty for other sides.
    """

    name: str
    dtype: Any
    axes: tuple[str, ...]
    side: str
    source: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its axes measure."""
        return tuple(KINDS[axis] for axis in self.axes)

    @property
    def vector(self) -> int | None:
        """Which axis holds features; None where none does."""
        places = [
            place
            for place, kind in enumerate(self.kinds)
            if kind in FEATURES
        ]
        return places[-1] if places else None


@dataclass(frozen=True)
class Method:
    """A loss, or the selection that a loss needs."""

    paper: str
    name: str
    function: Callable[..., Tensor]
    arguments: tuple[Argument, ...]

    @property
    def key(self) -> str:
        """Paper and name, as in `park2019.angle_loss`."""
        return f"{self.paper}.{self.name}"

    def of(self, *sides: str) -> list[Argument]:
        """The arguments of these sides."""
        return [a for a in self.arguments if a.side in sides]


def papers() -> list[str]:
    """List the papers whose note is complete."""
    known = catalog.load()
    return [
        key
        for key in script_keys()
        if key in known and known[key].status == "complete"
    ]


@functools.cache
def methods() -> tuple[Method, ...]:
    """List every public loss of the scripts, drafts left out.

    A loss is a checked function that returns a scalar and looks at a
    student or at a teacher; measures of data do neither.
    """
    found = []
    for key in papers():
        module = importlib.import_module(f"snippets.{key}")
        for name, function in vars(module).items():
            if _is_scalar(function, module.__name__):
                method = describe(key, name)
                if method.of("student", "teacher"):
                    found.append(method)
    return tuple(found)


def describe(paper: str, name: str) -> Method:
    """Read a function's signature.

    Raises:
        AtlasError: an axis that `KINDS` does not know.
    """
    module = importlib.import_module(f"snippets.{paper}")
    function = getattr(module, name)
    arguments = tuple(
        _argument(name, parameter)
        for parameter in inspect.signature(function).parameters.values()
        if hasattr(parameter.annotation, "dim_str")
    )
    unknown = {
        axis for a in arguments for axis in a.axes if axis not in KINDS
    }
    if unknown:
        raise AtlasError(
            f"{paper}.{name}: no meaning for the axes"
            f" {', '.join(sorted(unknown))}; add them to KINDS in"
            " snippets/study/cases.py"
        )
    return Method(paper, name, function, arguments)


def modules() -> dict[str, type[nn.Module]]:
    """List every network that a script defines, by script and name."""
    found = {}
    for key in papers():
        module = importlib.import_module(f"snippets.{key}")
        for name, item in vars(module).items():
            if (
                inspect.isclass(item)
                and issubclass(item, nn.Module)
                and item.__module__ == module.__name__
                and not name.startswith("_")
            ):
                found[f"{key}.{name}"] = item
    return found


def arguments_of(
    method: Method,
    sizes: Sizes | None = None,
    *,
    black_box: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Arguments:
    """Draw valid arguments for a call.

    Args:
        method: What is to be called.
        sizes: Those that differ from the usual ones.
        black_box: Whether the teacher shows its output only.
        dtype: Of the floats.

    Raises:
        LookupError: a black box has not got what the loss asks for.
    """
    generator = seeded(0)
    drawn: Arguments = {}
    for argument in method.arguments:
        if black_box and argument.source not in (
            "",
            "weights",
            *BLACK_BOX,
        ):
            raise LookupError(f"no {argument.source} in a black box")
        shape = shape_of(argument, sizes or {})
        tensor = _draw(argument, shape, generator)
        if argument.dtype is Float:
            tensor = tensor.to(dtype)
        drawn[argument.name] = tensor
    if black_box:
        _same_answers(method, drawn)
    parameters = inspect.signature(method.function).parameters
    drawn.update({n: c for n, c in COUNTS.items() if n in parameters})
    return drawn


def shape_of(argument: Argument, sizes: Sizes) -> tuple[int, ...]:
    """Size each axis of an argument."""
    side = argument.side
    everywhere = {k: n for (s, k), n in sizes.items() if s == "all"}
    usual = SIZES | everywhere
    usual["edges"] = 2 * usual["batch"]
    return tuple(
        sizes.get((side, kind), usual[kind]) for kind in argument.kinds
    )


def _argument(function: str, parameter: inspect.Parameter) -> Argument:
    name, annotation = parameter.name, parameter.annotation
    full = f"{function}.{name}"
    axes: list[str] = []
    for axis in annotation.dim_str.split():
        if axis == "width" and "height" in axes:
            axis = "map_width"
        axes += SEVERAL.get(axis, (axis,))
    prefix = name.split("_")[0]
    side = prefix if prefix in ("student", "teacher") else "both"
    side = SIDES.get(full, SIDES.get(name, side))
    source = SOURCES.get(full, SOURCES.get(name, "features"))
    return Argument(
        name,
        annotation.dtype,
        tuple(axes),
        side,
        source if side == "teacher" else "",
    )


def _is_scalar(function: object, module: str) -> bool:
    """Whether this is a checked function of tensors to a scalar."""
    if not (
        inspect.isfunction(function)
        and function.__module__ == module
        and not function.__name__.startswith("_")
    ):
        return False
    signature = inspect.signature(function)
    return getattr(signature.return_annotation, "dim_str", None) == ""


def _draw(
    argument: Argument,
    shape: Sequence[int],
    generator: torch.Generator,
) -> Tensor:
    if argument.dtype is Bool:
        return _mask(argument.name, shape)
    if argument.dtype is Int:
        if "edges" in argument.axes:
            return _edges(shape[1] // 2)
        kind = "vocabulary" if "length" in argument.kinds else "classes"
        count = 2 if argument.name == "labels" else SIZES[kind]
        # Every index occurs, the last one too.
        order = torch.arange(torch.Size(shape).numel()) % count
        return order.flip(0).reshape(tuple(shape))
    drawn = torch.randn(
        *shape, generator=generator, dtype=torch.float64
    )
    return drawn.softmax(-1) if is_probability(argument) else drawn


def is_probability(argument: Argument) -> bool:
    """Whether an argument holds distributions."""
    return argument.name.endswith("_attention")


def _mask(name: str, shape: Sequence[int]) -> Tensor:
    """All true but the end: padding, or what is not selected."""
    flat = torch.ones(torch.Size(shape).numel(), dtype=torch.bool)
    if len(flat) > 1:
        flat[-1] = False
    if name == "masked":
        flat[::2] = False
    return flat.reshape(tuple(shape))


def _edges(nodes: int) -> Tensor:
    """Edges to each node from the next and from the one after it."""
    target = torch.arange(nodes).repeat(2)
    step = torch.ones_like(target)
    step[nodes:] = 2
    return torch.stack([(target + step) % nodes, target])


def _same_answers(method: Method, drawn: Arguments) -> None:
    """Replace weights that are not shown by some that answer alike."""
    for argument in method.arguments:
        if argument.source == "weights":
            inputs = drawn["inputs"]  # fewer samples than features
            answers = inputs @ drawn[argument.name]
            drawn[argument.name] = torch.linalg.pinv(inputs) @ answers


Joined = tuple[Tensor, Tensor, list[nn.Module]]
"""What the loss compares, and the modules that have to be trained."""


def _regress(student: Tensor, teacher: Tensor) -> Joined:
    kernel = student.shape[2] - teacher.shape[2] + 1
    regressor = Regressor(
        student.shape[1], teacher.shape[1], kernel_size=kernel
    ).to(student)
    return regressor(student), teacher, [regressor]


def _paraphrase(student: Tensor, teacher: Tensor) -> Joined:
    paraphraser = Paraphraser(teacher.shape[1]).to(teacher)
    translator = Translator(student.shape[1], paraphraser.factors).to(
        student
    )
    return (
        translator(student),
        paraphraser.encode(teacher),
        [paraphraser, translator],
    )


def _project(student: Tensor, teacher: Tensor) -> Joined:
    matrix = nn.Linear(
        student.shape[-1], teacher.shape[-1], bias=False
    ).to(student)
    return matrix(student), teacher, [matrix]


def _select(student: Tensor, teacher: Tensor) -> Joined:
    labels = torch.arange(len(teacher)) % 2
    chosen = select_neurons(teacher, labels, student.shape[1])
    return student, teacher[:, chosen], []


BRIDGES: Mapping[str, Callable[[Tensor, Tensor], Joined]] = {
    "romero2015.hint_loss": _regress,
    "kim2018.factor_transfer_loss": _paraphrase,
    "jiao2020.hidden_loss": _project,
    "luo2016.neuron_loss": _select,
}
"""What each method brings along to make two sizes meet."""

NETWORKS = (
    "agarwal2024.Walkers",
    "chen2019.Discriminator",
    "chen2019.Student",
    "gu2024.Hump",
    "romero2015.SideBySide",
)
"""Networks of the scripts that make no sizes meet."""

JUDGES = {
    "chen2019.adversarial_loss": "chen2019.Discriminator",
    "chen2019.discriminator_loss": "chen2019.Discriminator",
}
"""Losses whose input another network computes, which is trained too."""

RECIPES: Mapping[str, Sequence[str]] = {
    "hinton2015": ["hinton2015.kd_loss"],
    "romero2015": ["romero2015.hint_loss", "hinton2015.kd_loss"],
    "zagoruyko2017": ["zagoruyko2017.attention_transfer_loss"],
    "luo2016": ["luo2016.select_neurons", "luo2016.neuron_loss"],
    "ge2018": ["ge2018.select_samples", "ge2018.selective_loss"],
    "kim2016": ["kim2016.sequence_kd_loss"],
    "gu2018": ["gu2018.nat_loss"],
    "sun2019": ["sun2019.patience_loss", "hinton2015.kd_loss"],
    "sanh2019": ["sanh2019.distilbert_loss"],
    "jiao2020": [
        "jiao2020.attention_loss",
        "jiao2020.hidden_loss",
        "hinton2015.kd_loss",
    ],
    "chen2019dafl": [
        "chen2019dafl.generator_loss",
        "hinton2015.kd_loss",
    ],
}
"""What a paper's main method adds up, without what it may leave out.

A paper that is not here adds up all losses of its script. The plain
cross-entropy with labels, which may be added to any of them, is not
counted.
"""


def recipe(paper: str) -> tuple[Method, ...]:
    """List the losses and selections of a paper's main method."""
    own = [m.key for m in methods() if m.paper == paper]
    return tuple(
        describe(*key.split(".")) for key in RECIPES.get(paper, own)
    )
