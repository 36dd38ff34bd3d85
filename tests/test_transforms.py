"""Which public loss torch.compile and torch.func take, and which they cannot."""

import shutil

import pytest
import torch
from jaxtyping import Float

from snippets.hinton2015 import kd_loss
from snippets.study import cases
from tests import public
from tests.public import FAST, LOSSES

COMPILE, GRAD, VMAP = "torch.compile, as one graph", "torch.func.grad", "torch.func.vmap"

OWN_GRADIENT = "a form to run computes its own gradient, outside of any graph"
PICKS = "it picks the real tokens, and a check then counts them"

CANNOT = {(method.key, how): OWN_GRADIENT for method in FAST for how in (COMPILE, GRAD, VMAP)} | {
    ("sanh2019.distilbert_loss", COMPILE): PICKS
}
"""What cannot be done, and why. What stands here must fail, all else must work."""


def first_argument(method, option):
    """The loss of its first learned tensor alone, and this tensor."""
    arguments = cases.arguments_of(method)
    name = public.learned(method)[0]
    return lambda x: method.function(**{**arguments, name: x}, **option), arguments[name]


def grad(method, option):
    loss, x = first_argument(method, option)
    torch.testing.assert_close(torch.func.grad(loss)(x), slope_of(loss, x))


def slope_of(loss, x):
    x = x.clone().requires_grad_()
    loss(x).backward()
    return x.grad


def vmap(method, option):
    """Two batches side by side, the second with its samples in another order."""
    arguments = cases.arguments_of(method)
    names = [a.name for a in method.arguments if a.dtype is Float]

    def loss(*tensors):
        given = dict(zip(names, tensors, strict=True))
        return method.function(**{**arguments, **given}, **option)

    stacked = [torch.stack([arguments[n], arguments[n].roll(1, 0)]) for n in names]
    each = torch.stack([loss(*tensors) for tensors in zip(*stacked, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(*stacked), each)


def compiled(method, option, backend="aot_eager"):
    torch.compiler.reset()
    loss, x = first_argument(method, option)
    fused = torch.compile(loss, fullgraph=True, backend=backend)
    torch.testing.assert_close(fused(x), loss(x))
    torch.testing.assert_close(slope_of(fused, x), slope_of(loss, x))


DO = {COMPILE: compiled, GRAD: grad, VMAP: vmap}

WORKS = [
    pytest.param(method, how, id=f"{method.key}-{how}", marks=pytest.mark.proves("transforms", how))
    for method in LOSSES
    for how in DO
    if (method.key, how) not in CANNOT
]
FAILS = [
    pytest.param(method, how, id=f"{method.key}-{how}")
    for method in LOSSES
    for how in DO
    if (method.key, how) in CANNOT
]

# What torch says of its own insides while it tries.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute",
    "ignore:There is a performance drop",
    "ignore:`torch.jit.script_method` is deprecated",
)


@pytest.mark.parametrize(("method", "how"), WORKS)
def test_it_works(method, how):
    for option in public.options_of(method):
        DO[how](method, option)


@pytest.mark.parametrize(("method", "how"), FAILS)
def test_it_does_not_work_and_raises(method, how):
    with pytest.raises((RuntimeError, torch._dynamo.exc.TorchDynamoException)):
        DO[how](method, {})


def test_the_table_names_losses():
    assert {key for key, _ in CANNOT} <= {method.key for method in LOSSES}


def test_a_compiled_loss_does_not_look_at_what_tensors_hold():
    """The guide says so."""
    (method,) = [m for m in LOSSES if m.key == "kim2016.word_kd_loss"]
    *logits, mask = cases.arguments_of(method).values()
    with pytest.raises(ValueError, match="mask"):
        method.function(*logits, mask & False)
    fused = torch.compile(method.function, fullgraph=True, backend="eager")
    assert fused(*logits, mask & False).isnan()


def test_many_losses_compiled_in_one_process():
    """They have code of their own; of shared code, `torch.compile` takes few versions."""
    torch.compiler.reset()
    for method in FAST:
        loss, x = first_argument(method, {})
        torch.compile(lambda x, loss=loss: 2 * loss(x), backend="eager")(x.requires_grad_())
    torch.compile(kd_loss, fullgraph=True, backend="eager")(torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.skipif(not shutil.which("g++"), reason="the default backend needs a C++ compiler")
def test_the_default_backend():
    (method,) = [m for m in LOSSES if m.function is kd_loss]
    compiled(method, {}, backend="inductor")
