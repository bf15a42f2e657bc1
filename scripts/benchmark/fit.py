"""Fits of a measured quantity to powers and lines. Pure functions, standard library alone."""

import math


def _least_squares(x: list[float], y: list[float], weights: list[float]) -> tuple[float, float]:
    """Start and slope of the line with the least weighted sum of squares."""
    total = sum(weights)
    x_mean = sum(w * a for w, a in zip(weights, x)) / total
    y_mean = sum(w * b for w, b in zip(weights, y)) / total
    square = sum(w * (a - x_mean) ** 2 for w, a in zip(weights, x))
    slope = sum(w * (a - x_mean) * (b - y_mean) for w, a, b in zip(weights, x, y)) / square
    return y_mean - slope * x_mean, slope


def power(x: list[float], y: list[float]) -> dict:
    """y = start + factor * x^exponent with start >= 0: the fixed part of a cost must not flatten its exponent. The best
    exponent of 0.30, 0.31, ... 2.50, every point's relative error counting the same; `off`: the largest of these."""
    weights, best = [1 / b**2 for b in y], None
    for exponent in (hundredth / 100 for hundredth in range(30, 251)):
        raised = [a**exponent for a in x]
        start, factor = _least_squares(raised, y, weights)
        if start < 0:
            # Through the origin, then.
            products = sum(w * a * b for w, a, b in zip(weights, raised, y))
            start, factor = 0.0, products / sum(w * a * a for w, a in zip(weights, raised))
        errors = [(start + factor * a) / b - 1 for a, b in zip(raised, y)]
        square = sum(error**2 for error in errors)
        if best is None or square < best[0]:
            best = square, {"start": start, "factor": factor, "exponent": exponent, "off": max(map(abs, errors))}
    return best[1]


def line(x: list[float], y: list[float]) -> dict:
    """y = start + slope * x, every point's relative error counting the same; `off`: the largest of these errors."""
    start, slope = _least_squares(x, y, [1 / b**2 for b in y])
    return {"start": start, "slope": slope, "off": max(abs(start + slope * a - b) / b for a, b in zip(x, y))}


def local(x: list[float], y: list[float]) -> list[float]:
    """Exponents between neighbours: where growth stops being linear."""
    return [math.log(d / c) / math.log(b / a) for a, b, c, d in zip(x, x[1:], y, y[1:])]
