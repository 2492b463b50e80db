# SPDX-License-Identifier: GPL-2.0-or-later
"""The search for settings: what is judged on what, what is tried next, and studies that go on."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scaledmodels import Scaled, register
from synthetic import Recorder, changed, files_in, make_cube

from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training import advice
from gridcast_qgis.core.training.outcome import Outcome
from gridcast_qgis.core.training.splits import chronological_split, expanding_folds
from gridcast_qgis.core.training.study import COMPLETE, FAILED, PRUNED, Study, Trial
from gridcast_qgis.core.training.tune import GivenUp, Judging, Search, judge

STEPS = 60


@pytest.fixture(autouse=True)
def models(monkeypatch):
    register(monkeypatch.setitem)


@pytest.fixture(scope="module")
def cube():
    return make_cube(STEPS)


def run(cube, count=8, *, path=None, reporter=None, at_once=1, **search) -> tuple[Outcome, Study]:
    """Search on a cube, and return what came of it."""
    prepared = Search(**({"model": "scaled"} | search)).prepare(cube)
    study = prepared.open_study(cube, path)
    prepared.run(study, count, prepared.here(cube, study), reporter, at_once=at_once)
    return Outcome.of(prepared, study), study


def plain(study: Study) -> list[dict]:
    """Return the trials without times."""
    return [dataclasses.asdict(trial) | {"seconds": 0} for trial in study.trials]


def judging_of(cube, model="scaled", objective="deviance", folds=1, **more) -> Judging:
    splits = expanding_folds(len(cube), 4, 20, folds)
    periods = [(split.validation_start, split.validation_stop) for split in splits]
    return Judging(model, objective, 20.0, periods, 20.0, 4, **more)


# -- how settings are judged ---------------------------------------------------------------------


@pytest.mark.parametrize("model", ["scaled", "probability", "hot"])
@pytest.mark.parametrize("objective", ["deviance", "mse", "auc", "hit_rate"])
def test_the_score_is_of_all_folds_together(cube, model, objective):
    judging = judging_of(cube, model, objective, folds=3)
    found = judge(cube, judging, {"factor": 1.5})
    steps = np.concatenate([np.arange(*fold) for fold in judging.folds])
    assert list(steps) == list(range(steps[0], STEPS))
    fitted = model_class(model)(factor=1.5)
    prediction = fitted.predict_next(cube, steps[0], STEPS)
    valid, area = cube.grid.valid, cube.grid.inside_area
    observed, expected = cube.total[steps], fitted.expected_events(prediction)
    wanted = {
        "deviance": lambda: poisson_deviance(observed, expected, valid),
        "mse": lambda: mean_squared_error(observed, expected, valid),
        "auc": lambda: (
            score(
                fitted.outcome(cube, steps[0], STEPS)[:, valid], fitted.probability(prediction)[:, valid]
            ).auc
        ),
        "hit_rate": lambda: hit_rate(observed, expected, area, 20.0).rate,
    }
    assert found.score == pytest.approx(wanted[objective](), rel=1e-6)
    assert len(found.fold_scores) == 3 and found.epochs == 12


def test_a_training_sees_nothing_of_its_fold(cube):
    judging = judging_of(cube, folds=3)
    judge(cube, judging, {"lookback": 2})
    assert [seen[0] for seen in Scaled.seen] == [start for start, _ in judging.folds]
    for (start, _), (_, split, _) in zip(judging.folds, Scaled.seen):
        # Its own last steps decide when it stops.
        furthest = chronological_split(start, 4, 20)
        assert (split.validation_start, split.validation_stop) == (furthest.validation_start, start)
        assert (split.train_start, split.train_stop) == (2, split.validation_start - 2)


def test_what_comes_after_until_changes_nothing(cube, tmp_path):
    """Later events, as many as one likes, leave every trial as it is, and the study can be gone on with."""
    marked = cube.events.copy()
    marked[50:] += 1000
    files = []
    for name, each in (("plain", cube), ("marked", changed(cube, marked))):
        each.write(tmp_path / f"{name}.nc")
        request = {
            "cube": str(tmp_path / f"{name}.nc"),
            "output": str(tmp_path / f"{name}.gridcast"),
            "model": "scaled",
            "until": cube.axis.isoformat(49)[1][:19],
            "trials": 4,
            "study": str(tmp_path / "study.json") if name == "plain" else str(tmp_path / "other.json"),
        }
        Scaled.seen = []
        run_job("tune", request, Reporter())
        assert max(seen[0] for seen in Scaled.seen) == 50
        files.append(json.loads((tmp_path / request["study"]).read_text()))
    for file in files:
        for trial in file["trials"]:
            trial.pop("seconds")
    assert files[0] == files[1]


def test_larger_cells_are_scored_on_the_original_ones(cube):
    """A block that is spread by area, worked out by hand from the counts of blocks."""
    judging = judging_of(cube)
    found = judge(cube, judging, {"coarsen": 2, "factor": 1.0})
    (start, stop), grid = judging.folds[0], cube.grid
    expected = np.zeros((stop - start, *grid.shape))
    for row in range(0, grid.shape[0], 2):
        for column in range(0, grid.shape[1], 2):
            block = np.s_[row : row + 2, column : column + 2]
            area = grid.inside_area[block]
            for step in range(start, stop):
                mean = cube.total[:step][:, block[0], block[1]].sum() / step
                expected[(step - start, *block)] = mean * area / max(area.sum(), 1)
    assert found.score == pytest.approx(
        poisson_deviance(cube.total[start:stop], expected, grid.valid), rel=1e-5
    )
    assert found.score != judge(cube, judging, {"coarsen": 1, "factor": 1.0}).score


def test_probabilities_of_larger_cells_are_spread_as_events(cube):
    # Equal forecasts are told apart by rounding, which moves the AUC a little.
    for objective, tolerance in (("deviance", 1e-5), ("auc", 1e-3)):
        by_events, by_probability = (
            judge(cube, judging_of(cube, model, objective), {"coarsen": 2, "factor": 1.0}).score
            for model in ("scaled", "probability")
        )
        assert by_probability == pytest.approx(by_events, rel=tolerance)


def test_a_trial_is_a_function_of_plain_values(cube, tmp_path):
    """What another process is told and answers is what this one comes to, giving up included."""
    cube.write(tmp_path / "cube.nc")
    search = Search("scaled", "factor = 0.5..60 log; coarsen = 1, 2", folds=2)
    prepared = search.prepare(cube)
    study = prepared.open_study(cube, None)
    prepared.run(study, 5, prepared.here(cube, study))
    states = set()
    for factor in (1.5, 50.0):
        settings = {"factor": factor, "coarsen": 2}
        request = {
            "cube": str(tmp_path / "cube.nc"),
            "search": dataclasses.asdict(search),
            "trials": [dataclasses.asdict(trial) for trial in study.trials],
            "number": 5,
            "settings": settings,
        }
        outputs = json.loads(json.dumps(run_job("run_trial", json.loads(json.dumps(request)), Reporter())))
        here = prepared.try_out(cube, study, 5, settings, Reporter())
        there = Trial.of(outputs)
        assert dataclasses.replace(there, seconds=here.seconds) == here
        states.add(here.state)
    assert states == {COMPLETE, PRUNED}
    assert files_in(tmp_path) == ["cube.nc"]


def test_a_trial_can_be_given_up_at_an_epoch_and_at_a_fold(cube):
    told: list[tuple] = []

    def at(part, step):
        def watch(*value):
            told.append(value[:2])
            return value[:2] == (part, step)

        return watch

    with pytest.raises(GivenUp):
        judge(cube, judging_of(cube, folds=3, by_epoch=True), {}, watch=at(1, 2))
    assert told == [(0, epoch) for epoch in range(5)] + [(1, 0), (1, 1), (1, 2)]
    told.clear()
    with pytest.raises(GivenUp):
        judge(cube, judging_of(cube, folds=3), {}, watch=at(1, advice.PRUNE_FROM))
    assert told == [(part, advice.PRUNE_FROM) for part in (0, 1)]


def test_a_trial_that_is_nearly_done_is_not_given_up(cube):
    """When all is trained, a score costs next to nothing."""
    told: list[tuple] = []

    def watch(*value):
        told.append(value[:2])
        return value[1] == 4

    with pytest.raises(GivenUp):
        judge(cube, judging_of(cube, folds=2, by_epoch=True), {}, watch=watch)
    assert told[-1] == (0, 4)
    told.clear()
    judge(cube, judging_of(cube, folds=1, by_epoch=True), {}, watch=watch)
    judge(cube, judging_of(cube, folds=2), {}, watch=watch)
    assert told[-2:] == [(0, 4), (0, advice.PRUNE_FROM)]


# -- what is tried -------------------------------------------------------------------------------


def test_the_first_trial_is_the_defaults_and_the_best_is_no_worse(cube):
    outcome, study = run(cube, 12)
    assert study.trials[0].settings == {"factor": 2.0}
    assert study.default is study.trials[0]
    assert outcome.best.score < study.default.score
    assert 0.6 < outcome.best.settings["factor"] < 1.6
    assert study.gain == pytest.approx(100 * (1 - outcome.best.score / study.default.score))
    assert outcome.verdict == (
        f"12 trials; the best is {study.gain:.2g} % better on validation than the defaults; factor mattered "
        "most."
    )


def test_defaults_that_are_best_are_kept(cube):
    outcome, study = run(cube, 5, ranges="factor = 8..9")
    assert outcome.best is study.default and not outcome.improved
    assert outcome.verdict == "5 trials; none is better on validation than the defaults: keep the defaults."
    assert study.gain == 0


def test_a_score_of_which_more_is_better(cube):
    outcome, study = run(cube, 6, ranges="factor = 2; lookback = 2..8", objective="hit_rate", folds=2)
    assert study.higher_is_better
    assert outcome.best.score == max(trial.score for trial in study.of(COMPLETE))
    assert 0 < outcome.best.score <= 1


def test_what_is_set_holds_for_the_defaults_too(cube):
    outcome, study = run(cube, 3, ranges="epochs = 2; level = 7")
    assert study.trials[0].settings == {"level": 7, "epochs": 2, "factor": 2.0}
    assert (
        {trial.settings["epochs"] for trial in study.trials}
        == {2}
        == {trial.epochs for trial in study.trials}
    )
    assert len({trial.settings["factor"] for trial in study.trials}) == 3
    assert "level = 7" in outcome.settings


def test_the_same_seed_is_the_same_study(cube):
    (_, one), (_, two), (_, other) = (run(cube, 9, seed=seed) for seed in (3, 3, 4))
    assert plain(one) == plain(two)
    assert plain(one)[0] == plain(other)[0]
    assert [t.settings for t in one.trials][1:] != [t.settings for t in other.trials][1:]


def test_the_search_learns_from_scores(cube):
    """Were the scores the other way round, it would go elsewhere."""
    prepared = Search("scaled").prepare(cube)
    study = prepared.open_study(cube, None)
    prepared.run(study, 12, prepared.here(cube, study))
    turned = Study(study.search, not study.higher_is_better, None, list(study.trials))
    right, wrong = (
        advice.propose(each, prepared.ranges, prepared.defaults, 1)[0]["factor"] for each in (study, turned)
    )
    best = study.best.settings["factor"]
    assert abs(np.log(right / best)) < 0.5 < abs(np.log(wrong / best))


def test_nothing_is_tried_twice_and_a_search_ends_with_the_combinations(cube):
    recorder = Recorder()
    ranges = "factor = 1, 2; level = 0..2; cells = all, none"
    _, study = run(cube, 40, ranges=ranges, reporter=recorder)
    tried = [tuple(trial.settings.values()) for trial in study.trials]
    assert len(tried) == 12 == len(set(tried))
    assert "All 12 combinations have been tried." in recorder.texts("info")


def test_a_large_space_without_chance_of_luck_is_not_repeated_either(cube, monkeypatch):
    """Where the sampler repeats itself, another combination is drawn."""
    monkeypatch.setattr(advice, "_REPEATS", 0)
    _, study = run(cube, 6, ranges="level = 0..100000; factor = 1, 2")
    assert len(study.trials) == 6 == len({trial.key for trial in study.trials})


def test_impossible_combinations_are_noted_and_the_search_goes_on(cube):
    recorder = Recorder()
    _, study = run(cube, 10, ranges="cells = all, none; level = 0..9", reporter=recorder)
    failed = study.of(FAILED)
    assert failed and len(study.trials) == 10
    assert {trial.settings["cells"] for trial in failed} == {"none"}
    assert {trial.error for trial in failed} == {"CELLS = none: There are no cells. Choose all."}
    assert all(trial.score is None for trial in failed)
    assert any("failed: CELLS = none" in text for text in recorder.texts("info"))


def test_a_search_in_which_everything_fails_says_why(cube):
    with pytest.raises(InputError) as caught:
        run(cube, 3, ranges="cells = none")
    assert "None of 3 trials has come to a score. The first one failed: CELLS = none: There are no" in (
        caught.value.text()
    )


def test_a_score_that_is_not_defined_is_a_failure():
    empty = make_cube(STEPS)
    empty.events[:] = 0
    with pytest.raises(InputError, match="The first one failed: The score is not defined on these steps."):
        run(empty, 2, objective="auc")


def test_bad_trials_are_given_up(cube):
    recorder = Recorder()
    _, study = run(cube, 30, ranges="factor = 0.5..60 log; level = 0..9", reporter=recorder)
    pruned = study.of(PRUNED)
    assert pruned and not study.of(FAILED)
    worst = max(trial.settings["factor"] for trial in study.of(COMPLETE))
    assert max(trial.settings["factor"] for trial in pruned) > worst / 4
    assert all(len(trial.values) < 5 and trial.score is None for trial in pruned)
    # The first ones are needed to compare with.
    assert {trial.state for trial in study.trials[: advice.PRUNE_AFTER]} == {COMPLETE}
    assert any("given up after" in text for text in recorder.texts("info"))


def test_folds_prune_where_losses_cannot_be_compared(cube):
    """Blocks of other sizes have other losses: only the scores of folds tell."""
    _, study = run(cube, 14, ranges="factor = 1..60 log; coarsen = 1, 2", folds=3)
    complete, pruned = study.of(COMPLETE), study.of(PRUNED)
    assert pruned
    assert {len(trial.values) for trial in complete} == {2}
    assert {trial.values[-1][:2] for trial in pruned} <= {(part, advice.PRUNE_FROM) for part in (0, 1)}
    assert {trial.settings["coarsen"] for trial in study.trials} == {1, 2}


def test_parts_differ_in_level_and_are_compared_by_distance(cube):
    """A hard fold is no reason to give up, an easy one none to go on."""
    prepared = Search("scaled", folds=2).prepare(cube)
    study = prepared.open_study(cube, None)
    prepared.run(study, advice.PRUNE_AFTER, prepared.here(cube, study))
    watcher = advice.Watcher(study, prepared.ranges, {"factor": 3.0})
    best = min(value for part, _, value in study.default.values if part == 1)
    assert not watcher.report(1, advice.PRUNE_FROM, best - 10)
    assert not watcher.report(0, advice.PRUNE_FROM, best + 1000)


def test_trials_that_are_chosen_together_lie_apart(cube):
    """A search with several at a time tries other settings, none twice, and ends in the same way."""
    _, one = run(cube, 13)
    outcome, four = run(cube, 13, at_once=4)
    assert len(four.trials) == 13 == len({trial.key for trial in four.trials})
    assert four.trials[0].settings == one.trials[0].settings == {"factor": 2.0}
    assert [trial.settings for trial in four.trials] != [trial.settings for trial in one.trials]
    assert 0.6 < outcome.best.settings["factor"] < 1.6
    _, all_of_them = run(cube, 40, at_once=5, ranges="factor = 1, 2; level = 0..2; cells = all, none")
    assert len(all_of_them.trials) == 12 == len({trial.key for trial in all_of_them.trials})


# -- what matters --------------------------------------------------------------------------------


def test_the_setting_that_matters_is_found(cube):
    outcome, _ = run(cube, 16, ranges="factor = 0.5..2 log; level = 0..50")
    assert list(outcome.importance)[0] == "factor"
    assert sum(outcome.importance.values()) == pytest.approx(1)
    assert outcome.importance["factor"] > 0.6


def test_few_trials_or_equal_ones_say_nothing(cube):
    assert run(cube, 4)[0].importance is None
    equal, _ = run(cube, 10, ranges="level = 0..50; factor = 2")
    assert equal.importance is None and not equal.improved


# -- studies that go on --------------------------------------------------------------------------


def test_a_study_that_was_broken_off_goes_on_as_if_it_had_not_been(cube, tmp_path):
    _, whole = run(cube, 10)
    path = tmp_path / "study.json"

    def third(event):
        return "Trial 3 of" in str(event.get("text"))

    with pytest.raises(JobCancelled):
        run(cube, 10, path=path, reporter=Recorder(cancel_when=third))
    assert len(json.loads(path.read_text())["trials"]) == 3
    recorder = Recorder()
    _, study = run(cube, 10, path=path, reporter=recorder)
    assert plain(study) == plain(whole)
    assert "The study has 3 trials; the search goes on after them." in recorder.texts("info")
    # What is there is enough for fewer trials, and a start for more.
    assert len(run(cube, 5, path=path)[1].trials) == 10
    assert len(run(cube, 12, path=path)[1].trials) == 12


def test_a_cancel_is_heard_within_a_batch(cube, tmp_path):
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress" and event["value"] > 45)
    with pytest.raises(JobCancelled):
        run(cube, 4, path=tmp_path / "study.json", reporter=reporter)
    assert len(json.loads((tmp_path / "study.json").read_text())["trials"]) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "probability"}, "MODEL"),
        ({"ranges": "factor = 1..2"}, "RANGES"),
        ({"objective": "mse"}, "OBJECTIVE"),
        ({"folds": 2, "seed": 2}, "FOLDS, SEED"),
        ({"validation_share": 20.0}, "VALIDATION_SHARE"),
    ],
)
def test_a_study_of_another_search_is_refused(cube, tmp_path, change, named):
    path = tmp_path / "study.json"
    run(cube, 1, path=path)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        run(cube, 2, path=path, **change)
    assert caught.value.text() == (
        f"STUDY = {path}: The study belongs to a search with other values of {named}. Repeat the values of "
        "that search to continue it, or delete the file, or choose another one."
    )
    assert path.read_bytes() == before


def test_a_study_of_other_data_is_refused(cube, tmp_path):
    path = tmp_path / "study.json"
    run(cube, 1, path=path)
    with pytest.raises(InputError, match="a search with other values of CUBE, TYPES or UNTIL"):
        run(make_cube(STEPS, seed=1), 2, path=path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace("study/1", "study/9"),
        lambda text: text.replace('"score"', '"points"'),
        lambda text: text.replace('"complete"', '"done"'),
        lambda text: text.replace('"number": 1', '"number": 7'),
    ],
)
def test_a_damaged_study_is_refused(cube, tmp_path, damage):
    path = tmp_path / "study.json"
    run(cube, 2, path=path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError) as caught:
        run(cube, 3, path=path)
    assert caught.value.parameter == "STUDY"
    assert "The study cannot be read" in caught.value.text()
    assert "Delete the file, or choose another one." in caught.value.text()


def test_a_limit_of_time_ends_the_search_after_the_first_trial(cube):
    prepared = Search("scaled").prepare(cube)
    study, recorder = prepared.open_study(cube, None), Recorder()
    prepared.run(study, 5, prepared.here(cube, study), recorder, time_limit=1e-9)
    assert len(study.trials) == 1
    assert "The time is up: 1 of 5 trials have been run." in recorder.texts("info")


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "parameter", "complaint"),
    [
        (
            {"model": "historical_average"},
            "RANGES",
            "There is nothing to search: no setting has more than one",
        ),
        ({"ranges": "factor = 1"}, "RANGES", "There is nothing to search"),
        ({"objective": "profit"}, "OBJECTIVE", "There is no such objective. Choose one of auto, deviance"),
        ({"model": "hot", "objective": "mse"}, "OBJECTIVE", "says which cells are hot, not how many events"),
        (
            {"model": "hot", "ranges": "coarsen = 1, 2"},
            "RANGES",
            "A hot cell of another size is another thing",
        ),
        ({"objective": "hit_rate", "area_share": 0}, "AREA_SHARE", "must be above 0 and at most 100 percent"),
        ({"folds": 0}, "FOLDS", "There must be at least one fold."),
        ({"validation_share": 60}, "VALIDATION_SHARE", "at most 50 percent"),
        ({"ranges": "lookback = 4..70"}, "LOOKBACK", "no more than the lookback of 70"),
        ({"ranges": "lookback = 4..27"}, "LOOKBACK", "nothing is left to train on"),
    ],
)
def test_a_search_that_makes_no_sense(cube, search, parameter, complaint):
    with pytest.raises(InputError) as caught:
        run(cube, 1, **search)
    assert caught.value.parameter == parameter
    assert complaint in caught.value.text()


def test_classifiers_are_judged_by_auc(cube):
    assert Search("hot").prepare(cube).judging.objective == "auc"
    assert Search("scaled").prepare(cube).judging.objective == "deviance"


def test_all_trials_are_stopped_and_scored_on_the_same_steps(cube):
    prepared = Search("scaled", "lookback = 2..11").prepare(cube)
    (fold,) = prepared.judging.folds
    assert fold[1] == STEPS and fold[1] - fold[0] == round((STEPS - 11) * 0.15)
    splits = [prepared.judging.split(0, lookback) for lookback in (2, 11)]
    assert {split.validation_start for split in splits} == {fold[0] - round((fold[0] - 11) * 0.15)}
    # Each has as many steps to learn from as its own lookback leaves.
    assert [(split.train_start, split.train_stop) for split in splits] == [
        (lookback, splits[0].validation_start - lookback) for lookback in (2, 11)
    ]
    with pytest.raises(InputError, match="nothing is left to train on"):
        prepared.judging.split(0, 40)
