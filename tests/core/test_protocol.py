# SPDX-License-Identifier: GPL-2.0-or-later
"""The real worker process: what it says, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from synthetic import CELL, NORTH, UTM, WEST, events_of, files_in, make_cube, write_events, write_points

from gridcast_qgis import __version__
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.modelfile import load_model
from gridcast_qgis.core.protocol import PROTOCOL, Exit

pytestmark = [pytest.mark.worker, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
WORKER = ["-X", "utf8", "-u", "-m", "gridcast_qgis.core"]
#: A training that does not end by itself.
ENDLESS = {
    "model": "convlstm",
    "filters": 2,
    "lookback": 2,
    "epochs": 100_000,
    "patience": 100_000,
    "batch_size": 4,
}


class Worker:
    """One worker process, started as the plugin starts it."""

    def __init__(
        self, folder: Path, job: str, request: dict, *, protocol: int = PROTOCOL, program: str | None = None
    ):
        self.job_dir = folder / "jöb folder"
        self.job_dir.mkdir()
        self.output = folder / "oütput folder"
        self.output.mkdir(exist_ok=True)
        call = {"protocol": protocol, "job": job, "request": request, "job_dir": str(self.job_dir)}
        self.request = self.job_dir / "request.json"
        self.request.write_text(json.dumps(call, ensure_ascii=False), encoding="utf-8")
        self.events: list[dict] = []
        self._log = open(folder / "log.txt", "w+b")  # noqa: SIM115
        arguments = WORKER
        if program is not None:
            # The worker's own main, with one more job.
            arguments = ["-X", "utf8", "-u", "-c", EXTRA_JOB + textwrap.dedent(program) + RUN_MAIN]
        self.process = subprocess.Popen(
            [sys.executable, *arguments, str(self.request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self.job_dir,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def wait_for(self, event: str, **fields: object) -> dict:
        """Read events up to the first one of a kind."""
        for line in self.process.stdout:
            found = json.loads(line)
            self.events.append(found)
            if found["event"] == event and all(found.get(key) == value for key, value in fields.items()):
                return found
        raise AssertionError(f"no event {event}: {self.events[-3:]}\n{self.log[-3000:]}")

    def finish(self) -> int:
        """Read all that is left and return the exit status."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
        status = self.process.wait(60)
        self.process.stdin.close()
        return status

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            try:
                stream.close()
            except OSError:
                pass


EXTRA_JOB = """
import sys
from dataclasses import dataclass
from pathlib import Path
from gridcast_qgis.core import jobs
from gridcast_qgis.core.atomic import atomic_path

@dataclass(frozen=True)
class Request:
    output: str

def extra(run):
    jobs.JOBS["extra"] = (Request, run)
    return run
"""
RUN_MAIN = """
from gridcast_qgis.core import __main__ as worker
import os
os._exit(worker.main(sys.argv[1:]))
"""


@pytest.fixture
def worker(tmp_path):
    """Start workers that are gone when the test is over, whatever happens."""
    started: list[Worker] = []

    def start(job: str, request: dict, **options) -> Worker:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Worker(folder, job, request, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def cube_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cube") / "cube.nc"
    make_cube(60, 4, 5, holes=False).write(path)
    return path


def grid_request(folder: Path) -> dict:
    extent = [WEST, NORTH - 6 * CELL, WEST + 7 * CELL, NORTH]
    return {"crs": UTM.to_wkt(), "extent": extent, "cell_size": CELL, "output": str(folder / "grïd.tif")}


def assert_conversation(one: Worker, last: str) -> None:
    """Check what every conversation has in common."""
    hello = one.events[0]
    assert hello["event"] == "hello"
    assert hello["protocol"] == PROTOCOL
    assert hello["version"] == __version__
    assert hello["pid"] == one.process.pid
    assert hello["python"].count(".") == 2
    assert one.names().count("hello") == 1
    assert one.events[-1]["event"] == last
    assert one.names().count("result") + one.names().count("error") == 1
    progress = [event["value"] for event in one.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert all(0 <= value <= 100 for value in progress)
    for event in one.events:
        if event["event"] == "error":
            assert set(event) == {"event", "code", "message", "hint", "parameter", "value"}
        if event["event"] == "message":
            assert event["level"] in ("info", "warning")


@pytest.mark.slow
def test_the_whole_chain(worker, tmp_path):
    folder = tmp_path / "Städte und Räume"
    folder.mkdir()
    city = make_cube(50, mean=1.0)
    # Three days more have happened since the forecast.
    later = city.axis.extended(3)
    events = write_events(folder / "events.fgb", events_of(make_cube(53, mean=1.0)))
    valid = city.grid.cell_polygons(*np.nonzero(city.grid.valid))
    area = write_points(folder / "area.gpkg", [shapely.union_all(valid)], {"name": ["city"]}, kind="Unknown")
    rectangle = grid_request(folder)
    path = lambda name: str(folder / name)  # noqa: E731
    counted = {
        "events": str(events),
        "grid": rectangle["output"],
        "time_zone": "America/Toronto",
        "start": "2024-02-01",
    }
    chain = [
        ("build_grid", {**rectangle, "study_area": str(area), "cells_output": path("cells.gpkg")}),
        ("rasterize_events", {**counted, "end": "2024-03-22", "output": path("cube.nc")}),
        ("rasterize_events", {**counted, "end": "2024-03-25", "output": path("later.nc")}),
        (
            "train",
            {
                "cube": path("cube.nc"),
                "model": "convlstm",
                "filters": 2,
                "lookback": 2,
                "epochs": 2,
                "output": path("model.gridcast"),
            },
        ),
        (
            "forecast",
            {
                "cube": path("cube.nc"),
                "model": path("model.gridcast"),
                "horizon": 3,
                "output": path("forecast.tif"),
            },
        ),
        (
            "classify_hotspots",
            {
                "forecast": path("forecast.tif"),
                "cube": path("later.nc"),
                "area_share": 20,
                "output": path("spots.gpkg"),
            },
        ),
    ]
    outputs, metrics = [], []
    for job, request in chain:
        one = worker(job, request)
        assert one.finish() == Exit.OK, one.log[-3000:]
        assert_conversation(one, "result")
        progress = [event["value"] for event in one.events if event["event"] == "progress"]
        assert progress[-1] == 100
        assert "stage" in one.names()
        outputs.append(one.events[-1]["outputs"])
        metrics += [(event["name"], event["step"]) for event in one.events if event["event"] == "metric"]
        assert files_in(one.job_dir) == ["request.json"]
    grid, counts, _, trained, forecast, spots = outputs
    assert (grid["rows"], grid["columns"], grid["cells_inside"]) == (6, 7, city.grid.valid.sum())
    assert counts["events_read"] == make_cube(53, mean=1.0).events.sum()
    assert counts["events_used"] + sum(counts["dropped"].values()) == counts["events_read"]
    assert Cube.read(folder / "cube.nc").total.sum() == counts["events_used"]
    assert trained["epochs_run"] == 2
    assert trained["parameters"] == load_model(folder / "model.gridcast").model.parameter_count > 0
    assert trained["validation_mse"] > 0
    assert metrics == [("val_loss", 0), ("loss", 1), ("val_loss", 1), ("loss", 2), ("val_loss", 2)]
    assert forecast["intervals"] == [list(later.isoformat(50 + ahead)) for ahead in range(3)]
    with rasterio.open(folder / "forecast.tif") as raster:
        bands = raster.read(masked=True)
        assert (bands.mask == ~city.grid.valid).all()
        assert bands.sum() == pytest.approx(forecast["expected_events"], rel=1e-5)
    assert spots["events_observed"] == Cube.read(folder / "later.nc").total[50:].sum()
    assert 0 <= spots["events_hit"] <= spots["events_observed"]
    assert len(pyogrio.raw.read(folder / "spots.gpkg")[2]) == spots["hot_spots"]
    assert files_in(folder) == sorted(
        ["area.gpkg", "cells.gpkg", "cube.nc", "events.fgb", "forecast.tif", "grïd.tif", "later.nc"]
        + ["model.gridcast", "spots.gpkg"]
    )


@pytest.mark.slow
def test_the_environment_verifies_itself(worker):
    one = worker("verify_environment", {})
    assert one.finish() == Exit.OK
    assert_conversation(one, "result")
    outputs = one.events[-1]["outputs"]
    assert outputs["tensorflow"] is True
    assert outputs["python"].count(".") == 2
    assert {"gridcast", "keras", "numpy", "pandas", "xarray", "rasterio"} <= set(outputs["packages"])


def test_prints_of_libraries_do_not_reach_the_stream(worker):
    one = worker(
        "extra",
        {"output": ""},
        program="""
        import ctypes, os, subprocess
        @extra
        def run(request, reporter):
            print("printed")
            sys.__stdout__.write("written\\n")
            os.write(1, b"by descriptor\\n")
            subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
            libc = ctypes.CDLL(None)
            libc.puts(b"by C")
            libc.fflush(None)
            reporter.message("Grüße: 時 \\n second line")
            return {"text": "Ünïcode", "number": float("nan")}
        """,
    )
    assert one.finish() == Exit.OK
    assert one.names() == ["hello", "message", "progress", "result"]
    assert one.events[1]["text"] == "Grüße: 時 \n second line"
    assert one.events[-1]["outputs"]["text"] == "Ünïcode"
    for text in ("printed", "written", "by descriptor", "by a child", "by C"):
        assert text in one.log


def test_progress_is_told_once_per_tenth_of_a_percent(worker):
    one = worker(
        "extra",
        {"output": ""},
        program="""
        @extra
        def run(request, reporter):
            reporter.stage("Counting", 0, 50)
            for number in range(100_000):
                reporter.progress(number / 100_000)
            return {}
        """,
    )
    assert one.finish() == Exit.OK
    assert one.names().count("progress") <= 502
    assert_conversation(one, "result")


FAILURES = {
    "bad input": (
        "raise InputError('Too red.', hint='Paint it.', parameter='COLOUR', value='red')",
        Exit.BAD_INPUT,
    ),
    "memory": ("raise MemoryError", Exit.BAD_INPUT),
    "cancelled": ("raise JobCancelled", Exit.CANCELLED),
    "package": ("import package_that_is_not_there", Exit.ENVIRONMENT),
    "environment": ("raise EnvironmentFault('Broken.', hint='Mend it.')", Exit.ENVIRONMENT),
    "bug": ("return {}['key']", Exit.INTERNAL),
}
ERRORS = {
    "bad input": ("bad_input", "Too red.", "Paint it.", "COLOUR", "red"),
    "memory": (
        "memory",
        "This machine has not enough memory for the job.",
        "Use larger cells, longer steps, fewer types or a shorter period.",
        "",
        "",
    ),
    "cancelled": ("cancelled", "The job was cancelled.", "", "", ""),
    "package": (
        "environment",
        "The worker's Python environment lacks a package or cannot load it: No module named "
        "'package_that_is_not_there'.",
        "Run the algorithm 'Set Up Environment' (with 'recreate' switched on).",
        "",
        "",
    ),
    "environment": ("environment", "Broken.", "Mend it.", "", ""),
    "bug": (
        "internal",
        "Gridcast failed where it should not: KeyError: 'key'",
        "Please report this together with the log.",
        "",
        "",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_have_their_exit_status(worker, case):
    code, status = FAILURES[case]
    one = worker(
        "extra",
        {"output": ""},
        program=f"""
        from gridcast_qgis.core.errors import EnvironmentFault, InputError, JobCancelled
        @extra
        def run(request, reporter):
            {code}
        """,
    )
    assert one.finish() == status
    assert_conversation(one, "error")
    error = one.events[-1]
    assert tuple(error[key] for key in ("code", "message", "hint", "parameter", "value")) == ERRORS[case]
    # A log helps with faults of ours, not with wrong input.
    assert ("Traceback" in one.log) == (case != "bad input")


def test_bad_input_of_a_real_job(worker, tmp_path):
    request = grid_request(tmp_path)
    one = worker("build_grid", {**request, "cell_size": 1})
    assert one.finish() == Exit.BAD_INPUT
    assert_conversation(one, "error")
    error = one.events[-1]
    assert (error["code"], error["parameter"], error["value"]) == ("bad_input", "CELL_SIZE", "1 metre")
    assert error["message"].startswith("The grid would have 3,000 x 3,500 = 10,500,000 cells")
    assert "grïd.tif" not in files_in(tmp_path)


def test_an_unknown_job_is_a_fault_of_ours(worker):
    one = worker("conquer", {})
    assert one.finish() == Exit.INTERNAL
    assert_conversation(one, "error")
    assert one.events[-1]["message"] == "There is no job 'conquer'."


def test_another_protocol_is_a_fault_of_the_environment(worker):
    one = worker("build_grid", {}, protocol=PROTOCOL + 1)
    assert one.finish() == Exit.ENVIRONMENT
    assert_conversation(one, "error")
    assert (
        one.events[-1]["message"] == f"The request does not follow version {PROTOCOL} of the worker protocol."
    )
    assert one.events[-1]["hint"] == "Install the plugin again so that both halves have one version."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The worker takes one argument, the path of a request file."),
        (["a.json", "b.json"], "The worker takes one argument, the path of a request file."),
        (
            ["missing.json"],
            "The request file cannot be read: [Errno 2] No such file or directory: 'missing.json'.",
        ),
    ],
    ids=["none", "two", "missing"],
)
def test_a_worker_needs_a_request(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, *WORKER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == Exit.BAD_INPUT
    assert [event["event"] for event in events] == ["hello", "error"]
    assert events[1]["message"] == message


# Cancel and the death of the parent --------------------------------------------------------------------

BUSY = """
import threading
from gridcast_qgis.core.errors import JobCancelled

@extra
def run(request, reporter):
    reporter.stage("Waiting", 0, 100)
    with atomic_path(request.output) as part:
        part.write_text("half")
        part.with_name(part.name + "-journal").write_text("half")
        reporter.message("waiting")
        wait(reporter)
        part.write_text("whole")
    return {}

"""
#: Stops when it is asked to.
WAITING = (
    BUSY
    + """
def wait(reporter):
    while True:
        reporter.check()
"""
)
#: Never looks up.
STUCK = (
    BUSY
    + """
def wait(reporter):
    threading.Event().wait()
"""
)
#: Comes to its end although it was asked to stop.
FINISHING = (
    BUSY
    + """
def wait(reporter):
    try:
        while True:
            reporter.check()
    except JobCancelled:
        pass
"""
)


@pytest.mark.slow
def test_trainings_can_be_stopped(worker, tmp_path, cube_file):
    # Two at a time, because each takes a while to begin.
    request = {**ENDLESS, "cube": str(cube_file)}
    cancelled = worker("train", {**request, "output": str(tmp_path / "möd el 1.gridcast")})
    orphan = worker("train", {**request, "output": str(tmp_path / "möd el 2.gridcast")})
    for one in (cancelled, orphan):
        one.wait_for("metric", name="loss")
    cancelled.process.stdin.write(b"cancel\n")
    cancelled.process.stdin.flush()
    orphan.process.stdin.close()
    assert [cancelled.finish(), orphan.finish()] == [Exit.CANCELLED, Exit.CANCELLED]
    assert_conversation(cancelled, "error")
    assert cancelled.events[-1]["code"] == "cancelled"
    assert files_in(tmp_path) == ["0/jöb folder/request.json", "0/log.txt", "1/log.txt"]
    assert not orphan.job_dir.exists()


@pytest.mark.parametrize("program", [WAITING, STUCK], ids=["listening", "stuck"])
def test_the_death_of_the_parent_removes_everything(worker, tmp_path, program):
    output = tmp_path / "file.gpkg"
    one = worker("extra", {"output": str(output)}, program=program)
    one.wait_for("message")
    assert len([name for name in files_in(tmp_path) if ".part" in name]) == 2
    one.process.stdin.close()
    assert one.finish() == Exit.CANCELLED
    assert not one.job_dir.exists()
    assert files_in(tmp_path) == ["0/log.txt"]


def test_a_dead_parent_reads_no_events_either(worker, tmp_path):
    program = """
    @extra
    def run(request, reporter):
        with atomic_path(request.output) as part:
            part.write_text("half")
            reporter.message("waiting")
            while True:
                reporter.message("still there")
                reporter.check()
    """
    one = worker("extra", {"output": str(tmp_path / "file.tif")}, program=program)
    one.wait_for("message")
    # All that a killed process held is closed at once.
    one.process.stdout.close()
    one.process.stdin.close()
    assert one.process.wait(60) == Exit.CANCELLED
    assert not one.job_dir.exists()
    assert files_in(tmp_path) == ["0/log.txt"]


def test_a_job_that_ends_after_the_death_of_its_parent_makes_nothing(worker, tmp_path):
    output = tmp_path / "file.gpkg"
    one = worker("extra", {"output": str(output)}, program=FINISHING)
    one.wait_for("message")
    one.process.stdin.close()
    assert one.finish() == Exit.CANCELLED
    assert not output.exists()
    assert not one.job_dir.exists()
    assert files_in(tmp_path) == ["0/log.txt"]


@pytest.mark.parametrize("line", [b"cancel\n", b"  cancel \r\n", b"something\ncancel\nmore\n"])
def test_a_cancelled_job_says_so_and_leaves_its_folder_to_the_parent(worker, tmp_path, line):
    one = worker("extra", {"output": str(tmp_path / "file.gpkg")}, program=WAITING)
    one.wait_for("message")
    one.process.stdin.write(line)
    one.process.stdin.flush()
    assert one.finish() == Exit.CANCELLED
    assert_conversation(one, "error")
    assert one.events[-1]["code"] == "cancelled"
    assert files_in(tmp_path) == ["0/jöb folder/request.json", "0/log.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without a signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_cancel(worker, tmp_path, number):
    one = worker("extra", {"output": str(tmp_path / "file.gpkg")}, program=WAITING)
    one.wait_for("message")
    one.process.send_signal(number)
    assert one.finish() == Exit.CANCELLED
    assert one.events[-1]["code"] == "cancelled"
    assert files_in(tmp_path) == ["0/jöb folder/request.json", "0/log.txt"]


def test_two_workers_do_not_disturb_each_other(worker, tmp_path):
    both = [
        worker("build_grid", {**grid_request(tmp_path), "output": str(tmp_path / f"{i}.tif")}) for i in (1, 2)
    ]
    assert [one.finish() for one in both] == [Exit.OK, Exit.OK]
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()


# What a job loads --------------------------------------------------------------------------------------

LIGHT = """
import json, sys
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.reporter import Reporter
for name, request in json.loads(sys.argv[1]):
    run_job(name, request, Reporter())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_jobs_without_a_network_never_load_tensorflow(tmp_path):
    path = lambda name: str(tmp_path / name)  # noqa: E731
    events = write_events(tmp_path / "events.fgb", events_of(make_cube(30, holes=False)))
    chain = [
        (
            "build_grid",
            {**grid_request(tmp_path), "output": path("grid.tif"), "cells_output": path("cells.gpkg")},
        ),
        ("rasterize_events", {"events": str(events), "grid": path("grid.tif"), "output": path("cube.nc")}),
        ("train", {"cube": path("cube.nc"), "model": "weekday_average", "output": path("model.gridcast")}),
        (
            "forecast",
            {"cube": path("cube.nc"), "model": path("model.gridcast"), "output": path("forecast.tif")},
        ),
        ("classify_hotspots", {"forecast": path("forecast.tif"), "output": path("spots.gpkg")}),
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(chain)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"tensorflow", "keras", "jax", "torch"}
    assert {"numpy", "rasterio", "xarray"} <= loaded
