# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs side by side in processes of their own: what one does is no matter to the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import Recorder, make_cube

from gridcast_qgis.core import executors
from gridcast_qgis.core.errors import JobCancelled
from gridcast_qgis.core.executors import Task, side_by_side
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.reporter import Reporter

#: Plays the worker: what it does is the name of the job.
WORKER = """
import json, os, signal, sys, threading, time
from pathlib import Path

call = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
job, request = call["job"], call["request"]


def tell(**event):
    print(json.dumps(event), flush=True)


tell(event="hello", protocol=call["protocol"])
print("a library that prints to the wrong place", flush=True)
print("for the log", file=sys.stderr, flush=True)
if job == "meet":
    # Each waits until the others have come.
    here, others = Path(request["here"]), [Path(other) for other in request["others"]]
    here.touch()
    while not all(other.exists() for other in others):
        time.sleep(0.01)
if job == "die":
    tell(event="progress", value=30.0)
    os.kill(os.getpid(), signal.SIGTERM)
if job == "refuse":
    text = {"message": "Too few events.", "hint": "Choose more.", "parameter": "CUBE", "value": "a.nc"}
    tell(event="error", code="input", **text)
    sys.exit(2)
if job == "exit":
    sys.exit(7)
if job == "wait":
    tell(event="message", level="info", text="waiting")
    sys.stdin.readline()
    tell(event="message", level="info", text="told to stop")
    sys.exit(3)
if job == "stubborn":
    tell(event="message", level="info", text="waiting")
    threading.Event().wait()
if job == "chatter":
    for number in range(5000):
        tell(event="progress", value=number / 50)
tell(event="progress", value=50.0)
tell(event="message", level=request.get("level", "info"), text="half done")
tell(event="metric", name="loss", value=0.5, step=1)
tell(
    event="result",
    outputs={
        "echo": request,
        "job_dir": call["job_dir"],
        "threads": os.environ["OMP_NUM_THREADS"],
        "processor": os.environ["TF_NUM_INTRAOP_THREADS"],
    },
)
"""


@pytest.fixture
def processes(monkeypatch, tmp_path) -> list[subprocess.Popen]:
    """Let a script play the worker, and note the processes that are started."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start(command, **options):
        assert command[:2] == [sys.executable, "-X"]
        assert command[-2] == "gridcast_qgis.core"
        started.append(real([sys.executable, str(script), command[-1]], **options))
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
        f"its process ended with status {signal.SIGTERM.value * (1 if os.name == 'nt' else -1)}",
        "its process ended with status 7",
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
