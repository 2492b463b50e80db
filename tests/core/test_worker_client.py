# SPDX-License-Identifier: GPL-2.0-or-later
"""The conversation with the worker, played by tests/fakes/fake_worker.py: every way it can end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gridcast_qgis.core.atomic import atomic_path
from gridcast_qgis.core.errors import EnvironmentFault, GridcastError, InputError, JobCancelled
from gridcast_qgis.worker import client, process
from gridcast_qgis.worker.client import WorkerCrash, run_job

FAKE = Path(__file__).resolve().parents[1] / "fakes" / "fake_worker.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake worker is started by its #! line")


class Job:
    """One job in folders whose names have spaces and letters beyond ASCII."""

    def __init__(self, root: Path):
        self.folder = root / "Ördner mit Ünïcode 時"
        self.folder.mkdir()
        self.python = self.folder / "fäke python"
        shutil.copy(FAKE, self.python)
        self.python.chmod(0o755)
        self.job_dir = self.folder / "job dir"
        self.job_dir.mkdir()
        self.logs = self.folder / "profile" / "logs"
        self.output = self.folder / "oütput file.tif"
        self.events: list[dict] = []
        self.cancel = threading.Event()

    def run(self, behaviour: str, **options) -> dict:
        request = {"behaviour": behaviour, "output": str(self.output), **options.pop("request", {})}
        options.setdefault("on_event", self.events.append)
        options.setdefault("is_cancelled", self.cancel.is_set)
        options.setdefault("python", self.python)
        return run_job("train", request, job_dir=self.job_dir, logs=self.logs, **options)

    def cancel_at_progress(self, event: dict) -> None:
        self.events.append(event)
        if event["event"] == "progress":
            self.cancel.set()

    @property
    def pid(self) -> int:
        return next(event["pid"] for event in self.events if event["event"] == "hello")

    def left(self) -> list[str]:
        """Names of the files beside the output, unfinished ones included."""
        return [path.name for path in self.output.parent.iterdir() if "tif" in path.name]


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # An orphan that nobody has reaped yet is dead all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


# -- a job that works ---------------------------------------------------------------------------


def test_outputs_and_events_arrive_in_order(job):
    assert job.run("normal") == {"output": str(job.output)}
    assert [event["event"] for event in job.events] == [
        *("hello", "stage", "progress", "message"),
        *("stage", "progress", "metric", "message", "progress"),
    ]
    assert job.events[3]["text"] == "All is well – ünïcödé"
    assert job.output.read_bytes() == b"fake result\n"
    assert not job.logs.exists()


def test_the_request_file_follows_the_protocol(job):
    job.run("normal", request={"cell_size": 0.1, "name": "Zürich"})
    call = json.loads((job.job_dir / "request.json").read_text(encoding="utf-8"))
    assert call["protocol"] == 1
    assert call["job"] == "train"
    assert call["job_dir"] == str(job.job_dir)
    assert call["request"]["cell_size"] == 0.1
    assert call["request"]["name"] == "Zürich"


def test_the_worker_is_started_as_agreed(job):
    environ = {**os.environ, "PYTHONHOME": "/qgis", "LD_LIBRARY_PATH": "/qgis/lib", "KERAS_BACKEND": "jax"}
    told = job.run("report", environ=environ)
    request_file = str(job.job_dir / "request.json")
    assert told["arguments"] == ["-X", "utf8", "-u", "-m", "gridcast_qgis.core", request_file]
    assert told["cwd"] == str(job.job_dir)
    assert told["environment"]["PYTHONPATH"] == str(client.PACKAGE_PARENT)
    assert (client.PACKAGE_PARENT / "gridcast_qgis" / "__init__.py").is_file()
    assert told["environment"]["KERAS_BACKEND"] == "jax"
    assert "PYTHONHOME" not in told["environment"]
    assert "LD_LIBRARY_PATH" not in told["environment"]


def test_garbage_on_stdout_goes_to_the_log(job):
    assert job.run("garbage") == {"output": str(job.output)}
    log = (job.job_dir / "worker.log").read_bytes()
    assert b"[stdout] a library's banner\n" in log
    assert b"[stdout] \xff\xfe not utf-8\n" in log
    assert b"[stdout] {broken\n" in log
    assert [event["event"] for event in job.events] == ["hello", "unknown_event"]


def test_a_flood_on_stderr_does_not_block(job):
    job.run("floods_stderr")
    assert (job.job_dir / "worker.log").stat().st_size > 2_000_000


def test_a_child_of_the_worker_does_not_survive_it(job):
    job.run("leaves_child")
    child = int(next(e["text"] for e in job.events if e["event"] == "message").split()[1])
    assert wait_until_gone(child)


def test_two_jobs_run_at_a_time(tmp_path):
    jobs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        jobs.append(Job(tmp_path / str(number)))
    slow = threading.Thread(target=lambda: pytest.raises(JobCancelled, jobs[0].run, "slow"))
    slow.start()
    assert jobs[1].run("normal") == {"output": str(jobs[1].output)}
    assert slow.is_alive()
    jobs[0].cancel.set()
    slow.join(20)
    assert not slow.is_alive()


# -- errors that the worker reports -------------------------------------------------------------


def test_bad_input_keeps_parameter_value_and_fix(job):
    with pytest.raises(InputError) as caught:
        job.run("error")
    assert caught.value.text() == "CELL_SIZE = 0: The cell size is too small. Use at least 1 metre."
    assert not job.logs.exists()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("cancelled", JobCancelled),
        ("environment", EnvironmentFault),
        ("internal", GridcastError),
        ("something new", GridcastError),
    ],
)
def test_error_codes_become_exceptions(job, code, kind):
    with pytest.raises(kind) as caught:
        job.run("error", request={"error": {"code": code}})
    assert type(caught.value) is kind


@pytest.mark.parametrize("code", ["internal", "environment"])
def test_errors_that_need_a_look_name_the_kept_log(job, code):
    with pytest.raises(GridcastError) as caught:
        job.run("error", request={"error": {"code": code, "parameter": "", "value": ""}})
    (kept,) = job.logs.iterdir()
    assert kept.read_text() == "Traceback: ...\n"
    assert caught.value.text() == (
        f"The cell size is too small. Use at least 1 metre. The whole log is kept in '{kept}'."
    )


# -- workers that die or misbehave --------------------------------------------------------------


def test_a_kill_names_signal_log_and_likely_reason(job):
    with pytest.raises(WorkerCrash) as caught:
        job.run("dies")
    (kept,) = job.logs.iterdir()
    text = caught.value.text()
    assert text.startswith(
        "The worker process of the job 'train' was ended by the signal SIGKILL. Most often the"
    )
    assert "memory was full: use larger cells" in text
    assert "Its log ends with:\n  something dreadful happened\n" in text
    assert text.endswith(f"The whole log is kept in '{kept}'.")
    assert kept.read_text() == "something dreadful happened\n"
    assert job.left() == []


def test_a_segmentation_fault_names_the_signal(job):
    with pytest.raises(WorkerCrash, match="was ended by the signal SIGSEGV"):
        job.run("dies", request={"signal": "SIGSEGV"})


@pytest.mark.parametrize("status", [1, 2, 4, 77])
def test_a_failure_without_a_word_names_the_exit_status(job, status):
    with pytest.raises(WorkerCrash, match=f"ended with the exit status {status}(?s:.*)no idea why"):
        job.run("silent_failure", request={"status": status})


def test_exit_status_3_means_cancelled(job):
    with pytest.raises(JobCancelled):
        job.run("silent_failure", request={"status": 3})


def test_windows_crash_codes_are_shown_in_hexadecimal():
    assert client._ending(3221225477) == "ended with the exit status 0xC0000005"


def test_no_result_is_a_crash(job):
    with pytest.raises(WorkerCrash, match="ended without a result"):
        job.run("no_result")


def test_a_result_followed_by_a_failure_is_a_failure_and_leaves_nothing(job):
    with pytest.raises(WorkerCrash, match="delivered its result, but then ended with the exit status 7"):
        job.run("result_then_failure")
    assert job.left() == []


def test_closed_output_of_a_living_worker_is_a_crash(job, monkeypatch):
    monkeypatch.setattr(process, "_EXIT_SECONDS", 0.2)
    with pytest.raises(WorkerCrash, match="closed its output but did not end"):
        job.run("closes_output")
    assert wait_until_gone(job.pid)


def test_the_last_twenty_logs_are_kept(job):
    job.logs.mkdir(parents=True)
    for number in range(25):
        (job.logs / f"20000101-0000{number:02d}-train-0.log").write_text("old")
    with pytest.raises(WorkerCrash):
        job.run("silent_failure")
    names = sorted(path.name for path in job.logs.iterdir())
    assert len(names) == client.KEPT_LOGS
    assert names[0] == "20000101-000006-train-0.log"
    assert (job.logs / names[-1]).read_text() == "no idea why\n"


def test_a_log_that_cannot_be_kept_does_not_hide_the_crash(job):
    job.logs.parent.mkdir()
    job.logs.write_text("a file in the folder's place")
    with pytest.raises(WorkerCrash, match="exit status 1(?s:.*)Its log could not be kept: File exists"):
        job.run("silent_failure")


# -- workers that do not start ------------------------------------------------------------------


def assert_names_the_remedy(error: EnvironmentFault) -> None:
    for remedy in ("'Set Up Environment'", "GRIDCAST_PYTHON", "Settings > Options > Processing"):
        assert remedy in error.text()


def test_death_before_hello_is_a_fault_of_the_environment(job):
    with pytest.raises(EnvironmentFault) as caught:
        job.run("dies_before_hello")
    assert f"'{job.python}' ended with status 1 before it answered." in caught.value.text()
    assert "No module named 'gridcast_qgis'" in caught.value.text()
    assert_names_the_remedy(caught.value)


@pytest.mark.parametrize("behaviour", ["silent", "babbles"])
def test_silence_is_a_fault_of_the_environment(job, behaviour):
    with pytest.raises(EnvironmentFault, match=r"did not answer within 0\.3 seconds") as caught:
        job.run(behaviour, hello_seconds=0.3)
    assert_names_the_remedy(caught.value)


def test_another_greeting_is_a_fault_of_the_environment(job):
    with pytest.raises(EnvironmentFault, match="did not say hello first"):
        job.run("no_hello")


def test_another_protocol_is_a_fault_of_the_environment(job):
    with pytest.raises(
        EnvironmentFault, match="speaks version 99 of the worker protocol, this plugin version 1"
    ):
        job.run("wrong_protocol")


def test_a_file_that_is_no_program_is_a_fault_of_the_environment(job):
    job.python.write_text("")
    job.python.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="cannot be started: Permission denied") as caught:
        job.run("normal")
    assert_names_the_remedy(caught.value)


# -- cancelling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    ["slow", "late", "ignores_cancel", "ignores_terminate", "floods_while_cancelled"],
)
def test_cancel_leaves_neither_file_nor_process(job, behaviour):
    with pytest.raises(JobCancelled):
        job.run(behaviour, on_event=job.cancel_at_progress, grace=0.2)
    assert wait_until_gone(job.pid)
    assert job.left() == []


def test_a_job_can_be_cancelled_before_the_worker_says_hello(job):
    job.cancel.set()
    with pytest.raises(JobCancelled):
        job.run("ignores_terminate", grace=0.2)
    assert job.left() == []


def test_a_polite_worker_is_not_terminated(job, monkeypatch):
    monkeypatch.setattr(
        subprocess.Popen, "terminate", lambda _: pytest.fail("terminated although it was stopping")
    )
    with pytest.raises(JobCancelled):
        job.run("slow", on_event=job.cancel_at_progress, grace=20)


def test_an_older_output_survives_a_cancelled_job(job):
    job.output.write_bytes(b"older result")
    with pytest.raises(JobCancelled):
        job.run("slow", on_event=job.cancel_at_progress)
    assert job.output.read_bytes() == b"older result"


def test_an_exception_of_the_listener_ends_the_worker(job):
    def break_down(event):
        job.cancel_at_progress(event)
        job.cancel.clear()
        if event["event"] == "progress":
            raise RuntimeError("wrapped C/C++ object has been deleted")

    with pytest.raises(RuntimeError, match="has been deleted"):
        job.run("slow", on_event=break_down)
    assert wait_until_gone(job.pid)


def test_unfinished_files_have_the_name_that_is_cleaned_up(tmp_path):
    """The client removes by name what a killed worker could not remove itself."""
    output = tmp_path / "a [1] b.tif"
    files = client._OutputFiles({"output": str(output)})
    with pytest.raises(InputError), atomic_path(output) as part:
        part.write_bytes(b"half")
        Path(f"{part}-journal").write_bytes(b"half")
        files.discard(os.getpid())
        assert list(tmp_path.iterdir()) == []
        raise InputError("stop here")


PARENT = """
import sys
from pathlib import Path
from gridcast_qgis.worker.client import run_job
folder, python = map(Path, sys.argv[1:])
def show(event):
    if event["event"] == "hello":
        print(event["pid"], flush=True)
run_job("train", {"behaviour": "slow"}, python=python, on_event=show, is_cancelled=lambda: False,
        job_dir=folder, logs=folder)
"""


def test_the_worker_ends_when_its_parent_is_killed(job):
    environ = {**os.environ, "PYTHONPATH": str(client.PACKAGE_PARENT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(job.job_dir), str(job.python)], stdout=subprocess.PIPE, env=environ
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone(pid)
