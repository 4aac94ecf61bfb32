"""Samplers keep the facts of the schedule that the model was trained with."""

from __future__ import annotations

import pytest
import torch

from dreamdiff.diffusion.noise import SCHEDULERS, NoiseSchedule, make_scheduler, set_steps
from eegprep.errors import UsageError

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
ZERO_SNR = {
    "_class_name": "DDIMScheduler", **BETAS, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing", "set_alpha_to_one": False, "clip_sample": False,
}  # fmt: skip
PLAIN = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}


@pytest.mark.parametrize("name", ["dpm-solver++", "ddim", "euler", "ddpm"])
def test_zero_snr_spacing_and_v_prediction_survive_a_change_of_sampler(name):
    """Otherwise the model is trained on one schedule and sampled on another."""
    again = make_scheduler(name, make_scheduler("dpm-solver++", ZERO_SNR).config)

    assert again.config["prediction_type"] == "v_prediction" and again.config["rescale_betas_zero_snr"]
    assert again.config["timestep_spacing"] == "trailing"
    trained = NoiseSchedule.of(make_scheduler("DDIMScheduler", ZERO_SNR)).alpha_bar_S
    torch.testing.assert_close(NoiseSchedule.of(again).alpha_bar_S, trained, atol=1e-7, rtol=1e-4)


def test_a_sampler_that_cannot_end_without_signal_is_refused():
    """PLMS divides by the square root of the last alpha."""
    with pytest.raises(UsageError, match="cannot sample a model whose noise schedule ends without signal"):
        make_scheduler("pndm", ZERO_SNR)


@pytest.mark.parametrize(("short", "name"), [(short, name) for short, (name, _) in SCHEDULERS.items()])
def test_a_class_and_its_short_name_are_the_same_sampler(short, name):
    """`--scheduler DDIMScheduler` is `--scheduler ddim`."""
    for base in (PLAIN, make_scheduler("dpm-solver++", PLAIN).config):
        assert dict(make_scheduler(short, base).config) == dict(make_scheduler(name, base).config)


def test_a_default_of_one_class_is_no_fact_for_another():
    """PNDM writes "leading" into its configuration although nobody chose it; DPM-Solver++ keeps its own spacing."""
    stated = {**PLAIN, "timestep_spacing": "leading"}

    assert make_scheduler("dpm-solver++", stated).config["timestep_spacing"] == "linspace"
    assert make_scheduler("ddim", make_scheduler("dpm-solver++", stated).config).config["timestep_spacing"] == "leading"


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_thousand_steps_work_or_are_refused_with_the_number_that_does(name):
    """PLMS and DDIM begin one step late, so 1,000 would ask for the alpha of step 1,000, which is not there."""
    scheduler = make_scheduler(name, PLAIN)
    try:
        set_steps(scheduler, 1000, "cpu")
    except UsageError as error:
        assert "limit 999" in str(error)
        set_steps(scheduler, 999, "cpu")
    assert float(scheduler.timesteps.max()) <= 999


def test_min_snr_weights_are_finite_at_zero_terminal_snr():
    """SNR 0: weight 1 for epsilon, 0 for v."""
    last = torch.tensor([999])
    for kind, expected in (("epsilon", 1.0), ("v_prediction", 0.0)):
        schedule = NoiseSchedule(torch.linspace(0.999, 0.0, 1000), kind)
        assert schedule.weight(last, 5.0).tolist() == [expected]
        assert bool(schedule.weight(torch.arange(1000), 5.0).isfinite().all())
