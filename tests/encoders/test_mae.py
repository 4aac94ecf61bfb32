"""The masked autoencoder against a second implementation, and its rules."""

from __future__ import annotations

import pytest
import torch
from timm_mae import TimmMAE

from dreamdiff.encoders.config import DecoderConfig, EncoderConfig, MaskedSignalConfig, masked_signal_preset
from dreamdiff.encoders.encoder import parameter_count
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.encoders.transformer import to_patches
from eegprep.errors import CheckpointError, ModelError, UsageError

SMALL = MaskedSignalConfig(
    encoder=EncoderConfig(width=64, depth=2, heads=4, mlp_ratio=1.0, scaling="none"),
    decoder=DecoderConfig(width=32, depth=2, heads=4),
)


def twins(seed: int = 0) -> tuple[MaskedSignalModel, TimmMAE]:
    """The same random weights in both implementations; nothing at its special initial value."""
    torch.manual_seed(seed)
    ours, theirs = MaskedSignalModel(SMALL), TimmMAE()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1) * 0.05)
    ours.load_state_dict({our_name(name): tensor for name, tensor in theirs.state_dict().items()})
    return ours, theirs


def our_name(name: str) -> str:
    outside = name.startswith("decoder_") or name == "mask_token"
    return name if outside else f"encoder.{name}"


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_loss_prediction_mask_and_every_gradient_equal_a_build_from_timm_blocks(ratio: float) -> None:
    """One wrong epsilon, table layout or token order would make the authors' weights useless here."""
    ours, theirs = twins()
    eeg_BCT, noise_BL = torch.randn(3, 128, 512), torch.rand(3, 128)

    output = ours(eeg_BCT, noise=noise_BL, mask_ratio=ratio)
    loss, prediction_BLP, mask_BL = theirs(eeg_BCT, noise_BL, ratio)
    output.loss.backward()
    loss.backward()

    assert int(mask_BL[0].sum()) == 128 - int(128 * (1 - ratio))  # 115, 64 and 32 tokens stay visible
    torch.testing.assert_close(output.mask, mask_BL, atol=0, rtol=0)
    torch.testing.assert_close(output.loss, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(to_patches(output.prediction, 4), prediction_BLP, atol=1e-5, rtol=1e-5)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[our_name(name)], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_the_prediction_has_the_layout_of_the_input() -> None:
    """channels x samples out, as in: a picture needs no knowledge of patches."""
    ours, theirs = twins(1)
    eeg_BCT, noise_BL = torch.randn(2, 128, 512), torch.rand(2, 128)

    output = ours(eeg_BCT, noise=noise_BL)
    _, prediction_BLP, _ = theirs(eeg_BCT, noise_BL, 0.75)

    channel, sample = 5, 4 * 7 + 2  # token 7, third sample in it: time-major, channels fastest
    torch.testing.assert_close(output.prediction[:, channel, sample], prediction_BLP[:, 7, 2 * 128 + channel])


@pytest.mark.parametrize("ratio", [0.1, 0.75])
def test_the_short_way_to_the_loss_gives_the_same_loss_and_gradients(ratio: float) -> None:
    """Training leaves out what does not count; nothing else may change."""
    ours, _ = twins()
    eeg_BCT, noise_BL = torch.randn(3, 128, 512), torch.rand(3, 128)
    result = []
    for loss in (ours(eeg_BCT, noise=noise_BL, mask_ratio=ratio).loss, ours.loss(eeg_BCT, noise=noise_BL, mask_ratio=ratio)):
        ours.zero_grad()
        loss.backward()
        result.append((loss.detach(), [parameter.grad.clone() for parameter in ours.parameters() if parameter.grad is not None]))

    torch.testing.assert_close(result[0][0], result[1][0], atol=1e-6, rtol=1e-5)
    for whole, short in zip(result[0][1], result[1][1], strict=False):
        torch.testing.assert_close(whole, short, atol=1e-6, rtol=1e-4)
    assert ours.loss(eeg_BCT, mask_ratio=0.0).item() == 0  # nothing is hidden, as in `forward`


def test_hidden_tokens_never_reach_the_encoder() -> None:
    """Otherwise the task is trivial: replacing hidden samples by anything must not change the prediction."""
    model = MaskedSignalModel(SMALL).eval()
    eeg_BCT, noise_BL = torch.randn(2, 128, 512), torch.rand(2, 128)
    first = model(eeg_BCT, noise=noise_BL)
    hidden_BT = first.mask.repeat_interleave(4, dim=1).bool()

    other_BCT = torch.where(hidden_BT[:, None], torch.full_like(eeg_BCT, 1e3), eeg_BCT)
    second = model(other_BCT, noise=noise_BL)

    torch.testing.assert_close(second.prediction, first.prediction, atol=0, rtol=0)
    assert second.loss > 1000 * first.loss  # the loss looks at hidden tokens only


def test_visible_tokens_do_not_count_in_the_loss() -> None:
    """The paper's loss is over masked tokens only."""
    model = MaskedSignalModel(SMALL).eval()
    eeg_BCT, noise_BL = torch.randn(2, 128, 512), torch.rand(2, 128)

    output = model(eeg_BCT, noise=noise_BL)

    error_BLP = (to_patches(output.prediction, 4) - to_patches(eeg_BCT, 4)).square()
    torch.testing.assert_close(output.loss, error_BLP[output.mask.bool()].mean())


@pytest.mark.parametrize(
    ("name", "encoder", "whole"),
    [
        ("paper", 302_837_760, 328_845_824),
        ("released", 151_769_088, 165_181_952),
        ("w256", 19_086_336, 44_701_184),
        ("w512", 75_921_408, 101_667_328),
        ("w768", 170_505_216, 196_382_208),
        ("w1280", 472_919_040, 499_058_176),
        ("shallow2", 17_328_128, 34_939_392),
        ("small", 4_870_656, 5_366_528),
        ("tiny", 99_968, 204_544),
    ],
)
def test_presets_have_the_parameter_counts_of_the_formula(name: str, encoder: int, whole: int) -> None:
    """512 D + D + L (4 D^2 + 2 r D^2 + (9 + r) D) + 3 D: the released checkpoint's size follows from 151.77 M."""
    config = masked_signal_preset(name)
    with torch.device("meta"):
        model = MaskedSignalModel(config)

    width, depth, ratio = config.encoder.width, config.encoder.depth, config.encoder.mlp_ratio
    formula = 512 * width + width + depth * (4 * width**2 + 2 * ratio * width**2 + (9 + ratio) * width) + 3 * width
    assert parameter_count(model.encoder) == encoder == int(formula)
    assert parameter_count(model) == whole


def test_a_saved_model_comes_back_bit_for_bit_with_another_window_and_channel_count(tmp_path) -> None:
    """Channels, window, patch and widths come from config.json: not only 128 x 512."""
    encoder = EncoderConfig(channels=6, window=96, patch=8, width=32, depth=1, heads=2, mlp_ratio=2.0, scaling="divide-by-10")
    model = MaskedSignalModel(MaskedSignalConfig(encoder=encoder, decoder=DecoderConfig(width=16, depth=1, heads=2)))
    model.save_pretrained(tmp_path)
    eeg_BCT, noise_BL = torch.randn(2, 6, 96), torch.rand(2, 12)

    again = MaskedSignalModel.from_pretrained(tmp_path)

    assert again.config == model.config
    torch.testing.assert_close(again(eeg_BCT, noise=noise_BL).loss, model(eeg_BCT, noise=noise_BL).loss, atol=0, rtol=0)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    """It trades time for memory and nothing else."""
    ours, _ = twins()
    eeg_BCT, noise_BL = torch.randn(2, 128, 512), torch.rand(2, 128)
    gradients = []
    for on in (False, True):
        ours.zero_grad()
        ours.set_gradient_checkpointing(on)
        ours(eeg_BCT, noise=noise_BL).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])

    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-7, rtol=1e-5)


def test_wrong_ratio_noise_and_preset_are_named() -> None:
    """Each message says what was given and what fits."""
    model = MaskedSignalModel(SMALL)
    eeg_BCT = torch.randn(2, 128, 512)
    with pytest.raises(UsageError, match=r"mask ratio of 1.0 leaves no token of 128"):
        model(eeg_BCT, mask_ratio=1.0)
    with pytest.raises(ModelError, match=r"\(2, 64\) does not fit 2 windows of 128 tokens"):
        model(eeg_BCT, noise=torch.rand(2, 64))
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        MaskedSignalModel.from_preset("papre")
    with pytest.raises(UsageError, match="width of 30 cannot be divided among 4 heads"):
        from eegprep import settings

        settings.validated(DecoderConfig, {"width": 30, "heads": 4})


def test_an_encoder_folder_is_not_taken_for_an_autoencoder(tmp_path) -> None:
    """It has no decoder to load."""
    MaskedSignalModel(SMALL).encoder.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no 'decoder' section"):
        MaskedSignalModel.from_pretrained(tmp_path)
