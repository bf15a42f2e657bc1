"""tests/golden/rank.json: strengths of items from comparisons, with standard errors.

The likelihoods are written down over the rows as they stand in the file, their derivatives are PyTorch's autograd, and
SciPy finds the optimum with one item's strength held at 0 (with a prior: all free). Strengths are then centred, and the
covariance is the inverse of autograd's Hessian of the free parameters, carried over by the linear map that centres.

Where choix (Maystre) has the model it is asked as well: I-LSR on a matrix of wins, which takes fractions (a tie is half a
win for each; the pseudo-count prior is one more item that won and lost n/2 against each), and its penalised maximum
likelihood, whose alpha |theta|^2 is a normal prior of variance 1 / (2 alpha). The two must agree before anything is
written.
"""

import choix
import numpy as np
import torch
from common import GOLDEN, generator, write_json
from scipy import optimize, stats

CONFIDENCE = 0.95


def preference(row: dict) -> float:
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[row["winner"]] if "winner" in row else row["preference"]


class Rows:
    """Rows as arrays of numbers; items by name."""

    def __init__(self, rows: list[dict]):
        self.items = sorted({row[side] for row in rows for side in "ab"})
        number = {item: at for at, item in enumerate(self.items)}
        self.a = torch.tensor([number[row["a"]] for row in rows])
        self.b = torch.tensor([number[row["b"]] for row in rows])
        self.mu = torch.tensor([preference(row) for row in rows], dtype=torch.float64)
        self.weight = torch.tensor([float(row.get("weight", 1)) for row in rows], dtype=torch.float64)


def log_likelihood(rows: Rows, model: str, strengths, log_nu):
    d = strengths[rows.a] - strengths[rows.b]
    if model == "bradley-terry":
        log_p, log_q = torch.nn.functional.logsigmoid(d), torch.nn.functional.logsigmoid(-d)
        return (rows.weight * (rows.mu * log_p + (1 - rows.mu) * log_q)).sum()
    outcomes = torch.stack([d / 2, -d / 2, log_nu.expand_as(d)]).log_softmax(0)
    which = torch.where(rows.mu == 1, 0, torch.where(rows.mu == 0, 1, 2))
    return (rows.weight * outcomes.gather(0, which[None])[0]).sum()


def log_prior(prior, strengths):
    kind, value = prior
    if kind == "gaussian":
        return -(strengths**2).sum() / (2 * value**2)
    sigmoids = torch.nn.functional.logsigmoid(strengths) + torch.nn.functional.logsigmoid(-strengths)
    return value / 2 * sigmoids.sum()


def optimum(rows: Rows, model: str, prior):
    """Free parameters at the optimum, autograd's Hessian there, and the map from free parameters to strengths."""
    count, davidson = len(rows.items), model == "davidson"
    free = count if prior else count - 1
    spread = torch.eye(count, dtype=torch.float64)[:, count - free :]

    def objective(x):
        strengths = spread @ x[:free]
        value = -log_likelihood(rows, model, strengths, x[-1] if davidson else None)
        return value - log_prior(prior, strengths) if prior else value

    def gradient(x):
        x = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(objective(x), x)[0].numpy()

    def hessian(x):
        return torch.autograd.functional.hessian(objective, torch.tensor(x)).numpy()

    start = np.zeros(free + davidson)
    found = optimize.minimize(
        lambda x: objective(torch.tensor(x)).item(), start, jac=gradient, hess=hessian, method="trust-exact",
        options={"gtol": 1e-10, "maxiter": 1000},
    ).x
    found = optimize.root(gradient, found, jac=hessian, tol=1e-14).x
    assert np.abs(gradient(found)).max() < 1e-9, gradient(found)
    return torch.tensor(found), hessian(found), spread.numpy()


def by_choix(rows: Rows, prior) -> np.ndarray:
    """Centred strengths of the Bradley-Terry model."""
    count = len(rows.items)
    wins = np.zeros((count + 1, count + 1))
    for a, b, mu, weight in zip(rows.a, rows.b, rows.mu.tolist(), rows.weight.tolist(), strict=True):
        wins[a, b] += weight * mu
        wins[b, a] += weight * (1 - mu)
    if prior and prior[0] == "gaussian":
        assert ((rows.weight == 1) & ((rows.mu == 0) | (rows.mu == 1))).all(), "choix takes whole wins here"
        data = [(a, b) if mu == 1 else (b, a) for a, b, mu in zip(rows.a.tolist(), rows.b.tolist(), rows.mu, strict=True)]
        strengths = choix.opt_pairwise(count, data, alpha=1 / (2 * prior[1] ** 2), method="Newton-CG", tol=1e-12)
    elif prior:
        wins[:count, count] = wins[count, :count] = prior[1] / 2
        strengths = choix.ilsr_pairwise_dense(wins, max_iter=10_000, tol=1e-12)[:count]
    else:
        strengths = choix.ilsr_pairwise_dense(wins[:count, :count], max_iter=10_000, tol=1e-12)
    return strengths - strengths.mean()


def goodness(rows: Rows, model: str, strengths, log_nu) -> dict:
    """Likelihood ratio against pairs of their own, for whole results and weights."""
    saturated, pairs = 0.0, 0
    low, high = torch.minimum(rows.a, rows.b), torch.maximum(rows.a, rows.b)
    won = torch.where(rows.a < rows.b, rows.mu, 1 - rows.mu)
    for first, second in sorted(set(zip(low.tolist(), high.tolist(), strict=True))):
        here = (low == first) & (high == second)
        counts = np.array([rows.weight[here & (won == outcome)].sum().item() for outcome in (1.0, 0.0, 0.5)])
        saturated += stats.multinomial(int(counts.sum()), counts / counts.sum()).logpmf(counts)
        d = strengths[first] - strengths[second]
        odds = [d / 2, -d / 2, log_nu] if model == "davidson" else [d / 2, -d / 2, -np.inf]
        saturated -= stats.multinomial(int(counts.sum()), torch.tensor(odds).softmax(0).numpy()).logpmf(counts)
        pairs += 1
    freedom = 2 * pairs - len(rows.items) if model == "davidson" else pairs - (len(rows.items) - 1)
    return {"deviance": 2 * saturated, "degrees_of_freedom": freedom, "p": stats.chi2.sf(2 * saturated, freedom)}


def case(name: str, rows: list[dict], model: str = "bradley-terry", prior=None, has_goodness: bool = False) -> dict:
    read = Rows(rows)
    x, hessian, spread = optimum(read, model, prior)
    count, free = len(read.items), spread.shape[1]
    strengths = spread @ x[:free].numpy()
    centre = np.eye(count) - 1 / count
    covariance = np.linalg.inv(hessian)
    ratings, half = centre @ strengths, stats.norm.ppf(0.5 + CONFIDENCE / 2)
    errors = np.sqrt(np.diag(centre @ spread @ covariance[:free, :free] @ spread.T @ centre))
    log_nu = x[-1] if model == "davidson" else None
    told = {
        "name": name, "model": model, "prior": prior and f"{prior[0]}:{prior[1]}", "items": read.items,
        "ratings": ratings.tolist(), "standard_errors": errors.tolist(),
        "lower": (ratings - half * errors).tolist(), "upper": (ratings + half * errors).tolist(),
        "log_likelihood": log_likelihood(read, model, torch.tensor(strengths), log_nu).item(),
    }
    if model == "davidson":
        error = np.sqrt(covariance[-1, -1])
        told |= {"nu": np.exp(log_nu.item())}
        told |= {"nu_lower": np.exp(log_nu.item() - half * error), "nu_upper": np.exp(log_nu.item() + half * error)}
    else:
        told["choix"] = by_choix(read, prior).tolist()
        assert np.abs(told["choix"] - ratings).max() < 1e-7, (name, told["choix"], ratings)
    if has_goodness:
        told["goodness"] = goodness(read, model, strengths, log_nu.item() if log_nu is not None else None)
    return told | {"rows": rows}


def drawn(draw, items: int, count: int, tie: float = 0.0) -> list[dict]:
    """Random comparisons of items with true strengths from -1 to 1."""
    rows = []
    for _ in range(count):
        a, b = torch.randperm(items, generator=draw)[:2].tolist()
        win, tied = torch.rand(2, generator=draw).tolist()
        p = 1 / (1 + np.exp(2 * (b - a) / (items - 1)))
        winner = "tie" if tied < tie else "a" if win < p else "b"
        rows.append({"a": f"item {a}", "b": f"item {b}", "winner": winner})
    return rows


def weighted(draw, rows: list[dict]) -> list[dict]:
    """Every other row with a weight, every third as a fraction."""
    for at, row in enumerate(rows):
        if at % 3 == 0:
            row["preference"] = round(0.9 * preference(row) + 0.1 * torch.rand(1, generator=draw).item(), 3)
            del row["winner"]
        if at % 2 == 0:
            row["weight"] = round(0.1 + 4 * torch.rand(1, generator=draw).item(), 3)
    return rows


def counted(ties: bool) -> list[dict]:
    """Four items, whole weights: results of every pair as counts."""
    counts = {"ab": (31, 12, 9), "ac": (27, 21, 14), "ad": (40, 11, 6), "bc": (17, 25, 11), "bd": (23, 19, 16), "cd": (30, 14, 8)}
    rows = []
    for pair, numbers in counts.items():
        for winner, weight in zip(("a", "b", "tie"), numbers if ties else numbers[:2], strict=False):
            rows.append({"a": pair[0], "b": pair[1], "winner": winner, "weight": weight})
    return rows


def make() -> None:
    draw = generator(1952)
    lost = [{"a": "only won", "b": "item 0", "winner": "a"}, {"a": "apart", "b": "from all", "winner": "tie"}]
    whole = [{"a": "only won", "b": "item 0", "winner": "a"}, {"a": "apart", "b": "from all", "winner": "b"}]
    cases = [
        case("wins", drawn(draw, 8, 160)),
        case("ties", drawn(draw, 8, 160, tie=0.25)),
        case("weights and fractions", weighted(draw, drawn(draw, 8, 160, tie=0.2))),
        case("a steep field", [{"a": str(i), "b": str(i + 1), "preference": 0.999} for i in range(9)]),
        case("counts", counted(False), has_goodness=True),
        case("normal prior", drawn(draw, 6, 40) + whole, prior=("gaussian", 1.5)),
        case("pseudo-counts", weighted(draw, drawn(draw, 6, 40, tie=0.2)) + lost, prior=("pseudo", 0.7)),
        case("davidson", drawn(draw, 8, 160, tie=0.25), model="davidson"),
        case("davidson counts", counted(True), model="davidson", has_goodness=True),
        case("davidson, normal prior", drawn(draw, 6, 40, tie=0.3) + lost, model="davidson", prior=("gaussian", 0.8)),
        case("davidson, pseudo-counts", drawn(draw, 6, 40, tie=0.3) + lost, model="davidson", prior=("pseudo", 2.0)),
    ]
    write_json(GOLDEN / "rank.json", {"confidence": CONFIDENCE, "cases": cases})
