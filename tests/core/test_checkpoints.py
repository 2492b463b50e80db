# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a training on disk: read back to the bit, or refused."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import files_in

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.training.checkpoints import SCHEMA, Checkpoint, TrainingState, identity_of


def make_state(seed: int = 0, parts: int = 3) -> TrainingState:
    random = np.random.default_rng(seed)

    def arrays(count: int) -> list[np.ndarray]:
        return [random.normal(size=(2, number + 1)).astype(np.float32) for number in range(count)]

    # An optimizer counts its steps with a whole number.
    optimizer = [np.array(7, np.int64), np.array(0.002, np.float32), *arrays(2 * parts)]
    values = {"history": {"loss": [0.5, 0.25], "val_loss": [1.0, 0.1 + 0.2, 0.3]}, "waited": [0, 1]}
    return TrainingState(2, arrays(parts), arrays(parts), optimizer, values)


def assert_same(one: TrainingState, two: TrainingState) -> None:
    assert one.epoch == two.epoch
    assert one.values == two.values
    for kind in ("weights", "best", "optimizer"):
        a, b = getattr(one, kind), getattr(two, kind)
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            assert x.tobytes() == y.tobytes()


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return Checkpoint(tmp_path / "rün [1].ckpt", identity_of(seed=1))


def refusal(checkpoint: Checkpoint) -> str:
    with pytest.raises(InputError) as caught:
        checkpoint.read()
    assert caught.value.parameter == "CHECKPOINT"
    assert caught.value.value == checkpoint.path
    return caught.value.text()


@pytest.mark.parametrize("parts", [0, 1, 12])
def test_a_state_comes_back_to_the_bit(checkpoint, parts):
    assert checkpoint.read() is None
    state = make_state(parts=parts)
    checkpoint.write(state)
    assert_same(checkpoint.read(), state)


def test_a_later_state_takes_the_place_of_the_earlier_one(checkpoint):
    checkpoint.write(make_state(1, 9))
    checkpoint.write(make_state(2, 2))
    assert_same(checkpoint.read(), make_state(2, 2))
    assert files_in(checkpoint.path.parent) == [checkpoint.path.name]


def test_numbers_that_are_no_finite_ones_come_back(checkpoint):
    state = make_state()
    state.weights[0][:] = [[np.nan], [-np.inf]]
    checkpoint.write(state)
    assert_same(checkpoint.read(), state)


def test_a_state_that_cannot_be_written_leaves_the_earlier_one(checkpoint):
    checkpoint.write(make_state(1))
    broken = make_state(2)
    broken.values["history"] = object()
    with pytest.raises(TypeError):
        checkpoint.write(broken)
    assert_same(checkpoint.read(), make_state(1))
    assert files_in(checkpoint.path.parent) == [checkpoint.path.name]


def test_a_folder_that_is_not_there_names_the_parameter(tmp_path):
    with pytest.raises(InputError) as caught:
        Checkpoint(tmp_path / "nowhere" / "run.ckpt", "x").write(make_state())
    assert caught.value.parameter == "CHECKPOINT"


# What is refused ---------------------------------------------------------------------------------------


def test_the_checkpoint_of_another_training_is_refused(checkpoint):
    checkpoint.write(make_state())
    other = Checkpoint(checkpoint.path, identity_of(seed=2))
    assert refusal(other) == (
        f"CHECKPOINT = {checkpoint.path}: The checkpoint belongs to a training on other data or with other "
        "settings. Repeat the values of that run to continue it, or delete the file, or choose another one."
    )
    # It stays as it was.
    assert_same(checkpoint.read(), make_state())


def plain_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    return buffer.getvalue()


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def head_of(**values: object) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


IDENTITY = identity_of(seed=1)
WRONG = {
    "empty": b"",
    "text": b"date,place\n2024-01-01,here\n",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02K\x03e.",
    "array": plain_array(),
    "archive without head": archive(x=np.arange(3)),
    "head that is no text": archive(head=np.frombuffer(b"\xff\xfe{", np.uint8)),
    "head that is no object": archive(head=np.frombuffer(b"[1, 2]", np.uint8)),
    "objects": archive(head=np.array([{"schema": SCHEMA}], dtype=object)),
    "other schema": archive(head=head_of(schema="checkpoint/99", identity=IDENTITY)),
    "no identity": archive(head=head_of(schema=SCHEMA)),
    "missing weights": archive(
        head=head_of(schema=SCHEMA, identity=IDENTITY, epoch=1, lengths={"weights": 2}, values={}),
        weights_0=np.arange(3),
    ),
    "missing list": archive(
        head=head_of(schema=SCHEMA, identity=IDENTITY, epoch=1, lengths={"weights": 0}, values={})
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_checkpoint_is_refused(checkpoint, case):
    checkpoint.path.write_bytes(WRONG[case])
    text = refusal(checkpoint)
    assert "The checkpoint cannot be read (" in text
    assert text.endswith("Delete the file, or choose another one.")
    assert checkpoint.path.read_bytes() == WRONG[case]


def test_the_schema_is_named(checkpoint):
    checkpoint.path.write_bytes(WRONG["other schema"])
    assert "unknown schema checkpoint/99" in refusal(checkpoint)


def test_a_folder_is_no_checkpoint(checkpoint):
    checkpoint.path.mkdir()
    assert "The checkpoint cannot be read (" in refusal(checkpoint)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.one_of(st.none(), st.floats(0, 1)), place=st.floats(0, 1), bits=st.integers(1, 255))
def test_a_damaged_checkpoint_is_refused_or_whole(checkpoint, cut, place, bits):
    state = make_state(parts=2)
    checkpoint.write(state)
    data = bytearray(checkpoint.path.read_bytes())
    if cut is None:
        data[int(place * (len(data) - 1))] ^= bits
    else:
        data = data[: int(cut * (len(data) - 1))]
    checkpoint.path.write_bytes(bytes(data))
    try:
        found = checkpoint.read()
    except InputError as error:
        assert error.parameter == "CHECKPOINT"
        return
    # Dates and the like in the zip may differ; the content has check sums.
    assert cut is None
    assert_same(found, state)


# Parts -------------------------------------------------------------------------------------------------


def test_parts_lie_beside_the_file_and_are_told_apart(checkpoint):
    parts = [checkpoint.part(f"member_{number}") for number in range(3)]
    parts.append(checkpoint.part("fold_1").part("member_0"))
    for number, part in enumerate(parts):
        assert part.path.parent == checkpoint.path.parent
        part.write(make_state(number))
    assert len({part.path for part in parts} | {checkpoint.path}) == 5
    assert len({part.identity for part in parts} | {checkpoint.identity}) == 5
    for number, part in enumerate(parts):
        assert_same(part.read(), make_state(number))
    refusal(Checkpoint(parts[0].path, parts[1].identity))
    # The parts of another training have other identities.
    other = Checkpoint(checkpoint.path, identity_of(seed=2)).part("member_0")
    assert other.path == parts[0].path
    refusal(other)


def test_removing_takes_the_parts_along_and_nothing_else(checkpoint):
    folder = checkpoint.path.parent
    checkpoint.write(make_state())
    for part in (
        checkpoint.part("member_0"),
        checkpoint.part("member_12"),
        checkpoint.part("fold_3"),
        checkpoint.part("fold_3").part("member_1"),
    ):
        part.write(make_state())
    name = checkpoint.path.name
    # "[1]" would match "1" if it were taken for a pattern.
    others = [f"{name}.notes.txt", f"{name}2", f"x{name}", "rün 1.ckpt.fold_0", f"{name}.folder_2"]
    for other in others:
        (folder / other).write_text("mine")
    checkpoint.remove()
    assert files_in(folder) == sorted(others)
    checkpoint.remove()
    assert files_in(folder) == sorted(others)


# Identity ----------------------------------------------------------------------------------------------


def test_an_identity_depends_on_every_value_and_not_on_their_order():
    one = identity_of(model="convlstm", settings={"a": 1, "b": (1, 2)}, start=None)
    assert one == identity_of(start=None, settings={"b": [1, 2], "a": 1}, model="convlstm")
    changes = [
        {"model": "hetero", "settings": {"a": 1, "b": (1, 2)}, "start": None},
        {"model": "convlstm", "settings": {"a": 2, "b": (1, 2)}, "start": None},
        {"model": "convlstm", "settings": {"a": 1, "b": (2, 1)}, "start": None},
        {"model": "convlstm", "settings": {"a": 1, "b": (1, 2)}, "start": "x"},
    ]
    assert len({one, *(identity_of(**change) for change in changes)}) == 5
