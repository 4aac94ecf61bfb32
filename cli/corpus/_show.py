"""What the working commands of `eegprep` say at their end."""

from __future__ import annotations

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
    if as_json:
        emit_json({"plan": lines, "totals": totals})
        return 0
    from eegprep.words import count

    names = [line for row in lines for line in row.pop("names", ())]
    emit_table("plan", lines)
    for line in names:
        note(line)
    shown = [f"{count(totals['subjects'], 'subject')} ({totals['done']} are there already)"]
    if "windows" in totals:
        shown += [
            count(totals["recordings"], "recording"),
            count(totals["windows"], "window"),
            f"{totals['bytes_out'] / 1e9:.2f} GB of windows",
        ]
        shown += [f"about {totals['minutes']:g} minutes", f"{totals['memory'] / 1e9:.1f} GB of memory"]
    note("plan: " + ", ".join(shown))
    return 0
