"""Which test to try first on each mutant: `python -m warp_conformance.hints conformance/faults.toml [KIND ...]` finds and notes it.

A hint makes a hunt fast and weakens nothing: a mutant that its hinted test does not catch runs into all others. The best hint is a
test that fails at once; one that fails by waiting is the last choice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from warp_conformance.mutation import Caught, Mutant, listed, mutants_of, survey

CATCHES = 4  # of one mutant that are compared: tests beyond them cost more than a better hint saves


def best(caught: Sequence[Caught]) -> str:
    """Return the test to try first: one that fails by a wrong result, not by waiting; plainly, not by drawn examples; soon."""
    return min(caught, key=lambda each: (each.late, each.drawn, each.seconds)).test


def noted(text: str, kind: str, tests: Mapping[tuple[str, str], str]) -> str:
    """Return a faults.toml with the tests, by method and fault, as hints of a kind's entries; all else stays as it is."""

    def entry(match: re.Match[str]) -> str:
        lines = [line for line in match[0].splitlines() if not line.startswith("test = ")]
        values = dict(re.findall(r'^(\w+) = "(.*)"$', match[0], re.MULTILINE))
        test = tests.get((values["method"], values["fault"]))
        if values["kind"] != kind or test is None:
            return match[0]
        return "\n".join([*lines, f'test = "{test}"', ""])

    return re.sub(r"^\[\[fault\]\]\n(?:\w+ = .*\n)+", entry, text, flags=re.MULTILINE)


def found(mutants: Sequence[Mutant]) -> dict[tuple[str, str], str]:
    """Return the best hint of each mutant that something catches."""
    return {
        (mutant.method, mutant.fault): best(caught)
        for mutant, caught in survey(mutants, enough=CATCHES).items()
        if caught
    }


def main(path: Path, kinds: Sequence[str]) -> int:
    """Note the hints of some kinds, or of all."""
    for kind in kinds or sorted({fault.kind for fault in listed(path)}):
        hints = found(mutants_of(kind))
        path.write_text(noted(path.read_text(), kind, hints))
        print(f"{kind}: {len(hints)} of {len(mutants_of(kind))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
