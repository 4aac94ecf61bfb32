"""Pictures as people have them: the pixels that a viewer shows, or one error; no other program is started."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dreamdiff.pairs.decoding import decode_image, decode_noted
from dreamdiff.pairs.writer import PairsWriter
from eegprep.errors import DataError

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))


def stored(image, ending="PNG", **more):
    buffer = io.BytesIO()
    image.save(buffer, ending, **more)
    return buffer.getvalue()


def grey(values):
    return np.repeat(np.round(values * 255).astype(int)[..., None], 3, 2)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (stored(Image.fromarray((RAMP * 65535).astype("u2"))), "16-bit grey from 0..65535"),
        (stored(Image.fromarray((RAMP * 65535).astype("i4"), "I"), "TIFF"), "16-bit grey from 0..65535"),
        (stored(Image.fromarray(RAMP.astype("f4"), "F"), "TIFF"), "float grey from 0..1"),
        (stored(Image.fromarray((RAMP * 7e5 - 9).astype("i4"), "I"), "TIFF"), "32-bit grey from -9..699991"),
    ],
    ids=["16 bit", "32 bit", "float", "own range"],
)
def test_deep_grey_is_scaled_by_its_range_and_not_clipped(content, note):
    """A clipped ramp would be white, or black."""
    result, notes = decode_noted(content, "x")

    assert np.abs(result.astype(int) - grey(RAMP)).max() <= 1 and notes == (note,)


@pytest.mark.parametrize(("orientation", "turns", "mirrored"), [(3, 2, False), (6, -1, False), (8, 1, False), (2, 0, True)])
def test_the_exif_orientation_is_followed(orientation, turns, mirrored):
    """Cameras and telephones turn pictures so."""
    tall = np.zeros((16, 32, 3), "u1")
    tall[:5, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation

    result, notes = decode_noted(stored(Image.fromarray(tall), exif=exif), "x")

    expected = np.rot90(tall[:, ::-1] if mirrored else tall, turns)
    np.testing.assert_array_equal(result, expected)
    assert notes == ("turned by its EXIF orientation",)


def test_transparent_pixels_show_white_whatever_colour_they_hide():
    """RGBA, grey with alpha, and a palette with a transparent colour."""
    hidden = np.zeros((32, 32, 4), "u1")
    hidden[..., 0] = 255
    hidden[:, 16:] = (0, 0, 255, 255)
    shown = np.full((32, 32, 3), 255)
    shown[:, 16:] = (0, 0, 255)
    palette = Image.fromarray(hidden[..., :3]).quantize(4)
    for content in (stored(Image.fromarray(hidden)), stored(palette, transparency=palette.getpixel((0, 0)))):
        result, notes = decode_noted(content, "x")
        np.testing.assert_array_equal(result, shown)
        assert notes == ("transparent pixels over white",)
    solid = np.concatenate([hidden[..., :3], np.full((32, 32, 1), 255, "u1")], 2)
    assert decode_noted(stored(Image.fromarray(solid)), "x")[1] == ()


def test_cmyk_palettes_bits_and_the_first_of_several():
    """What printers, old scanners and animations give."""
    flat = Image.new("RGB", (32, 32), (200, 60, 20))
    assert np.abs(decode_image(stored(flat.convert("CMYK"), "JPEG", quality=100), "x").astype(int) - (200, 60, 20)).max() < 9
    np.testing.assert_array_equal(decode_image(stored(Image.fromarray(RAMP > 0.5)), "x"), grey(RAMP > 0.5))
    frames = [Image.new("RGB", (32, 32), c) for c in ((250, 0, 0), (0, 250, 0))]
    result, notes = decode_noted(stored(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x")
    assert result[0, 0].tolist() == [250, 0, 0] and notes == ("first of several pictures",)


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 80) + bytes(20)])
def test_an_eps_under_another_name_starts_no_program(tmp_path, monkeypatch, head):
    """Pillow hands EPS to Ghostscript, which runs PostScript programs."""
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DataError, match=r"cannot be read .*formats that are read: PNG, JPEG"):
        decode_image(head + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n", "a.png")
    assert not (tmp_path / "started").exists()


def png(width, height, body=b""):
    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + body + part(b"IDAT", zlib.compress(bytes(64))) + part(b"IEND", b"")


def test_pixels_are_counted_before_they_take_memory():
    """50 million; a PNG of 169 million in half a megabyte took 2.3 GB."""
    with pytest.raises(DataError, match=r"13000 x 13000 pixels \(limit 50,000,000\)"):
        decode_image(png(13000, 13000), "x.png")


def test_every_damage_is_one_error():
    """Each decoder has its own: ValueError, SyntaxError, struct.error, ..."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype("u1"))
    for ending in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = stored(picture, ending)
        for _ in range(40):
            harmed = bytearray(whole)
            harmed[int(rng.integers(0, min(len(harmed), 220)))] ^= int(rng.integers(1, 255))
            try:
                decode_image(bytes(harmed[: int(rng.integers(1, len(harmed) + 1))]), "x")
            except DataError:
                continue
    for content in (b"", b"<svg/>", b"%PDF-1.4", b"DDS " + bytes(128), b"icns" + bytes(12), b"\xd7\xcd\xc6\x9a" + bytes(100)):
        with pytest.raises(DataError, match="cannot be read"):
            decode_image(content, "x")


def test_a_store_of_references_counts_conversions_and_missing_files(tmp_path):
    """What was done to a picture is a fact of the store; every gap is counted."""
    Image.fromarray((RAMP * 65535).astype("u2")).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    writer = PairsWriter(
        tmp_path / "p.zarr", recipe={}, classes=["x"], provenance="recorded", licence="CC0", channels=2, samples=8
    )
    with pytest.raises(DataError, match=r"2 of 4 images are missing from .*, the first is c\.png"):
        writer.set_image_files(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    writer.set_image_files(tmp_path, ["a.png", "b.png"])

    assert json.loads((writer.partial / "images" / "zarr.json").read_bytes())["attributes"]["conversions"] == {
        "16-bit grey from 0..65535": 1
    }
