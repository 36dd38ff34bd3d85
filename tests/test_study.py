"""The study: fair, whole, and not lost when something is killed."""

import dataclasses
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from papers.catalog import ROOT, load
from snippets.study import command, report, store, training
from snippets.study.grid import QUICK, SEARCH_SEEDS, Grid, best_weights
from snippets.study.methods import HINTON, LEFT_OUT, METHODS, NONE, SMOOTHING, Setting, view
from snippets.study.problems import (
    LABELS_A_CLASS,
    MISSING,
    NOISE,
    PAIRS,
    REGIMES,
    STUDENT,
    load_digits,
    network,
    problem,
    regime_data,
)
from snippets.study.runs import Cell, Outcome, Run, StudyError
from snippets.study.statistics import comparisons, estimate, holm, lines, ranking, table

SMALL = Grid(methods=("none", "kd"), pairs=("mlp-mlp",), regimes=("all", "few"), seeds=4, epochs=10)
RUN = Run("digits", "mlp-mlp", "all", 1, "kd", 0.3, 0, search=False)
OUTCOME = Outcome(0.9, 0.91, 0.92, 0.1, 0.98, 0.5)


class TestRuns:
    @pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Run)])
    def test_each_field_is_in_the_name(self, field):
        value = getattr(RUN, field)
        other = not value if isinstance(value, bool) else value * 2 + type(value)("1")
        assert dataclasses.replace(RUN, **{field: other}).digest != RUN.digest

    def test_names_of_the_record_do_not_change(self):
        assert RUN.digest == "ae3e8bab94ff069b45ef"


class TestGrid:
    def test_every_method_in_every_cell_that_it_fits(self):
        entries = Grid().entries()
        assert len(set(entries)) == len(entries)
        for pair in PAIRS:
            for method in METHODS:
                here = {c.regime for c, m in entries if (c.pair, m) == (pair, method)}
                assert here == (set(REGIMES) if METHODS[method].fits(pair) else set())

    def test_maps_are_compared_between_convolutional_networks_alone(self):
        apart = {m for m in METHODS if not METHODS[m].fits("mlp-mlp")}
        assert apart == {"attention", "factor", "kd+attention", "kd+factor"}

    def test_every_paper_is_compared_or_left_out_for_a_reason(self):
        compared = {m.paper for m in METHODS.values() if m.paper}
        complete = {key for key, paper in load().items() if paper.status == "complete"}
        assert compared | set(LEFT_OUT) == complete
        assert not compared & set(LEFT_OUT)

    def test_ten_seeds_that_the_search_never_saw(self):
        finals = Grid().finals({})
        assert {run.seed for run in finals} == set(range(10))
        assert not set(SEARCH_SEEDS) & set(range(10))

    def test_size_is_what_is_run(self):
        for grid in (Grid(), QUICK, SMALL):
            assert grid.size() == (len(grid.searches()), len(grid.finals({})))

    @pytest.mark.parametrize(
        ("name", "value"),
        [("methods", ("none", "magic")), ("pairs", ("rnn-mlp",)), ("regimes", ("none",))],
    )
    def test_unknown_names(self, name, value):
        with pytest.raises(StudyError, match=f"no {name[:-1]} {value[-1]}; there are: "):
            Grid(**{name: value})

    @pytest.mark.parametrize(("name", "value"), [("data", "mnist"), ("seeds", 1), ("epochs", 0)])
    def test_bad_values(self, name, value):
        with pytest.raises(StudyError, match=str(value)):
            Grid(**{name: value})


class TestSearch:
    def test_the_weight_of_best_mean_accuracy_is_chosen(self):
        scores = {(0.03, 1000): 0.8, (0.03, 1001): 0.9, (0.3, 1000): 0.95, (0.3, 1001): 0.7}
        found = {
            dataclasses.replace(RUN, weight=w, seed=s, search=True): dataclasses.replace(
                OUTCOME, valid_accuracy=score
            )
            for (w, s), score in scores.items()
        }
        assert best_weights(found) == {(RUN.cell, "kd"): 0.03}

    def test_the_smaller_weight_of_equals(self):
        found = {dataclasses.replace(RUN, weight=w, search=True): OUTCOME for w in (3.0, 0.3, 30.0)}
        assert best_weights(found) == {(RUN.cell, "kd"): 0.3}

    def test_final_runs_choose_nothing(self):
        assert best_weights({RUN: OUTCOME}) == {}


class TestFairness:
    """Every method sees the same batches, budget, search and stopping rule."""

    def watch(self, monkeypatch, method, regime):
        """Train once; what batches and what budget did the method get?"""
        batches, budgets = [], []
        look, fit = training.look, training.fit

        def seen(index, *rest):
            batches.append(index.tolist())
            return look(index, *rest)

        def spent(modules, objective, samples, *, generator, **budget):
            budgets.append({"samples": samples, **budget})
            return fit(modules, objective, samples, generator=generator, **budget)

        monkeypatch.setattr(training, "look", seen)
        monkeypatch.setattr(training, "fit", spent)
        weight = METHODS[method].weights[0]
        training.train(Run("digits", "cnn-cnn", regime, 1, method, weight, seed=3, search=False))
        monkeypatch.undo()
        return batches, budgets

    @pytest.mark.parametrize("regime", ["all", "few"])
    def test_same_batches_and_budget(self, monkeypatch, regime):
        expected = self.watch(monkeypatch, NONE, regime)
        assert len(expected[0]) == -(-1000 // training.BATCH)
        for method in METHODS:
            assert self.watch(monkeypatch, method, regime) == expected, method

    def test_same_search(self):
        sizes = {len(m.weights) for name, m in METHODS.items() if name != NONE}
        assert sizes == {4}
        weights = {m.weights for name, m in METHODS.items() if name not in (NONE, SMOOTHING)}
        assert len(weights) == 1

    def test_same_student_and_teacher_for_a_seed(self):
        task = problem(RUN.cell, 5)
        again = problem(dataclasses.replace(RUN, method="hint").cell, 5)
        assert again.teacher is task.teacher
        first, second = (network(task.source, "mlp", STUDENT["mlp"], 5) for _ in range(2))
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_signals_start_as_large_as_the_cross_entropy(self):
        task = problem(RUN.cell, 0)
        for method in METHODS:
            if not METHODS[method].makers or not METHODS[method].fits("mlp-mlp"):
                continue
            sizes = []
            for weight in (1e-9, 2.0):
                student = network(task.source, "mlp", STUDENT["mlp"], 0)
                run = dataclasses.replace(RUN, method=method, weight=weight)
                objective, _ = training.objective_of(run, task, student)
                sizes.append(objective(torch.arange(32)).item())
            assert sizes[1] == pytest.approx(3 * sizes[0], rel=1e-6), method


class TestMethods:
    @pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].makers])
    def test_the_student_learns_and_the_teacher_does_not(self, method):
        pair = "cnn-cnn" if not METHODS[method].fits("cnn-mlp") else "cnn-mlp"
        task = problem(Cell("digits", pair, "few", 1), 0)
        student = network(task.source, task.student_kind, STUDENT[task.student_kind], 1)
        with torch.no_grad():
            known = view(task.teacher, task.images)
        setting = Setting(task, student, known, 0)
        batch = training.look(torch.arange(200), task, student, known)
        for maker in METHODS[method].makers:
            signal = maker(setting)
            loss = signal.loss(batch)
            learning = [student, *signal.modules]
            slopes = torch.autograd.grad(
                loss,
                [p for module in learning for p in module.parameters()],
                allow_unused=True,
                retain_graph=True,
            )
            assert loss.isfinite()
            assert sum(s.abs().sum() for s in slopes[:2]) > 0
            assert not any(p.requires_grad for p in task.teacher.parameters())

    def test_last_hidden_layer_feeds_the_logits(self):
        for kind in ("mlp", "cnn"):
            model = network(load_digits(), kind, STUDENT[kind], 0)
            images = load_digits().test.images[:7]
            seen = view(model, images)
            torch.testing.assert_close(seen.logits, model(images))
            assert seen.embedding.shape == (7, STUDENT[kind][-1])
            assert seen.maps.ndim == 4


class TestRegimes:
    def test_few(self):
        split, readable = regime_data(load_digits(), "few", 0)
        assert split.labels[readable].bincount().tolist() == [LABELS_A_CLASS] * 10

    def test_noisy(self):
        split, readable = regime_data(load_digits(), "noisy", 0)
        wrong = (split.labels != load_digits().train.labels).double().mean()
        assert readable.all()
        assert wrong == pytest.approx(NOISE * 0.9, abs=0.04)

    def test_other(self):
        split, readable = regime_data(load_digits(), "other", 0)
        assert split.labels.unique().tolist() == [*range(10 - MISSING)]
        assert readable.all()
        assert len(readable) == len(split) < 1000

    def test_all(self):
        split, readable = regime_data(load_digits(), "all", 0)
        assert torch.equal(split.labels, load_digits().train.labels)
        assert readable.all()

    def test_rare_labels_join_every_batch(self):
        task = problem(Cell("digits", "mlp-mlp", "few", 1), 0)
        batch = training.batches(task, 0)(torch.arange(10))
        assert len(batch) == 10 + training.LABELLED_BATCH
        assert task.labelled[batch[10:]].all()


class TestStore:
    def test_what_is_written_is_read(self, tmp_path):
        store.write(tmp_path, RUN, OUTCOME)
        assert store.read(tmp_path, [RUN]) == {RUN: OUTCOME}
        assert [p.name for p in tmp_path.iterdir()] == [f"{RUN.digest}.parquet"]

    def test_missing(self, tmp_path):
        other = dataclasses.replace(RUN, seed=1)
        third = dataclasses.replace(RUN, seed=2)
        store.write(tmp_path, RUN, OUTCOME)
        assert store.missing(tmp_path, [RUN, other, third], {third: OUTCOME}) == [other]

    def test_half_written(self, tmp_path):
        store.write(tmp_path, RUN, OUTCOME)
        path = store.path_of(tmp_path, RUN)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StudyError, match=f"{path}: not a whole result"):
            store.read(tmp_path, [RUN])

    def test_foreign(self, tmp_path):
        path = store.path_of(tmp_path, RUN)
        pq.write_table(pa.table({"a": [1]}), path)
        with pytest.raises(StudyError, match=f"{path}: not a whole result"):
            store.read(tmp_path, [RUN])

    def test_another_runs(self, tmp_path):
        other = dataclasses.replace(RUN, seed=1)
        store.write(tmp_path, other, OUTCOME)
        store.path_of(tmp_path, other).rename(store.path_of(tmp_path, RUN))
        with pytest.raises(StudyError, match="not the result of this run; delete"):
            store.read(tmp_path, [RUN])

    def test_full_disk(self, tmp_path):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(StudyError, match="cannot be written: File too large"):
                store.write(tmp_path, RUN, OUTCOME)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not [*tmp_path.iterdir()]

    def test_what_a_killed_writer_left_is_removed(self, tmp_path):
        other = dataclasses.replace(RUN, seed=1)
        for run in (RUN, other):
            store.path_of(tmp_path, run).with_suffix(".123.part").touch()
        store.write(tmp_path, RUN, OUTCOME)
        store.sweep(tmp_path, [RUN])
        assert {path.name for path in tmp_path.iterdir()} == {
            f"{RUN.digest}.parquet",
            f"{other.digest}.123.part",  # somebody may be writing it
        }

    def test_who_is_swept_while_writing_finds_the_result_there(self, tmp_path, monkeypatch):
        store.write(tmp_path, RUN, OUTCOME)
        monkeypatch.setattr(store.os, "fsync", lambda _: store.sweep(tmp_path, [RUN]))
        store.write(tmp_path, RUN, OUTCOME)
        assert store.read(tmp_path, [RUN]) == {RUN: OUTCOME}
        assert [p.name for p in tmp_path.iterdir()] == [f"{RUN.digest}.parquet"]

    def test_no_folder_to_write_to(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StudyError, match="cannot be written"):
            store.write(tmp_path / "file", RUN, OUTCOME)


class TestStatistics:
    def results(self, shift, seeds=10):
        """Make up a method that gains `shift` over none, and kd that gains nothing."""
        noise = torch.randn(3, seeds, generator=torch.Generator().manual_seed(0)) / 100
        return {
            dataclasses.replace(RUN, method=m, seed=k): dataclasses.replace(
                OUTCOME, test_accuracy=0.8 + more + float(noise[0, k] + noise[i, k] / 5)
            )
            for i, (m, more) in enumerate({NONE: 0, HINTON: 0, "hint": shift}.items())
            for k in range(seeds)
        }

    def test_interval_is_students(self):
        values = [0.1, 0.5, 0.4, 0.9]
        low, high = stats.t.interval(0.95, 3, loc=0.475, scale=stats.sem(values))
        found = estimate(values)
        assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx(
            (low, high)
        )

    def test_holm_is_statsmodels(self):
        p = {"a": 0.04, "b": 0.001, "c": 0.03, "d": 0.5}
        expected = multipletests([*p.values()], method="holm")[1]
        assert [*holm(p).values()] != []
        assert [holm(p)[name] for name in p] == pytest.approx([*expected])

    def test_a_gain_beyond_the_noise_is_clear(self):
        found = {line.method: line.over_none for line in lines(self.results(0.01))}
        assert found["hint"].clear
        assert found["hint"].gain.mean == pytest.approx(1, abs=0.3)
        assert not found["kd"].clear
        assert found["none"] is None

    def test_pairing_sees_what_the_scatter_hides(self):
        data = table(self.results(0.005)).pivot(
            index="seed", columns="method", values="test_accuracy"
        )
        assert comparisons(data, NONE)["hint"].clear
        assert stats.ttest_ind(data["hint"], data[NONE]).pvalue > 0.05

    def test_ranks(self):
        found = [
            line
            for regime in REGIMES
            for line in lines(
                {
                    dataclasses.replace(run, regime=regime): outcome
                    for run, outcome in self.results(0.05).items()
                }
            )
        ]
        ranks = ranking(found)
        assert ranks.ranks["hint"] == 1
        assert ranks.cells == 4
        assert ranking(found[:3]) is None


class TestRecord:
    """The committed study."""

    def test_is_the_whole_grid(self):
        known, grid = command.record(), Grid()
        searches = {run: known[run] for run in grid.searches()}
        finals = grid.finals(searches)
        assert set(known) == {*searches, *finals}

    def test_summary_and_pictures_are_made_of_it(self, tmp_path):
        for path in report.write(Grid(), command.record(), tmp_path):
            if path.suffix == ".json":
                committed = (command.RECORD / path.name).read_text(encoding="utf-8")
                assert json.loads(path.read_text(encoding="utf-8")) == json.loads(committed)
            else:
                assert (command.RECORD / path.name).stat().st_size > 0

    @pytest.mark.parametrize("method", ["none", "kd", "seed"])
    def test_is_found_again(self, method):
        known = command.record()
        run = next(r for r in known if (r.method, r.pair, r.regime) == (method, "mlp-mlp", "few"))
        again = training.train(run)
        assert again.test_accuracy == pytest.approx(known[run].test_accuracy, abs=1e-9)
        assert again.divergence == pytest.approx(known[run].divergence, rel=1e-6)


def study(*options: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "snippets", "study", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    """Wait for it: its exit code and what it printed."""
    out, error = process.communicate(timeout=seconds)
    return process.returncode, out, error


class TestCommand:
    def test_quick_study_agrees_with_the_record(self, tmp_path):
        start = time.monotonic()
        code, out, error = finish(
            study("--quick", "--results", str(tmp_path), "--workers", "2"), seconds=900
        )
        assert code == 0, error
        assert time.monotonic() - start < 300
        runs = sum(QUICK.size())
        assert len([*tmp_path.glob("*.parquet")]) == runs
        same = int(out.split(" run(s) are in the record, ")[0].split()[-1])
        assert same >= QUICK.size()[0]
        assert ", 0 differ there" in out
        code, out, _ = finish(study("--quick", "--results", str(tmp_path)))
        assert code == 0
        assert "search: 0 to do" in out
        assert "final runs: 0 to do" in out

    def test_finished_study_costs_nothing(self):
        _, out, error = finish(study("--dry-run"))
        assert "0 to do: nothing" in out, error

    def test_dry_run_counts_the_search(self):
        _, out, _ = finish(study("--dry-run", "--fresh", "--results", "/nowhere"))
        search, final = Grid().size()
        assert f"{search} runs of the search and {final} final runs" in out
        assert f"{search + final} to do: about " in out

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--methods", "magic"], "no method magic; there are: none"),
            (["--regimes", "all,magic"], "no regime magic; there are: all"),
            (["--scheduler", "tcp://127.0.0.1:9", "--fresh"], "tcp://127.0.0.1:9"),
        ],
    )
    def test_bad_options(self, tmp_path, options, message):
        code, _, error = finish(study(*options, "--results", str(tmp_path)), seconds=60)
        assert code == 1
        assert error.startswith("error: ")
        assert message in error
        assert "Traceback" not in error

    def test_half_written_result(self, tmp_path):
        run = QUICK.searches()[0]
        store.write(tmp_path, run, OUTCOME)
        path = store.path_of(tmp_path, run)
        path.write_bytes(b"PAR1")
        for extra in QUICK.searches()[1:]:
            store.write(tmp_path, extra, OUTCOME)
        code, _, error = finish(study("--quick", "--results", str(tmp_path)))
        assert code == 1
        assert f"{path}: not a whole result" in error
        assert len([*tmp_path.glob("*.parquet")]) == QUICK.size()[0]


class Cluster:
    """A scheduler and two workers on loopback, as a user would start them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.file.unlink(missing_ok=True)
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not self.file.exists():
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        self.workers = [self._start("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, part: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"distributed.cli.dask_{part}",
                *options,
                "--scheduler-file",
                str(self.file),
                "--no-dashboard",
            ],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def children(process: subprocess.Popen[str]) -> list[int]:
    """List the processes that any thread of it has started."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for listed in threads for pid in listed.read_text().split()]


class TestKilled:
    """A worker, the scheduler, the command: nothing is lost, nothing is done twice."""

    @pytest.fixture
    def cluster(self, tmp_path):
        cluster = Cluster(tmp_path)
        yield cluster
        cluster.stop()

    def options(self, folder: Path, address: str) -> list[str]:
        return [
            *("--methods", ",".join(SMALL.methods), "--pairs", ",".join(SMALL.pairs)),
            *("--regimes", ",".join(SMALL.regimes), "--seeds", str(SMALL.seeds)),
            *("--epochs", str(SMALL.epochs), "--fresh", "--scheduler", address),
            *("--results", str(folder / "runs")),
        ]

    def begun(self, folder: Path, process: subprocess.Popen[str]) -> dict[Path, int]:
        """Wait for some results, and remember when they were written."""
        while len([*folder.glob("runs/*.parquet")]) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return {path: path.stat().st_mtime_ns for path in folder.glob("runs/*.parquet")}

    def assert_whole(self, folder: Path, before: dict[Path, int]) -> None:
        """Every digest has exactly one whole file, and none was written again."""
        searches = store.read(folder / "runs", SMALL.searches())
        finals = SMALL.finals(searches)
        assert len(store.read(folder / "runs", finals)) == SMALL.size()[1]
        assert len([*folder.glob("runs/*.parquet")]) == sum(SMALL.size())
        assert not [*folder.glob("runs/*.part")]
        assert before == {path: path.stat().st_mtime_ns for path in before}

    def test_worker(self, tmp_path, cluster):
        process = study(*self.options(tmp_path, cluster.address))
        before = self.begun(tmp_path, process)
        cluster.workers[0].send_signal(signal.SIGKILL)
        code, _, error = finish(process)
        assert code == 0, error
        self.assert_whole(tmp_path, before)

    def test_scheduler(self, tmp_path, cluster):
        process = study(*self.options(tmp_path, cluster.address))
        before = self.begun(tmp_path, process)
        own = children(process)
        cluster.scheduler.send_signal(signal.SIGKILL)
        start = time.monotonic()
        code, _, error = finish(process, seconds=30)
        assert time.monotonic() - start < 30
        assert code == 1
        assert f"lost the scheduler at {cluster.address}" in error
        assert not [pid for pid in own if Path(f"/proc/{pid}").exists()]
        self.go_on(tmp_path, before)

    def test_command(self, tmp_path, cluster):
        process = study(*self.options(tmp_path, cluster.address))
        before = self.begun(tmp_path, process)
        process.kill()
        process.communicate()
        self.go_on(tmp_path, before)

    def test_command_of_a_local_cluster_leaves_no_orphan(self, tmp_path):
        options = self.options(tmp_path, "")
        process = study(*(o for o in options if o not in ("--scheduler", "")))
        before = self.begun(tmp_path, process)
        own = children(process)
        assert own
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while any(alive(pid) for pid in own) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in own if alive(pid)]
        process.communicate()
        self.go_on(tmp_path, before)

    def go_on(self, folder: Path, before: dict[Path, int]) -> None:
        """The same command, on a new cluster, does only what is missing."""
        cluster = Cluster(folder)
        try:
            code, out, error = finish(study(*self.options(folder, cluster.address)))
        finally:
            cluster.stop()
        assert code == 0, error
        assert f"search: {SMALL.size()[0]} to do" not in out
        self.assert_whole(folder, before)


def alive(pid: int) -> bool:
    """Is there such a process, and is it no mere zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
