"""One self-contained HTML page: text, tables and pictures, nothing loaded from elsewhere. Every report here is made of it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eegprep.atomic import write_text
from eegprep.inspection.pictures import figure_png, image_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


STYLE = """
:root { --ink: #1d2430; --soft: #5b6575; --line: #dfe4ea; --paper: #ffffff; --shade: #f6f8fa; --mark: #0b6bcb; --warn: #9a5b00;
  --alert: #fff7e6; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #a3adba; --line: #363d48; --paper: #15181d; --shade: #1e232a; --mark: #6db3ff; --warn: #e0a94a; --alert: #2c2415; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 1080px; padding: 24px 20px 80px; }
h1 { font-size: 1.9em; line-height: 1.2; margin: 0 0 .3em; }
h2 { font-size: 1.3em; margin: 2.2em 0 .5em; padding-top: .7em; border-top: 1px solid var(--line); }
p.lead { font-size: 1.1em; color: var(--soft); margin-top: 0; }
p.verdict { border-left: 4px solid var(--mark); background: var(--shade); padding: .7em 1em; }
p.warning { border-left: 4px solid var(--warn); background: var(--alert); padding: .7em 1em; }
figure { margin: 1em 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9em; margin-top: .3em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92em; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .8em .3em 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
.grid { display: flex; flex-wrap: wrap; gap: 10px; }
.grid figure { margin: 0; width: 128px; }
.grid img { width: 128px; height: 128px; image-rendering: auto; border: 1px solid var(--line); border-radius: 6px; }
.sets { display: flex; flex-wrap: wrap; gap: 14px 26px; }
.sets .set { display: flex; flex-wrap: nowrap; gap: 6px; break-inside: avoid; }
.sets figure { margin: 0; width: 114px; }
.sets img { width: 114px; height: 114px; border: 1px solid var(--line); border-radius: 6px; background: #fff; }
.sets figcaption { font-size: .78em; line-height: 1.25; overflow-wrap: anywhere; }
pre { background: var(--shade); padding: .8em 1em; overflow-x: auto; font-size: .86em; border-radius: 6px; }
"""


class Page:
    """Collects sections in order; `write` publishes the file in one step.

    Args:
        title: heading and window title.
        lead: one sentence under it.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{escape(lead)}</p>')

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph; `kind` is empty, "lead", "verdict" or "warning"."""
        attribute = f' class="{escape(kind)}"' if kind else ""
        self._parts.append(f"<p{attribute}>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Commands or listings, as they are."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Rows of equal keys; numbers are shortened to four digits."""
        names = list(columns or (rows[0] if rows else ()))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join("<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in names) + "</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def figure(self, figure: Figure, caption: str, alt: str = "") -> None:
        """A matplotlib figure as PNG; the figure is not closed."""
        self.png(figure_png(figure), caption, alt)

    def png(self, content: bytes, caption: str, alt: str = "") -> None:
        """A PNG that exists already."""
        self._parts.append(
            f'<figure><img src="{data_uri(content)}" alt="{escape(alt or caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        )

    def grid(self, images: Iterable[tuple[np.ndarray, str]]) -> None:
        """Small pictures in rows: (h, w, 3) uint8 and a caption each."""
        cells = "".join(
            f'<figure><img src="{data_uri(image_png(image))}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
            for image, caption in images
        )
        self._parts.append(f'<div class="grid">{cells}</div>')

    def sets(self, sets: Iterable[Sequence[tuple[np.ndarray, str]]]) -> None:
        """Small pictures that belong together: each set stays on one line, whatever the width of the window."""
        cells = "".join(
            '<div class="set">'
            + "".join(
                f'<figure><img src="{data_uri(image_png(image))}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'
                for image, text in one
            )
            + "</div>"
            for one in sets
        )
        self._parts.append(f'<div class="sets">{cells}</div>')

    def html(self) -> str:
        """The whole document."""
        return document(self.title, "\n".join(self._parts))

    def write(self, path: Path) -> None:
        """Publish the page under `path`."""
        write_text(path, self.html())


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around `body`, which is HTML already; `style` is added to that of every page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def data_uri(png: bytes) -> str:
    """A PNG as the source of an `<img>`: the page stays one file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return str(value)
