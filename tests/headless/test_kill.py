# SPDX-License-Identifier: GPL-2.0-or-later
"""A job that is killed in the middle leaves neither process nor file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cmdline").is_file(), reason="looks for processes in /proc"
)


def workers(temporary_folder: Path) -> set[int]:
    """Return the workers whose request lies in a folder."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (OSError, NotADirectoryError):
            continue
        if b"gridcast_qgis.core" in words and any(str(temporary_folder).encode() in word for word in words):
            found.add(int(process.name))
    return found


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killing_qgis_process_ends_the_worker(call, chain, tmp_path, kill):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    output = tmp_path / "out" / "model.gridcast"
    output.parent.mkdir()
    request = {
        "inputs": {"CUBE": chain["cube.nc"], "EPOCHS": 10000, "PATIENCE": 10000, "OUTPUT": str(output)}
    }
    parent = subprocess.Popen(
        [call.program, "run", "gridcast:trainconvlstm", "-"],
        env=call.environment | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        parent.stdin.write(json.dumps(request).encode())
        parent.stdin.close()
        wait_for(lambda: trains(temporary), 120)
        assert len(workers(temporary)) == 1
        os.kill(parent.pid, kill)
        parent.wait(10)
        wait_for(lambda: not workers(temporary), 30)
    finally:
        if parent.poll() is None:
            parent.kill()
            parent.wait()
    assert list(output.parent.iterdir()) == []
    assert [path for path in temporary.rglob("*") if path.name.startswith("gridcast-")] == []


def test_a_killed_search_goes_on(call, chain, tmp_path):
    """What was tried before the kill is kept, and nothing else; the same call again ends the search."""
    temporary, folder = tmp_path / "tmp", tmp_path / "out"
    temporary.mkdir()
    folder.mkdir()
    study = folder / "study.json"
    values = {
        "CUBE": chain["cube.nc"],
        "MODEL": "convlstm",
        "RANGES": "filters = 1..3; kernel = 1; epochs = 1; lookback = 2..5; batch_size = 16",
        "STUDY": str(study),
        "OUTPUT": str(folder / "model.gridcast"),
    }
    parent = subprocess.Popen(
        [call.program, "run", "gridcast:tunemodel", "-"],
        env=call.environment | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        parent.stdin.write(json.dumps({"inputs": values | {"TRIALS": 1000}}).encode())
        parent.stdin.close()
        wait_for(study.is_file, 200)
        (worker,) = workers(temporary)
        os.kill(worker, signal.SIGKILL)
        parent.kill()
        parent.wait(10)
        wait_for(lambda: not workers(temporary), 30)
    finally:
        if parent.poll() is None:
            parent.kill()
            parent.wait()
    done = len(json.loads(study.read_text())["trials"])
    assert [path.name for path in folder.iterdir() if "part" not in path.name] == ["study.json"]
    answer = call.json("gridcast:tunemodel", values | {"TRIALS": done + 1})
    assert answer.status == 0, answer.text
    assert answer.results["TRIALS"] == done + 1
    assert f"The study has {done} trial" in answer.text
    assert Path(answer.results["OUTPUT"]).is_file()


def trains(temporary: Path) -> bool:
    """Tell whether the worker is past its start: TensorFlow's libraries are mapped into it."""
    for worker in workers(temporary):
        try:
            if "tensorflow" in Path(f"/proc/{worker}/maps").read_text():
                return True
        except OSError:
            continue
    return False


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
