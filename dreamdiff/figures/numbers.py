"""Which figures of the paper are drawn from a model; importing this loads no network."""

from __future__ import annotations

from eegprep.errors import UsageError

FIGURES = (3, 4, 6)


def check_number(number: int) -> None:
    """Raise UsageError where `dreamdiff evaluate` does not draw that figure."""
    if number in FIGURES:
        return
    if number == 5:
        raise UsageError("Figure 5 is not drawn from a model alone", "dreamdiff ablate --quick --figure 5 --out tables")
    raise UsageError(
        f"there is no Figure {number} here", f"choose one of: {', '.join(map(str, FIGURES))}, or 5 of dreamdiff ablate"
    )
