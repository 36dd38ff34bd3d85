"""The benchmark: our losses beside those of other packages.

Time is the median of rounds in one process. In each round every form
is called, in an order of its own, so that whatever else the machine
does meets all of them alike, and none is always called after the same
other: what that one gave back of memory decides what the next one
finds. A short call is made once before it is timed, for the same
reason. A call includes the gradient.

Memory is what the system must give for one call, gradient included:
the peak of resident memory, less what was resident before. Each form
gets a fresh process, so that none finds memory that another gave back.
`ru_maxrss` would not do, for it never falls: whatever was loaded before
may hide the call. Linux lets a process reset its own peak.
"""

import gc
import importlib.metadata
import json
import math
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from snippets.study import bench_pictures
from snippets.study.bench_cases import (
    PEERS,
    PLAIN,
    RUN,
    Case,
    Loss,
    cases,
    learned,
)

THREADS = 2

ROUNDS = 5, 31
"""At least, and at most."""

SECONDS = 20.0
"""After which no further round of a case begins."""

LONG = 0.005
"""Seconds of a sample at least; a short call is repeated in it."""

MEGABYTE = 2**20
"""Below this, resident memory is counted too roughly to compare."""

SAME = 1e-4
"""Relative difference up to which two results agree, in float32."""


class BenchError(Exception):
    """What keeps the benchmark from being run."""


Tell = Callable[[str], None]
"""Shows a line."""


def measure(
    *, quick: bool = False, tell: Tell = print
) -> dict[str, Any]:
    """Measure all cases.

    Args:
        quick: Take small sizes and few rounds: a check, no result.
        tell: Gets a line for each form and each target.

    Raises:
        BenchError: a system on which no process can reset its peak.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        raise BenchError(
            "peak memory is measured by /proc/self/clear_refs, which"
            " only Linux has"
        )
    torch.set_num_threads(THREADS)
    measured = []
    for place, case in enumerate(cases(quick=quick)):
        entry = compare(case, place, quick=quick)
        measured.append(entry)
        for line in lines(entry):
            tell(line)
    return {
        "machine": machine(),
        "peers": {name: version(peer) for name, peer in PEERS.items()},
        "method": {
            "rounds": ROUNDS,
            "seconds": SECONDS,
            "same": SAME,
            "dtype": "float32",
        },
        "quick": quick,
        "cases": measured,
    }


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write what was measured, and its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = bench_pictures.write(data, folder)
    path = folder / "bench.json"
    text = json.dumps(data, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return [path, picture]


def compare(case: Case, place: int, *, quick: bool) -> dict[str, Any]:
    """Check, time and weigh all forms of a case.

    Args:
        case: What to compare.
        place: Where it stands among the cases.
        quick: Whether these are the quick ones.
    """
    forms, losses = checked(case)
    tensors = case.inputs()
    leaves = learned(tensors)
    calls: dict[str, Callable[[], object]] = {
        name: caller(loss, tensors, leaves)
        for name, loss in losses.items()
    }
    bounds = {
        name: make(*tensors) for name, make in case.bounds.items()
    }
    times = interleaved(
        {**calls, **bounds},
        rounds=(3, 3) if quick else ROUNDS,
    )
    del tensors, leaves, calls, bounds  # the next processes need room
    gc.collect()
    for name in losses:
        forms[name]["milliseconds"] = spread(times[name])
        needed = extra_memory(place, name, quick=quick)
        forms[name]["megabytes"] = round(needed / MEGABYTE, 2)
    return {
        "paper": case.paper,
        "loss": case.loss,
        "name": case.name,
        "shape": case.shape,
        "rounds": len(times[PLAIN]),
        "forms": forms,
        "bounds": {n: median(times[n]) * 1e3 for n in case.bounds},
        **judged(case, forms),
    }


def checked(
    case: Case,
) -> tuple[dict[str, dict[str, Any]], dict[str, Loss]]:
    """Compare every form's value and gradient with the plain one's.

    Returns:
        By form: what a page shows of it, and its loss, where it works.
    """
    shown: dict[str, dict[str, Any]] = {}
    losses: dict[str, Loss] = {}
    reference: tuple[Tensor, tuple[Tensor, ...]] | None = None
    tensors = case.inputs()
    leaves = learned(tensors)
    for name, form in case.forms.items():
        try:
            loss = form.load()
            value = loss(*tensors) * form.scale
            found = value.detach(), torch.autograd.grad(value, leaves)
        except Exception as error:  # whatever a peer dies of
            if name in (PLAIN, RUN):
                raise
            shown[name] = {"absent": reason(error)}
            continue
        reference = reference or found
        losses[name] = loss
        shown[name] = {"note": form.note, **agreement(found, reference)}
    return shown, losses


def reason(error: Exception) -> str:
    """Say in a line why something failed, without this machine's paths."""
    line = (str(error).splitlines() or [""])[0]
    line = re.sub(r"\s*\(/[^)]*\)", "", line)
    return f"{type(error).__name__}: {line}"


def agreement(
    found: tuple[Tensor, tuple[Tensor, ...]],
    reference: tuple[Tensor, tuple[Tensor, ...]],
) -> dict[str, Any]:
    """Give the relative differences of a value and its gradients."""
    value = gap([found[0]], [reference[0]])
    gradient = gap(found[1], reference[1])
    same = [x <= SAME for x in (value, gradient)]
    agrees = "yes" if all(same) else "gradient" if same[1] else "no"
    return {
        "value_gap": value,
        "gradient_gap": gradient,
        "agrees": agrees,
    }


def gap(found: Any, reference: Any) -> float:
    """Relative difference of tensors, to two digits."""
    norm = torch.linalg.vector_norm
    pairs = list(zip(found, reference, strict=True))
    apart = math.hypot(*(norm(a - b).item() for a, b in pairs))
    size = math.hypot(*(norm(b).item() for _, b in pairs))
    return float(f"{apart / size:.1e}")


def caller(
    loss: Loss, tensors: list[Tensor], leaves: list[Tensor]
) -> Callable[[], object]:
    """Prepare a call of a loss and its gradient."""
    return lambda: torch.autograd.grad(loss(*tensors), leaves)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: tuple[int, int] = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, list[float]]:
    """Time calls round by round, each round in another order.

    Args:
        calls: By name.
        rounds: How many at least, and at most.
        seconds: After which no round begins, but the least are done.

    Returns:
        The seconds of a call, one for each round.
    """
    often = {}
    for name, call in calls.items():
        call()
        often[name] = math.ceil(LONG / timed(call, 1))
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    start = time.perf_counter()
    order = random.Random(0)
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() - start > seconds:
            break
        order.shuffle(names)
        for name in names:
            if often[name] > 1:
                calls[name]()
            times[name].append(timed(calls[name], often[name]))
    return times


def timed(call: Callable[[], object], often: int) -> float:
    """Take the mean seconds of some calls on end."""
    start = time.perf_counter()
    for _ in range(often):
        call()
    return (time.perf_counter() - start) / often


def spread(times: list[float]) -> list[float]:
    """Give median and quartiles in milliseconds."""
    low, middle, high = quantiles(times, n=4, method="inclusive")
    return [float(f"{x * 1e3:.4g}") for x in (middle, low, high)]


def extra_memory(place: int, form: str, *, quick: bool) -> int:
    """Find what one call needs, in bytes, in a fresh process."""
    context = get_context("spawn")  # a fork would lack torch's threads
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_grown, place, form, quick).result()


def _grown(place: int, form: str, quick: bool) -> int:
    """Call a form once, and see by how much the peak grows."""
    torch.set_num_threads(THREADS)
    case = cases(quick=quick)[place]
    small = next(
        c
        for c in cases(quick=True)
        if (c.paper, c.name) == (case.paper, case.name)
    )
    loss = case.forms[form].load()
    # What a first call loads and sets up is not the loss's.
    _call_once(small.forms[form].load(), small.inputs())
    tensors = case.inputs()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    _call_once(loss, tensors)
    return max(0, _resident("VmHWM") - before)


def _call_once(loss: Loss, tensors: list[Tensor]) -> None:
    caller(loss, tensors, learned(tensors))()


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def judged(
    case: Case, forms: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare our form to run with the best of the others.

    Others are packages that compute the same gradient, or our plain
    form where the case says so. For time that is the fastest of them,
    for memory the leanest.
    """
    rivals = (
        [PLAIN]
        if case.naive
        else [
            name
            for name, form in forms.items()
            if name in PEERS
            and form.get("agrees") in ("yes", "gradient")
        ]
    )
    target = case.target
    found: dict[str, Any] = {"rivals": {}, "ratios": {}, "met": {}}
    for measure_, aim in (
        ("time", target and target.time),
        ("memory", target and target.memory),
    ):
        if not rivals:
            continue
        size = {
            name: amount(form, measure_)
            for name, form in forms.items()
            if "absent" not in form
        }
        rival = min(rivals, key=lambda name: size[name])
        ratio = round(size[RUN] / size[rival], 3)
        found["rivals"][measure_] = rival
        found["ratios"][measure_] = ratio
        if aim:
            found["met"][measure_] = ratio <= aim
            found.setdefault("target", {})[measure_] = aim
    return found


def amount(form: Mapping[str, Any], measure: str) -> float:
    """Give a form's time in ms, or its memory in MB, 1 at least."""
    if measure == "time":
        return float(form["milliseconds"][0])
    return max(1.0, float(form["megabytes"]))


def lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """Tell of a case: each form, each bound, each target."""
    yield f"{entry['name']} {'×'.join(map(str, entry['shape']))}"
    for name, form in entry["forms"].items():
        if "absent" in form:
            yield f"  {name:14} absent: {form['absent']}"
            continue
        same = {"yes": "", "gradient": "  same gradient only"}.get(
            form["agrees"], f"  differs: {form['note']}"
        )
        yield (
            f"  {name:14} {form['milliseconds'][0]:10.3f} ms"
            f" {form['megabytes']:9.1f} MB{same}"
        )
    for name, bound in entry["bounds"].items():
        yield f"  {'bound: ' + name:14} {bound:10.3f} ms"
    for name, met in entry["met"].items():
        yield (
            f"  {'met' if met else 'missed'}: {name}"
            f" {entry['ratios'][name]:.2f}× of"
            f" {entry['rivals'][name]}, aim"
            f" {entry['target'][name]}×"
        )


def machine() -> dict[str, Any]:
    """Say where, when and with what it is measured."""
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


def processor() -> str:
    """Give the processor's name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"model name\s*: (.+)", text)
    return found[1] if found else platform.machine()


def version(package: str) -> str | None:
    """Give an installed package's version, None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
