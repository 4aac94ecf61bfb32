"""What every report of pairs has in common: how it names its pairs, and what its page says before any number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dreamdiff.origin import portable
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from eegprep.inspection.page import Page

SIMULATED = "The EEG is simulated: these numbers say that the software works, and nothing about brains."


def pairs_identity(store: Pairs, out: Path) -> dict[str, object]:
    """The pairs of a report that lies in `out`: where they are, what they hold, and under which licence."""
    return {
        "path": portable(store.path, out), "fingerprint": store.fingerprint, "content": store.content_sha256, "provenance": store.provenance,
        "licence": store.licence,
    }  # fmt: skip


def report_page(
    title: str, lead: str, provenance: str, audit: Audit | None = None, split: str = "", sentence: str | None = None
) -> Page:
    """A page that says first where its pictures and numbers come from, whether the EEG is simulated, and what the audit says of the split.

    Args:
        sentence: of the origin, without a full stop.
    """
    page = Page(title, lead)
    if sentence:
        page.text(f"{sentence[:1].upper()}{sentence[1:]}.")
    if provenance == "simulated":
        page.text(SIMULATED, "warning")
    if audit is not None and audit.verdict != "clean":
        page.text(f"The split {split}: {'; '.join(audit.leaks if audit.verdict == 'leaks' else audit.unknown)}", "warning")
    return page


def not_computed(page: Page, reasons: Mapping[str, str]) -> None:
    """A section on what has no number, and why; none where everything has."""
    if reasons:
        page.heading("Not computed")
        page.table([{"what": what, "why": why} for what, why in reasons.items()])
