"""Make `images/` again: pick drawings from icon sets, rasterise them, lay them out in sheets with an index.

Needs `resvg_py` and the icon sets as unpacked npm packages `@iconify-json/NAME` (see `SOURCES` for the releases); no part of the
package needs this at run time.  `python -m tools.embedded_model.draw FOLDER_OF_ICON_SETS`.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eegprep.atomic import write_bytes, write_json
from eegprep.errors import ModelError, UsageError
from tools.embedded_model.drawings import OWN

SIZE = 64

COLUMNS = 20


# short code -> set; release of the npm package, licence, creator, where it comes from, URL of the licence
SOURCES: dict[str, dict[str, str]] = {
    "noto": {
        "release": "1.2.9", "licence": "Apache-2.0", "creator": "Google Inc", "url": "https://github.com/googlefonts/noto-emoji",
    },
    "noto-v1": {
        "release": "1.2.5", "licence": "Apache-2.0", "creator": "Google Inc", "url": "https://github.com/googlefonts/noto-emoji",
    },
    "twemoji": {
        "release": "1.2.5", "licence": "CC-BY-4.0", "creator": "Twitter, Inc and other contributors",
        "url": "https://github.com/jdecked/twemoji",
    },
    "fluent-emoji": {
        "release": "1.2.7", "licence": "MIT", "creator": "Microsoft Corporation", "url": "https://github.com/microsoft/fluentui-emoji",
    },
    "fluent-emoji-flat": {
        "release": "1.2.6", "licence": "MIT", "creator": "Microsoft Corporation", "url": "https://github.com/microsoft/fluentui-emoji",
    },
    "emojione": {
        "release": "1.2.3", "licence": "CC-BY-4.0", "creator": "EmojiOne (EmojiTwo)", "url": "https://github.com/EmojiTwo/emojitwo",
    },
    "fxemoji": {
        "release": "1.2.2", "licence": "Apache-2.0", "creator": "Mozilla", "url": "https://github.com/mozilla/fxemoji",
    },
    "streamline-emojis": {
        "release": "1.2.4", "licence": "CC-BY-4.0", "creator": "Streamline", "url": "https://github.com/webalys-hq/streamline-vectors",
    },
    "own": {"release": "1", "licence": "MIT", "creator": "The eeg-dreamdiff authors", "url": "drawings.py"},
}  # fmt: skip

_SETS = [name for name in SOURCES if name != "own"]


# name, WordNet identifier, ImageNet-1k index; icon names; drawings for the generator, more for CLIP and VAE, held out.
# A digit is a set in the order of SOURCES, oK is the project's own drawing K.
PICKED: list[tuple[str, str, int, tuple[str, ...], str, str, str]] = [
    ("German shepherd", "n02106662", 235, ("dog-face", "dog"), "0 4", "2", "3 5 7"),
    ("Egyptian cat", "n02124075", 285, ("cat-face", "cat"), "0 4", "1", "2 3 6"),
    ("lycaenid", "n02281787", 326, ("butterfly",), "0 4", "3", "2 1 5"),
    ("sorrel", "n02389026", 339, ("horse",), "4 0", "2 3", "1 5 6"),
    ("capuchin", "n02492035", 378, ("monkey-face", "monkeyface"), "0 4", "1", "2 3 5 6"),
    ("African elephant", "n02504458", 386, ("elephant",), "4 0", "7", "3 2 5 6"),
    ("giant panda", "n02510455", 388, ("panda-face", "panda", "pandaface"), "0 2", "4 7", "1 5 6"),
    ("anemone fish", "n02607072", 393, ("tropical-fish",), "o0 o1", "o2", "5 o3 o5"),
    ("airliner", "n02690373", 404, ("airplane",), "4 0", "1", "3 2 5 6"),
    ("broom", "n02906734", 462, ("broom",), "o0 4", "o1 0", "3 2 o3 o5"),
    ("canoe", "n02951358", 472, ("canoe",), "4 0", "2", "3 5"),
    ("cellular telephone", "n02992529", 487, ("mobile-phone",), "0 4", "2", "1 3 5"),
    ("coffee mug", "n03063599", 504, ("hot-beverage", "hotbeverage", "hot-beverage-2"), "1 5", "6", "0 2 7"),
    ("convertible", "n03100240", 511, (), "o0 o1", "o2", "o3 o4 o5"),
    ("desktop computer", "n03180011", 527, ("desktop-computer",), "4 2", "0", "3 1 5"),
    ("digital watch", "n03197337", 531, ("watch",), "2 4", "6 0", "3 1 5 7"),
    ("electric guitar", "n03272010", 546, ("guitar",), "0 2", "4", "1 3 5"),
    ("electric locomotive", "n03272562", 547, ("locomotive", "steamlocomotive"), "4 2", "0", "3 1 5 6"),
    ("espresso maker", "n03297495", 550, (), "o0 o1", "o2", "o3 o4 o5"),
    ("folding chair", "n03376595", 559, (), "o0 o1", "o2", "o3 o4 o5"),
    ("golf ball", "n03445777", 574, (), "o0 o1", "o2", "o3 o4 o5"),
    ("grand piano", "n03452741", 579, ("musical-keyboard", "musicalkeyboard"), "2 4", "0", "3 6 7"),
    ("iron", "n03584829", 606, (), "o0 o1", "o2 o4", "o3 o5"),
    ("jack-o'-lantern", "n03590841", 607, ("jack-o-lantern", "jackolantern"), "0 1", "4 7", "2 3 5 6"),
    ("mailbag", "n03709823", 636, (), "o0 o1", "o2", "o3 o4 o5"),
    ("missile", "n03773504", 657, (), "o0 o1", "o2", "o3 o4 o5"),
    ("mitten", "n03775071", 658, (), "o0 o1", "o2", "o3 o4 o5"),
    ("mountain bike", "n03792782", 671, ("bicycle",), "1 2", "4 0", "3 6 5 7"),
    ("mountain tent", "n03792972", 672, ("tent",), "4 2", "0", "3 1"),
    ("pajama", "n03877472", 697, (), "o0 o1", "o2", "o3 o4 o5"),
    ("parachute", "n03888257", 701, ("parachute",), "o0 o2", "4 o1", "3 2 o3 o5"),
    ("pool table", "n03982430", 736, (), "o0 o1", "o2", "o3 o4 o5"),
    ("radio telescope", "n04044716", 755, ("satellite-antenna", "satelliteantenna"), "0 4", "2", "3 6 5 7"),
    ("reflex camera", "n04069434", 759, ("camera",), "0 4", "6", "2 3 5 1"),
    ("revolver", "n04086273", 763, ("pistol",), "1 5", "", "6 7"),
    ("running shoe", "n04120489", 770, ("running-shoe",), "4 2", "0", "3 5 1"),
    ("banana", "n07753592", 954, ("banana",), "0 4", "2", "3 5 1"),
    ("pizza", "n07873807", 963, ("pizza", "sliceofpizza"), "4 2", "0", "3 5 6 1"),
    ("daisy", "n11939491", 985, ("blossom",), "o0 2", "o1 4", "o3 o5 3"),
    ("bolete", "n13054560", 997, ("brown-mushroom", "mushroom"), "0 2", "4 7", "3 6 1"),
]


def icon_svg(folder: Path, name: str) -> str | None:
    """SVG text of an icon, or of the icon that the name is an alias of; None when the set has neither."""
    content = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    icon = content["icons"].get(name)
    if icon is None:
        alias = content.get("aliases", {}).get(name)
        return icon_svg(folder, alias["parent"]) if alias else None
    left, top, width, height = (icon.get(key, content.get(key, default)) for key, default in _BOX)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="256" height="256">{icon["body"]}</svg>'
    )


_BOX = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def rasterise(svg: str, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) uint8 of an SVG on white paper, drawn at 256 pixels and reduced."""
    import resvg_py

    with Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256)))) as drawn:
        paper = Image.new("RGBA", drawn.size, "white")
        paper.alpha_composite(drawn.convert("RGBA"))
    return np.asarray(paper.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def find(sets: Path, category: str, names: tuple[str, ...], token: str) -> tuple[str, dict[str, str]]:
    """SVG and origin of one entry of `PICKED`."""
    if token.startswith("o"):
        drawing = OWN[category.lower()]
        return drawing(int(token[1:])), {"source": "own", "drawing": f"{drawing.__name__} {token[1:]}"}
    chosen = _SETS[int(token)]
    for name in names:
        svg = icon_svg(sets / chosen, name)
        if svg is not None:
            return svg, {"source": chosen, "drawing": name}
    raise ModelError(
        f"{category}: the set {chosen} has none of {', '.join(names)}", f"unpack release {SOURCES[chosen]['release']} of it"
    )


def make(sets: Path, out: Path) -> None:
    """Write train.png, held-out.png and index.json to `out`."""
    records: list[dict[str, Any]] = []
    tiles: dict[str, list[np.ndarray]] = {"train": [], "held-out": []}
    for category, _, _, names, *columns in PICKED:
        for role, tokens in zip(("generator", "extra", "held-out"), columns, strict=True):
            split = "held-out" if role == "held-out" else "train"
            for token in tokens.split():
                svg, origin = find(sets, category, names, token)
                source = SOURCES[origin["source"]]
                credit = {"creator": source["creator"], "licence": source["licence"]}
                records.append({"category": category, "split": split, "role": role, **origin, **credit})
                tiles[split].append(rasterise(svg))
    for split, drawn in tiles.items():
        write_bytes(out / f"{split}.png", _png(_sheet(drawn)))
    known = [{"name": name, "synset": synset, "imagenet_index": index} for name, synset, index, *_ in PICKED]
    write_json(out / "index.json", {"size": SIZE, "sources": SOURCES, "categories": known, "drawings": records})


def _sheet(tiles: list[np.ndarray]) -> np.ndarray:
    """Tiles in rows of `COLUMNS`, filled up with white."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.full((rows, COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    sheet.reshape(-1, SIZE, SIZE, 3)[: len(tiles)] = np.stack(tiles)
    return sheet.swapaxes(1, 2).reshape(rows * SIZE, COLUMNS * SIZE, 3)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise UsageError("the folder with the icon sets is missing", "python -m tools.embedded_model.draw FOLDER")
    make(Path(sys.argv[1]), Path(__file__).parents[2] / "dreamdiff" / "embedded" / "images")
