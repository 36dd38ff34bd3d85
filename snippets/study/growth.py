"""How time and peak memory of a loss grow with its tensors.

What is kept is the exponent k of n^k, and not seconds or bytes: it says
what doubling a size costs, and hardly depends on the machine.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch.profiler import ProfilerActivity, profile

from snippets.study import cases
from snippets.study.cases import Method

AXES = {
    "batch": ("batch",),
    "features": cases.FEATURES,
    "positions": ("length", "spatial"),
}
"""What is doubled; positions are tokens, or the side of a map."""

START = 16
ENOUGH = 0.02
"""Seconds after which a call is long enough to be told from none."""
MOST = 2**21
"""Numbers in the inputs, at most."""
REPEATS = 7


def of(method: Method) -> dict[str, dict[str, float | None]]:
    """Measure the exponents of time and memory along every axis.

    Returns:
        By `time` and `memory`, then by axis; None where there is none.
    """
    found: dict[str, dict[str, float | None]] = {
        "time": {},
        "memory": {},
    }
    kinds = {k for a in method.arguments for k in a.kinds}
    for axis, grown in AXES.items():
        here = kinds.intersection(grown)
        seconds, size = None, None
        if here:
            seconds, size = _exponents(method, tuple(here))
        found["time"][axis] = seconds
        found["memory"][axis] = size
    return found


def _exponents(
    method: Method, kinds: tuple[str, ...]
) -> tuple[float, float]:
    """Double a size until a call takes long; see the last doublings."""
    times: list[float] = []
    size = START
    while True:
        call = caller(method, kinds, size)
        times.append(seconds_of(call))
        if times[-1] > ENOUGH or numbers(method, kinds, size) > MOST:
            break
        size *= 2
    steps = min(2, len(times) - 1)
    small = caller(method, kinds, size // 2**steps)
    memory = peak_of(caller(method, kinds, size)) / peak_of(small)
    return (
        round(math.log2(times[-1] / times[-1 - steps]) / steps, 1),
        round(math.log2(memory) / steps, 1),
    )


def caller(
    method: Method, kinds: tuple[str, ...], size: int
) -> Callable[[], None]:
    """Prepare a call of the loss and of its gradient."""
    arguments = cases.arguments_of(
        method, sizes_of(kinds, size), dtype=torch.float32
    )
    learners = method.of("student") or method.of("teacher")
    leaves = [arguments[a.name] for a in learners if a.dtype is Float]
    for leaf in leaves:
        leaf.requires_grad_()

    def call() -> None:
        torch.autograd.grad(method.function(**arguments), leaves)

    return call


def sizes_of(
    kinds: tuple[str, ...], size: int
) -> dict[tuple[str, str], int]:
    """Set all axes to the start, and those that grow to `size`."""
    usual = {k: START for grown in AXES.values() for k in grown}
    grown = dict.fromkeys(kinds, size)
    return {("all", kind): n for kind, n in (usual | grown).items()}


def numbers(method: Method, kinds: tuple[str, ...], size: int) -> int:
    """Count the numbers in all inputs."""
    sizes = sizes_of(kinds, size)
    shapes = (cases.shape_of(a, sizes) for a in method.arguments)
    return sum(math.prod(shape) for shape in shapes)


def seconds_of(call: Callable[[], None]) -> float:
    """Take the median of the thread's own time, after a first call."""
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return median(taken)


def peak_of(call: Callable[[], None]) -> int:
    """Find the most bytes that a call holds at once."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as trace:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda e: e["ts"]):
        held += change["args"]["Bytes"]
        most = max(most, held)
    return most
