"""How a benchmark tells its figures: to people, and as JSON lines to programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One measured value; `ratio` is to the peer `against`, the median over rounds run in turn."""

    bench: str
    figure: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None

    def tell(self) -> None:
        """Print it."""
        beside = f"  {self.ratio:.2f} × {self.against}" if self.ratio is not None else ""
        print(
            f"{self.bench:10} {self.figure:22} {self.value:12.2f} {self.unit}{beside}",
            file=sys.stderr,
        )
        print(json.dumps(asdict(self), ensure_ascii=False), flush=True)


def note(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))
