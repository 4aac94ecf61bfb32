"""The authors' pre-training checkpoints: in, out, and what does not fit."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from timm_mae import TimmMAE

from dreamdiff.encoders.config import DecoderConfig, EncoderConfig, MaskedSignalConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.encoders.transformer import to_patches
from dreamdiff.programs.convert import convert_any, convert_encoder, convert_pretrained, export_pretrained
from dreamdiff.untrusted import checkpoints as safe_pickle
from eegprep.errors import CheckpointError


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A checkpoint as the authors' training writes it, by a second implementation: (model, file)."""
    torch.manual_seed(0)
    model = TimmMAE()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    module = types.ModuleType("config")
    module.Config_MBM_EEG = type("Config_MBM_EEG", (), {"__module__": "config"})
    monkeypatch.setitem(sys.modules, "config", module)
    config = module.Config_MBM_EEG()
    config.num_heads, config.decoder_num_heads, config.mask_ratio, config.mlp_ratio = 4, 4, 0.1, 1.0
    optimizer = torch.optim.AdamW(model.parameters())
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 480, "scaler": {}, "config": config}
    torch.save(content, tmp_path / "checkpoint.pth")
    monkeypatch.delitem(sys.modules, "config")
    return model, tmp_path / "checkpoint.pth"


def test_a_converted_checkpoint_gives_the_authors_numbers(tmp_path, theirs) -> None:
    """Loss, prediction and encoder tokens, from config.json and safetensors alone."""
    model, file = theirs
    result = convert_pretrained(file, tmp_path / "ours")
    eeg_BCT, noise_BL = torch.randn(2, 128, 512), torch.rand(2, 128)

    ours = MaskedSignalModel.from_pretrained(tmp_path / "ours", scaling="none")
    output = ours(eeg_BCT, noise=noise_BL)
    loss, prediction_BLP, _ = model(eeg_BCT, noise_BL, 0.1)

    assert (result.kind, result.unexpected, result.epoch) == ("pre-training", (), 480)
    assert ours.config.mask_ratio == 0.1 and ours.config.encoder.heads == 4
    torch.testing.assert_close(output.loss, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(to_patches(output.prediction, 4), prediction_BLP, atol=1e-5, rtol=1e-5)
    encoder = EEGEncoder.from_pretrained(tmp_path / "ours", scaling="none")
    torch.testing.assert_close(encoder(eeg_BCT), model.encode(eeg_BCT), atol=1e-5, rtol=1e-5)


def test_the_division_by_10_of_their_data_loader_comes_with_the_weights(tmp_path, theirs) -> None:
    """The model takes uV; theirs was trained on uV / 10."""
    model, file = theirs
    convert_pretrained(file, tmp_path / "ours")
    eeg_BCT = torch.randn(1, 128, 512) * 10

    encoder = EEGEncoder.from_pretrained(tmp_path / "ours")

    assert json.loads((tmp_path / "ours/config.json").read_text())["encoder"]["scaling"] == "divide-by-10"
    torch.testing.assert_close(encoder(eeg_BCT), model.encode(eeg_BCT / 10), atol=1e-5, rtol=1e-5)


def test_there_and_back_gives_the_same_state_dict(tmp_path, theirs) -> None:
    """Their loader reads `model` and the attributes of `config`."""
    model, file = theirs
    convert_pretrained(file, tmp_path / "ours")

    export_pretrained(tmp_path / "ours", tmp_path / "back.pth")

    back = torch.load(tmp_path / "back.pth", weights_only=False)
    assert back["model"].keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(back["model"][name], tensor, atol=0, rtol=0)
    config = back["config"]
    assert (config.patch_size, config.embed_dim, config.depth, config.num_heads, config.mlp_ratio) == (4, 64, 2, 4, 1.0)
    model.load_state_dict(back["model"])
    assert safe_pickle.load(tmp_path / "back.pth")["config"].attributes["decoder_num_heads"] == 4


def test_the_encoder_of_a_fine_tuned_checkpoint_is_found_under_its_prefix(tmp_path, theirs) -> None:
    """Without the CLIP tower or the U-Net; its data loader scales nothing."""
    model, _ = theirs
    keep = {n: t for n, t in model.state_dict().items() if not n.startswith("decoder_")}
    keep["mask_token"] = torch.zeros(1, 1, 64)  # of encoder width there, and unused
    keep["pos_embed"] = keep["pos_embed"] + 0.01  # their fine-tuning trains the table
    state = {f"cond_stage_model.mae.{name}": tensor for name, tensor in keep.items()} | {"model.diffusion_model.x": torch.ones(1)}
    config = types.SimpleNamespace(num_heads=4)
    torch.save({"model_state_dict": state, "config": vars(config)}, tmp_path / "b.pth")

    result = convert_encoder(tmp_path / "b.pth", tmp_path / "encoder")
    encoder = EEGEncoder.from_pretrained(tmp_path / "encoder")

    assert (result.kind, result.unexpected, encoder.config.scaling) == ("encoder", (), "none")
    torch.testing.assert_close(encoder.pos_embed, keep["pos_embed"], atol=0, rtol=0)
    with torch.no_grad():
        model.pos_embed += 0.01
    eeg_BCT = torch.randn(1, 128, 512)
    torch.testing.assert_close(encoder(eeg_BCT), model.encode(eeg_BCT), atol=1e-5, rtol=1e-5)


def test_missing_and_misshapen_tensors_are_listed_and_unexpected_ones_reported(tmp_path, theirs) -> None:
    """The authors' own loader swaps the two words and goes on."""
    _, file = theirs
    content = safe_pickle.load(file)
    state = dict(content["model"])
    state["nature_image_decoder.weight"] = torch.ones(2)
    torch.save({"model": {f"module.{n}": t.clone() for n, t in state.items()}, "config": {"num_heads": 4}}, tmp_path / "c.pth")
    assert convert_pretrained(tmp_path / "c.pth", tmp_path / "c").unexpected == ("nature_image_decoder.weight",)

    state["norm.bias"] = torch.zeros(5)
    del state["blocks.1.attn.qkv.weight"]
    torch.save({"model": state, "config": {"num_heads": 4, "decoder_num_heads": 4}}, tmp_path / "d.pth")
    with pytest.raises(
        CheckpointError,
        match=r"1 missing: encoder.blocks.1.attn.qkv.weight; 1 wrongly shaped: encoder.norm.bias \(5,\) where \(64,\) is needed",
    ):
        convert_pretrained(tmp_path / "d.pth", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_files_of_another_kind_are_refused(tmp_path) -> None:
    """With what they lack."""
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"no patch_embed.proj.weight and decoder_pred.weight"):
        convert_pretrained(tmp_path / "x.pth", tmp_path / "x")
    with pytest.raises(CheckpointError, match="holds no EEG encoder"):
        convert_encoder(tmp_path / "x.pth", tmp_path / "x")
    torch.save({"model": {"patch_embed.proj.weight": torch.ones(8, 4, 2)}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="cannot determine the encoder's shape"):
        convert_encoder(tmp_path / "x.pth", tmp_path / "x")


def test_the_kind_of_a_file_is_told_by_what_is_in_it(tmp_path, theirs) -> None:
    """One command for everything."""
    _, file = theirs
    assert convert_any(file, tmp_path / "a")["kind"] == "pre-training"
    assert convert_any(file, tmp_path / "b", encoder_only=True)["kind"] == "encoder"
    assert convert_any(file, tmp_path / "e", scaling="none")["input scaling"] == "none"
    decoder = DecoderConfig(width=16, depth=1, heads=2)
    ours = MaskedSignalModel(MaskedSignalConfig(encoder=EncoderConfig(width=16, depth=1, heads=2), decoder=decoder))
    ours.save_pretrained(tmp_path / "folder")
    assert convert_any(tmp_path / "folder", tmp_path / "f.pth")["kind"] == "export for the authors' code"
