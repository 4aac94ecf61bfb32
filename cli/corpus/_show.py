"""What the working commands of `eegprep` say at their end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .._output import emit_findings, emit_json, emit_table, note

COLUMNS = ("code", "recording", "channel", "value", "limit", "action", "message")


def finish(summary: Any, as_json: bool) -> int:
    """Print a summary with its findings; the exit code of the command."""
    findings = [vars(finding) for finding in summary.findings]
    if as_json:
        emit_json(
            {
                "out": str(summary.out), "subjects": summary.subjects, "built": summary.built, "skipped": summary.skipped,
                "recordings": summary.recordings, "windows": summary.windows, "quarantined": list(summary.quarantined),
                "findings": findings, "names": list(summary.names), "remarks": list(summary.remarks), "exit_code": summary.exit_code,
            }
        )  # fmt: skip
    elif findings:
        emit_findings("findings", findings, COLUMNS)
    if not as_json:
        for fix in list(dict.fromkeys(finding.fix for finding in summary.findings if finding.quarantines and finding.fix))[:5]:
            note(f"fix: {fix}")
    for line in summary.names:
        note(line)
    note(summary.text)
    for remark in summary.remarks if not as_json else ():
        note(remark)
    return int(summary.exit_code)


def show_plan(rows: list[Any], totals: Mapping[str, Any], as_json: bool) -> int:
    """Print what a command would do."""
    lines = [dict(vars(row)) for row in rows]
    for line in lines:
        if "full_band_people" in line:
            line["full_band_people"] = len(line["full_band_people"])
    if as_json:
        emit_json({"plan": lines, "totals": totals})
        return 0
    from eegprep.words import count

    names = [line for row in lines for line in row.pop("names", ())]
    for row in lines:
        for name in ("full_band_people", "full_band_windows"):
            row.pop(name, None)
        unknown, most = row.pop("unknown", 0), row.pop("windows_most", None)
        if unknown:
            row["windows"] = f"{row['windows']} or more" if most is None else f"{row['windows']} to {most}"
    if sys.stdout.isatty():
        from eegprep.catalogue.moabb import format_bytes

        for row in lines:
            row.update({name: format_bytes(row[name] or None) for name in ("bytes_in", "bytes_out", "memory") if name in row})
    emit_table("plan", lines)
    for line in names:
        note(line)
    shown = [f"{count(totals['subjects'], 'subject')} ({totals['done']} are there already)"]
    if "windows" in totals:
        shown += [
            count(totals["recordings"], "recording"),
            _windows(totals),
            f"{totals['bytes_out'] / 1e9:.2f} GB of windows",
        ]
        shown += [f"about {totals['minutes']:g} minutes", f"{totals['memory'] / 1e9:.1f} GB of memory"]
    note("plan: " + ", ".join(shown))
    if totals.get("windows"):
        people, windows = totals["full_band_people"], totals["full_band_windows"]
        note(f"of these, {count(people, 'person')} and {count(windows, 'window')} have a rate that carries the whole pass band")
    return 0


def _windows(totals: Mapping[str, Any]) -> str:
    """The windows of a plan; a range where it cannot know them."""
    from eegprep.words import count

    if not totals["unknown"]:
        return count(totals["windows"], "window")
    most = "or more" if totals["windows_most"] is None else f"to {totals['windows_most']:,}"
    return f"{totals['windows']:,} {most} windows ({count(totals['unknown'], 'subject')} of unknown length)"
