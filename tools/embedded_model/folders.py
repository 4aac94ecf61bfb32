"""What every written folder has in common."""

from __future__ import annotations

import json
from pathlib import Path

from eegprep.atomic import write_json


def forget_origin(folder: Path) -> None:
    """Drop the folder that a part was loaded from out of its configuration, and let everyone read the weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})
    for file in folder.iterdir():
        file.chmod(0o644)
