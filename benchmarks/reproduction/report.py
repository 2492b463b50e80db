# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes ``docs/method/reproduction.md`` from what ``s1.py``, ``s2.py`` and ``s3_s4.py`` have found.

The numbers of the published tables are from the texts of the seed systems; ours are read from
``build/bench/reproduction``. The sentences on the results are chosen by the numbers where they compare.
"""

from __future__ import annotations

from typing import Any

import common
from common import cities

OUTPUT = cities.ROOT / "docs" / "method" / "reproduction.md"

HEAD = """# The seed systems, reproduced

Made by `make reproduction` (the scripts in `benchmarks/reproduction/`, with the data described in
[data.md](../data.md)); times are of two cores without a GPU that had other work at times. Data, periods and
therefore numbers differ from the published ones; what can be compared is how the methods of a table stand to
each other, and to the simple methods.
"""

#: Squared and root squared error of the paper's table 1 (2011-2020, tested on 2021).
S2_PUBLISHED = {
    "HA": (0.5399, 0.7348),
    "weekday HA": (0.5554, 0.7453),
    "ConvLSTM": (0.5405, 0.7352),
    "Hetero (Cr)": (0.5369, 0.7327),
    "Hetero (Cr + Sev)": (0.5404, 0.7351),
    "Hetero (Cr + Sea)": (0.6037, 0.7770),
    "Hetero (Cr + CC), period with clouds": (0.5689, 0.7543),
    "Hetero (Cr + V)": (0.5448, 0.7381),
}

#: Accuracy and F of the poster, and what the longer paper gives for its LSTM.
S3_PUBLISHED = {
    "Spatio-LSTM": (0.90, 0.83),
    "decision_tree": (0.86, 0.768),
    "random_forest": (0.88, 0.79),
    "gaussian_nb": (0.78, 0.67),
    "lda": (0.88, 0.795),
    "svc": (0.877, 0.80),
    "mlp": (0.84, 0.71),
}


def number(value: Any, digits: int = 3) -> str:
    """Return a number for a table, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def minutes(seconds: float) -> str:
    """Return a time for a table."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def rows(header: list[str], body: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def s1(found: dict[str, Any]) -> str:
    """Return the section on the ShotSpotter report."""
    parts = [
        """
## S1 ShotSpotter (Lau & Song)

Published: accuracy 72.2 % "under a weight of 10 : 1", Washington DC 2014 to 2021. Here: the alerts of
2009-2013 and 2014-2018, 36 x 36 cells, days, batch 20, event weight 10, early stop, split 5/1/1; the seventh
part is the test. "As published" is the output under the weight, "calibrated" the same after Platt's
correction on the validation steps. The simple method is the mean of the last 365 days of each cell, as a
Poisson probability.
"""
    ]
    for period, result in found.items():
        for days in ("all days", "without fireworks"):
            body = [
                [
                    name,
                    *(
                        number(values[key])
                        for key in (
                            "accuracy",
                            "weighted_accuracy",
                            "balanced_accuracy",
                            "auc",
                            "average_precision",
                        )
                    ),
                    number(values["brier"], 4),
                    number(values["hit_rate_1"]),
                    number(values["hit_rate_4"]),
                ]
                for name, values in result[days].items()
            ]
            count = result["test_days"] if days == "all days" else result["ordinary_days"]
            parts.append(f"\n{period}, {days} ({count} test days):\n\n")
            parts.append(
                rows(
                    [
                        "",
                        "accuracy",
                        "weighted 10 : 1",
                        "balanced",
                        "AUC",
                        "average precision",
                        "Brier",
                        "hits in 1 %",
                        "hits in 4 %",
                    ],
                    body,
                )
            )
        own, simple = (
            result["without fireworks"][key] for key in ("network, calibrated", "historical average")
        )
        better = [
            name
            for name, key in (
                ("AUC", "auc"),
                ("average precision", "average_precision"),
                ("hits in 4 %", "hit_rate_4"),
            )
            if round(own[key], 3) > round(simple[key], 3)  # as the table shows them
        ]
        verdict = (
            f"beats the average of the cell in {', '.join(better)}"
            if better
            else ("beats the average of the cell in none of AUC, average precision and hits in 4 %")
        )
        parts.append(
            f"\nTrained {result['epochs']} epochs in {minutes(result['seconds'])}; an event happens in "
            f'{100 * result["event_share"]:.2f} % of cell-days, so that plain accuracy says little: "never" '
            f"has {result['all days']['never']['accuracy']:.3f}. On ordinary days the network {verdict}.\n"
        )
    return "".join(parts)


def s2(found: dict[str, Any]) -> str:
    """Return the section on Hetero-ConvLSTM."""
    body = []
    for name, row in found.items():
        published = S2_PUBLISHED.get(name)
        reference = found["HA, period with clouds" if "clouds" in name else "HA"]["mse"]
        body.append(
            [
                name,
                f"{published[0]:.4f} / {published[1]:.4f}" if published else "-",
                f"{row['mse']:.4f} / {row['rmse']:.4f}",
                f"{100 * (1 - row['mse'] / reference):+.2f} %",
                number(row["settled_mse"], 4),
                minutes(row["seconds"]) if row["parameters"] else "-",
            ]
        )
    best = min(
        (
            min(row["mse"], row["settled_mse"] or row["mse"])
            / found["HA, period with clouds" if "clouds" in name else "HA"]["mse"],
            name,
        )
        for name, row in found.items()
        if row["parameters"]
    )
    verdict = (
        f"The best network, {best[1]}, gains {100 * (1 - best[0]):.2f} % over the historical average"
        if best[0] < 1
        else f"No network beats the historical average; {best[1]} comes nearest: {100 * (1 - best[0]):+.2f} %"
    )
    return (
        """
## S2 Hetero-ConvLSTM (Ahrens & de Wolff)

Squared error / its root per cell and day. Published: 2011-2020, tested on 2021, batch 4, one epoch. Here: the
same grid, lookback 7, batch 4, one epoch, 128 filters, raw channels, the published loss, at full size with
the 1 x 1 kernels of the text; trained on four years (2014 to 2017; "with clouds": September 2011 to August
2015), tested on 2018-01-01 to 2018-11-12 (September 2015 to August 2016). The last month before the test is
kept aside. No visibility was to be had, so precipitation stands for V; cloud cover ends in August 2016, so
its row has a period of its own, with rows to compare. "Corrected": season as sine and cosine, loss over the
cells of the city only, moving averages of the batch normalisation that keep up with the network.

Those moving averages begin at 1 and are what forecasts use. An epoch of the paper's ten years has 912
gradient steps and leaves 0.0001 of it, one of four years 356 and 0.03, beside variances of the hidden states
below 0.001: forecasts are off by more than all else. "Averages settled" is the same network with that start
taken out of its averages.

"""
        + rows(
            ["", "published MSE / RMSE", "ours", "gain over HA", "MSE, averages settled", "training"], body
        )
        + f"\n{verdict}.\n"
    )


def s3_s4(found: dict[str, Any]) -> str:
    """Return the section on the classifiers."""
    parts = [
        """
## S3 Spatio-LSTM (Zhuang et al.) and S4 CrimePredict

Published (Portland, all calls for service, 2012 to 2016, 73 candidates): accuracy and F below, AUC 0.93 for
the Spatio-LSTM. S4 gives no numbers. Here: burglary and vehicle theft of Portland, and all crimes of
Chicago, cells of 600 feet, 60 months to February 2017, the 20 hottest cells of a month, 42/6/6 months.
Candidates are chosen in the training months, and once, as published, in all months. All rows are scored on
the test months with the threshold that has the best F on the validation months; the CrimePredict networks
learn from all cells of the city and are scored on the same candidates.
"""
    ]
    for city in ("Portland", "Chicago"):
        if city not in found:
            continue
        table = found[city]
        body = []
        for name, row in table.items():
            if not isinstance(row, dict):
                continue
            published = S3_PUBLISHED.get(name)
            body.append(
                [
                    name,
                    f"{published[0]:.3f} / {published[1]:.3f}" if published and city == "Portland" else "-",
                    number(row["accuracy"]),
                    number(row["f1"]),
                    number(row["precision"]),
                    number(row["recall"]),
                    number(row["auc"]),
                    minutes(row["seconds"]) if "seconds" in row else "-",
                ]
            )
        first = table["Spatio-LSTM"]
        parts.append(
            f"\n{city}: {table['events']:,} events, {table['cells']:,} cells, {first['candidates']} "
            f"candidates, samples {' / '.join(f'{n:,}' for n in first['samples'])}.\n\n"
        )
        parts.append(
            rows(
                ["", "published accuracy / F", "accuracy", "F", "precision", "recall", "AUC", "training"],
                body,
            )
        )
        by_auc = sorted(
            ((row["auc"], name) for name, row in table.items() if isinstance(row, dict) and row["auc"]),
            reverse=True,
        )
        honest = [pair for pair in by_auc if "all months" not in pair[1]]
        place = [name for _, name in honest].index("Spatio-LSTM") + 1
        parts.append(
            f"\nBest AUC: {honest[0][1]} ({honest[0][0]:.3f}); the Spatio-LSTM is number {place} of "
            f"{len(honest)} ({table['Spatio-LSTM']['auc']:.3f}).\n"
        )
    if "STNN" in found:
        body = [
            [
                name,
                *(number(row["test"][key]) for key in ("accuracy", "precision", "recall", "f1", "auc")),
                str(row["candidates"]),
                minutes(row["seconds"]),
            ]
            for name, row in found["STNN"].items()
            if isinstance(row, dict)
        ]
        parts.append(
            "\nThe longer paper (14 days, 24 steps back, 21 x 21 cells, undersampled; published: accuracy "
            ".815, precision .87, recall .745, F .801, AUC .89, 348 candidates), on Portland's burglary and "
            "vehicle theft, threshold 0.5:\n\n"
        )
        parts.append(
            rows(["", "accuracy", "precision", "recall", "F", "AUC", "candidates", "training"], body)
        )
        parts.append(
            "\nThe random split tests on windows that overlap those of the training, and on balanced "
            "samples: its numbers are not what a forecast would have had.\n"
        )
    return "".join(parts)


def main() -> None:
    """Write the page."""
    text = HEAD
    for name, section in (("s1", s1), ("s2", s2), ("s3_s4", s3_s4)):
        found = common.results(name)
        if found:
            text += section(found)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(text, encoding="utf-8")
    print(OUTPUT)


if __name__ == "__main__":
    main()
