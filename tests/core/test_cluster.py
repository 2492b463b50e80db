# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks on a cluster of real processes on this computer, most of them played by tests/fakes/fake_task.py."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pyogrio.raw
import pytest
from synthetic import Recorder, files_in, make_cube

from gridcast_qgis.core import cluster, executors
from gridcast_qgis.core.cluster import Cluster
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.executors import Task, executor, run_tasks, side_by_side
from gridcast_qgis.core.jobs import JOBS, run_job
from gridcast_qgis.core.modelfile import load_model
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import chronological_split

pytestmark = [
    pytest.mark.worker,
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
PLAYER = ROOT / "tests" / "fakes" / "fake_dask_worker.py"


def until(condition, seconds: float = 60.0):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Programs:
    """The scheduler and the workers of a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen] = []
        self.address = ""
        #: Process of each worker by its address.
        self.pids: dict[str, int] = {}
        self._started: list[subprocess.Popen] = []
        self._places: dict[Path, subprocess.Popen] = {}

    def start_scheduler(self, lost_workers: int, *options: str, knows_gridcast: bool = True) -> None:
        """Start the scheduler, which gives a task up that has lost more workers."""
        path = str(ROOT) if knows_gridcast else ""
        place = self.folder / "scheduler.json"
        command = ("distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(place))
        self._start("scheduler", "-m", *command, *options, path=path, allowed_failures=lost_workers)
        # It is there before it has been written.
        self.address = until(lambda: place.exists() and _address(place))

    def start_workers(self, count: int, *, knows_gridcast: bool = True) -> None:
        """Start workers until there are so many."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        for _ in range(count - len(self.workers)):
            place = self.folder / f"worker {len(self._started)}"
            program = [str(PLAYER)] if knows_gridcast else ["-m", "distributed.cli.dask_worker"]
            options = ("--no-nanny", "--nthreads", "1", "--local-directory", str(place))
            path = str(ROOT) if knows_gridcast else ""
            self._places[place] = self._start(place.name, *program, self.address, *options, path=path)
            self.workers.append(self._places[place])

    def _start(self, name: str, *arguments: str, path: str, allowed_failures: int = 0) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
        }
        command = [sys.executable, *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        self._started.append(process)
        return process

    def stop(self) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait()

    def leftovers(self) -> list[str]:
        """Return what sessions have left on the workers that are alive; Dask clears up after the others."""
        alive = [place for place, process in self._places.items() if process.poll() is None]
        return [name for place in alive for name in files_in(place) if "gridcast-" in name]


def _address(place: Path) -> str:
    with contextlib.suppress(ValueError):
        return json.loads(place.read_text())["address"]
    return ""


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Iterator[Programs]:
    programs = Programs(tmp_path_factory.mktemp("cluster"))
    try:
        programs.start_scheduler(lost_workers=1)
        yield programs
    finally:
        programs.stop()


@pytest.fixture
def two_workers(programs, monkeypatch) -> Programs:
    """A cluster with two workers that are ready, and jobs that they play."""

    @dataclasses.dataclass(frozen=True)
    class Played:
        INPUT_FILES = ("cube",)
        STATE_FILES = ("checkpoint",)

    for job in ("copy", "work", "refuse", "fail", "die", "wait", "hold", "meet"):
        monkeypatch.setitem(JOBS, job, (Played, None))
    programs.start_workers(2)
    with cluster._connect(programs.address) as client:
        until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2)
        programs.pids = client.run(os.getpid)
    return programs


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "private"
    path.mkdir()
    return path


def copies(folder: Path, count: int, content: bytes) -> list[Task]:
    """Return tasks that read the same file, and make a file each."""
    (folder / "ünïcödé cube.nc").write_bytes(content)
    return [
        Task(
            f"Copy {number}",
            "copy",
            {
                "cube": str(folder / "ünïcödé cube.nc"),
                "output": str(folder / f"{number}.out"),
                "checkpoint": str(folder / f"{number}.state"),
            },
        )
        for number in range(count)
    ]


def test_files_travel_to_the_workers_and_back(two_workers, folder):
    content = os.urandom(100_000)
    tasks = copies(folder, 6, content)
    (folder / "5.state").write_text("41")
    reporter = Recorder()
    with executor(scheduler=two_workers.address) as run:
        run(tasks[:4], folder, reporter)
        run(tasks[4:], folder, reporter)
        assert [task.error for task in tasks] == [""] * 6
        # Each worker has the file once, in all rounds, under its name.
        seen = {tuple(task.outputs["file"]) for task in tasks}
        assert 1 <= len(seen) <= 2
        assert {tuple(each[1:]) for each in seen} == {
            ("ünïcödé cube.nc", hashlib.sha256(content).hexdigest())
        }
        assert len([name for name in two_workers.leftovers() if name.endswith(".nc")]) == 2
    for number, task in enumerate(tasks):
        assert (folder / f"{number}.out").read_bytes() == content[::-1]
        assert task.outputs["output"] == task.outputs["echo"]["output"] == str(folder / f"{number}.out")
        # The last one goes on from the state that was there.
        assert task.outputs["runs"] == (41 if number == 5 else 0)
        assert (folder / f"{number}.state").read_text() == ("42" if number == 5 else "1")
    # What a task tells is told with the paths of this computer.
    assert f"Copy 3: read {folder / 'ünïcödé cube.nc'}" in reporter.texts("info")
    assert reporter.texts() == []
    until(lambda: two_workers.leftovers() == [])


def test_what_tasks_tell_arrives_while_they_run(two_workers, folder, tmp_path):
    reporter = Recorder()
    places = [str(tmp_path / f"here {number}") for number in range(2)]
    # They run at the same time: none ends before both have begun.
    tasks = [
        Task(place[-6:], "meet", {"here": place, "others": places, "level": "warning"}) for place in places
    ]
    run_tasks(tasks, folder, reporter, scheduler=two_workers.address)
    assert all(task.outputs for task in tasks)
    begun, *begins = reporter.texts("info")
    assert begun == f"2 tasks on the cluster {two_workers.address}."
    assert sorted(text.split(" on tcp://")[0] for text in begins) == ["here 0 begins", "here 1 begins"]
    assert sorted(reporter.texts()) == ["here 0: half done", "here 1: half done"]
    assert (reporter.values("here 0: loss"), reporter.values("here 1: loss")) == ([0.5], [0.5])
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert {25.0, 50.0} & set(progress)
    assert progress[-1] == pytest.approx(100)
    # The workers are on one machine and share its cores.
    assert {task.outputs["threads"] for task in tasks} == {str(max(1, cluster.cpu_count() // 2))}


def test_a_task_that_fails_leaves_the_others_alone(two_workers, folder, tmp_path):
    cube = tmp_path / "cube.nc"
    cube.touch()
    tasks = [
        Task("Good", "work", {}),
        Task("Bad input", "refuse", {"cube": str(cube)}),
        Task("Missing", "refuse", {"cube": str(tmp_path / "none.nc")}),
        Task("Killed", "die", {}),
        Task("Broken", "fail", {}),
    ]
    reporter = Recorder()
    run_tasks(tasks, folder, reporter, scheduler=two_workers.address)
    assert [task.error for task in tasks] == [
        "",
        f"CUBE = {cube}: Too few events. Choose more.",
        f"CUBE = {tmp_path / 'none.nc'}: Too few events. Choose more.",
        f"Its process ended with status {-signal.SIGTERM.value}.",
        "Broken.",
    ]
    begun = [re.sub(" on tcp://.*", "", text) for text in reporter.texts("info") if "begins on" in text]
    assert sorted(begun) == sorted(f"{task.name} begins" for task in tasks)
    # What may pass is tried again; bad input is not.
    again = [text.split(" was broken off; ")[0] for text in reporter.texts() if "runs again on" in text]
    assert sorted(again) == ["Broken"] * cluster.RETRIES + ["Killed"] * cluster.RETRIES
    assert sum(text.startswith("Broken failed on tcp://") for text in reporter.texts()) == cluster.RETRIES + 1


class Killer(Recorder):
    """Kills the worker on which a task has begun to wait, so many times."""

    def __init__(self, programs: Programs, times: int, then=lambda: None):
        super().__init__()
        self._programs, self._times, self._then = programs, times, then

    def emit(self, event, **fields):
        super().emit(event, **fields)
        waits = re.search(r"waiting (\d+)", str(fields.get("text")))
        if waits and self._times:
            self._times -= 1
            self._then()
            self._programs.start_workers(2)
            (worker,) = (w for w in self._programs.workers if w.pid == parent_of(int(waits[1])))
            worker.kill()
            worker.wait()


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"PPid:\s+(\d+)", status)[1])


linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="asks Linux whose child a process is"
)


@linux
def test_a_lost_worker_changes_nothing_but_the_time(two_workers, folder, tmp_path):
    gate = tmp_path / "gate"
    content = b"what is read"
    tasks = [*copies(folder, 3, content), Task("Held", "hold", {"gate": str(gate)})]
    reporter = Killer(two_workers, 1, gate.touch)
    run_tasks(tasks, folder, reporter, scheduler=two_workers.address)
    assert [task.error for task in tasks] == [""] * 4
    assert [(folder / f"{number}.out").read_bytes() for number in range(3)] == [content[::-1]] * 3
    assert tasks[3].outputs["echo"] == {"gate": str(gate)}
    again = [
        text for text in reporter.texts() if text.startswith("Held was broken off; it runs again on tcp:")
    ]
    assert len(again) == 1


@linux
def test_a_task_that_loses_every_worker_is_given_up(two_workers, folder):
    reporter = Killer(two_workers, 2)
    task = Task("Lost", "wait", {})
    run_tasks([task], folder, reporter, scheduler=two_workers.address)
    assert re.fullmatch(
        r"It was given up: 2 workers that ran it were lost, the last one tcp://127\.0\.0\.1:\d+\. Most often "
        r"their memory was full: start fewer workers on a machine \(docs/cluster\.md\)\.",
        task.error,
    )


def waiting_pids(reporter: Recorder) -> list[int]:
    return [int(text.rpartition(" ")[2]) for text in reporter.texts("info") if ": waiting " in text]


def test_cancel_leaves_nothing_and_keeps_the_states(two_workers, folder, monkeypatch):
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 60.0)
    reporter = Recorder(cancel_when=lambda event: len(waiting_pids(reporter)) == 2)
    tasks = [
        Task(
            str(number),
            "wait",
            {"checkpoint": str(folder / f"{number}.state"), "output": str(folder / f"{number}.out")},
        )
        for number in range(5)
    ]
    with pytest.raises(JobCancelled):
        run_tasks(tasks, folder, reporter, scheduler=two_workers.address)
    assert not any(is_alive(pid) for pid in waiting_pids(reporter))
    kept = files_in(folder)
    assert len(kept) == 2
    assert all(name.endswith(".state") for name in kept)
    assert {(folder / name).read_text() for name in kept} == {"half done"}
    until(lambda: two_workers.leftovers() == [])


def test_a_run_that_was_cancelled_before_sends_nothing(two_workers, folder):
    reporter = Recorder()
    reporter.cancel()
    with pytest.raises(JobCancelled):
        run_tasks([Task("One", "work", {})], folder, reporter, scheduler=two_workers.address)
    assert reporter.events == []


CLIENT = """
import dataclasses, sys
from pathlib import Path
from gridcast_qgis.core.executors import Task, run_tasks
from gridcast_qgis.core.jobs import JOBS
from gridcast_qgis.core.reporter import StreamReporter

@dataclasses.dataclass(frozen=True)
class Played:
    INPUT_FILES = ("cube",)

JOBS["wait"] = (Played, None)
tasks = [Task(str(number), "wait", {"cube": sys.argv[2]}) for number in range(3)]
run_tasks(tasks, Path("."), StreamReporter(sys.stdout), scheduler=sys.argv[1])
"""


def test_the_death_of_the_client_leaves_nothing(two_workers, folder):
    cube = folder / "cube.nc"
    cube.write_bytes(b"cube")
    command = [sys.executable, "-u", "-c", CLIENT, two_workers.address, str(cube)]
    client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    with client, client.stdout as lines:
        while len(pids) < 2:
            event = json.loads(lines.readline())
            pids += [int(pid) for pid in re.findall(r": waiting (\d+)", event.get("text", ""))]
        assert two_workers.leftovers()
        client.kill()
    until(lambda: not any(is_alive(pid) for pid in pids))
    until(lambda: two_workers.leftovers() == [])


def test_an_output_that_cannot_be_written_is_an_error(two_workers, folder):
    (task,) = copies(folder, 1, b"content")
    task.request["output"] = str(folder / "nowhere" / "0.out")
    with pytest.raises(InputError) as caught:
        run_tasks([task], folder, Reporter(), scheduler=two_workers.address)
    assert caught.value.text() == (
        f"OUTPUT = {folder / 'nowhere' / '0.out'}: The file cannot be written: No such file or directory. "
        "Choose a folder that exists and that you may write to."
    )


def test_a_file_that_is_too_large_is_refused(two_workers, folder, monkeypatch):
    monkeypatch.setattr(cluster, "_MOST_BYTES", 3)
    (task,) = copies(folder, 1, b"four")
    with pytest.raises(InputError) as caught:
        run_tasks([task], folder, Reporter(), scheduler=two_workers.address)
    assert caught.value.text() == (
        f"SCHEDULER = {task.request['cube']}: The file is too large to be sent to the workers of a "
        "cluster (2 GB). Leave SCHEDULER empty to compute on this computer."
    )


# Clusters that cannot be used --------------------------------------------------------------------------

REMEDY = (
    " Start scheduler and workers as docs/cluster.md says, correct SCHEDULER, the setting of the provider or "
    "the environment variable GRIDCAST_SCHEDULER, or leave all three empty to compute on this computer."
)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "somewhere", "http://127.0.0.1:1", "tls://127.0.0.1:1"]
)
def test_a_scheduler_that_does_not_answer_is_an_error(monkeypatch, folder, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    monkeypatch.setenv(executors.SCHEDULER_VARIABLE, address)
    with pytest.raises(InputError) as caught:
        run_tasks([Task("One", "describe_cube", {})], folder, Reporter())
    text = caught.value.text()
    assert text.startswith(f"SCHEDULER = {address}: The scheduler of the cluster cannot be reached (")
    assert text.endswith(")." + REMEDY)


def test_a_program_that_is_no_scheduler_is_an_error(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5.0)

    class Page(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        with pytest.raises(InputError) as caught:
            Cluster(address)
        server.shutdown()
    assert caught.value.text().startswith(
        f"SCHEDULER = {address}: The scheduler of the cluster cannot be reached ("
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls_is_as_dask_is_configured(tmp_path, folder, monkeypatch):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=gridcast"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = {
        "ca-file": certificate,
        **{who: {"cert": certificate, "key": key} for who in ("scheduler", "worker", "client")},
    }
    settings = {"distributed": {"comm": {"require-encryption": True, "tls": tls}}}
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask.json"))
    (tmp_path / "dask.json").write_text(json.dumps(settings))
    tls_here = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": certificate,
        "distributed.comm.tls.client.cert": certificate,
        "distributed.comm.tls.client.key": key,
    }
    make_cube(12).write(tmp_path / "cube.nc")
    programs = Programs(tmp_path)
    try:
        programs.start_scheduler(0, "--protocol", "tls")
        assert programs.address.startswith("tls://")
        programs.start_workers(1)
        task = Task("One", "describe_cube", {"cube": str(tmp_path / "cube.nc")})
        with dask.config.set(tls_here):
            run_tasks([task], folder, Reporter(), scheduler=programs.address)
        assert task.outputs["step"] == "day"
    finally:
        programs.stop()


def test_a_cluster_without_workers_or_without_gridcast_is_an_error(tmp_path, monkeypatch):
    programs = Programs(tmp_path)
    try:
        programs.start_scheduler(lost_workers=0, knows_gridcast=False)
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5.0)
        with monkeypatch.context() as hasty, pytest.raises(InputError) as caught:
            hasty.setattr("distributed.Client.wait_for_workers", refuse_to_wait)
            Cluster(programs.address)
        assert (
            caught.value.text() == f"SCHEDULER = {programs.address}: The scheduler has no workers." + REMEDY
        )
        programs.start_workers(1, knows_gridcast=False)
        with pytest.raises(InputError) as caught:
            until(lambda: _try(programs.address))
        assert re.match(
            rf"SCHEDULER = {programs.address}: The cluster does not fit this computer: worker "
            r"tcp://127\.0\.0\.1:\d+ cannot run Gridcast \(ModuleNotFoundError\(\"No module named "
            r"'gridcast_qgis'\"\)\); the scheduler cannot run Gridcast \(ModuleNotFoundError\(.*\)\)\. ",
            caught.value.text(),
        )
    finally:
        programs.stop()


def refuse_to_wait(self, count, timeout):
    raise TimeoutError


def _try(address: str) -> bool:
    try:
        Cluster(address)
    except InputError as error:
        if "no workers" not in error.message:
            raise
    return False


def test_another_version_is_an_error(two_workers, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "9.8.7")
    with pytest.raises(InputError) as caught:
        Cluster(two_workers.address)
    there = __import__("gridcast_qgis").__version__
    addresses = re.findall(
        rf"worker (tcp://\S+) has gridcast {there} instead of 9\.8\.7", caught.value.message
    )
    assert len(set(addresses)) == 2
    assert f"; the scheduler has gridcast {there} instead of 9.8.7." in caught.value.message


def test_what_differs_is_said():
    here = {"gridcast": "1.0", "python": "3.11", "cores": 2, "keras": "3.1", "numpy": "2.0"}
    assert cluster._differences(here, {**here, "cores": 64}) == []
    assert cluster._differences(here, {**here, "python": "3.12", "keras": None}) == [
        "has python 3.12 instead of 3.11",
        "has no keras",
    ]


def test_a_scheduler_that_is_lost_between_two_rounds_is_an_error(tmp_path, folder, two_workers):
    programs = Programs(tmp_path)
    try:
        programs.start_scheduler(lost_workers=0)
        programs.start_workers(1)
        with Cluster(programs.address) as session, pytest.raises(InputError) as caught:
            session.run([Task("One", "work", {})], folder, Reporter())
            programs.stop()
            until(lambda: session._client.status != "running")
            session.run(copies(folder, 1, b"content"), folder, Reporter())
    finally:
        programs.stop()
    assert caught.value.text() == (
        f"SCHEDULER = {programs.address}: The connection to the scheduler was lost." + REMEDY
    )


def test_a_scheduler_that_is_lost_is_an_error(tmp_path, folder, two_workers):
    programs = Programs(tmp_path)
    try:
        programs.start_scheduler(lost_workers=0)
        programs.start_workers(1)

        class Stopper(Recorder):
            def emit(self, event, **fields):
                super().emit(event, **fields)
                if "waiting" in str(fields.get("text")):
                    programs.stop()

        with pytest.raises(InputError) as caught:
            run_tasks([Task("One", "wait", {})], folder, Stopper(), scheduler=programs.address)
    finally:
        programs.stop()
    assert caught.value.text() == (
        f"SCHEDULER = {programs.address}: The connection to the scheduler was lost." + REMEDY
    )


# In earnest --------------------------------------------------------------------------------------------


def test_folds_are_the_same_on_a_cluster_that_loses_a_worker(two_workers, tmp_path):
    make_cube(80).write(tmp_path / "cube.nc")

    class Reaper(Recorder):
        """Kills the worker on which the first fold has begun."""

        def emit(self, event, **fields):
            super().emit(event, **fields)
            begun = re.match(r"Fold 1 of 2 begins on (\S+)\.", str(fields.get("text")))
            if begun:
                os.kill(two_workers.pids[begun[1]], signal.SIGKILL)

    made, manifests = [], []
    for scheduler, reporter in ((None, Recorder()), (two_workers.address, Reaper())):
        output = tmp_path / f"{scheduler is None}.gridcast"
        request = {
            "cube": str(tmp_path / "cube.nc"),
            "output": str(output),
            "model": "historical_average",
            "types": ["theft"],
            "split": "walk-forward",
            "folds": 2,
            "validation_share": 40,
            "scheduler": scheduler,
        }
        made.append(run_job("train", request, reporter))
        manifests.append(load_model(output).manifest)
        told = [text for text in reporter.texts("info") if "validation steps: " in text]
        assert {text[:11] for text in told} == {"Fold 1 of 2", "Fold 2 of 2"}
        assert (f"2 tasks on the cluster {scheduler}." in reporter.texts("info")) == bool(scheduler)
    assert any(text.startswith("Fold 1 of 2 was broken off; it runs again on") for text in reporter.texts())
    for outputs in made:
        del outputs["seconds"], outputs["output"]
    assert made[0] == made[1]
    assert manifests[0]["folds"] == manifests[1]["folds"]
    assert len({fold["model"]["mse"] for fold in manifests[0]["folds"]}) == 2


def test_a_league_table_is_the_same_on_a_cluster_that_loses_a_worker(two_workers, tmp_path):
    make_cube(80).write(tmp_path / "cube.nc")

    class Reaper(Recorder):
        """Kills the worker on which the second model has begun."""

        def emit(self, event, **fields):
            super().emit(event, **fields)
            begun = re.match(r"weekday_average begins on (\S+)\.", str(fields.get("text")))
            if begun and begun[1] in two_workers.pids and is_alive(two_workers.pids[begun[1]]):
                if not self.reaped:
                    os.kill(two_workers.pids[begun[1]], signal.SIGKILL)
                self.reaped = True

        reaped = False

    made, tables = [], []
    reaper = Reaper()
    for scheduler, reporter in ((None, Recorder()), (two_workers.address, reaper)):
        table = tmp_path / f"{scheduler is None}.gpkg"
        request = {
            "cube": str(tmp_path / "cube.nc"),
            "output": str(tmp_path / "report.html"),
            "table_output": str(table),
            "models": ["historical_average", "weekday_average"],
            "refit": "anew",
            "refit_every": 3,
            "every": 2,
            "scheduler": scheduler,
        }
        made.append(run_job("backtest", request, reporter))
        tables.append(pyogrio.raw.read(table)[3])
    assert reaper.reaped
    assert any("was broken off; it runs again on" in text for text in reaper.texts())
    for outputs in made:
        del outputs["seconds"], outputs["table_output"]
    assert json.dumps(made[0]) == json.dumps(made[1])
    for here, there in zip(*tables, strict=True):
        if here.dtype.kind == "f":
            np.testing.assert_allclose(there, here, rtol=0, atol=1e-9)
        else:
            assert list(here) == list(there)


def test_a_search_is_the_same_on_a_cluster(two_workers, tmp_path):
    make_cube(80).write(tmp_path / "cube.nc")
    made = []
    for scheduler in (None, two_workers.address):
        study = tmp_path / f"{scheduler is None}.json"
        request = {
            "cube": str(tmp_path / "cube.nc"),
            "output": str(tmp_path / "model.gridcast"),
            "model": "ewma",
            "trials": 3,
            "workers": 2,
            "study": str(study),
            "scheduler": scheduler,
        }
        outputs = run_job("tune", request, Recorder())
        trials = json.loads(study.read_text())["trials"]
        for trial in trials:
            del trial["seconds"]
        made.append((outputs, trials))
    assert made[0] == made[1]
    assert len(made[0][1]) == 3
    assert load_model(tmp_path / "model.gridcast").model.key == "ewma"


@pytest.mark.slow
def test_a_network_is_the_same_on_a_cluster(two_workers, tmp_path, folder):
    make_cube(40).write(tmp_path / "cube.nc")
    tasks = [
        Task(
            where,
            "fit_member",
            {
                "cube": str(tmp_path / "cube.nc"),
                "output": str(tmp_path / f"{where}.gridcast"),
                "model": "convlstm",
                "settings": {"lookback": 2, "filters": 2, "epochs": 2, "seed": 5},
                "split": dataclasses.asdict(chronological_split(40, 2, 15)),
                "window": [0, 4, 0, 7],
            },
        )
        for where in ("here", "there")
    ]
    side_by_side(tasks[:1], 1, folder, Reporter(), threads=max(1, cluster.cpu_count() // 2))
    run_tasks(tasks[1:], folder, Reporter(), scheduler=two_workers.address)
    here, there = (load_model(task.request["output"]).model for task in tasks)
    for one, two in zip(here.network_.get_weights(), there.network_.get_weights(), strict=True):
        assert one.tobytes() == two.tobytes()
    assert here.history_["val_loss"] == there.history_["val_loss"]
