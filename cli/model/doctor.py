"""`dreamdiff doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._env import foreign_eegprep, foreign_message
from .._output import emit_json, emit_table, note, verdict


@dreamdiff_app.command(
    examples="""
    dreamdiff doctor
    dreamdiff doctor --json
    """,
)
def doctor(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that each part of the loader's self-test may take")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout")] = False,
) -> None:
    """Check this installation.

    Looks at versions, devices, offline settings and a foreign `eegprep`, tries the loader, and ends with a verdict.
    """
    foreign = foreign_eegprep()
    if foreign:  # our own package cannot be imported then
        note(foreign_message(foreign))
        raise typer.Exit(1)
    from dreamdiff.programs.doctor import examine

    facts = examine(timeout=timeout)
    if as_json:
        emit_json(facts)
    else:
        _show(facts)
    failed = sum(not check["ok"] for check in facts["checks"])
    note(verdict(max(failed, int(not facts["ok"])), 0))
    raise typer.Exit(0 if facts["ok"] else 1)


def _show(facts: dict) -> None:
    rows = [{"what": "python", "found": f"{facts['python']} on {facts['system']}"}]
    rows += [{"what": name, "found": version or "not installed"} for name, version in facts["versions"].items()]
    rows += [
        {"what": d["device"], "found": ", ".join(f"{k} {v}" for k, v in d.items() if k != "device")} for d in facts["devices"]
    ]
    rows += [{"what": name, "found": value or "not set"} for name, value in facts["offline"].items()]
    rows += [{"what": "disk free", "found": f"{facts['disk_free_gb']} GB"}, {"what": "processors", "found": facts["processors"]}]
    emit_table("dreamdiff doctor", rows)
    emit_table(
        "loader self-test",
        [{"test": c["name"], "passed": "yes" if c["ok"] else "NO", "seen": c["detail"]} for c in facts["checks"]],
    )
