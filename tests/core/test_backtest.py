# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtests: rolling origins, what a forecast may know, the league table, the verdict and the report."""

from __future__ import annotations

import re

import numpy as np
import pyogrio.raw
import pytest
from synthetic import Recorder, changed, files_in, make_cube

from gridcast_qgis.core.coarsening import placed_cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.backtest import Answers, Entrant, Plan, backtest, check_entrants
from gridcast_qgis.core.evaluation.league import League, make_league, observed
from gridcast_qgis.core.evaluation.metrics import mean_squared_error, poisson_deviance
from gridcast_qgis.core.evaluation.page import page
from gridcast_qgis.core.evaluation.significance import diebold_mariano
from gridcast_qgis.core.evaluation.verdict import CAUTION, GOOD, verdict
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.modelfile import save_model
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.registry import is_network, model_class, model_keys
from gridcast_qgis.core.models.settingstext import parse_settings
from gridcast_qgis.core.training.splits import chronological_split

SIMPLE = Entrant("average", "historical_average")
WEEKDAY = Entrant("weekday", "weekday_average")
TINY = {"filters": 1, "kernel": 1, "lookback": 3, "epochs": 1, "batch_size": 32}
NETWORK = Entrant("net", "convlstm", TINY)


class Noted(Forecaster):
    """A model that notes what it is given to learn from, and forecasts how many steps it has seen."""

    key, title = "noted", "Noted"
    fits: list[tuple]

    def __init__(self):
        self.fits = []

    history = 2

    def fit(self, cube, split, reporter, *, checkpoint=None, start=None):
        self.fits.append((len(cube), cube.axis.starts[0], split, start))
        Noted.all_fits.append(self.fits[-1])
        return self

    def predict_next(self, cube, start, stop):
        assert stop <= len(cube) + 1
        return np.broadcast_to(
            np.arange(start, stop, dtype=np.float32)[:, None, None], (stop - start, *cube.grid.shape)
        )

    def state(self):
        raise NotImplementedError

    @classmethod
    def restore(cls, settings, state):
        raise NotImplementedError


@pytest.fixture
def noted(monkeypatch):
    Noted.all_fits = []
    monkeypatch.setattr("gridcast_qgis.core.evaluation.backtest.model_class", lambda key: Noted)
    return Entrant("noted", "historical_average")


# The plan ----------------------------------------------------------------------------------------------


def test_origins_roll_until_the_last_whole_forecast():
    assert Plan.rolling(10, 31, 7, 7).origins == (10, 17, 24)
    assert Plan.rolling(10, 30, 7, 7).origins == (10, 17)
    assert Plan.rolling(10, 14, 1).origins == (10, 11, 12, 13)
    assert Plan.rolling(10, 20, 2, 5).origins == (10, 12, 14)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"every": 0}, "EVERY = 0: The value must be at least 1."),
        ({"horizon": 0}, "HORIZON = 0: The value must be at least 1."),
        ({"refit_every": 0}, "REFIT_EVERY = 0: The value must be at least 1."),
        (
            {"window": -1},
            "WINDOW = -1: The window must not be negative. Give 0 to learn from all steps before",
        ),
        ({"refit": "daily"}, "REFIT = daily: There is no such choice. Choose one of once, anew, warm."),
        (
            {"horizon": 10},
            "FIRST_ORIGIN: Between the first origin and the end there is room for 1 forecasts of 10 steps; "
            "a backtest needs at least 2. Choose an earlier FIRST_ORIGIN",
        ),
    ],
)
def test_a_plan_that_cannot_be(values, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        Plan.rolling(**{"first": 10, "stop": 20, "every": 1, **values})


def test_pieces_share_a_fit():
    numbers = lambda **values: [piece.numbers for piece in Plan((5, 6, 7, 8, 9), **values).pieces(SIMPLE)]  # noqa: E731
    assert numbers() == [(0, 1, 2, 3, 4)]
    assert numbers(refit="anew", refit_every=2) == [(0, 1), (2, 3), (4,)]
    # What goes on from the fit before cannot be cut.
    assert numbers(refit="warm", refit_every=2) == [(0, 1, 2, 3, 4)]
    with_file = Entrant("file", "convlstm", file="model.gridcast")
    assert len(Plan((5, 6, 7), refit="anew").pieces(with_file)) == 1


# What is learned when ----------------------------------------------------------------------------------


def test_models_learn_from_what_came_before_the_first_origin(noted):
    cube = make_cube(40)
    backtest(cube, [noted], Plan.rolling(30, 40, 3, 2))
    assert [(length, split) for length, _, split, _ in Noted.all_fits] == [
        (30, chronological_split(30, 2, 15.0))
    ]


def test_models_are_fitted_anew(noted):
    cube = make_cube(40)
    plan = Plan.rolling(30, 40, 2, 2, refit="anew", refit_every=2, validation_share=20.0)
    assert plan.origins == (30, 32, 34, 36, 38)
    backtest(cube, [noted], plan)
    assert [(length, start) for length, _, _, start in Noted.all_fits] == [(30, None), (34, None), (38, None)]
    assert Noted.all_fits[1][2] == chronological_split(34, 2, 20.0)


def test_models_go_on_from_where_they_were(noted):
    backtest(make_cube(40), [noted], Plan.rolling(30, 40, 2, 2, refit="warm", refit_every=2))
    lengths = [length for length, _, _, _ in Noted.all_fits]
    assert lengths == [30, 34, 38]
    assert Noted.all_fits[0][3] is None
    assert all(isinstance(start, Noted) for _, _, _, start in Noted.all_fits[1:])


def test_the_window_slides(noted):
    cube = make_cube(40)
    backtest(cube, [noted], Plan.rolling(30, 40, 5, 1, refit="anew", window=12))
    assert [(length, first) for length, first, _, _ in Noted.all_fits] == [
        (12, cube.axis.starts[18]),
        (12, cube.axis.starts[23]),
    ]


def test_consecutive_steps_are_forecast_from_the_eve_of_each(noted):
    cube = make_cube(40)
    league = backtest(cube, [noted], Plan.rolling(30, 40, 1))
    values = league.answers["noted"].values
    assert values.shape == (10, 1, *cube.grid.shape)
    assert values[:, 0, 3, 3].tolist() == list(range(30, 40))


@pytest.mark.parametrize(
    ("entrant", "every", "horizon", "refit"),
    [
        (SIMPLE, 1, 1, "once"),
        (SIMPLE, 3, 3, "once"),
        (WEEKDAY, 1, 1, "once"),
        (WEEKDAY, 5, 2, "anew"),
        (NETWORK, 5, 1, "anew"),
    ],
)
def test_nothing_is_known_of_the_future(entrant, every, horizon, refit):
    cube = make_cube(60)
    plan = Plan.rolling(44, 60, every, horizon, refit=refit, refit_every=2)
    marked = cube.events.copy()
    at = plan.origins[2]
    # From the third origin on everything is different, beyond anything that a model would forecast.
    marked[at:, :, cube.grid.valid] += 1000
    plain, planted = (
        Answers.joined([piece.run(each, Recorder()) for piece in plan.pieces(entrant)])
        for each in (cube, changed(cube, marked))
    )
    same = np.isclose(plain.values[:3], planted.values[:3], rtol=1e-5, equal_nan=True)
    assert same.all()
    if at + 1 < plan.origins[-1]:
        assert not np.allclose(plain.values[-1], planted.values[-1], equal_nan=True)


def test_the_marker_is_in_what_is_judged():
    cube = make_cube(60)
    plan = Plan.rolling(44, 60, 4, 4)
    marked = cube.events.copy()
    marked[50, 0, 3, 3] += 1000
    league = backtest(changed(cube, marked), [SIMPLE], plan)
    assert league.observed[1, 2, 3, 3] >= 1000
    assert league.standings[0].hits.at(0).events[1] >= 1000


def test_a_cancelled_backtest_stops():
    reporter = Recorder(cancel_when=lambda event: event["event"] == "stage" and event["name"] == "weekday")
    with pytest.raises(JobCancelled):
        backtest(make_cube(60), [SIMPLE, WEEKDAY], Plan.rolling(40, 60, 3, 3), reporter)


# Model files -------------------------------------------------------------------------------------------


def saved_until(cube, tmp_path, until: int):
    from gridcast_qgis.core.jobs.common import describe_cube

    path = tmp_path / "mine.gridcast"
    manifest = {"cube": describe_cube(cube), "types": None, "known_until": str(cube.axis.edges[until])}
    save_model(model_class("historical_average")(), path, manifest)
    return Entrant("mine", "historical_average", file=str(path))


def test_a_model_file_is_applied_as_it_is(tmp_path):
    cube = make_cube(60)
    plan = Plan.rolling(44, 60, 4, 4, refit="anew")
    league = backtest(cube, [SIMPLE, saved_until(cube, tmp_path, 44)], plan)
    mine, average = (league.answers[name].values for name in ("mine", "average"))
    assert np.array_equal(mine, average, equal_nan=True)


def test_a_model_file_must_not_know_what_it_is_tested_on(tmp_path):
    cube = make_cube(60)
    entrant = saved_until(cube, tmp_path, 45)
    with pytest.raises(
        InputError, match=r"mine\.gridcast: The model has seen events until 2024-03-17T04:00:00 "
    ):
        backtest(cube, [entrant], Plan.rolling(44, 60, 4, 4))
    backtest(cube, [entrant], Plan.rolling(45, 60, 4, 4))


# The league table --------------------------------------------------------------------------------------


def answered(cube, plan, expected: np.ndarray, title: str = "Made", parameters: int = 0) -> Answers:
    values = np.where(cube.grid.valid, expected, np.nan).astype(np.float32)
    shape = (len(plan.origins), plan.horizon, *cube.grid.shape)
    values = np.broadcast_to(values, shape).copy()
    return Answers(values, values, -np.expm1(-values), title, parameters)


def made_league(loss: float = 0.0, *, noise: float = 0.3, seed: int = 1, **options) -> League:
    """Return a league of a simple method, and of a network that is that much nearer to the true rates."""
    cube = make_cube(200, seed=3)
    plan = Plan.rolling(100, 200, 4, 2)
    random = np.random.default_rng(seed)
    true = cube.total.mean(axis=0) + 0.02
    off = np.exp(random.normal(0, noise, true.shape))
    answers = {
        "average": answered(cube, plan, true * off),
        "net": answered(cube, plan, true * off ** (1 - loss), "ConvLSTM", 12),
    }
    return make_league(cube, plan, [SIMPLE, NETWORK], answers, **options)


def test_measures_are_those_of_all_origins_together():
    league = made_league(0.5)
    cube, plan = league.cube, league.plan
    happened = observed(cube, plan).reshape(-1, *cube.grid.shape)
    for standing in league.standings:
        expected = league.answers[standing.name].expected.reshape(-1, *cube.grid.shape)
        valid = cube.grid.valid
        assert standing.values["mse"].estimate == pytest.approx(mean_squared_error(happened, expected, valid))
        deviance = poisson_deviance(happened, expected, valid)
        assert standing.values["poisson_deviance"].estimate == pytest.approx(deviance)
        assert all(value.low <= value.estimate <= value.high for value in standing.values.values())


def test_area_is_flagged_once_for_the_horizon():
    cube = make_cube(30)
    plan = Plan((20, 24), 3)
    rate = np.arange(cube.total[0].size, dtype=float).reshape(cube.grid.shape)
    answers = {"average": answered(cube, plan, rate)}
    league = make_league(cube, plan, [SIMPLE], answers, area_shares=[5.0])
    hits = league.standings[0].hits.at(0)
    # 5 % of the area of 38.75 cells are 1.9 cells: the quarter of a cell at (2, 3), the densest, and the last
    # one inside, (5, 5).
    flagged = np.zeros(cube.grid.shape, bool)
    flagged[[2, 5], [3, 5]] = True
    assert hits.flagged_area == pytest.approx([cube.grid.inside_area[flagged].sum()] * 2)
    assert hits.hits.tolist() == [cube.total[20:23, flagged].sum(), cube.total[24:27, flagged].sum()]


def test_the_table_has_a_row_for_each_model_best_first():
    league = made_league(0.9, area_shares=[2.5, 10.0], top=5)
    table = league.table()
    assert table.model.tolist() == ["net", "average"]
    assert table.simple.tolist() == [False, True]
    assert table.weights.tolist() == [12, 0]
    assert table.poisson_deviance.is_monotonic_increasing
    assert {"pai_2_5", "pai_10_low", "hit_rate_2_5_high", "pei_10", "ndcg_5", "precision_5"} <= set(table)
    assert np.isnan(table.p_mse[1]) and 0 <= table.p_mse[0] <= 1


def test_others_are_tested_against_the_best_simple_method():
    league = made_league(0.9)
    net, average = league.standing("net"), league.standing("average")
    expected = diebold_mariano(net.errors.mse, average.errors.mse, horizon=1)
    assert net.against["mse"] == expected
    assert average.against == {}
    assert league.best_simple is average and league.best_other is net


def test_each_origin_has_a_row():
    league = made_league(0.5)
    table = league.origins_table()
    assert len(table) == 2 * len(league.plan.origins)
    one = table[(table.model == "net") & (table.origin == 3)].iloc[0]
    origin = league.plan.origins[2]
    assert one.start == league.cube.axis.edges[origin]
    assert one.end == league.cube.axis.edges[origin + 2]
    assert one.events == league.cube.total[origin : origin + 2].sum()
    assert one.expected == pytest.approx(np.nansum(league.answers["net"].expected[2]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"area_shares": [0.0]},
            "AREA_SHARES = 0.0: A share of the area lies above 0 and at most at 100 percent.",
        ),
        ({"area_shares": []}, "AREA_SHARES: There is no share of the area"),
        ({"top": 0}, "TOP_CELLS = 0: There is no share of the area, or no number of cells, to judge by."),
    ],
)
def test_budgets_that_cannot_be(options, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        made_league(**options)


def test_a_classifier_is_ranked_and_its_hits_are_counted():
    cube = make_cube(60)
    settings = {"lookback": 2, "label_value": 3.0, "units": 2, "dense": 2, "epochs": 1}
    entrants = [SIMPLE, Entrant("hot", "cell_lstm", settings)]
    league = backtest(cube, entrants, Plan.rolling(44, 60, 2, 2))
    hot = league.standing("hot")
    assert league.standings[-1] is hot
    assert hot.errors is None and "mse" not in hot.values and np.isnan(league.table().mse.iloc[-1])
    assert 0 <= hot.values["auc"].estimate <= 1
    assert set(hot.against) == {"missed"}
    assert "Events missed over" in page(league, verdict(league), "now")


@pytest.mark.parametrize(
    ("entrants", "text"),
    [
        ([], "MODELS: There is no model to test."),
        ([SIMPLE, Entrant("average", "weekday_average")], "MODELS = average: Two models have the same name."),
    ],
)
def test_models_that_cannot_be_told_apart(entrants, text):
    with pytest.raises(InputError, match=f"^{text}"):
        check_entrants(entrants)


def test_networks_are_those_of_keras():
    baselines = {
        "historical_average",
        "weekday_average",
        "seasonal_naive",
        "ewma",
        "kde",
        "promap",
        "self_exciting",
        "boosted_trees",
    }
    for key in model_keys():
        assert is_network(key) == (key not in baselines)


# The verdict -------------------------------------------------------------------------------------------


def test_a_network_that_is_better_beyond_chance_is_recommended():
    said = verdict(made_league(0.9))
    assert (said.level, said.use) == (GOOD, "net")
    assert said.title == "net beats every simple method here; use it."
    assert said.gain > 0 and said.p_value < 0.05
    assert "lower than that of average (Diebold-Mariano p " in said.text


def test_a_network_that_is_worse_is_not():
    said = verdict(made_league(-0.9))
    assert (said.level, said.use) == (CAUTION, "average")
    assert said.title == "net does not beat average here; use average."
    assert said.gain < 0
    assert "higher than that of average" in said.text


def test_a_network_that_is_ahead_by_chance_is_not():
    league = made_league(0.0)
    cube, plan = league.cube, league.plan
    answers = {
        name: answered(
            cube, plan, league.answers["average"].values * np.exp(random.normal(0, 0.2, (25, 2, 1, 1)))
        )
        for name, random in (("average", np.random.default_rng(4)), ("net", np.random.default_rng(5)))
    }
    pair = make_league(cube, plan, [SIMPLE, NETWORK], answers)
    if pair.standings[0].name == "average":
        answers = {"average": answers["net"], "net": answers["average"]}
        pair = make_league(cube, plan, [SIMPLE, NETWORK], answers)
    said = verdict(pair)
    assert pair.standings[0].name == "net"
    assert said.p_value >= 0.05 and said.gain > 0
    assert (said.level, said.use) == (CAUTION, "average")
    assert "by no more than chance" in said.title


def test_without_a_network_there_is_nothing_to_compare():
    league = backtest(make_cube(60), [SIMPLE, WEEKDAY], Plan.rolling(44, 60, 4, 4))
    said = verdict(league)
    assert said.level == CAUTION and said.use == league.standings[0].name
    assert said.text == "No network took part to compare it with."
    assert np.isnan(said.gain)


# Settings in a line ------------------------------------------------------------------------------------


def test_settings_are_read_from_a_line():
    text = " convlstm.epochs = 5; convlstm.base_rate=no;convlstm.learning_rate = 0.01 ; "
    text += "convlstm.channels = season+weekday"
    assert parse_settings(text, ("convlstm",)) == {
        "convlstm": {
            "epochs": 5,
            "base_rate": False,
            "learning_rate": 0.01,
            "channels": ("season", "weekday"),
        }
    }
    assert parse_settings("", ()) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 5", "SETTINGS = epochs = 5: This is no setting. Write convlstm.epochs = 5"),
        ("convlstm.epochs", "SETTINGS = convlstm.epochs: This is no setting."),
        (
            "hetero.epochs = 5",
            "SETTINGS = hetero.epochs = 5: 'hetero' is none of the models that are fitted here.",
        ),
        (
            "convlstm.depth = 5",
            "SETTINGS = convlstm.depth = 5: The model 'convlstm' has no such setting. It has",
        ),
        ("convlstm.epochs = many", "SETTINGS = convlstm.epochs = many: 'many' is no number."),
        ("convlstm.base_rate = 2", "SETTINGS = convlstm.base_rate = 2: '2' is neither yes nor no."),
        (
            "historical_average.x = 2",
            "SETTINGS = historical_average.x = 2: The model 'historical_average' has no",
        ),
    ],
)
def test_settings_that_cannot_be_read(text, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        parse_settings(text, ("convlstm", "historical_average"))


# The job -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cube_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("backtest") / "cube.nc"
    make_cube(120).write(path)
    return path


def request_for(cube_file, folder, **values) -> dict:
    usual = {
        "cube": str(cube_file),
        "output": str(folder / "report.html"),
        "models": ["historical_average", "weekday_average", "convlstm"],
        "settings": "convlstm.filters = 1; convlstm.kernel = 1; convlstm.epochs = 1",
        "first_origin": "2024-05-01",
        "until": "2024-05-22",
        "horizon": 7,
        "area_shares": [5.0, 20.0],
    }
    return {**usual, **values}


def test_the_job_writes_report_and_tables(cube_file, tmp_path):
    layers = {f"{name}_output": str(tmp_path / f"{name}.gpkg") for name in ("table", "origins", "hits")}
    reporter = Recorder()
    made = run_job("backtest", request_for(cube_file, tmp_path, **layers), reporter)
    assert files_in(tmp_path) == ["hits.gpkg", "origins.gpkg", "report.html", "table.gpkg"]
    assert made["forecasts"] == 3
    assert made["use"] in ("historical_average", "weekday_average", "convlstm")
    assert made["best_network"] == "convlstm"
    fields = pyogrio.raw.read(layers["table_output"])
    assert fields[2] is None or all(shape is None for shape in fields[2])
    assert set(fields[3][list(fields[0]["fields"]).index("model")]) == {
        "historical_average",
        "weekday_average",
        "convlstm",
    }
    assert len(pyogrio.raw.read(layers["origins_output"])[3][0]) == 9
    hits = pyogrio.raw.read(layers["hits_output"])
    columns = dict(zip(hits[0]["fields"], hits[3]))
    assert set(columns["kind"]) <= {"hit", "false alarm", "missed"}
    assert ((columns["events"] > 0) == (columns["kind"] != "false alarm")).all()
    assert set(columns["origin"]) == {1, 2, 3}
    messages = [event["text"] for event in reporter.events if event["event"] == "message"]
    assert messages[-1] == made["verdict"]


def test_the_report_needs_nothing_else(cube_file, tmp_path):
    simple = {"models": ["historical_average", "weekday_average"], "settings": ""}
    run_job("backtest", request_for(cube_file, tmp_path, **simple), Recorder())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "League table" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.count("<img") == 5
    assert "1 May 2024 to 21 May 2024" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"models": [], "settings": ""}, "MODELS: There is no model to test."),
        ({"models": ["oracle"], "settings": ""}, "MODEL = oracle: Unknown model."),
        ({"settings": "convlstm.kernel = 2"}, "KERNEL = 2: The kernel must have an odd number of cells"),
        ({"model_files": ["missing.gridcast"]}, "MODEL_FILES = missing.gridcast"),
        (
            {"first_origin": "2024-05-16"},
            "FIRST_ORIGIN: Between the first origin and the end there is room for 0",
        ),
        ({"first_origin": "2030-01-01"}, "FIRST_ORIGIN = 2030-01-01"),
        ({"area_shares": [500.0]}, "AREA_SHARES = 500.0: A share of the area"),
    ],
)
def test_bad_input_leaves_nothing(cube_file, tmp_path, values, text):
    layers = {"table_output": str(tmp_path / "table.gpkg")}
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        run_job("backtest", request_for(cube_file, tmp_path, **layers, **values), Recorder())
    assert files_in(tmp_path) == []


def test_a_piece_may_run_anywhere():
    cube = make_cube(60)
    plan = Plan.rolling(44, 60, 8, 4, refit="anew")
    pieces = plan.pieces(NETWORK)
    first, second = (piece.run(cube, Recorder()) for piece in pieces[::-1])
    again = pieces[1].run(cube, Recorder())
    assert np.array_equal(first.values, again.values, equal_nan=True)
    assert not np.array_equal(first.values, second.values, equal_nan=True)


def test_the_grid_is_laid_elsewhere(cube_file, tmp_path):
    simple = {"models": ["historical_average", "weekday_average"], "settings": "", "placings": 2}
    reporter = Recorder()
    run_job("backtest", request_for(cube_file, tmp_path, **simple), reporter)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Does it matter where the grid was laid?" in text
    found = [event["text"] for event in reporter.events if "over 4 placings" in str(event.get("text"))]
    assert [line.split(":")[0] for line in found] == ["historical_average", "weekday_average"]
    with pytest.raises(InputError, match="^PLACINGS = 4: Blocks may have 1 to 3 cells a side here."):
        run_job("backtest", request_for(cube_file, tmp_path, **{**simple, "placings": 4}), reporter)


def test_a_placing_keeps_events_and_area():
    cube = make_cube(5)
    for rows in (0, 1):
        for columns in (0, 1):
            placed = placed_cube(cube, 2, rows, columns)
            assert placed.events.sum() == cube.events.sum()
            assert placed.grid.inside_area.sum() == pytest.approx(cube.grid.inside_area.sum(), rel=1e-4)
    placed = placed_cube(cube, 2, 1, 0)
    # The first row of blocks holds the first row of cells, the second one the next two.
    assert placed.total[0, 0, 1] == cube.total[0, 0, 2:4].sum()
    assert placed.total[0, 1, 1] == cube.total[0, 1:3, 2:4].sum()
    x, y = cube.grid.centres()
    wide_x, wide_y = placed.grid.centres()
    assert wide_x[1, 1] == pytest.approx(x[1, 2:4].mean())
    assert wide_y[1, 1] == pytest.approx(y[1:3, 2].mean())


def test_an_output_that_cannot_be_written_leaves_none(cube_file, tmp_path):
    simple = {"models": ["historical_average", "weekday_average"], "settings": ""}
    layers = {
        "table_output": str(tmp_path / "table.gpkg"),
        "hits_output": str(tmp_path / "missing" / "hits.gpkg"),
    }
    with pytest.raises(InputError, match="^HITS = "):
        run_job("backtest", request_for(cube_file, tmp_path, **simple, **layers), Recorder())
    assert files_in(tmp_path) == []
