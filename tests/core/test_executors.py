# SPDX-License-Identifier: GPL-2.0-or-later
"""Independent tasks in this process and in others: what one does is no matter to the others."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from synthetic import Recorder, make_cube

from gridcast_qgis.core import executors
from gridcast_qgis.core.errors import GridcastError, InputError, JobCancelled
from gridcast_qgis.core.executors import Task, executor, run_tasks, side_by_side
from gridcast_qgis.core.jobs import JOBS, Files, files_of, run_job
from gridcast_qgis.core.reporter import Reporter

#: Plays the worker: what it does is the name of the job.
SCRIPT = Path(__file__).resolve().parents[1] / "fakes" / "fake_task.py"


@pytest.fixture
def processes(monkeypatch) -> list[subprocess.Popen]:
    """Let a script play the worker, and note the processes that are started."""
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start(command, **options):
        assert command[:2] == [sys.executable, "-X"]
        assert command[-2] == "gridcast_qgis.core"
        started.append(real([sys.executable, str(SCRIPT), command[-1]], **options))
        return started[-1]

    monkeypatch.setattr(executors.subprocess, "Popen", start)
    return started


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "private"
    path.mkdir()
    return path


def ended(processes: list[subprocess.Popen]) -> bool:
    """Tell whether all processes have ended and have been waited for."""
    return all(process.returncode is not None for process in processes)


def test_what_comes_of_a_task_is_noted(processes, folder):
    reporter = Recorder()
    tasks = [Task("One", "work", {"x": 1}), Task("Two", "work", {"y": "zwei", "level": "warning"})]
    side_by_side(tasks, 1, folder, reporter)
    assert [task.outputs["echo"] for task in tasks] == [{"x": 1}, {"y": "zwei", "level": "warning"}]
    assert [task.error for task in tasks] == ["", ""]
    assert reporter.texts("info") == ["One: half done"]
    assert reporter.texts() == ["Two: half done"]
    assert (reporter.values("One: loss"), reporter.values("Two: loss")) == ([0.5], [0.5])
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(100)
    assert {25.0, 50.0, 75.0} <= set(progress)
    assert ended(processes)
    # Requests and logs lie in the private folder.
    assert len({task.outputs["job_dir"] for task in tasks}) == 2
    for task in tasks:
        own = Path(task.outputs["job_dir"])
        assert own.parent == folder
        assert (own / "log.txt").read_text() == "for the log\n"
        assert json.loads((own / "request.json").read_text(encoding="utf-8"))["request"] == task.request


@pytest.mark.parametrize("workers", [2, 3])
def test_tasks_run_at_the_same_time(processes, folder, tmp_path, workers):
    places = [str(tmp_path / f"here {number}") for number in range(workers)]
    # None ends before all have begun.
    tasks = [Task(place, "meet", {"here": place, "others": places}) for place in places]
    side_by_side(tasks, workers, folder, Reporter())
    assert all(task.outputs for task in tasks)


def test_no_more_tasks_than_workers_run_at_once(processes, folder, monkeypatch):
    most = []
    start = executors._start

    def counted(*arguments):
        process = start(*arguments)
        most.append(sum(each.poll() is None for each in processes))
        return process

    monkeypatch.setattr(executors, "_start", counted)
    tasks = [Task(str(number), "chatter", {}) for number in range(5)]
    side_by_side(tasks, 2, folder, Reporter())
    assert len(processes) == 5
    assert max(most) <= 2
    assert all(task.outputs for task in tasks)


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (20, 1)])
def test_processor_cores_are_shared_out(processes, folder, monkeypatch, workers, threads):
    monkeypatch.setattr(executors.os, "cpu_count", lambda: 8)
    task = Task("One", "work", {})
    side_by_side([task], workers, folder, Reporter())
    assert task.outputs["threads"] == task.outputs["processor"] == str(threads)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_leaves_the_others_alone(processes, folder, workers):
    tasks = [
        Task("Good", "work", {"x": 1}),
        Task("Bad input", "refuse", {}),
        Task("Killed", "die", {}),
        Task("Silent", "exit", {}),
        Task("Also good", "work", {"x": 2}),
    ]
    reporter = Recorder()
    side_by_side(tasks, workers, folder, reporter)
    assert [task.outputs is None for task in tasks] == [False, True, True, True, False]
    assert [task.error for task in tasks] == [
        "",
        "CUBE = a.nc: Too few events. Choose more.",
        f"Its process ended with status {signal.SIGTERM.value * (1 if os.name == 'nt' else -1)}.",
        "Its process ended with status 7.",
        "",
    ]
    assert ended(processes)
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress[-1] == pytest.approx(100)


def test_nothing_to_do(folder):
    side_by_side([], 2, folder, Reporter())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_cancel_leaves_no_process_and_starts_no_other(processes, folder, workers):
    reporter = Recorder(cancel_when=lambda event: "waiting" in str(event.get("text")))
    tasks = [Task(str(number), "wait", {}) for number in range(4)]
    with pytest.raises(JobCancelled):
        side_by_side(tasks, workers, folder, reporter)
    assert len(processes) == workers
    assert ended(processes)
    # They were asked first.
    assert 3 in [process.returncode for process in processes]


def test_a_process_that_does_not_listen_is_killed(processes, folder, monkeypatch):
    monkeypatch.setattr(executors, "_GRACE_SECONDS", 0.1)
    reporter = Recorder(cancel_when=lambda event: "waiting" in str(event.get("text")))
    with pytest.raises(JobCancelled):
        side_by_side([Task("One", "stubborn", {}), Task("Two", "wait", {})], 2, folder, reporter)
    assert ended(processes)
    assert processes[0].returncode not in (0, 3)


def test_a_job_that_was_cancelled_before_leaves_no_process(processes, folder):
    reporter = Reporter()
    reporter.cancel()
    with pytest.raises(JobCancelled):
        side_by_side([Task("One", "wait", {})], 1, folder, reporter)
    assert ended(processes)


def test_a_reporter_that_fails_leaves_no_process(processes, folder):
    class Broken(Reporter):
        def message(self, text):
            raise OSError("nobody reads")

    with pytest.raises(OSError, match="nobody reads"):
        side_by_side([Task("One", "wait", {}), Task("Two", "wait", {})], 2, folder, Broken())
    assert len(processes) == 2
    assert ended(processes)


def test_a_task_does_not_look_for_a_cluster_itself(processes, folder, monkeypatch):
    monkeypatch.setenv(executors.SCHEDULER_VARIABLE, "tcp://far.example:8786")
    task = Task("One", "work", {})
    side_by_side([task], 1, folder, Reporter())
    assert task.outputs["scheduler"] is None


# Where tasks run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Add:
    terms: list[int]
    scale: object = None


def add(request: Add, reporter: Reporter) -> dict:
    # A request is what it would be in a process of its own.
    assert not isinstance(request.scale, tuple)
    reporter.stage("Adding", 0, 50)
    reporter.message("adding")
    reporter.metric("terms", len(request.terms), 1)
    reporter.progress(1.0)
    if 13 in request.terms:
        raise InputError("There is a 13.", hint="Leave it out.", parameter="TERMS")
    if 0 in request.terms:
        raise ZeroDivisionError("a bug")
    reporter.stage("Telling", 50, 100)
    reporter.warning("added")
    return {"sum": sum(request.terms), "terms": tuple(request.terms)}


@pytest.fixture
def adding(monkeypatch):
    monkeypatch.setitem(JOBS, "add", (Add, add))


def test_tasks_run_in_this_process_by_default(adding, processes, folder, capsys):
    reporter = Recorder()
    terms = ([1, 2], [13], [0], [3])
    tasks = [Task(f"Sum {each}", "add", {"terms": each, "scale": (2,)}) for each in terms]
    run_tasks(tasks, folder, reporter)
    assert processes == []
    assert [task.outputs for task in tasks] == [
        {"sum": 3, "terms": [1, 2]},
        None,
        None,
        {"sum": 3, "terms": [3]},
    ]
    assert [task.error for task in tasks] == [
        "",
        "TERMS: There is a 13. Leave it out.",
        "Gridcast failed where it should not: ZeroDivisionError: a bug Please report this together with the "
        "log.",
        "",
    ]
    assert reporter.texts("info") == [f"Sum {each}: adding" for each in terms]
    assert reporter.texts() == ["Sum [1, 2]: added", "Sum [3]: added"]
    assert reporter.values("Sum [1, 2]: terms") == [2]
    # What nobody foresaw goes into the log.
    said = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in said
    assert "There is a 13" not in said
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert {12.5, 25.0, 50.0, 75.0, 87.5} <= set(progress)
    assert progress[-1] == pytest.approx(100)


def test_a_cancelled_run_in_this_process_starts_no_other_task(adding, folder):
    reporter = Recorder(cancel_when=lambda event: event.get("text") == "1: adding")
    tasks = [Task(str(number), "add", {"terms": [number]}) for number in (1, 2)]
    with pytest.raises(JobCancelled):
        run_tasks(tasks, folder, reporter)
    assert reporter.texts("info") == ["1: adding"]


@pytest.mark.parametrize(("count", "workers", "started"), [(3, 2, 3), (1, 2, 0), (3, 1, 0), (0, 2, 0)])
def test_more_than_one_worker_means_processes(adding, processes, folder, count, workers, started):
    job = "work" if started else "add"
    tasks = [
        Task(str(number), job, {"terms": [number + 1]} if job == "add" else {}) for number in range(count)
    ]
    run_tasks(tasks, folder, Reporter(), workers=workers)
    assert len(processes) == started
    assert all(task.outputs for task in tasks)


def test_a_task_whose_process_fails_runs_again_by_itself(processes, folder):
    reporter = Recorder()
    tasks = [Task("Good", "work", {}), *(Task(job, job, {}) for job in ("refuse", "die", "fail"))]
    run_tasks(tasks, folder, reporter, workers=2)
    # What is wrong with its input does not pass.
    assert len(processes) == 4 + 2
    status = signal.SIGTERM.value * (1 if os.name == "nt" else -1)
    assert [task.error for task in tasks] == [
        "",
        "CUBE = a.nc: Too few events. Choose more.",
        f"Its process ended with status {status}.",
        "Broken.",
    ]
    assert reporter.texts() == [
        f"die failed: Its process ended with status {status}. It is tried again by itself.",
        "fail failed: Broken. It is tried again by itself.",
    ]
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)


def test_a_second_try_may_do(processes, folder, tmp_path):
    """It waits for a gate that is not there, is told to stop by its end, and finds the gate the next time."""
    gate = tmp_path / "gate"
    reporter = Recorder()
    tell = reporter.emit

    def open_the_gate(event, **fields):
        if "waiting" in str(fields.get("text")):
            gate.touch()
            processes[0].kill()
        tell(event, **fields)

    reporter.emit = open_the_gate
    tasks = [Task("Held", "hold", {"gate": str(gate)}), Task("Good", "work", {})]
    run_tasks(tasks, folder, reporter, workers=2)
    assert [task.error for task in tasks] == ["", ""]
    assert tasks[0].outputs["echo"] == {"gate": str(gate)}
    assert len(processes) == 3


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        ("tcp://a:1", "", "tcp://a:1"),
        ("", " tcp://b:2 ", "tcp://b:2"),
        (None, "tcp://b:2", "tcp://b:2"),
        ("tcp://a:1", "tcp://b:2", "tcp://a:1"),
        (None, " ", None),
        (None, None, None),
    ],
)
def test_which_cluster_is_used(adding, folder, monkeypatch, argument, variable, expected):
    from gridcast_qgis.core import cluster

    used = []

    class Elsewhere:
        def __init__(self, address):
            used.append(address)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            used.append("closed")

        def run(self, tasks, folder, reporter):
            used.append(len(tasks))

    monkeypatch.setattr(cluster, "Cluster", Elsewhere)
    monkeypatch.delenv(executors.SCHEDULER_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(executors.SCHEDULER_VARIABLE, variable)
    task = Task("One", "add", {"terms": [1]})
    with executor(workers=3, scheduler=argument) as run:
        run([task], folder, Reporter())
        run([task, task], folder, Reporter())
    assert used == ([expected, 1, 2, "closed"] if expected else [])
    assert (task.outputs is None) == bool(expected)


def test_local_tasks_load_nothing_of_a_cluster():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gridcast_qgis.core.executors import Task, run_tasks\n"
        "from gridcast_qgis.core.reporter import Reporter\n"
        "run_tasks([Task('One', 'no_such_job', {})], Path('.'), Reporter())\n"
        "sys.exit(bool({'distributed', 'dask'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


# The files of a request --------------------------------------------------------------------------------


def test_the_files_of_a_request():
    request = {
        "cube": "c.nc",
        "output": "m.gridcast",
        "model": "convlstm",
        "checkpoint": "state",
        "start": None,
        "settings": {},
    }
    files = files_of("fit_member", request)
    assert files == Files(inputs=("cube",), outputs=("output",), states=("checkpoint",))
    assert files_of("describe_cube", {"cube": ""}) == Files((), (), ())


def test_a_job_that_does_not_say_what_it_reads_is_refused():
    with pytest.raises(GridcastError) as caught:
        files_of("rasterize_events", {"events": "e.gpkg"})
    assert caught.value.text() == (
        "The job 'rasterize_events' cannot run on a cluster: its request does not say which files it reads. "
        "Leave SCHEDULER empty to compute on this computer."
    )
    with pytest.raises(GridcastError, match="There is no job 'none'"):
        files_of("none", {})


@pytest.mark.parametrize("job", JOBS)
def test_files_are_fields_of_the_request(job):
    kind, _ = JOBS[job]
    fields = {field.name for field in dataclasses.fields(kind)}
    assert {*getattr(kind, "INPUT_FILES", ()), *getattr(kind, "STATE_FILES", ())} <= fields


@pytest.mark.worker
def test_real_jobs_run_in_real_processes(folder, tmp_path):
    cube = tmp_path / "cube of the city.nc"
    make_cube(12).write(cube)
    tasks = [
        Task("Good", "describe_cube", {"cube": str(cube)}),
        Task("Missing", "describe_cube", {"cube": str(tmp_path / "none.nc")}),
        Task("Unknown", "no_such_job", {}),
    ]
    side_by_side(tasks, 2, folder, Reporter())
    assert tasks[0].error == ""
    assert tasks[0].outputs == run_job("describe_cube", tasks[0].request, Reporter())
    assert tasks[1].error.startswith(f"CUBE = {tmp_path / 'none.nc'}: ")
    assert tasks[2].error.startswith("There is no job 'no_such_job'.")
