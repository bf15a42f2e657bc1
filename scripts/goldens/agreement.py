"""tests/golden/agreement.json: Krippendorff's alpha for nominal values, from the package krippendorff.

The values are those of a vote (a, b, tie, both bad as 0 to 3); None is a rater who did not see a unit. The first case is
the worked example of Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section C: four observers.
"""

import random

import common
import krippendorff

NAN = float("nan")


def alpha(ratings: list[list[int | None]]) -> float | None:
    """None where it is not defined: no unit with two values, or one value in all of them."""
    units = [[row[at] for row in ratings if row[at] is not None] for at in range(len(ratings[0]))]
    if len({value for unit in units if len(unit) >= 2 for value in unit}) < 2:
        return None
    data = [[NAN if value is None else value for value in row] for row in ratings]
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))


def drawn(rng: random.Random, raters: int, units: int, missing: float, noise: float) -> list[list[int | None]]:
    """Raters that see a unit's true value, or with probability `noise` anything."""
    truth = [rng.choice([0, 0, 1, 1, 2, 3]) for _ in range(units)]
    vote = lambda value: rng.randrange(4) if rng.random() < noise else value  # noqa: E731
    return [[None if rng.random() < missing else vote(value) for value in truth] for _ in range(raters)]


def make() -> None:
    rng = random.Random(11)
    n = None
    cases = {
        "four observers, twelve units": [
            [0, 1, 2, 2, 1, 0, 3, 0, 1, n, n, n],
            [0, 1, 2, 2, 1, 1, 3, 0, 1, 4, n, 2],
            [n, 2, 2, 2, 1, 2, 3, 1, 1, 4, 0, n],
            [0, 1, 2, 2, 1, 3, 3, 0, 1, 4, 0, n],
        ],
        "two raters, all alike": [[0, 1, 0, 2], [0, 1, 0, 2]],
        "two raters, never alike": [[0, 1, 0, 1], [1, 0, 1, 0]],
        "one value": [[0, 0, 0], [0, 0, 0]],
        "one rater": [[0, 1, 2, 3]],
        "nothing in common": [[0, 1, n, n], [n, n, 2, 3]],
        "one pair": [[0, n], [1, 2]],
        "values beyond one rater's": [[0, 0, 1, n], [0, 1, 1, 3], [n, n, n, 3]],
    }
    for raters, units, missing, noise in [(2, 50, 0.0, 0.2), (3, 200, 0.6, 0.4), (5, 80, 0.3, 1.0), (2, 900, 0.9, 0.1)]:
        name = f"{raters} raters, {units} units, {missing} missing, {noise} noise"
        cases[name] = drawn(rng, raters, units, missing, noise)
    written = []
    for name, ratings in cases.items():
        pairs = sum(sum(row[at] is not None for row in ratings) >= 2 for at in range(len(ratings[0])))
        written.append({"name": name, "alpha": alpha(ratings), "pairs": pairs, "ratings": ratings})
    common.write_json(common.GOLDEN / "agreement.json", {"cases": written})


if __name__ == "__main__":
    make()
