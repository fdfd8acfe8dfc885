# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "scipy", "scikit-learn", "statsmodels"]
# ///
"""Writes random tables with their statistics by scikit-learn, SciPy and statsmodels into
`tests/fixtures/statistics/`, where the tests in `tests/suite/statistics.rs` hold the program against them.

    uv run scripts/check_statistics.py

The same numbers come out of every run, but for the last digits of what a new release of a library computes.
"""

import json
import warnings
from pathlib import Path

import numpy
from scipy import stats
from sklearn import metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

FOLDER = Path(__file__).resolve().parent.parent / "tests/fixtures/statistics"


def headline(truth, predicted, labels):
    f1 = lambda average: metrics.f1_score(truth, predicted, average=average, zero_division=0)
    return [
        metrics.accuracy_score(truth, predicted),
        metrics.balanced_accuracy_score(truth, predicted),
        f1("weighted"),
        f1("macro"),
    ]


def fast_headline(truth, predicted, labels):
    """The same from counts: scikit-learn is too slow for thousands of resamples."""
    count = lambda values: numpy.bincount(values, minlength=labels)
    support, given, right = count(truth), count(predicted), count(truth[truth == predicted])
    f1 = 2 * right / numpy.maximum(support + given, 1)
    return [
        right.sum() / len(truth),
        (right / numpy.maximum(support, 1))[support > 0].mean(),
        (f1 * support).sum() / len(truth),
        f1[support + given > 0].mean(),
    ]


def table(random, labels, examples, right):
    """Labels are uneven, and some of many labels never occur."""
    shares = random.dirichlet(numpy.full(labels, 0.7))
    truth = random.choice(labels, examples, p=shares)
    other = random.choice(labels, examples, p=random.dirichlet(numpy.ones(labels)))
    return truth, numpy.where(random.random(examples) < right, truth, other)


def scores(random):
    found = []
    for labels in [1, 2, 2, 3, 4, 4, 5, 8, 12, 20]:
        for examples in [1, 7, 60, 300]:
            truth, predicted = table(random, labels, examples, random.random())
            names = range(labels)
            precision, recall, f1, support = metrics.precision_recall_fscore_support(
                truth, predicted, labels=names, zero_division=0
            )
            found.append(
                {
                    "labels": labels,
                    "truth": truth.tolist(),
                    "predicted": predicted.tolist(),
                    "confusion": metrics.confusion_matrix(truth, predicted, labels=names).tolist(),
                    "headline": headline(truth, predicted, labels),
                    "precision": precision.tolist(),
                    "recall": recall.tolist(),
                    "f1": f1.tolist(),
                    "support": [int(count) for count in support],
                }
            )
    return found


def discordant(random):
    """McNemar's tests by statsmodels; the exact one is also SciPy's binomial test."""
    pairs = [(0, 0), (1, 0), (0, 5), (12, 12), (13, 12), (30, 30), (700, 810), (4000, 4200)]
    pairs += [tuple(int(n) for n in random.poisson(random.choice([3, 15, 60, 400]), 2)) for _ in range(60)]
    found = []
    for first, second in pairs:
        total = first + second
        exact = stats.binomtest(first, total, 0.5).pvalue if total else 1.0
        corrected = mcnemar([[0, first], [second, 0]], exact=False, correction=True).pvalue if total else 1.0
        assert total == 0 or numpy.isclose(exact, mcnemar([[0, first], [second, 0]], exact=True).pvalue)
        assert total == 0 or numpy.isclose(corrected, stats.chi2.sf((abs(first - second) - 1) ** 2 / total, 1))
        found.append({"only_first": first, "only_second": second, "exact": exact, "corrected": float(corrected)})
    return found


def holm(random):
    found = []
    for count in [1, 2, 3, 5, 12, 40]:
        for _ in range(4):
            p_values = random.random(count) ** random.choice([1, 4, 12])
            p_values[count // 2] = p_values[0]  # a tie
            corrected = multipletests(p_values, method="holm")[1]
            found.append({"p_values": p_values.tolist(), "corrected": corrected.tolist()})
    return found


def intervals(random):
    """Percentile intervals by `scipy.stats.bootstrap`: of each number, and of the difference of two systems."""
    found = []
    for labels, examples in [(2, 200), (4, 400), (6, 150)]:
        truth, first = table(random, labels, examples, 0.6)
        second = numpy.where(random.random(examples) < 0.2, truth, first)
        assert numpy.allclose(headline(truth, first, labels), fast_headline(truth, first, labels))
        of_first, of_second, difference = [], [], []
        for place in range(4):
            number = lambda truth, system: fast_headline(truth, system, labels)[place]
            gain = lambda truth, first, second: number(truth, second) - number(truth, first)
            for columns, statistic, into in [
                ((truth, first), number, of_first),
                ((truth, second), number, of_second),
                ((truth, first, second), gain, difference),
            ]:
                result = stats.bootstrap(
                    columns, statistic, paired=True, vectorized=False, n_resamples=10_000, method="percentile", rng=random
                )
                into.append([float(bound) for bound in result.confidence_interval])
        found.append(
            {
                "labels": labels,
                "truth": truth.tolist(),
                "first": first.tolist(),
                "second": second.tolist(),
                "of_first": of_first,
                "of_second": of_second,
                "difference": difference,
            }
        )
    return found


def main():
    warnings.simplefilter("ignore")  # of labels that are predicted and never true
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number, make in enumerate([scores, discordant, holm, intervals]):
        path = FOLDER / f"{make.__name__}.json"
        rows = make(numpy.random.default_rng(number))
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        path.write_text(f"[\n{lines}\n]\n")
        print(f"{path}: {len(rows)}")


main()
