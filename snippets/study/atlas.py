"""The atlas: what each loss can do, found out by calling it.

Each cell is one or a few calls. A loss *works* where it gives a finite
value, and a gradient that is finite and not zero all over.
"""

import json
import platform
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from snippets.lab.data import seeded
from snippets.study import atlas_pictures, cases, growth
from snippets.study.cases import Argument, Arguments, Method, Sizes

DIFFERENCES = {
    "width": "width",
    "depth": "layers",
    "spatial": "map size",
    "classes": "classes",
    "vocabulary": "vocabulary",
    "length": "length",
    "heads": "heads",
    "batch": "batch",
}
"""In what student and teacher may differ, by kind of axis."""

CONDITIONS = {
    "black_box": "black box",
    "no_labels": "no labels",
    "no_data": "no data",
    "one_sample": "one sample",
}
"""Under what a method may have to work."""

TRANSFORMATIONS = {
    "scale": "scale ×3",
    "shift": "shift",
    "constant": "constant",
    "rotation": "rotation",
    "permutation": "features permuted",
    "samples": "samples permuted",
    "temperature": "half temperature",
}
"""What may be done to one side, or to both."""

REFUSALS = (TypeError, ValueError, LookupError)
"""How a loss, or a black box, says no."""

BRIDGED = 16, 32
"""Widths of student and teacher at which parameters are counted."""


def atlas() -> dict[str, Any]:
    """Compute every cell but time and memory."""
    return {
        "columns": {
            "differences": DIFFERENCES,
            "conditions": CONDITIONS,
            "unchanged": TRANSFORMATIONS,
        },
        "methods": [row(method) for method in cases.methods()],
        "requires": {
            key: requirements(key)
            for key in dict.fromkeys(m.paper for m in cases.methods())
        },
    }


def write(folder: Path) -> list[Path]:
    """Compute the atlas, and write its data and pictures."""
    data = atlas()
    data["machine"] = machine()
    for entry, method in zip(
        data["methods"], cases.methods(), strict=True
    ):
        entry["growth"] = growth.of(method)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = atlas_pictures.write(data, folder)
    path = folder / "atlas.json"
    text = json.dumps(data, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return [path, *pictures]


def machine() -> dict[str, str]:
    """Say where and when times are taken."""
    return {
        "date": date.today().isoformat(),
        "processor": f"{platform.machine()}, one thread",
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


def row(method: Method) -> dict[str, Any]:
    """Compute all cells of a method but time and memory.

    Raises:
        AtlasError: the loss fails on inputs that should suit it.
    """
    if not works(method, cases.arguments_of(method)):
        raise cases.AtlasError(
            f"{method.key}: fails on its usual inputs; see SIZES and"
            " the tables in snippets/study/cases.py"
        )
    return {
        "paper": method.paper,
        "name": method.name,
        "differences": {
            kind: difference(method, kind) for kind in DIFFERENCES
        },
        "conditions": {
            "black_box": black_box(method),
            "no_labels": "works" if no_labels(method) else "refused",
            "no_data": no_data(method),
            "one_sample": one_sample(method),
        },
        "parameters": parameters(method),
        "unchanged": {
            name: unchanged(method, name) for name in TRANSFORMATIONS
        },
    }


def works(method: Method, arguments: Arguments) -> bool:
    """Whether the loss gives a value to learn from."""
    learners = method.of("student") or method.of("teacher")
    names = [a.name for a in learners if a.dtype is Float]
    leaves = {n: arguments[n].detach().requires_grad_() for n in names}
    try:
        value = method.function(**{**arguments, **leaves})
    except REFUSALS:
        return False
    slopes = torch.autograd.grad(value, [*leaves.values()])
    return bool(
        value.isfinite()
        and all(slope.isfinite().all() for slope in slopes)
        and any(slope.any() for slope in slopes)
    )


def difference(method: Method, kind: str) -> str:
    """Whether the student may be smaller or larger than the teacher.

    Returns:
        `works` for both; `adapted` for both, by the method's own
        bridge; `smaller` or `larger` for that one only; `refused` for
        neither; `unseen` where the loss does not see both sizes.
    """
    if not all(
        _sees(method, side, kind) for side in ("student", "teacher")
    ):
        return "unseen"
    found = {
        name: _with_student(method, kind, cases.SIZES[kind] + step)
        for name, step in (("smaller", -1), ("larger", 1))
    }
    possible = [name for name, how in found.items() if how]
    if len(possible) == 1:
        return possible[0]
    if not possible:
        return "refused"
    return "adapted" if "adapted" in found.values() else "works"


def _sees(method: Method, side: str, kind: str) -> bool:
    """Whether an axis of this kind, or an index into it, is there."""
    indexed = "vocabulary" if kind == "vocabulary" else None
    return any(
        kind in argument.kinds
        or (indexed and argument.source == "tokens")
        for argument in method.of(side)
    )


def _with_student(method: Method, kind: str, size: int) -> str:
    """Try a student of another size: `works`, `adapted` or nothing."""
    sizes = {("student", kind): size}
    if works(method, cases.arguments_of(method, sizes)):
        return "works"
    try:
        joined = _joined(method, sizes)
    except REFUSALS:
        return ""
    return "adapted" if joined and works(method, joined[0]) else ""


def _joined(
    method: Method, sizes: Sizes
) -> tuple[Arguments, list[nn.Module]] | None:
    """Make two sizes meet by the method's own means, if it has any."""
    bridge = cases.BRIDGES.get(method.key)
    if bridge is None:
        return None
    arguments = cases.arguments_of(method, sizes)
    student, teacher = (
        method.of(side)[0].name for side in ("student", "teacher")
    )
    first, second, trained = bridge(
        arguments[student], arguments[teacher]
    )
    return arguments | {student: first, teacher: second}, trained


def black_box(method: Method) -> str:
    """Whether the teacher's output is enough, for the same value."""
    if not method.of("teacher"):
        return "unseen"
    try:
        arguments = cases.arguments_of(method, black_box=True)
    except LookupError:
        return "refused"
    usual = cases.arguments_of(method)
    same = close(method.function(**arguments), method.function(**usual))
    return "works" if same and works(method, arguments) else "refused"


def no_labels(method: Method) -> bool:
    """Whether the function runs when nothing is labelled."""
    arguments = cases.arguments_of(method)
    if "labelled" in arguments:
        arguments["labelled"] = torch.zeros_like(arguments["labelled"])
        arguments["targets"] = -torch.ones_like(arguments["targets"])
    else:
        for argument in method.of("labels"):
            del arguments[argument.name]
    try:
        method.function(**arguments)
    except REFUSALS:
        return False
    return True


def no_data(method: Method) -> str:
    """Whether inputs can be made by following the loss to the teacher.

    The teacher's tensors are computed from an input; a generator could
    be trained where a gradient comes back to it.
    """
    teacher = [a for a in method.of("teacher") if a.dtype is Float]
    if not teacher:
        return "unseen" if not method.of("teacher") else "refused"
    seen = torch.ones((), dtype=torch.float64, requires_grad=True)
    arguments = cases.arguments_of(method)
    for argument in teacher:
        # Judged features are detached before the judge reads them.
        judged = argument.source == "judged features"
        factor = seen.detach() if judged else seen
        arguments[argument.name] = arguments[argument.name] * factor
    for argument in method.of("student"):
        arguments[argument.name].requires_grad_()
    value = method.function(**arguments)
    (slope,) = torch.autograd.grad(value, seen, allow_unused=True)
    return "refused" if slope is None or slope == 0 else "works"


def one_sample(method: Method) -> str:
    """Whether the loss works on a batch of 1."""
    sizes = {
        (side, "batch"): 1
        for side in ("all", *(a.side for a in method.arguments))
    }
    alone = works(method, cases.arguments_of(method, sizes))
    return "works" if alone else "refused"


def parameters(method: Method) -> dict[str, int]:
    """Count what is trained beside the student, and then dropped.

    Returns:
        The numbers of parameters by module, for a student of width 16
        and a teacher of width 32, at the width that the script gives
        it where it has one of its own.
    """
    judge = cases.JUDGES.get(method.key)
    if judge:
        network = cases.modules()[judge](1, seeded(0))
        return {judge.split(".")[1]: count(network)}
    narrow, wide = BRIDGED
    sizes = {("student", "width"): narrow, ("teacher", "width"): wide}
    joined = _joined(method, sizes)
    trained = joined[1] if joined else []
    return {type(module).__name__: count(module) for module in trained}


def count(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def unchanged(method: Method, name: str) -> str:
    """Whether a transformation leaves the value unchanged.

    Returns:
        `alone`: also if it is done to the student alone. `together`:
        if it is done alike to both. `student`: to the student alone,
        but not to both. `changed`: neither. `unseen`: there is nothing
        to which it could be done.
    """
    if not any(
        _applies(name, argument)
        for argument in method.of("student", "teacher", "input")
    ):
        return "unseen"
    student = [a for a in method.of("student") if _applies(name, a)]
    usual = method.function(**cases.arguments_of(method))
    together = close(usual, _moved(method, name, alone=False))
    alone = bool(student) and close(
        usual, _moved(method, name, alone=True)
    )
    if alone:
        return "alone" if together else "student"
    return "together" if together else "changed"


def close(first: Tensor, second: Tensor) -> bool:
    """Whether two values agree to nine digits."""
    return torch.allclose(first, second, rtol=1e-9, atol=1e-12)


def _applies(name: str, argument: Argument) -> bool:
    """Whether a transformation makes sense for a tensor."""
    if name == "samples":
        return "batch" in argument.kinds
    if argument.dtype is not Float:
        return False
    if name == "temperature":
        return argument.name.endswith("logits")
    if name == "scale":
        return not cases.is_probability(argument)
    return argument.vector is not None


def _moved(method: Method, name: str, *, alone: bool) -> Tensor:
    """Call the loss on transformed tensors."""
    arguments = cases.arguments_of(method)
    sides = ["student"]
    if not alone:
        sides += ["teacher", "input"]
        if name == "samples":
            sides += ["labels", "text", "both"]
        if name == "permutation":
            _rename(method, arguments)
    for argument in method.of(*sides):
        if _applies(name, argument):
            tensor = arguments[argument.name]
            arguments[argument.name] = MOVES[name](argument, tensor)
        elif name == "samples" and "edges" in argument.axes:
            edges = arguments[argument.name]
            new = torch.argsort(_order(cases.SIZES["batch"]))
            arguments[argument.name] = new[edges]
    return method.function(**arguments)


def _rename(method: Method, arguments: Arguments) -> None:
    """Give classes and words the numbers that they move to."""
    for argument in method.arguments:
        if (
            argument.name in arguments
            and (
                argument.side in ("labels", "text")
                or argument.source == "tokens"
            )
            and not arguments[argument.name].is_floating_point()
        ):
            kind = (
                "vocabulary"
                if "length" in argument.kinds
                else "classes"
            )
            new = torch.argsort(_order(cases.SIZES[kind]))
            arguments[argument.name] = new[arguments[argument.name]]


def _order(size: int) -> Tensor:
    return torch.randperm(size, generator=seeded(size))


def _along(
    change: Callable[[Tensor], Tensor],
) -> Callable[[Argument, Tensor], Tensor]:
    """Apply a change to the axis of the features, moved to the end."""

    def apply(argument: Argument, tensor: Tensor) -> Tensor:
        assert argument.vector is not None
        moved = change(tensor.movedim(argument.vector, -1))
        return moved.movedim(-1, argument.vector)

    return apply


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(1), dtype=torch.float64)


def _rotate(rows: Tensor) -> Tensor:
    size = rows.shape[-1]
    return rows @ torch.linalg.qr(_normal(size, size)).Q


def _permute_samples(argument: Argument, tensor: Tensor) -> Tensor:
    place = argument.kinds.index("batch")
    return tensor.index_select(place, _order(tensor.shape[place]))


MOVES: Mapping[str, Callable[[Argument, Tensor], Tensor]] = {
    "scale": lambda _, x: 3 * x,
    "shift": _along(lambda x: x + _normal(x.shape[-1])),
    "constant": _along(lambda x: x + _normal(*x.shape[:-1], 1)),
    "rotation": _along(_rotate),
    "permutation": _along(lambda x: x[..., _order(x.shape[-1])]),
    "samples": _permute_samples,
    "temperature": lambda _, x: 2 * x,
}


def requirements(paper: str) -> list[str]:
    """Derive what a paper's main method cannot do without.

    What one loss or selection of its recipe needs, the paper needs.
    `same-…` means that neither a smaller nor a larger student is
    accepted. Vocabularies must also be the same where a smaller one is
    refused, since the student must know all of the teacher's words,
    and where losses compare token by token, since the text must be cut
    alike. Data are needed unless inputs can be made by one of the
    losses, which then needs the teacher's gradient.
    """
    steps = cases.recipe(paper)
    known = {method.key for method in cases.methods()}
    losses = [step for step in steps if step.key in known]
    needs = {need for loss in losses for need in _needs(loss)}
    free = any(no_data(loss) == "works" for loss in losses)
    needs.add("teacher-gradients" if free else "training-data")
    if not all(no_labels(step) for step in steps):
        needs.add("labels")
    return sorted(needs)


def _needs(method: Method) -> set[str]:
    sources = {a.source for a in method.of("teacher")}
    outputs = black_box(method) == "works"
    found = {
        "teacher-logits": "logits" in sources
        or (outputs and "weights" in sources),
        "teacher-features": bool(
            sources & {"features", "judged features"}
        ),
        "teacher-gradients": "gradient" in sources,
        "several-samples": one_sample(method) == "refused",
    }
    names = {
        "width": "same-width",
        "spatial": "same-spatial-size",
        "classes": "same-classes",
        "vocabulary": "same-vocabulary",
        "heads": "same-heads",
    }
    for kind, need in names.items():
        how = difference(method, kind)
        found[need] = how == "refused"
        if how == "larger" and kind == "vocabulary":
            found[need] = True
        if how == "adapted" and parameters(method):
            found["trained-adapter"] = True
    if any("tokens" in a.axes for a in method.arguments):
        found["same-vocabulary"] = True
    return {need for need, needed in found.items() if needed}
