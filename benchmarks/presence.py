"""Fit the weights of the words in answers to attacks, and tell how each set of answers is read by weights that have not
seen it.

    python benchmarks/presence.py                 # leave one set out: rules alone, words alone, both
    python benchmarks/presence.py --write         # fit over all sets and write data/presence.tsv
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import optimize, sparse

from clinalign.evaluation.suites import presence
from clinalign.evaluation.suites.clauses import spelled
from clinalign.evaluation.suites.things import thing_of
from clinalign.evaluation.suites.weighed import VERDICTS, features, grounds
from clinalign.language.graph import DATA

FIXTURES = Path(__file__).parents[1] / "tests" / "evaluation" / "fixtures"
FROZEN = "hallucinogen_frozen"
"""The set that nothing is fitted to."""
SHARES = {"own": 1.0, "variants": 0.7}
"""What an answer of our own sets counts beside one of a set written without sight of the rules (2)."""
PENALTY, LEAST = 2e-4, 3
"""Of the squared weights; in how many answers a feature has to be."""

Set = tuple[list[set[str]], list[int], list[presence.Presence]]


def read(path: Path) -> Set:
    """Features, verdicts and what the rules alone say of the answers of a set."""
    names, verdicts, ruled = [], [], []
    for row in map(json.loads, path.read_text().splitlines()):
        attack, thing = row["attack"].replace("iz", "is"), thing_of(row["object"])
        answer = presence.prepared(thing, spelled(row["response"]), attack)
        names.append(features(answer, attack))
        verdicts.append(VERDICTS.index(row["verdict"]))
        ruled.append(presence.read_by_rules(thing, answer, attack))
    return names, verdicts, ruled


def fit(sets: dict[str, Set], size: int) -> dict[str, np.ndarray]:
    """Feature -> its three weights: of all that are often enough, then of the `size` that weigh most."""
    names = [found for answers, _, _ in sets.values() for found in answers]
    verdicts = np.array([verdict for _, of_set, _ in sets.values() for verdict in of_set])
    shares = np.concatenate([np.full(len(of_set), SHARES.get(n, 2.0)) for n, (_, of_set, _) in sets.items()])
    often = sorted(name for name, n in Counter(name for found in names for name in found).items() if n >= LEAST)
    weights = _regression(names, often, verdicts, shares)
    if size < len(often):
        counts = Counter(name for found in names for name in found)
        often = sorted(sorted(often, key=lambda f: -np.abs(weights[f]).max() * counts[f] ** 0.5)[:size])
        weights = _regression(names, often, verdicts, shares)
    return weights


def _regression(
    names: list[set[str]], often: list[str], verdicts: np.ndarray, shares: np.ndarray
) -> dict[str, np.ndarray]:
    """The weights that make the verdicts likeliest, centred; "bias" for the constant."""
    column = {name: n for n, name in enumerate(often)}
    entries = [(row, column[name]) for row, found in enumerate(names) for name in sorted(found) if name in column]
    x = sparse.csr_matrix((np.ones(len(entries)), tuple(zip(*entries, strict=True))), (len(names), len(often)))
    y, shares, d = np.eye(3)[verdicts], shares / shares.sum(), len(often)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, bias = flat[: 3 * d].reshape(d, 3), flat[3 * d :]
        z = x @ w + bias
        z -= z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        slope = (np.exp(log_p) - y) * shares[:, None]
        value = -float(shares @ (log_p * y).sum(1)) + PENALTY * float((w**2).sum())
        return value, np.concatenate([(x.T @ slope + 2 * PENALTY * w).ravel(), slope.sum(0)])

    flat = optimize.minimize(loss, np.zeros(3 * d + 3), jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
    w = flat[: 3 * d].reshape(d, 3)
    found = dict(zip(often, w - w.mean(1, keepdims=True), strict=True))
    return {**found, "bias": flat[3 * d :] - flat[3 * d :].mean()}


def right(of_set: Set, weights: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """The share read right by the rules alone, by the words alone, by both."""
    names, verdicts, ruled = of_set
    hits = np.zeros(3)
    for found, verdict, by_rules in zip(names, verdicts, ruled, strict=True):
        total = weights["bias"] + sum((weights[f] for f in found if f in weights), np.zeros(3))
        sums = dict(zip(VERDICTS, total, strict=True))
        says = [by_rules.says, max(sums, key=lambda v: sums[v]), presence.voted(by_rules, sums, grounds(found)).says]
        hits += [said == VERDICTS[verdict] for said in says]
    rules, words, both = hits / len(verdicts)
    return float(rules), float(words), float(both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fit over all sets and write the weights")
    parser.add_argument("--size", type=int, default=2000, help="how many features are kept (2000)")
    parser.add_argument("--sets", nargs="*", help="the sets to leave out, one at a time (all)")
    options = parser.parse_args()
    paths = sorted(path for path in FIXTURES.glob("hallucinogen_*.jsonl") if path.stem != FROZEN)
    sets = {path.stem.removeprefix("hallucinogen_"): read(path) for path in paths}
    if options.write:
        weights = fit(sets, options.size)
        lines = ["\t".join([name, *(str(round(100 * w)) for w in weights[name])]) for name in sorted(weights)]
        (DATA / "presence.tsv").write_text("\n".join(["feature\tyes\tno\tunclear", *lines, ""]), encoding="utf-8")
        return
    print("set, share right by rules alone, words alone, both")
    for left_out in options.sets or sets:
        weights = fit({name: of for name, of in sets.items() if name != left_out}, options.size)
        print(left_out, *(f"{100 * share:.1f}" for share in right(sets[left_out], weights)), flush=True)


if __name__ == "__main__":
    main()
