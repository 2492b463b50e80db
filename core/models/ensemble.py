# SPDX-License-Identifier: GPL-2.0-or-later
"""Ensembles of models that were each trained on a window of the grid.

Ahrens & de Wolff (2023), section 3.3, after Yuan et al. (2018).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..cube import Cube
from ..errors import GridcastError, InputError
from ..executors import Task, run_tasks
from ..reporter import Reporter
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState
from .settings import Settings

_LAYOUT = ("subgrid_rows", "subgrid_columns", "window_rows", "window_columns", "window_stride")
_OWN = (*_LAYOUT, "weights", "taper", "workers")


@dataclass(frozen=True, kw_only=True)
class WindowSettings(Settings):
    """The windows of an ensemble, beside the settings of its members.

    Attributes
    ----------
    subgrid_rows, subgrid_columns : int
        Into how many parts the grid is cut (3 × 3 in the paper).
    window_rows, window_columns : int
        How many parts a window spans (2 × 2 in the paper).
    window_stride : int
        By how many parts the window moves.
    weights : {"equal", "learned"}
        How members are put together where windows overlap. Equal: their mean, as in the paper. Learned:
        non-negative weights from a regression on the validation steps, for each set of overlapping windows.
    taper : int
        Cells over which the weight of a member falls off towards an edge of its window that lies inside
        the grid; 0: not at all.
    workers : int
        Members trained at the same time, each in a process of its own; 1: one by one.
    """

    subgrid_rows: int = 3
    subgrid_columns: int = 3
    window_rows: int = 2
    window_columns: int = 2
    window_stride: int = 1
    weights: str = "equal"
    taper: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("weights", ("equal", "learned"))
        if self.taper < 0 or (self.taper and self.weights == "learned"):
            raise InputError(
                "A taper is a number of cells, 0 with learned weights.",
                hint="Give 0, or a number such as 3 with WEIGHTS equal.",
                parameter="TAPER",
                value=self.taper,
            )
        self._check_least(*_LAYOUT, "workers")
        for window, parts in (("window_rows", "subgrid_rows"), ("window_columns", "subgrid_columns")):
            if getattr(self, window) > getattr(self, parts):
                raise InputError(
                    f"The window spans more parts than the grid has ({getattr(self, parts)}).",
                    hint=f"Choose a value up to {getattr(self, parts)}.",
                    parameter=window.upper(),
                    value=getattr(self, window),
                )

    def member_settings(self) -> dict[str, Any]:
        """Return the settings of one member."""
        return {key: value for key, value in asdict(self).items() if key not in _OWN}


@dataclass(frozen=True)
class Window:
    """A rectangle of cells, half-open: rows `top` … `bottom - 1`, columns `left` … `right - 1`."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in an array `(..., y, x)`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def spans(length: int, parts: int, width: int, stride: int) -> list[tuple[int, int]]:
    """Return the positions of a window of `width` parts that moves over `length` cells.

    The window has the same number of cells everywhere, the first begins at 0 and the
    last ends at `length`: 55 cells in 3 parts give [0, 36) and [19, 55). It is wider than
    that where cells would be left out between two positions.
    """
    size = max(1, length * width // parts)
    offsets = range(0, parts - width + 1, stride)
    reach = max(parts - width, 1)
    while True:
        # A stride that does not divide the way leaves a rest that some window has to see; windows
        # on fewer cells than parts fall together.
        starts = sorted({*(round(offset * (length - size) / reach) for offset in offsets), length - size})
        if all(later - start <= size for start, later in zip(starts, starts[1:])):
            return [(start, start + size) for start in starts]
        size += 1


def window_weights(windows: Sequence[Window], shape: tuple[int, int], taper: int) -> np.ndarray:
    """Return the weight of each window in each cell: float64 `(windows, y, x)`, sum 1 where there is one.

    Without taper overlapping windows count the same. With it the weight rises from the edge of a window,
    over `taper` cells, unless that edge is the edge of the grid.
    """
    weights = np.zeros((len(windows), *shape))
    for weight, window in zip(weights, windows):
        profiles = []
        for start, stop, length in (
            (window.top, window.bottom, shape[0]),
            (window.left, window.right, shape[1]),
        ):
            cells = np.arange(start, stop)
            from_start = cells - start + 1 if start > 0 else np.full(len(cells), taper + 1)
            from_stop = stop - cells if stop < length else np.full(len(cells), taper + 1)
            profiles.append(np.minimum(np.minimum(from_start, from_stop) / (taper + 1), 1.0))
        weight[window.slices] = np.outer(*profiles)
    total = weights.sum(axis=0)
    return np.divide(weights, total, out=weights, where=total > 0)


class WindowEnsemble(Forecaster):
    """Models that were each trained on a window of the grid; their mean where windows overlap.

    Attributes
    ----------
    Member : type
        Class of the members.
    windows_, members_ : list
        Windows that have a member, and these.
    weights_ : numpy.ndarray
        Of the members in each cell: float32 `(members, y, x)`.
    """

    Member: ClassVar[type[Forecaster]]
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.windows_: list[Window] = []
        self.members_: list[Any] = []
        self.weights_ = np.zeros((0, 0, 0), np.float32)

    @property
    def history(self) -> int:
        lookback: int = self.settings.lookback
        return lookback

    @property
    def parameter_count(self) -> int:
        return sum(member.parameter_count for member in self.members_)

    @property
    def history_(self) -> dict[str, list[float]]:
        """Mean training history of the members, as long as the longest."""
        result: dict[str, list[float]] = {}
        for key in ("loss", "val_loss", "seconds"):
            runs = [member.history_[key] for member in self.members_]
            # A member that stopped early stays at its last value.
            longest = max(map(len, runs))
            padded = [run + [run[-1]] * (longest - len(run)) for run in runs]
            result[key] = [float(v) for v in np.mean(padded, axis=0)]
        return result

    def windows(self, rows: int, columns: int) -> list[Window]:
        """Return the windows over a grid, from north-west to south-east."""
        s = self.settings
        return [
            Window(top, bottom, left, right)
            for top, bottom in spans(rows, s.subgrid_rows, s.window_rows, s.window_stride)
            for left, right in spans(columns, s.subgrid_columns, s.window_columns, s.window_stride)
        ]

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> WindowEnsemble:
        assert start is None or isinstance(start, WindowEnsemble)
        # A window without a cell of the study area has nothing to learn.
        windows = [w for w in self.windows(*cube.grid.shape) if cube.grid.valid[w.slices].any()]
        fitted = self._run_members(windows, cube, split, reporter, checkpoint, start)
        lost = [number for number in range(len(windows)) if fitted[number] is None]
        self.windows_ = [window for number, window in enumerate(windows) if number not in lost]
        self.members_ = [member for member in fitted if member is not None]
        self.weights_ = window_weights(self.windows_, cube.grid.shape, self.settings.taper).astype(np.float32)
        if (self.weights_.sum(axis=0)[cube.grid.valid] == 0).any():
            raise GridcastError(
                f"{_numbers(lost, len(windows))} could not be trained, and without it there are cells "
                "without a forecast.",
                hint="The messages above say why. With CHECKPOINT, the others need not be trained again.",
            )
        if lost:
            reporter.warning(
                f"{_numbers(lost, len(windows))} could not be trained. Its cells are forecast by the members "
                "whose windows overlap it."
            )
        if self.settings.weights == "learned":
            self._learn_weights(cube, split)
        return self

    @property
    def finishes(self) -> int:
        return self.Member(**self.settings.member_settings()).finishes

    def finish(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> None:
        if not self.finishes:
            return
        assert start is None or isinstance(start, WindowEnsemble)
        finished = self._run_members(
            self.windows_, cube, split, reporter, checkpoint, start, fitted=self.members_
        )
        lost = [number for number, member in enumerate(finished) if member is None]
        if lost:
            reporter.warning(
                f"{_numbers(lost, len(finished))} could not learn from all steps. It forecasts with what it "
                "learned before."
            )
        self.members_ = [after or before for after, before in zip(finished, self.members_)]

    def _run_members(
        self,
        windows: list[Window],
        cube: Cube,
        split: Split,
        reporter: Reporter,
        checkpoint: Checkpoint | None,
        start: WindowEnsemble | None,
        fitted: Sequence[Forecaster] | None = None,
    ) -> list[Any]:
        """Train a member for each window, or let those that are fitted learn from all steps.

        One that fails is None.
        """
        from ..modelfile import load_model

        members: list[Any] = []
        with tempfile.TemporaryDirectory(prefix="gridcast-members-") as name:
            folder = Path(name)
            tasks = self._tasks(windows, cube, split, checkpoint, start, fitted, folder)
            workers = self.settings.workers
            run_tasks(tasks, folder, reporter, workers=workers, scheduler=self.scheduler)
            for task in tasks:
                if task.failure is None:
                    member = load_model(task.request["output"]).model
                    assert isinstance(member, self.Member)
                    members.append(member)
                elif task.failure.parameter == "CHECKPOINT":
                    # It is the same file for all members, and the user's to choose.
                    raise task.failure
                else:
                    reporter.warning(f"{task.name} failed: {task.error}")
                    members.append(None)
        return members

    def _tasks(
        self,
        windows: list[Window],
        cube: Cube,
        split: Split,
        checkpoint: Checkpoint | None,
        start: WindowEnsemble | None,
        fitted: Sequence[Forecaster] | None,
        folder: Path,
    ) -> list[Task]:
        """Return the training of each member as a task, with its files in a folder."""
        from ..modelfile import save_model

        # Members learn from the counts of all types together, and those take less room.
        cube.continued(0).write(folder / "cube.nc")
        # A member starts from the one that was trained on the same window.
        starts = dict(zip(start.windows_, start.members_)) if start else {}
        tasks = []
        for number, window in enumerate(windows):
            name = (
                f"Member {number + 1} of {len(windows)} (rows {window.top}-{window.bottom - 1}, columns "
                f"{window.left}-{window.right - 1})"
            )
            request: dict[str, Any] = {
                "cube": str(folder / "cube.nc"),
                "output": str(folder / f"{number}.gridcast"),
                "model": self.Member.key,
                "settings": self.settings.member_settings() | {"seed": self.settings.seed + number},
                "split": asdict(split),
                "window": list(astuple(window)),
            }
            if window in starts:
                request["start"] = str(folder / f"{number}-start.gridcast")
                save_model(starts[window], request["start"], {})
            if fitted:
                request |= {"fitted": str(folder / f"{number}-fitted.gridcast"), "finish": True}
                save_model(fitted[number], request["fitted"], {})
            if checkpoint:
                part = checkpoint.part(f"member_{window.top}_{window.left}")
                request |= {"checkpoint": str(part.path), "identity": part.identity}
            tasks.append(Task(name, "fit_member", request))
        return tasks

    def _learn_weights(self, cube: Cube, split: Split) -> None:
        """Find the weights with the least squared error on the validation steps, none below 0.

        A regression for each set of windows that overlap somewhere; a little is added that pulls towards
        equal weights, so that members that say the same share the weight.
        """
        from scipy.optimize import nnls

        period = slice(split.validation_start, split.validation_stop)
        predictions = self._members(cube, period.start, period.stop)
        covering = ((self.weights_ > 0) & cube.grid.valid).reshape(len(self.members_), -1)
        combinations, region = np.unique(covering, axis=1, return_inverse=True)
        for number, combination in enumerate(combinations.T):
            members = np.flatnonzero(combination)
            if len(members) < 2:
                continue
            cells = (region == number).reshape(cube.grid.shape)
            x = np.stack([predictions[m][:, cells].ravel() for m in members], axis=1).astype(np.float64)
            y = cube.total[period][:, cells].ravel().astype(np.float64)
            pull = np.sqrt(1e-3 * (x**2).sum(axis=0).mean() + 1e-12) * np.eye(len(members))
            equal = np.full(len(members), 1 / len(members))
            weights, _ = nnls(np.vstack([x, pull]), np.concatenate([y, pull @ equal]))
            for member, weight in zip(members, weights):
                self.weights_[member][cells] = weight

    def _members(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Return what each member forecasts: float32 `(members, steps, y, x)`, 0 outside its window."""
        found = np.zeros((len(self.members_), stop - start, *cube.grid.shape), np.float32)
        for forecast, window, member in zip(found, self.windows_, self.members_):
            part = member.predict_next(cube.crop(*window.slices), start, stop)
            forecast[(slice(None), *window.slices)] = np.nan_to_num(part)
        return found

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        return self._mean(cube, stop - start, lambda member, part: member.predict_next(part, start, stop))

    def _mean(
        self,
        cube: Cube,
        steps: int,
        say: Callable[[Any, Cube], np.ndarray],
        reporter: Reporter | None = None,
    ) -> np.ndarray:
        """Return what members say of the cubes of their windows, put together: float32 `(steps, y, x)`."""
        result = np.zeros((steps, *cube.grid.shape), np.float32)
        for number, (weight, window, member) in enumerate(zip(self.weights_, self.windows_, self.members_)):
            part = np.nan_to_num(say(member, cube.crop(*window.slices)))
            result[(slice(None), *window.slices)] += weight[window.slices] * part
            if reporter:
                reporter.progress((number + 1) / len(self.members_))
        result[:, ~cube.grid.valid] = np.nan
        return result

    def state(self) -> ModelState:
        state = ModelState(
            values={"windows": [asdict(window) for window in self.windows_], "members": []},
            arrays={"weights": self.weights_},
        )
        for number, member in enumerate(self.members_):
            own = member.state()
            state.values["members"].append({"settings": member.settings_dict(), "values": own.values})
            state.arrays |= {f"member_{number}.{name}": array for name, array in own.arrays.items()}
            state.networks |= {f"member_{number}.{name}": network for name, network in own.networks.items()}
        return state

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> WindowEnsemble:
        model = cls(**settings)
        model.windows_ = [Window(**window) for window in state.values["windows"]]
        model.weights_ = state.arrays["weights"]
        for number, member in enumerate(state.values["members"]):

            def own(parts: dict[str, Any], prefix: str = f"member_{number}.") -> dict[str, Any]:
                return {key.removeprefix(prefix): parts[key] for key in parts if key.startswith(prefix)}

            kept = ModelState(member["values"], own(state.arrays), own(state.networks))
            model.members_.append(cls.Member.restore(member["settings"], kept))
        return model


def _numbers(lost: list[int], count: int) -> str:
    return f"Of {count} members, number {', '.join(str(number + 1) for number in lost)}"
