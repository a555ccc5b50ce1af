"""Trajectories of diffusers' schedulers, written to trajectories.npz beside this file.

Made with diffusers 0.42.1, torch 2.13.0 (CPU), numpy 2.4.6 on Python 3.11, in an environment of their own:

  python -m venv ENV && ENV/bin/pip install torch==2.13.0 && ENV/bin/pip install diffusers==0.42.1
  ENV/bin/python tests/diffusion/references/make.py

The data are a mixture of three Gaussians in every pixel, whose posterior mean is a closed form, so that no network is
needed. Arrays, float64: `x_T` [B,H,W,C], `noise` [20, B,H,W,C], and `SCHEDULER_STEPS` [STEPS+1, B,H,W,C] with all
states, x_T first. The schedule is the linear one at T = 1000; a time t here is their timestep + 1.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm

WEIGHTS, MEANS, STDS = np.array([0.3, 0.5, 0.2]), np.array([-1.0, 0.2, 0.9]), np.array([0.1, 0.3, 0.2])
ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
COMMON = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "sample"}
COMMON |= {"timestep_spacing": "trailing"}


def posterior_mean(x: np.ndarray, t: int) -> np.ndarray:
    """E[x_0 | x_t = x] for the mixture."""
    signal, noise = np.sqrt(ALPHA_BAR[t]), np.sqrt(1 - ALPHA_BAR[t])
    excess, var = x[..., None] - signal * MEANS, (signal * STDS) ** 2 + noise**2
    log_odds = np.log(WEIGHTS / np.sqrt(var)) - excess**2 / (2 * var)
    odds = np.exp(log_odds - log_odds.max(-1, keepdims=True))
    return (odds * (MEANS + signal * STDS**2 / var * excess)).sum(-1) / odds.sum(-1)


def variance_mix(x: np.ndarray) -> np.ndarray:
    """What stands for a network's learned variance."""
    return 1 / (1 + np.exp(-x))


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def array(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(0, 2, 3, 1)


def ddpm(steps: int, x: np.ndarray, noise: np.ndarray, variance_type: str) -> np.ndarray:
    scheduler = DDPMScheduler(**COMMON, clip_sample=False, variance_type=variance_type)
    scheduler.set_timesteps(steps)
    states = [x]
    for i, timestep in enumerate(scheduler.timesteps):
        # They add noise in the last step as well, unless it is timestep 0; ours never does.
        z = noise[i] if i < steps - 1 else 0 * noise[i]
        scheduling_ddpm.randn_tensor = lambda *args, z=z, **kwargs: tensor(z)
        output = posterior_mean(states[-1], int(timestep) + 1)
        if variance_type == "learned_range":
            output = np.concatenate([output, 2 * variance_mix(states[-1]) - 1], axis=-1)
        states.append(array(scheduler.step(tensor(output), timestep, tensor(states[-1])).prev_sample))
    return np.stack(states)


def ddim(steps: int, x: np.ndarray, noise: np.ndarray, eta: float) -> np.ndarray:
    scheduler = DDIMScheduler(**COMMON, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    states = [x]
    for i, timestep in enumerate(scheduler.timesteps):
        output, given = tensor(posterior_mean(states[-1], int(timestep) + 1)), tensor(noise[i])
        step = scheduler.step(output, timestep, tensor(states[-1]), eta=eta, variance_noise=given if eta else None)
        states.append(array(step.prev_sample))
    return np.stack(states)


def dpm_solver(steps: int, x: np.ndarray) -> np.ndarray:
    scheduler = DPMSolverMultistepScheduler(
        **COMMON,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    states = [x]
    for timestep in scheduler.timesteps:
        output = tensor(posterior_mean(states[-1], int(timestep) + 1))
        states.append(array(scheduler.step(output, timestep, tensor(states[-1])).prev_sample))
    return np.stack(states)


def heun(steps: int, x: np.ndarray) -> np.ndarray:
    scheduler = HeunDiscreteScheduler(**COMMON, clip_sample=False)
    scheduler.set_timesteps(steps)
    # √(1+σ²) x_T, the exact state; their `init_noise_sigma` leaves out the 1.
    state = tensor(x) * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    states = [x]
    for timestep in scheduler.timesteps:
        scaled = array(scheduler.scale_model_input(state, timestep))
        output = tensor(posterior_mean(scaled, int(timestep) + 1))
        state = scheduler.step(output, timestep, state).prev_sample
        if scheduler.state_in_first_order or len(states) == steps:  # a step is over
            states.append(array(state / (scheduler.sigmas[scheduler.step_index] ** 2 + 1) ** 0.5))
    return np.stack(states)


def main() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(4, 2, 2, 1)), rng.normal(size=(20, 4, 2, 2, 1))
    arrays = {"x_T": x, "noise": noise}
    for steps in (8, 20):
        for name, kind in {"posterior": "fixed_small", "beta": "fixed_large", "learned": "learned_range"}.items():
            arrays[f"ddpm_{name}_{steps}"] = ddpm(steps, x, noise, kind)
        for eta in (0, 1):
            arrays[f"ddim_{eta}_{steps}"] = ddim(steps, x, noise, float(eta))
        arrays[f"dpm_solver_{steps}"] = dpm_solver(steps, x)
        arrays[f"heun_{steps}"] = heun(steps, x)
    np.savez_compressed(Path(__file__).with_name("trajectories.npz"), **arrays)


if __name__ == "__main__":
    main()
