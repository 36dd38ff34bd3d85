"""Many runs at once: on a local cluster, or on one that is there."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster, as_completed

from snippets.study import store
from snippets.study.runs import Run, StudyError
from snippets.study.training import train

CONNECT = 10
"""Seconds in which a scheduler must answer, at first and when lost."""

SETTINGS = {
    "distributed.comm.timeouts.connect": f"{CONNECT} s",
    # Dask would have memory given back at once (MALLOC_TRIM_THRESHOLD_),
    # and getting it again makes small tensors four times slower.
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1},
    # A killed worker's run is tried again, on another one.
    "distributed.scheduler.allowed-failures": 5,
}


def train_and_store(run: Run, folder: str) -> None:
    """Do a run where a worker is, and write its result there.

    What a killed worker had finished is asked for again; it is there.
    """
    if not store.path_of(Path(folder), run).exists():
        store.write(Path(folder), run, train(run))


def execute(
    runs: Sequence[Run],
    folder: Path,
    *,
    scheduler: str | None,
    workers: int,
    done: Callable[[], None],
) -> None:
    """Do all runs; `done` is called after each.

    Args:
        runs: What to do. Each is one task, whose key is its digest.
        folder: Where the workers write; on a cluster of several
            machines, a folder that all of them share.
        scheduler: Address of a cluster; without one, a local one is
            started, and ended afterwards.
        workers: Processes of the local cluster, one thread each.
        done: Told of each run that has its result.

    Raises:
        StudyError: no scheduler there, or lost on the way; a run that
            failed. Finished runs keep their results.
    """
    if not runs:
        return
    with _client(scheduler, workers) as client:
        address = scheduler or "127.0.0.1"
        futures = client.map(
            train_and_store,
            runs,
            folder=str(folder.resolve()),
            key=[run.digest for run in runs],
        )
        names = {run.digest: run for run in runs}
        for future in as_completed(futures):
            if future.status == "cancelled":
                raise StudyError(
                    f"lost the scheduler at {address}; the finished"
                    " runs are kept: the same command goes on"
                )
            if future.status == "error":
                error = future.exception()
                run = names[future.key]
                raise StudyError(
                    str(error)
                    if isinstance(error, StudyError)
                    else f"{run.method} on {run.pair}, {run.regime},"
                    f" seed {run.seed}: {error!r}"
                )
            done()


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Client]:
    # What goes wrong is told once, by us.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        target = scheduler or stack.enter_context(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            )
        )
        try:
            client = stack.enter_context(
                Client(target, timeout=CONNECT)
            )
            client.wait_for_workers(1, timeout=CONNECT)
        except (OSError, TimeoutError, ValueError):
            raise StudyError(
                f"no scheduler with a worker at {scheduler}"
                f" within {CONNECT} s"
            ) from None
        yield client
