"""From tokens to images: conditioner, CLIP, Stable Diffusion, noise schedules, sampling, the pipeline."""
