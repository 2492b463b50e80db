# SPDX-License-Identifier: GPL-2.0-or-later
"""The ensemble of Gridcast networks: its members learn from all steps, and walk on their own forecasts."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Recorder, files_in, make_axis, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.gridcast import GridcastForecaster
from gridcast_qgis.core.models.hetero import HeteroGridcastForecaster
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.checkpoints import Checkpoint
from gridcast_qgis.core.training.splits import Split

pytestmark = [
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

#: Two windows, which share two of six rows.
TWO = {"subgrid_rows": 3, "subgrid_columns": 1, "window_rows": 2, "window_columns": 1}
QUICK = {"size": "fast", "epochs": 4, "batch_size": 512, "learning_rate": 0.004, "final_networks": 1} | TWO
SPLIT = Split(7, 721, 728, 868)


@pytest.fixture(scope="module")
def halves():
    """Two and a half years that rise and fall: the north is busy at weekends, the south on other days."""
    days = np.arange(900)
    rate = np.random.default_rng(2).gamma(1.0, 0.8, (6, 4)) * np.ones((900, 1, 1))
    rate *= np.exp(np.sin(days / 20))[:, None, None]
    rate[:, :3] *= np.where(days % 7 < 2, 3.0, 0.3)[:, None, None]
    rate[:, 3:] *= np.where(days % 7 < 2, 0.3, 1.5)[:, None, None]
    grid = make_grid(6, 4, holes=True)
    counts = np.random.default_rng(3).poisson(rate * grid.valid).astype(np.float32)
    return Cube(grid, make_axis(900), ("all",), counts[:, None])


@pytest.fixture(scope="module")
def judged(halves):
    """Return the model whose members have been judged, and learned no more than that."""
    return HeteroGridcastForecaster(**QUICK).fit(halves, SPLIT, Reporter())


def again(model: HeteroGridcastForecaster) -> HeteroGridcastForecaster:
    return HeteroGridcastForecaster.restore(model.settings_dict(), model.state())


@pytest.fixture(scope="module")
def finished(halves, judged):
    model = again(judged)
    model.finish(halves, SPLIT, Reporter())
    return model


def weights_of(model: HeteroGridcastForecaster) -> list[np.ndarray]:
    networks = model.state().networks
    return [weight for name in sorted(networks) for weight in networks[name].get_weights()]


def test_each_member_is_judged_and_learns_from_all_steps_as_if_alone(halves, judged, finished):
    assert [(window.top, window.bottom) for window in finished.windows_] == [(0, 4), (2, 6)]
    for number, (window, member) in enumerate(zip(finished.windows_, finished.members_)):
        part = halves.crop(*window.slices)
        alone = GridcastForecaster(**(finished.settings.member_settings() | {"seed": 1 + number}))
        alone.fit(part, SPLIT, Reporter())
        assert not judged.members_[number].final_
        assert judged.members_[number].predict_next(part, 800, 805) == pytest.approx(
            alone.predict_next(part, 800, 805), rel=1e-6, nan_ok=True
        )
        alone.finish(part, SPLIT, Reporter())
        assert member.trust_ and len(member.final_) == len(alone.final_) == 1
        assert member.predict_next(part, 870, 875) == pytest.approx(
            alone.predict_next(part, 870, 875), rel=1e-6, nan_ok=True
        )


def test_a_forecast_is_the_mean_of_what_members_come_to_on_their_own(halves, finished):
    told = Recorder()
    forecast = finished.forecast(halves, 890, 3, told)
    assert [event["value"] for event in told.events if event["event"] == "progress"][-1] == 100
    upper, lower = (
        member.forecast(halves.crop(*window.slices), 890, 3)
        for window, member in zip(finished.windows_, finished.members_)
    )
    assert forecast[:, :2] == pytest.approx(upper[:, :2], rel=1e-5, nan_ok=True)
    assert forecast[:, 4:] == pytest.approx(lower[:, 2:], rel=1e-5, nan_ok=True)
    assert forecast[:, 2:4] == pytest.approx((upper[:, 2:] + lower[:, :2]) / 2, rel=1e-5, nan_ok=True)
    assert forecast[0] == pytest.approx(finished.predict_next(halves, 890, 891)[0], rel=1e-5, nan_ok=True)
    assert np.isnan(forecast[:, ~halves.grid.valid]).all()
    with pytest.raises(InputError) as caught:
        finished.forecast(halves, 890, 0)
    assert caught.value.parameter == "HORIZON"


def test_the_file_keeps_all_of_it(halves, finished, tmp_path):
    save_model(finished, tmp_path / "m.gridcast", {})
    model = load_model(tmp_path / "m.gridcast").model
    assert isinstance(model, HeteroGridcastForecaster)
    assert model.dispersion_ == finished.dispersion_ > 0
    rates = finished.predict_next(halves, 880, 901)
    assert model.predict_next(halves, 880, 901) == pytest.approx(rates, nan_ok=True)
    # Counts spread more than those of Poisson: no event is likelier than the rate alone says.
    valid = rates[:, halves.grid.valid]
    assert (model.probability(valid) < -np.expm1(-valid)).all()


def test_a_member_that_fails_in_the_end_forecasts_with_what_it_learned_before(
    halves, judged, finished, monkeypatch
):
    finish = GridcastForecaster.finish

    def finish_or_fail(self, *arguments, **options):
        if self.settings.seed == 2:
            raise InputError("Diverged.")
        finish(self, *arguments, **options)

    monkeypatch.setattr(GridcastForecaster, "finish", finish_or_fail)
    model, told = again(judged), Recorder()
    model.finish(halves, SPLIT, told)
    assert told.texts("warning") == [
        "Member 2 of 2 (rows 2-5, columns 0-3) failed: Diverged.",
        "Of 2 members, number 2 could not learn from all steps. It forecasts with what it learned before.",
    ]
    found = model.predict_next(halves, 880, 885)
    assert found[:, :2] == pytest.approx(finished.predict_next(halves, 880, 885)[:, :2], nan_ok=True)
    assert found[:, 4:] == pytest.approx(judged.predict_next(halves, 880, 885)[:, 4:], nan_ok=True)


def test_learning_from_all_steps_that_was_broken_off_goes_on(halves, judged, finished, tmp_path):
    checkpoint = Checkpoint(tmp_path / "state", "x")
    # In the second member.
    stop = Recorder(
        cancel_when=lambda event: "Member 2" in str(event.get("text")) and "Epoch 1" in str(event.get("text"))
    )
    model = again(judged)
    with pytest.raises(JobCancelled):
        model.finish(halves, SPLIT, stop, checkpoint=checkpoint)
    assert len(files_in(tmp_path)) == 2
    told = Recorder()
    model.finish(halves, SPLIT, told, checkpoint=checkpoint)
    assert any("Continuing after epoch 1 of 4" in text for text in told.texts("info"))
    for one, two in zip(weights_of(finished), weights_of(model), strict=True):
        assert one.tobytes() == two.tobytes()
    checkpoint.remove()
    assert files_in(tmp_path) == []


def test_without_final_networks_there_is_nothing_to_finish(halves, judged):
    model = HeteroGridcastForecaster.restore(judged.settings_dict() | {"final_networks": 0}, judged.state())
    before = list(model.members_)
    model.finish(halves, SPLIT, Reporter())
    assert model.members_ == before
    assert (model.finishes, judged.finishes) == (0, 1)
