"""Runs one benchmark by name, or all; exit code 1 when a promise of its own is broken."""

import importlib
import sys

NAMES = ("inbound", "delivery", "kills")


def main(arguments: list[str]) -> int:
    """Run the named benchmarks in turn."""
    unknown = [name for name in arguments if name not in NAMES]
    if unknown:
        print(
            f"没有叫 {unknown[0]} 的测量；可用：{'、'.join(NAMES)}", file=sys.stderr
        )  # it is a command
        return 2
    passed = [importlib.import_module(f"benchmarks.{name}").main() for name in arguments or NAMES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
