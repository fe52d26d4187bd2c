"""Runs one benchmark by name, or all; exit code 1 when a promise of its own is broken.

A number after a name sets its size: `fuzz 60` for a minute of it, `soak 200` for so many people,
`growth 10000000` up to so many rows, `kills 20` for so many kills, `delivery 60` for so many
seconds of each queue in each round.
"""

import importlib
import sys

NAMES = (
    "inbound",
    "delivery",
    "kills",
    "firings",
    "outages",
    "plan",
    "limits",
    "lanes",
    "pause",
    "growth",
    "soak",
    "fuzz",
)
SIZED = ("delivery", "kills", "growth", "soak", "fuzz")


def main(arguments: list[str]) -> int:
    """Run the named benchmarks in turn."""
    chosen: list[tuple[str, list[int]]] = []
    for word in arguments:
        if word.isdecimal() and chosen and chosen[-1][0] in SIZED and not chosen[-1][1]:
            chosen[-1][1].append(int(word))
        elif word in NAMES:
            chosen.append((word, []))
        else:
            print(f"没有叫 {word} 的测量；可用：{'、'.join(NAMES)}", file=sys.stderr)
            return 2
    wanted = chosen or [(name, []) for name in NAMES]
    passed = [importlib.import_module(f"benchmarks.{name}").main(*size) for name, size in wanted]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
