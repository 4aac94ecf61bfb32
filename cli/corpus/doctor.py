"""`eegprep doctor`."""

from __future__ import annotations

from .._app import eegprep_app
from .._env import foreign_eegprep, foreign_message
from . import _options as o


@eegprep_app.command(
    examples="""
    eegprep doctor
    eegprep doctor --json
    """,
)
def doctor(data_dir: o.DataDir = None, as_json: o.Json = False) -> int:
    """Check this installation.

    Looks at versions, foreign packages, folders and offline settings, tries a filter and a loader, and ends with a verdict.
    """
    from .._output import emit_json, emit_table, note, verdict

    foreign = foreign_eegprep()
    try:
        from eegprep.inspection.doctor import examine
    except ImportError:
        if foreign is None:
            raise
        note(foreign_message(foreign))  # theirs was imported: nothing of ours can be asked
        return 1
    checks = [vars(check) for check in examine(data_dir)]
    emit_json(checks) if as_json else emit_table("eegprep doctor", checks, ["name", "state", "found", "fix"])
    failed, warned = (sum(check["state"] == state for check in checks) for state in ("failed", "warning"))
    note(verdict(failed, warned))
    return int(failed > 0)
