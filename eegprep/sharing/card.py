"""Cards: the README.md of a repository, with the front matter that the Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eegprep.sharing.licences import Verdict


def front_matter(values: Mapping[str, Any]) -> str:
    """YAML between two rules. Strings are written as JSON, which YAML reads, so that no text can end the block."""
    lines = ["---"]
    for key, value in values.items():
        if isinstance(value, list | tuple):
            lines += [f"{key}:", *(f"- {json.dumps(item, ensure_ascii=False)}" for item in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*lines, "---", ""])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; nothing for no rows."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in rows)])


def _cell(value: Any) -> str:
    # a card is a web page of somebody else's: names out of data may not become markup
    text = "" if value is None else " ".join(str(value).split())
    return re.sub(r"([|<>`\[\]*_\\])", r"\\\1", text)


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where all parts are empty."""
    kept = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *kept]) + "\n" if kept else ""


def licence_section(verdict: Verdict) -> str:
    """The whole chain, and what follows from it."""
    sentence = verdict.sentence[0].upper() + verdict.sentence[1:] + "."
    return section(
        "Licences", sentence, table(verdict.to_json()),
        "Licences are what the parts declare, or what whoever published this states; read the parts' own pages before building on it.",
    )  # fmt: skip
