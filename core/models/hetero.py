# SPDX-License-Identifier: GPL-2.0-or-later
"""Hetero-ConvLSTM: one ConvLSTM for each of several overlapping windows of the grid.

Ahrens & de Wolff (2023), section 3.3, after Yuan et al. (2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..reporter import Reporter
from ..training.splits import Split
from .base import Forecaster, ModelState
from .convlstm import ConvLSTMForecaster, ConvLSTMSettings

_OWN = ("subgrid_rows", "subgrid_columns", "window_rows", "window_columns", "window_stride")


@dataclass(frozen=True)
class HeteroSettings(ConvLSTMSettings):
    """Settings of :class:`HeteroForecaster`: those of its members and the windows.

    Attributes
    ----------
    subgrid_rows, subgrid_columns : int
        Into how many parts the grid is cut (3 × 3 in the paper).
    window_rows, window_columns : int
        How many parts a window spans (2 × 2 in the paper).
    window_stride : int
        By how many parts the window moves.
    """

    subgrid_rows: int = 3
    subgrid_columns: int = 3
    window_rows: int = 2
    window_columns: int = 2
    window_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _OWN:
            if getattr(self, name) < 1:
                raise InputError(
                    "The value must be at least 1.", parameter=name.upper(), value=getattr(self, name)
                )
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


class HeteroForecaster(Forecaster):
    """Mean of ConvLSTMs that were each trained on a window of the grid."""

    key = "hetero"
    title = "Hetero-ConvLSTM ensemble"
    Settings = HeteroSettings
    settings: HeteroSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.windows_: list[Window] = []
        self.members_: list[ConvLSTMForecaster] = []

    @property
    def history(self) -> int:
        return self.settings.lookback

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

    def fit(self, cube: Cube, split: Split, reporter: Reporter) -> HeteroForecaster:
        windows = self.windows(*cube.grid.shape)
        # A window without a cell of the study area has nothing to learn.
        self.windows_ = [window for window in windows if cube.grid.valid[window.slices].any()]
        self.members_ = []
        for number, window in enumerate(self.windows_):
            reporter.message(
                f"Member {number + 1} of {len(self.windows_)}: rows {window.top}-{window.bottom - 1}, "
                f"columns {window.left}-{window.right - 1}."
            )
            settings = self.settings.member_settings() | {"seed": self.settings.seed + number}
            member = ConvLSTMForecaster(**settings)
            part = _PartOf(reporter, number, len(self.windows_))
            self.members_.append(member.fit(cube.crop(*window.slices), split, part))
        return self

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        total = np.zeros((stop - start, *cube.grid.shape), np.float64)
        cover = np.zeros(cube.grid.shape, np.float64)
        for window, member in zip(self.windows_, self.members_):
            part = member.predict_next(cube.crop(*window.slices), start, stop)
            total[(slice(None), *window.slices)] += np.nan_to_num(part)
            cover[window.slices] += 1
        result = (total / np.maximum(cover, 1)).astype(np.float32)
        result[:, ~cube.grid.valid] = np.nan
        return result

    def state(self) -> ModelState:
        state = ModelState(values={"windows": [asdict(window) for window in self.windows_], "members": []})
        for number, member in enumerate(self.members_):
            own = member.state()
            state.values["members"].append({"settings": member.settings_dict(), "values": own.values})
            state.networks[f"member_{number}"] = own.networks["network"]
        return state

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> HeteroForecaster:
        model = cls(**settings)
        model.windows_ = [Window(**window) for window in state.values["windows"]]
        model.members_ = [
            ConvLSTMForecaster.restore(
                member["settings"],
                ModelState(values=member["values"], networks={"network": state.networks[f"member_{i}"]}),
            )
            for i, member in enumerate(state.values["members"])
        ]
        return model


class _PartOf(Reporter):
    """Passes a member's reports on, with its progress as a part of the whole."""

    def __init__(self, whole: Reporter, number: int, count: int) -> None:
        super().__init__()
        self._whole, self._number, self._count = whole, number, count

    def check(self) -> None:
        self._whole.check()

    def progress(self, fraction: float) -> None:
        self._whole.progress((self._number + min(max(fraction, 0.0), 1.0)) / self._count)

    def emit(self, event: str, **fields: object) -> None:
        self._whole.emit(event, **fields)
