# SPDX-License-Identifier: GPL-2.0-or-later
"""What a search may try of each setting, and the text in which it is written.

``filters = 8..64 log; kernel = 1, 3, 5; learning_rate = 0.0001..0.01 log; epochs = 5``
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..grid import Grid
from ..models.settings import read_value, value_text

#: Cells of the cube that are put together to one, a side: a setting of the cube, not of a model.
COARSEN = "coarsen"
#: The same, said as the width of a cell in metres.
CELL_SIZE = "cell_size"

#: Settings that one search cannot compare, because they change what is forecast.
ONE_VALUE = ("label_rule", "label_value")

# Settings that have nothing to do with how good a model is.
_NOT_SEARCHED = ("seed", "workers")

_FORM = "Write it as name = low..high, name = low..high log, or name = one, another."

_LIMITS = re.compile(r"(.*?)\s*\.\.\s*(\S*)\s*(.*)", re.DOTALL)

# More combinations than these are not looked through.
_MOST_COMBINATIONS = 20_000


@dataclass(frozen=True)
class Numbers:
    """All numbers from `low` to `high`, both included.

    Attributes
    ----------
    log : bool
        Whether the steps from 1 to 10 and from 10 to 100 count the same.
    whole : bool
        Whether only whole numbers are meant.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> float:
        """Number of values."""
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Tell whether this is one of the values."""
        return self.low <= value <= self.high

    def text(self) -> str:
        """Return the range as it is written."""
        return f"{self.low:.12g}..{self.high:.12g}{' log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """One value or several."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Tell whether this is one of the values."""
        return value in self.values

    def text(self) -> str:
        """Return the choices as they are written."""
        return ", ".join(map(value_text, self.values))


Range = Numbers | Choices
Ranges = dict[str, Range]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as text that a range can be."""
    return "; ".join(f"{name} = {value_text(value)}" for name, value in settings.items())


def ranges_text(ranges: Ranges) -> str:
    """Return ranges as they are written."""
    return "; ".join(f"{name} = {each.text()}" for name, each in ranges.items())


def read_ranges(text: str, settings: type, search: Mapping[str, str], grid: Grid | None = None) -> Ranges:
    """Read ranges; what they do not name keeps the range that the model declares.

    Parameters
    ----------
    text : str
        Ranges, separated by semicolons or line ends. A single value is not searched but set. Whole numbers
        are written as such; lists of names as ``season+weekday``, an empty one as ``none``.
    settings : type
        Dataclass of the settings of a model.
    search : mapping
        The ranges that the model declares, see :attr:`~..models.base.Forecaster.search`.
    grid : Grid, optional
        Of the cube; needed for ``coarsen`` and ``cell_size``.

    Returns
    -------
    dict
        In the order of the settings, ``coarsen`` last.

    Raises
    ------
    InputError
        Something is written wrongly, or a setting has a value that is possible in no combination. The
        error names the part.
    """
    defaults = {field.name: default_of(field) for field in dataclasses.fields(settings)}
    known = [name for name in defaults if name not in _NOT_SEARCHED]
    written: dict[str, str] = {}
    for part in text.replace("\n", ";").split(";"):
        if not part.strip():
            continue
        name, equals, values = (word.strip() for word in part.partition("="))
        if not equals or not name or not values:
            raise _wrong("This is no range.", part, _FORM)
        if name not in (*known, COARSEN, CELL_SIZE):
            raise _wrong(
                f"The model has no setting '{name}' to search.",
                part,
                f"It has: {', '.join(known)}; besides there are {COARSEN} and {CELL_SIZE} for larger cells.",
            )
        if name in written:
            raise _wrong(f"'{name}' is named twice.", part, "Name it once.")
        written[name] = values
    ranges = {
        name: _range(f"{name} = {values}", values, defaults[name])
        for name in known
        for values in (written.get(name, search.get(name, "")),)
        if values
    }
    _check_possible(ranges, settings)
    blocks = _blocks(written, grid)
    return ranges | ({COARSEN: blocks} if blocks else {})


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting."""
    if field.default is dataclasses.MISSING:
        raise ValueError(f"{field.name} has no default")
    return field.default


def _range(part: str, text: str, default: Any) -> Range:
    """Read what stands behind the equals sign; the default tells the kind of the values."""
    if ".." in text:
        return _numbers(part, text, default)
    values = tuple(_value(part, word.strip(), default) for word in text.split(","))
    if len(set(values)) < len(values):
        raise _wrong("A value is named twice.", part, "Name it once.")
    return Choices(values)


def _numbers(part: str, text: str, default: Any) -> Numbers:
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        raise _wrong("This setting is no number and has no range.", part, "Name its values: one, another.")
    first, last, log = _LIMITS.fullmatch(text).groups()  # type: ignore[union-attr]
    if log not in ("", "log"):
        raise _wrong(f"'{log}' has no meaning here.", part, _FORM)
    low, high = (_value(part, word, default) for word in (first, last))
    if low >= high:
        raise _wrong("The range ends before it begins.", part, "Write the smaller number first.")
    if log and low <= 0:
        raise _wrong("A log range begins above 0.", part, "Begin higher, or leave out 'log'.")
    return Numbers(low, high, bool(log), isinstance(default, int))


def _value(part: str, word: str, default: Any) -> Any:
    """Read one value of the kind of the default."""
    if not word:
        raise _wrong("A value is missing.", part, _FORM)
    try:
        return read_value(word, default)
    except ValueError as error:
        raise _wrong(str(error), part, _FORM) from error


def _check_possible(ranges: Ranges, settings: type) -> None:
    """Refuse values that are possible in no combination with those of the other settings."""
    values = {name: each.ends for name, each in ranges.items()}
    for name in ONE_VALUE:
        if name in values and len(values[name]) > 1:
            raise _wrong(
                f"'{name}' says what is forecast, so that scores with different values cannot be compared.",
                f"{name} = {ranges[name].text()}",
                "Give it one value.",
            )
    if math.prod(map(len, values.values())) > _MOST_COMBINATIONS:
        return
    missing = {(name, value): "" for name, some in values.items() for value in some}
    for combination in itertools.product(*values.values()):
        pairs = list(zip(values, combination))
        try:
            settings(**dict(pairs))
        except InputError as error:
            for pair in pairs:
                if pair in missing and error.parameter == pair[0].upper():
                    missing[pair] = f"{error.message} {error.hint}".strip()
        else:
            for pair in pairs:
                missing.pop(pair, None)
    for (name, value), reason in missing.items():
        if reason:
            raise _wrong(
                f"The value {value_text(value)} cannot be used: {reason}",
                f"{name} = {ranges[name].text()}",
                "Change or leave out this value.",
            )


def _blocks(written: Mapping[str, str], grid: Grid | None) -> Range | None:
    """Return the range of ``coarsen``, of which ``cell_size`` is another way to say it."""
    if COARSEN in written and CELL_SIZE in written:
        raise _wrong(
            f"'{COARSEN}' and '{CELL_SIZE}' say the same.",
            f"{CELL_SIZE} = {written[CELL_SIZE]}",
            "Name one of them.",
        )
    if COARSEN in written:
        part = f"{COARSEN} = {written[COARSEN]}"
        blocks = _range(part, written[COARSEN], 1)
        most = max(grid.shape) if grid else blocks.ends[-1]
        for value in blocks.ends:
            if not 1 <= value <= most:
                raise _wrong(
                    f"Cells can be put together in blocks of 1 to {most} cells a side, not of {value}.",
                    part,
                    "Give whole numbers such as 1, 2, 3.",
                )
        return blocks
    if CELL_SIZE not in written:
        return None
    assert grid is not None, "a cell size needs a grid"
    return _blocks_of_size(f"{CELL_SIZE} = {written[CELL_SIZE]}", written[CELL_SIZE], grid)


def _blocks_of_size(part: str, text: str, grid: Grid) -> Choices:
    width = grid.cell_dimensions[0]
    sizes = _range(part, text, 1.0)
    factors: Iterable[int]
    if isinstance(sizes, Numbers):
        # The true width of a cell differs by a little from its nominal one.
        first, last = sizes.low / width * 0.995, sizes.high / width * 1.005
        factors = range(max(1, math.ceil(first)), min(int(last), max(grid.shape)) + 1)
    else:
        factors = [round(size / width) for size in sizes.values]
        for size, factor in zip(sizes.values, factors):
            if not 1 <= factor <= max(grid.shape) or abs(factor * width / size - 1) > 0.01:
                raise _wrong(
                    f"Cells of {size:g} m cannot be made of the cells of CUBE, which are {width:.0f} m wide.",
                    part,
                    f"Choose whole multiples of {width:.0f}.",
                )
    if not factors:
        raise _wrong(
            f"No whole multiple of the cells of CUBE, which are {width:.0f} m wide, lies in this range.",
            part,
            f"Choose a range that holds {width:.0f} or {2 * width:.0f}.",
        )
    return Choices(tuple(factors))


def searched(ranges: Ranges) -> Ranges:
    """Return the ranges with more than one value."""
    return {name: each for name, each in ranges.items() if each.size > 1}


def combinations(ranges: Ranges) -> float:
    """Return how many combinations there are; infinite if a number may have decimals."""
    return math.prod(each.size for each in ranges.values())


def every_combination(ranges: Ranges) -> Iterator[dict[str, Any]]:
    """Yield all combinations, of which there are not infinitely many."""
    lists = (
        range(int(each.low), int(each.high) + 1) if isinstance(each, Numbers) else each.values
        for each in ranges.values()
    )
    for values in itertools.product(*lists):
        yield dict(zip(ranges, values))


def _wrong(message: str, part: str, hint: str) -> InputError:
    return InputError(message, hint=hint, parameter="RANGES", value=part.strip())
