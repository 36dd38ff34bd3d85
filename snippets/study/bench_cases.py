"""What the benchmark compares: losses, sizes, and other packages.

A case is one loss at one size. Its forms compute the same loss: our
plain one, our form to run, and those of packages that people use,
which are imported only where they are called.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from snippets import (
    agarwal2024,
    gu2024,
    hinton2015,
    kim2016,
    kim2018,
    park2019,
    romero2015,
    zagoruyko2017,
)
from snippets.lab import fast
from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence

Loss = Callable[..., Tensor]
"""From the student's tensors, then the teacher's: a scalar."""

PEERS = {
    "torchdistill": "torchdistill",
    "TRL": "trl",
    "Liger-Kernel": "liger-kernel",
    "KD-Lib": "KD-Lib",
}
"""Packages by the name that they go by, and that on PyPI."""

PLAIN, RUN = "plain", "to run"
"""Our two forms."""

TEMPERATURE = 4.0
SMALL = 64, 100
HIDDEN = 1024, 32
"""Width of the last states, and that of a quick run."""


@dataclass(frozen=True)
class Form:
    """One implementation of a loss.

    Attributes:
        load: Imports what it needs, and gives the loss.
        scale: What to multiply its value by, to get that of ours.
        note: What this factor is, or how else the value differs.
    """

    load: Callable[[], Loss]
    scale: float = 1
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What our form should need at most, as a share of another's."""

    time: float
    memory: float | None = None


@dataclass(frozen=True)
class Case:
    """One loss at one size.

    Attributes:
        paper: The key of the paper.
        loss: The function's name, in both of our forms.
        name: What the loss is called.
        shape: The size of the inputs, as a page shows it.
        inputs: Makes the tensors: the student's, then the teacher's.
        forms: By name; ours are `PLAIN` and `RUN`.
        target: What we aim at, if anything.
        naive: Whether the target is set against our plain form, and
            not against other packages.
    """

    paper: str
    loss: str
    name: str
    shape: tuple[int, ...]
    inputs: Callable[[], list[Tensor]]
    forms: Mapping[str, Form]
    target: Target | None = None
    naive: bool = False
    bounds: Mapping[str, Callable[..., Callable[[], object]]] = field(
        default_factory=dict
    )


def cases(*, quick: bool = False) -> list[Case]:
    """Give all cases; the quick ones are small, for tests."""
    if quick:
        logits = [(8, 10)]
        maps, points = (2, 4, 6, 6), (8, 16)
        tokens, rows = (2, 4, 50), (64, 50)
    else:
        logits = [SMALL, (256, 1000), (256, 32000)]
        maps, points = (64, 256, 14, 14), (256, 512)
        tokens, rows = (8, 256, 32000), (2048, 32000)
    return [
        *(_soft_targets(shape) for shape in logits),
        _attention(maps),
        _factors(maps),
        _hint(maps),
        _distance(points),
        _angle(points),
        *_sequences(tokens),
        *_linear(rows, HIDDEN[quick]),
    ]


def _soft_targets(shape: tuple[int, ...]) -> Case:
    return _pair(
        "hinton2015",
        "Soft targets",
        shape,
        plain=partial(hinton2015.kd_loss, temperature=TEMPERATURE),
        run=partial(
            _fast("hinton2015").kd_loss, temperature=TEMPERATURE
        ),
        peers={
            "torchdistill": Form(
                _torchdistill_kd, TEMPERATURE**2, "value times T²"
            ),
            "KD-Lib": Form(
                _kdlib_kd, note="mean square of probabilities"
            ),
        },
        # A call on few numbers takes as long as it takes to call.
        target=None if shape == SMALL else Target(0.6),
    )


def _torchdistill_kd() -> Loss:
    make = _torchdistill().KDLoss
    loss = make("x", "y", "x", "y", TEMPERATURE, alpha=0.0)
    return lambda s, t: loss({"x": {"y": s}}, {"x": {"y": t}})


def _kdlib_kd() -> Loss:
    module = importlib.import_module("KD_Lib.KD.vision.vanilla")
    settings = SimpleNamespace(
        temp=TEMPERATURE, distil_weight=1, loss_fn=nn.MSELoss()
    )
    return lambda s, t: module.VanillaKD.calculate_kd_loss(
        settings, s, t, torch.zeros(len(s), dtype=torch.long)
    )


def _attention(shape: tuple[int, ...]) -> Case:
    return _pair(
        "zagoruyko2017",
        "Attention transfer",
        shape,
        plain=partial(
            zagoruyko2017.attention_transfer_loss, variant="code"
        ),
        run=partial(
            _fast("zagoruyko2017").attention_transfer_loss,
            variant="code",
        ),
        peers={
            "torchdistill": Form(
                lambda: _torchdistill().ATLoss({}).compute_at_loss
            ),
            "KD-Lib": Form(
                _kdlib_attention, note="channels are not summed"
            ),
        },
        target=Target(0.8, 0.6),
    )


def _kdlib_attention() -> Loss:
    loss = _kdlib_file("KD/vision/attention/loss_metric.py").ATLoss()
    return lambda s, t: loss([t], [s])


def _factors(shape: tuple[int, ...]) -> Case:
    return _pair(
        "kim2018",
        "Factor transfer",
        shape,
        plain=partial(kim2018.factor_transfer_loss, variant="code"),
        run=partial(
            _fast("kim2018").factor_transfer_loss, variant="code"
        ),
        peers={"torchdistill": Form(_torchdistill_factors)},
        target=Target(0.8, 0.6),
    )


def _torchdistill_factors() -> Loss:
    loss = _torchdistill().FTLoss()
    return lambda s, t: loss(
        {"translator": {"output": s}}, {"paraphraser": {"output": t}}
    )


def _hint(shape: tuple[int, ...]) -> Case:
    return _pair(
        "romero2015",
        "Hint",
        shape,
        plain=partial(romero2015.hint_loss, variant="code"),
        run=partial(_fast("romero2015").hint_loss, variant="code"),
        peers={
            "torchdistill": Form(
                _torchdistill_hint, note="wraps torch's MSELoss"
            )
        },
        target=Target(0.8, 0.6),
    )


def _torchdistill_hint() -> Loss:
    side = {"module_path": "x", "io": "y"}
    loss = _torchdistill().SimpleLossWrapper(
        nn.MSELoss(),
        input={"is_from_teacher": False, **side},
        target={"is_from_teacher": True, **side},
    )
    return lambda s, t: loss({"x": {"y": s}}, {"x": {"y": t}}, None)


def _distance(shape: tuple[int, ...]) -> Case:
    return _relation("distance_loss", "Distances", shape, Target(0.9))


def _angle(shape: tuple[int, ...]) -> Case:
    return _relation("angle_loss", "Angles", shape, Target(0.2, 0.2))


def _relation(
    function: str, name: str, shape: tuple[int, ...], target: Target
) -> Case:
    kind = function.removesuffix("_loss")

    def torchdistill() -> Loss:
        loss = _torchdistill().RKDLoss("", "", 1, 1, "mean")
        method = getattr(loss, f"compute_rkd_{kind}_loss")
        return lambda s, t: method(t, s)

    def kdlib() -> Loss:
        module = _kdlib_file("KD/vision/RKD/loss_metric.py")
        loss = getattr(module, function)
        return lambda s, t: loss(t, s)

    return _pair(
        "park2019",
        name,
        shape,
        plain=partial(getattr(park2019, function), variant="code"),
        run=partial(
            getattr(_fast("park2019"), function), variant="code"
        ),
        peers={
            "torchdistill": Form(torchdistill),
            "KD-Lib": Form(kdlib),
        },
        target=target,
    )


def _sequences(shape: tuple[int, ...]) -> list[Case]:
    real = torch.ones(shape[:2], dtype=torch.bool)

    def case(
        module: ModuleType,
        function: str,
        name: str,
        beta: float,
        target: Target,
        note: str = "",
    ) -> Case:
        paper = module.__name__.removeprefix("snippets.")
        plain = getattr(module, function)
        run = getattr(_fast(paper), function)
        return _pair(
            paper,
            name,
            shape,
            plain=partial(plain, mask=real),
            run=partial(run, mask=real),
            peers={
                "TRL": Form(partial(_trl, beta), note=note),
                "Liger-Kernel": Form(
                    partial(_liger, beta, len(real.flatten()))
                ),
            },
            target=target,
        )

    return [
        case(
            kim2016,
            "word_kd_loss",
            "Word by word",
            0.0,
            Target(0.4, 0.3),
            note="value less the teacher's entropy",
        ),
        case(
            gu2024,
            "reverse_kl_loss",
            "Reverse divergence",
            1.0,
            Target(0.4, 0.3),
        ),
        case(
            agarwal2024,
            "generalized_jsd_loss",
            "Jensen–Shannon",
            0.5,
            Target(0.15, 0.15),
        ),
    ]


def _trl(beta: float) -> Loss:
    # The trainer always gives labels; none of these is padding.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        module = importlib.import_module(
            "trl.experimental.gkd.gkd_trainer"
        )
    loss = module.GKDTrainer.generalized_jsd_loss
    return lambda s, t: loss(
        s, t, torch.zeros(s.shape[:2], dtype=torch.long), beta
    )


def _liger(beta: float, tokens: int) -> Loss:
    module = importlib.import_module("liger_kernel.transformers.jsd")
    loss = module.LigerJSD(beta)
    return lambda s, t: loss(
        s.flatten(0, 1).log_softmax(-1), t.flatten(0, 1).log_softmax(-1)
    )


def _linear(shape: tuple[int, ...], width: int) -> list[Case]:
    tokens, vocabulary = shape
    fused = importlib.import_module("snippets.lab.fast.linear")
    real = torch.ones(tokens, dtype=torch.bool)

    def inputs() -> list[Tensor]:
        states, head = (tokens, width), (vocabulary, width)
        made = _normal(states, head, states, head)
        for i in 1, 3:
            made[i] *= 2 * width**-0.5
        return made

    def case(
        divergence: str, name: str, beta: float, target: Target
    ) -> Case:
        def plain(
            s: Tensor, W_s: Tensor, t: Tensor, W_t: Tensor
        ) -> Tensor:
            return _whole(divergence, s @ W_s.T, t @ W_t.T, real)

        return Case(
            "linear",
            "linear_divergence_loss",
            name,
            (tokens, width, vocabulary),
            inputs,
            {
                PLAIN: Form(lambda: plain, note="logits as a whole"),
                RUN: Form(
                    lambda: partial(
                        fused.linear_divergence_loss,
                        mask=real,
                        divergence=divergence,
                    )
                ),
                "Liger-Kernel": Form(partial(_liger_linear, beta)),
            },
            target,
            naive=True,
            bounds={"products": products},
        )

    return [
        case(
            "forward",
            "Layer and divergence",
            0.0,
            Target(0.85, 0.25),
        ),
        case(
            "reverse",
            "Layer and reverse divergence",
            1.0,
            Target(0.85, 0.25),
        ),
        case(
            "jsd",
            "Layer and Jensen–Shannon",
            0.5,
            Target(0.45, 0.15),
        ),
    ]


def _whole(
    divergence: str, z: Tensor, v: Tensor, real: Tensor
) -> Tensor:
    """Compute a divergence as the plain forms do."""
    if divergence == "forward":
        return kl_divergence(
            v.log_softmax(-1), z.log_softmax(-1)
        ).mean()
    if divergence == "reverse":
        return gu2024.reverse_kl_loss(z[None], v[None], real[None])
    return agarwal2024.generalized_jsd_loss(
        z[None], v[None], real[None], beta=0.5
    )


def _liger_linear(beta: float) -> Loss:
    module = importlib.import_module("liger_kernel.chunked_loss")
    # Uncompiled, as ours is; no weight on hard labels.
    loss = module.LigerFusedLinearJSDLoss(
        0.0, 1.0, beta=beta, compiled=False
    )
    return lambda s, W_s, t, W_t: loss(
        s, W_s, t, W_t, torch.zeros(len(s), dtype=torch.long)
    )


def _pair(
    paper: str,
    name: str,
    shape: tuple[int, ...],
    *,
    plain: partial[Tensor],
    run: Loss,
    peers: Mapping[str, Form],
    target: Target | None,
) -> Case:
    """Make a case of two tensors of one shape."""
    forms = {PLAIN: Form(lambda: plain), RUN: Form(lambda: run)}
    return Case(
        paper,
        plain.func.__name__,
        name,
        shape,
        lambda: _normal(shape, shape),
        {**forms, **peers},
        target,
        bounds={"memory": traffic},
    )


def traffic(student: Tensor, teacher: Tensor) -> Callable[[], object]:
    """Read both tensors once and write one: what a loss must do."""
    out = torch.zeros_like(teacher)
    return lambda: torch.add(student.detach(), teacher, out=out)


def products(
    s: Tensor, W_s: Tensor, t: Tensor, W_t: Tensor
) -> Callable[[], object]:
    """Make both sides' logits, and take one gradient back."""
    s, W_s = s.detach(), W_s.detach()
    logits = s.new_zeros(len(s), len(W_s))
    back = torch.zeros_like(s), torch.zeros_like(W_s)

    def call() -> None:
        torch.mm(s, W_s.T, out=logits)
        torch.mm(t, W_t.T, out=logits)
        torch.mm(logits, W_s, out=back[0])
        torch.mm(logits.T, s, out=back[1])

    return call


def learned(tensors: list[Tensor]) -> list[Tensor]:
    """Let the student's tensors, the first half, have gradients."""
    return [x.requires_grad_() for x in tensors[: len(tensors) // 2]]


def _normal(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [
        torch.randn(shape, generator=seeded(seed))
        for seed, shape in enumerate(shapes)
    ]


def _fast(paper: str) -> Any:
    return importlib.import_module(f"{fast.__name__}.{paper}")


def _torchdistill() -> Any:
    return importlib.import_module("torchdistill.losses.mid_level")


def _kdlib_file(path: str) -> Any:
    """Load one file of KD-Lib; as a package, it asks for all of 2021."""
    package = importlib.util.find_spec("KD_Lib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'KD_Lib'")
    file = Path(package.origin).parent / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
