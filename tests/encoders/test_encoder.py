"""The encoder, its input scaling, and its folder on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from timm_mae import TimmMAE

from dreamdiff.encoders.config import DecoderConfig, EncoderConfig, MaskedSignalConfig, encoder_preset
from dreamdiff.encoders.encoder import EEGEncoder, robust_scale, scale_input
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.encoders.transformer import from_patches, position_table, to_patches
from eegprep import settings
from eegprep.errors import CheckpointError, ModelError, UsageError

SMALL = EncoderConfig(width=64, depth=2, heads=4, mlp_ratio=1.0, scaling="none")


@pytest.mark.parametrize("global_pool", [False, True])
def test_the_encoder_equals_the_authors_fine_tuning_encoder_built_from_timm(global_pool: bool) -> None:
    """No CLS token there; with global_pool the mean is taken before the norm."""
    torch.manual_seed(0)
    ours, theirs = EEGEncoder(SMALL.model_copy(update={"global_pool": global_pool})), TimmMAE()
    state = {n: t for n, t in theirs.state_dict().items() if not n.startswith("decoder_") and n != "mask_token"}
    ours.load_state_dict(state)
    eeg_BCT = torch.randn(3, 128, 512)

    tokens_BLD = ours(eeg_BCT)

    torch.testing.assert_close(tokens_BLD, theirs.encode(eeg_BCT, global_pool), atol=1e-5, rtol=1e-5)
    assert tokens_BLD.shape == (3, ours.tokens, ours.width)


def test_the_position_table_concatenates_sines_and_cosines_after_a_zero_row() -> None:
    """Interleaving, as many libraries do, would scramble the authors' weights."""
    table = position_table(tokens=8, width=6)[0].numpy()

    omega = 10000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(table[0], 0)
    np.testing.assert_allclose(table[1 + 5, :3], np.sin(5 * omega), atol=1e-7)
    np.testing.assert_allclose(table[1 + 5, 3:], np.cos(5 * omega), atol=1e-7)


def test_patches_are_time_major_and_can_be_undone() -> None:
    """Channel fastest, as the authors' target."""
    eeg_BCT = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)

    patches_BLP = to_patches(eeg_BCT, 4)

    assert patches_BLP[1, 1].tolist() == [float(eeg_BCT[1, c, t]) for t in range(4, 8) for c in range(3)]
    torch.testing.assert_close(from_patches(patches_BLP, 3), eeg_BCT)


def test_robust_scaling_gives_unit_spread_whatever_the_amplifier_gain_and_bounds_artefacts() -> None:
    """The same brain recorded at another gain must look the same to the encoder."""
    torch.manual_seed(0)
    eeg_BCT = torch.randn(2, 16, 512) * 7.0
    eeg_BCT[0, 0, 0] = 1e6

    scaled_BCT = scale_input(eeg_BCT, "robust")

    assert float(scaled_BCT[1].std()) == pytest.approx(1.0, abs=0.05)
    assert float(scaled_BCT.max()) == 20.0
    torch.testing.assert_close(scale_input(eeg_BCT * 1000, "robust"), scaled_BCT)
    torch.testing.assert_close(robust_scale(eeg_BCT), torch.tensor([7.0, 7.0]), atol=0.3, rtol=0)


def test_robust_scaling_by_recording_keeps_differences_between_its_windows() -> None:
    """Per recording is the default of pre-training: a burst stays larger than rest."""
    eeg_BCT = torch.ones(2, 4, 8) * torch.tensor([1.0, 3.0])[:, None, None]

    scaled_BCT = scale_input(eeg_BCT, "robust", scale_B=torch.tensor([2.0, 2.0]))

    assert scaled_BCT[:, 0, 0].tolist() == [0.5, 1.5]


def test_rows_that_hold_no_channel_do_not_count_towards_the_scale() -> None:
    """`--mode zeros` fills 120 of 128 rows with zeros; the scale is that of the eight channels alone."""
    eeg_BCT = torch.randn(3, 8, 64) * torch.tensor([5.0, 20.0, 80.0])[:, None, None]
    padded_BCT = torch.cat([eeg_BCT, torch.zeros(3, 120, 64)], dim=1)

    torch.testing.assert_close(robust_scale(padded_BCT), robust_scale(eeg_BCT))
    torch.testing.assert_close(scale_input(padded_BCT, "robust")[:, :8], scale_input(eeg_BCT, "robust"))


def test_a_flat_window_is_not_divided_by_zero() -> None:
    """Flat channels reach models in practice; NaN would end training hours later."""
    assert torch.isfinite(scale_input(torch.zeros(1, 4, 8), "robust")).all()


def test_divide_by_10_is_what_it_says_and_travels_with_the_weights(tmp_path) -> None:
    """Encoder and scaling never part."""
    encoder = EEGEncoder(SMALL.model_copy(update={"scaling": "divide-by-10"}))
    plain = EEGEncoder(SMALL)
    plain.load_state_dict(encoder.state_dict())
    encoder.save_pretrained(tmp_path)
    eeg_BCT = torch.randn(1, 128, 512)

    again = EEGEncoder.from_pretrained(tmp_path)

    torch.testing.assert_close(again(eeg_BCT), plain(eeg_BCT / 10))
    torch.testing.assert_close(EEGEncoder.from_pretrained(tmp_path, scaling="none")(eeg_BCT), plain(eeg_BCT))


def test_the_encoder_of_an_autoencoder_loads_without_its_decoder(tmp_path) -> None:
    """`--encoder RUN` of fine-tuning is given a pre-training run."""
    decoder = DecoderConfig(width=32, depth=1, heads=2)
    model = MaskedSignalModel(MaskedSignalConfig(encoder=SMALL, decoder=decoder))
    model.save_pretrained(tmp_path)

    encoder = EEGEncoder.from_pretrained(tmp_path)

    assert encoder.state_dict().keys() == model.encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, model.encoder.state_dict()[name], atol=0, rtol=0)


def test_wrong_shapes_and_settings_are_refused_with_both_numbers() -> None:
    """What was given, what fits, and which key to change."""
    with pytest.raises(ModelError, match=r"\(2, 64, 512\) does not fit a model for \(batch, 128, 512\)"):
        EEGEncoder(SMALL)(torch.zeros(2, 64, 512))
    with pytest.raises(UsageError, match="512 samples cannot be cut into patches of 5"):
        settings.validated(EncoderConfig, {"patch": 5})
    with pytest.raises(UsageError, match="width of 100 cannot be divided among 16 heads"):
        settings.validated(EncoderConfig, {"width": 100})
    with pytest.raises(UsageError, match="no preset 'smal'; did you mean 'small'"):
        encoder_preset("smal")


def test_damaged_or_foreign_folders_are_refused(tmp_path) -> None:
    """Each with the file that is wrong."""
    with pytest.raises(CheckpointError, match=r"no model\.safetensors in it"):
        EEGEncoder.from_pretrained(tmp_path)
    encoder = EEGEncoder(SMALL)
    encoder.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    good_weights, good_config = weights.read_bytes(), config.read_text()

    weights.write_bytes(good_weights[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        EEGEncoder.from_pretrained(tmp_path)

    weights.write_bytes(good_weights)
    config.write_text(json.dumps({**json.loads(good_config), "encoder": {**SMALL.model_dump(), "depth": 1}}))
    with pytest.raises(CheckpointError, match=r"12 unexpected: blocks.1.attn.proj.bias.*and 9 more"):
        EEGEncoder.from_pretrained(tmp_path)
    config.write_text(json.dumps({**json.loads(good_config), "encoder": {**SMALL.model_dump(), "mlp_ratio": 2.0}}))
    with pytest.raises(CheckpointError, match=r"wrongly shaped: blocks.0.mlp.fc1.bias \(64,\) where \(128,\)"):
        EEGEncoder.from_pretrained(tmp_path)
    config.write_text(json.dumps({**json.loads(good_config), "version": 9}))
    with pytest.raises(CheckpointError, match="version 9, this release reads version 1"):
        EEGEncoder.from_pretrained(tmp_path)
    config.write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        EEGEncoder.from_pretrained(tmp_path)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        EEGEncoder.from_pretrained(tmp_path)
