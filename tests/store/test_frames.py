"""zstd frames written without a compressor: whatever reads zstd has to read them."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from eegprep.errors import SignalError
from eegprep.store import writer as store_writer
from eegprep.store.frames import repeated_frame
from eegprep.store.root import create_corpus, finish_corpus


@given(rows=st.integers(1, 130), more=st.integers(0, 200), samples=st.integers(2, 1300), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_any_number_of_rows_is_repeated_in_order(rows, more, samples, seed):
    """Blocks of 128 KiB begin and end anywhere in a row; the library is the one of numcodecs."""
    rows_CT = np.random.default_rng(seed).standard_normal((rows, samples)).astype(np.float32)

    frame = repeated_frame(rows_CT, rows + more)

    decoded = np.frombuffer(numcodecs.Zstd().decode(frame), np.float32).reshape(rows + more, samples)
    np.testing.assert_array_equal(decoded, rows_CT[np.arange(rows + more) % rows])
    assert len(frame) < rows_CT.nbytes + 40 + (rows + more) * samples * 4 // 4096


def test_every_length_of_a_match_is_written_right():
    """Lengths are coded in classes with different numbers of extra bits; each boundary is a chance to be off by one."""
    for length in [*range(4, 150), *(2**k + d for k in range(7, 17) for d in range(-1, 6))]:
        row_1T = np.arange(length, dtype=np.uint8)[None]
        assert bytes(numcodecs.Zstd().decode(repeated_frame(row_1T, 2))) == row_1T.tobytes() * 2


def write(root, windows_NCT, *, repeat, channels=128):
    create_corpus(root, {}, "f", channels=channels, samples=windows_NCT.shape[2])
    with store_writer.SubjectWriter(root, "Set", "1", channels=channels, samples=windows_NCT.shape[2]) as writer:
        writer.add(windows_NCT, writer.add_recording({}), np.arange(len(windows_NCT)), repeat=repeat)
        writer.commit("k")
    finish_corpus(root)


@pytest.mark.parametrize("pipeline", ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"])
def test_a_store_with_them_is_plain_zarr(tmp_path, pipeline):
    """Two independent readers, one in Python and one in Rust, give what was padded before it was written."""
    if pipeline.startswith("zarrs"):
        pytest.importorskip("zarrs")
    windows_NCT = np.random.default_rng(0).standard_normal((5, 22, 512)).astype(np.float32)
    write(tmp_path / "c", windows_NCT, repeat=True)

    with zarr.config.set({"codec_pipeline.path": pipeline}):
        made = zarr.open_group(tmp_path / "c", mode="r")["Set/1/windows"][:]

    np.testing.assert_array_equal(made, windows_NCT[:, np.arange(128) % 22])


def test_windows_too_long_for_a_frame_of_one_segment_are_compressed(tmp_path):
    """Decoders that stream refuse a window of more than 8 MB."""
    windows_NCT = np.random.default_rng(0).standard_normal((1, 3, 40_000)).astype(np.float32)
    write(tmp_path / "c", windows_NCT, repeat=True, channels=64)

    made = zarr.open_group(tmp_path / "c", mode="r")["Set/1/windows"][:]

    np.testing.assert_array_equal(made, windows_NCT[:, np.arange(64) % 3])


@pytest.mark.parametrize(("rows", "repeat"), [(22, False), (129, True), (0, True)])
def test_rows_are_repeated_only_when_that_is_said(tmp_path, rows, repeat):
    """A forgotten padding must not become a corpus."""
    with pytest.raises(SignalError, match="do not fit a corpus of"):
        write(tmp_path / "c", np.zeros((1, rows, 512), np.float32), repeat=repeat)
