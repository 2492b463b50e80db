# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a backtest is, and whether measures and simple methods give the numbers they should.

``backtest_seconds``: all simple methods without trees forecast the 52 weeks of Chicago 2017 (days, 55 x 50
cells), each from what came before, and are scored, with intervals and tests. ``metrics_vs_sklearn_max_abs``:
the largest difference between a measure of this library and scikit-learn's on random forecasts.
``known``: errors of simple methods on Chicago, Washington and Portland beside the figures known for them
(see ``baselines.py``, which has more of them). Needs GRIDCAST_DATA (see docs/data.md); writes
``build/bench/eval.json``.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import baselines
import cities
import numpy as np
from sklearn import metrics as reference

from gridcast_qgis.core.evaluation.backtest import Entrant, Plan, backtest
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import count_errors
from gridcast_qgis.core.evaluation.page import page
from gridcast_qgis.core.evaluation.probabilities import probability_errors
from gridcast_qgis.core.evaluation.ranking import ranking, top_cells
from gridcast_qgis.core.evaluation.verdict import verdict
from gridcast_qgis.core.models.registry import is_network, model_keys

RESULT = cities.BENCH / "eval.json"


def weekly_backtest() -> dict[str, Any]:
    """Backtest all simple methods without trees on the weeks of 2017."""
    whole = cities.chicago(2011, 2018)
    first, stop = (baselines.day(whole, date) for date in ("2017-01-01", "2018-01-01"))
    cube = whole.steps(0, stop)
    plan = Plan.rolling(first, stop, 7, 7)
    names = [key for key in model_keys() if not is_network(key) and key != "boosted_trees"]
    began = time.perf_counter()
    league = backtest(cube, [Entrant(name, name) for name in names], plan)
    seconds = time.perf_counter() - began
    page(league, verdict(league), "")
    with_report = time.perf_counter() - began
    table = league.table()
    columns = ["poisson_deviance", "mse", "auc", "hit_rate_5", "pai_5"]
    return {
        "backtest_seconds": round(seconds, 1),
        "backtest_seconds_with_report": round(with_report, 1),
        "backtest_origins": len(plan.origins),
        "league": {
            row["model"]: {name: round(float(row[name]), 5) for name in columns}
            for _, row in table.iterrows()
        },
    }


def against_sklearn() -> dict[str, float]:
    """Return the largest difference of each measure from scikit-learn's, over random forecasts."""
    random = np.random.default_rng(1)
    valid = random.random((12, 14)) < 0.8
    found: dict[str, float] = {}

    def note(name: str, own: float, other: float) -> None:
        found[name] = max(found.get(name, 0.0), abs(float(own) - float(other)))

    for _ in range(20):
        rate = random.gamma(1.0, 0.5, (6, 12, 14))
        observed = random.poisson(rate * random.gamma(2.0, 0.5, rate.shape)).astype(np.float32)
        forecast = np.round(rate, 1) + 0.05  # with ties
        p = -np.expm1(-forecast)
        y, m, q = (values[:, valid] for values in (observed, forecast, p))
        errors = count_errors(observed, forecast, valid).pooled()
        note("mse", errors.mse, reference.mean_squared_error(y.ravel(), m.ravel()))
        note("mae", errors.mae, reference.mean_absolute_error(y.ravel(), m.ravel()))
        note(
            "poisson_deviance", errors.poisson_deviance, reference.mean_poisson_deviance(y.ravel(), m.ravel())
        )
        events = y > 0
        chances = probability_errors(observed > 0, p, valid).pooled()
        note("brier", chances.brier, reference.brier_score_loss(events.ravel(), q.ravel()))
        note("log_loss", chances.log_loss, reference.log_loss(events.ravel(), q.ravel()))
        whole = score(events, q)
        note("auc", whole.auc, reference.roc_auc_score(events.ravel(), q.ravel()))
        note(
            "average_precision",
            whole.average_precision,
            reference.average_precision_score(events.ravel(), q.ravel()),
        )
        order = ranking(observed > 0, p, valid)
        for step, value in enumerate(order.auc):
            note("auc_of_a_step", value, reference.roc_auc_score(events[step], q[step]))
        untied = p + 1e-9 * random.permutation(p.size).reshape(p.shape)
        top = top_cells(observed, untied, valid, [10])
        for step, value in enumerate(top.at(0).ndcg):
            note(
                "ndcg_10",
                value,
                reference.ndcg_score(y[step : step + 1], untied[:, valid][step : step + 1], k=10),
            )
    return found


def known() -> dict[str, Any]:
    """Return the figures of ``baselines.py`` that are known, and by how much they differ."""
    return {
        "chicago": baselines.chicago(("EWMA", "EWMA x level x weekday", "HA")),
        "washington": baselines.washington(("KDE, half-life 60 d",)),
        "portland": baselines.portland(like_known_only=True),
        "references": {name: values for name, (_, values) in baselines.KNOWN.items()},
    }


def main() -> None:
    """Measure all three and write the result."""
    found: dict[str, Any] = {"cores": os.cpu_count(), **weekly_backtest()}
    differences = against_sklearn()
    found["metrics_vs_sklearn"] = differences
    found["metrics_vs_sklearn_max_abs"] = max(differences.values())
    found["known"] = known()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
