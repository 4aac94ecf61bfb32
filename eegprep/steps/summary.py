"""Sums up a run: what was written, what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eegprep.errors import SourceError, ToolkitError
from eegprep.recording import Finding
from eegprep.steps.jobs import Outcome
from eegprep.store.records import LeftOutSubject
from eegprep.words import count


@dataclass(frozen=True)
class Summary:
    """What a step did. `exit_code` is 3 when recordings were quarantined.

    remarks: sentences about the store as a whole. names: how many people files were taken for, and by which rule; a sentence
        for each data set of files.
    """

    out: Path
    subjects: int
    built: int
    recordings: int
    windows: int
    findings: tuple[Finding, ...]
    quarantined: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def skipped(self) -> int:
        """Subjects that were there already."""
        return self.subjects - self.built

    @property
    def exit_code(self) -> int:
        return 3 if self.quarantined else 0

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [
            f"{self.out}: {count(self.subjects, 'subject')} ({self.skipped} were there already), {count(self.recordings, 'recording')}"
        ]
        if self.windows:
            parts.append(count(self.windows, "window"))
        if self.quarantined:
            parts.append(f"{count(len(self.quarantined), 'recording')} quarantined")
        return ", ".join(parts)


def without_recordings(outcomes: Sequence[Outcome], before: Mapping[str, LeftOutSubject]) -> dict[str, LeftOutSubject]:
    """Subjects without one usable recording, for the root of the store: they have no group."""
    named = {outcome.name for outcome in outcomes}
    kept = {name: entry for name, entry in before.items() if name not in named}
    empty = {item.name: LeftOutSubject(item.key, item.facts, item.left_out) for item in outcomes if not item.recordings}
    return {**kept, **empty}


def no_usable_recording(outcomes: Sequence[Outcome]) -> ToolkitError:
    """No recording could be used: the first reason that lies in a recording is the error; files that hold none say less."""
    reasons = [finding for outcome in outcomes for finding in outcome.findings if finding.quarantines]
    if not reasons:
        return SourceError("0 recordings were found (least 1)", "check the source")
    # a folder of recordings often holds other files too, and those are never the reason
    first = next((finding for finding in reasons if finding.code != "unreadable"), reasons[0])
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    problem = f"no recording could be used: {first.recording}: {first.message.removeprefix(f'{first.recording}: ')}{more}"
    return SourceError(problem, first.fix or _FIXES.get(first.code, _FIX))


_FIX = "fix or exclude the recordings listed above"

_FIXES = {
    "unreadable": "give EEG files that MNE-Python can read, whole and with EEG channels",
    "few_channels": "lower --min-channels, or leave such recordings out",
    "too_short": "use --short stretch, a smaller --window, or longer recordings",
    "no_trials": "use --windows sliding, or recordings with events",
    "units": "give the factor with --scale, or widen --min-uv and --max-uv",
    "nyquist": "use --nyquist clip or highpass, or a lower --high",
    "positions": "use --mode replicate, or give the electrodes' positions",
}


def summarise(outcomes: Sequence[Outcome], out: Path) -> Summary:
    findings = tuple(finding for outcome in outcomes for finding in outcome.findings)
    return Summary(
        out=out,
        subjects=len(outcomes),
        built=sum(not outcome.done_before for outcome in outcomes),
        recordings=sum(outcome.recordings for outcome in outcomes),
        windows=sum(outcome.windows for outcome in outcomes),
        findings=findings,
        quarantined=tuple(record.recording for outcome in outcomes for record in outcome.left_out),
    )
