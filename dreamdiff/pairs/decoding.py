"""Picture files -> 8-bit RGB pixels as a viewer shows them, or one error; the formats are named, so that no other program is started."""

from __future__ import annotations

import io
import warnings
from typing import cast

import numpy as np
from PIL import Image

from eegprep.errors import DataError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")
"""What is read. EPS, which Pillow hands to Ghostscript, and formats that nobody has photographs in are not among them."""
# a small file can unpack to gigabytes; the largest photographs that people have are about this large
MAX_PIXELS = 50_000_000
BACKGROUND = (255, 255, 255)  # behind transparent pixels, as viewers and browsers show them


def decode_image(content: bytes, name: str) -> np.ndarray:
    """(h, w, 3) uint8 of a picture file; see `decode_noted`."""
    return decode_noted(content, name)[0]


def decode_noted(content: bytes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels of a picture file, and what was done to get them.

    The first picture of several; turned as its EXIF orientation says; transparent pixels over white; 16-bit and 32-bit grey by its
    range, float grey from 0..1 (or from its own range where it exceeds that).

    Raises:
        DataError: not one of `FORMATS`, damaged, or of more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"image {name!r} has {image.width} x {image.height} pixels (limit {MAX_PIXELS:,})", "make it smaller"
                    )
                return _as_shown(image)
    except DataError:
        raise
    except Exception as error:  # every decoder has errors of its own: ValueError, SyntaxError, struct.error, ...
        reason = str(error).replace("<_io.BytesIO object at ", "<").strip()[:160] or type(error).__name__
        raise DataError(
            f"image {name!r} cannot be read ({reason}); formats that are read: {', '.join(FORMATS)}",
            "replace the file by the original image, or save it as PNG",
        ) from None


def _as_shown(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    notes = []
    if getattr(image, "is_animated", False):
        notes.append("first of several pictures")
    image.load()
    # 0x0112: the tag of the orientation; read now, as a converted image has lost it
    orientation = image.getexif().get(0x0112, 1)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        grey, note = _eight_bit(np.asarray(image), image.mode)
        image = Image.fromarray(grey)
        notes.append(note)
    image = _turned(image, orientation)
    if orientation in range(2, 9):
        notes.append("turned by its EXIF orientation")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        if cast("tuple[tuple[int, int], ...]", shown.getextrema())[3][0] < 255:
            notes.append("transparent pixels over white")
            below = Image.new("RGB", shown.size, BACKGROUND)
            below.paste(shown, mask=shown.getchannel("A"))
            return np.asarray(below), tuple(notes)
        image = shown
    if image.mode == "CMYK":
        notes.append("converted from CMYK without a colour profile")
    return np.asarray(image.convert("RGB")), tuple(notes)


_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,), 3: (Image.Transpose.ROTATE_180,), 4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,), 6: (Image.Transpose.ROTATE_270,), 7: (Image.Transpose.TRANSVERSE,), 8: (Image.Transpose.ROTATE_90,),
}  # fmt: skip


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    info = image.info
    for turn in _TURNS.get(orientation, ()):
        image = image.transpose(turn)
    image.info = info
    return image


def _eight_bit(values: np.ndarray, mode: str) -> tuple[np.ndarray, str]:
    """Grey of more than 8 bits as 8 bits: by the range that the type, or the values, cover."""
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            raise ValueError("no value of it is a finite number")
        low, high = float(finite.min()), float(finite.max())
        # pictures as float are written from 0..1 or from 0..255
        if low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if high <= 1 else 255.0
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        note = f"float grey from {low:g}..{high:g}"
    else:
        low, high = int(values.min()), int(values.max())
        if mode != "I" or (low >= 0 and high <= 65535):
            low, high = 0, 255 if mode == "I" and high <= 255 else 65535
        note = f"{'16' if (low, high) == (0, 65535) else '32'}-bit grey from {low}..{high}"
    scaled = (values.astype(np.float32) - np.float32(low)) / max(high - low, 1e-30) * 255
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8), note
