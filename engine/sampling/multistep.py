"""Linear multistep sampling (LMS, order 4), as in Crowson's k-diffusion.

Used through the table in `samplers`. diffusers has it too, but only where SciPy is installed, for an integral of
polynomials that NumPy gives exactly; noise levels and prediction types are left to diffusers' Euler scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import EulerDiscreteScheduler
from numpy.polynomial import Polynomial
from torch import Tensor

ORDER = 4


@dataclass(frozen=True)
class Step:
    prev_sample: Tensor


class LinearMultistep:
    """Has those methods of a diffusers scheduler that `generate` calls; for one batch."""

    order = 1

    def __init__(self, **options: Any) -> None:
        self._euler: Any = EulerDiscreteScheduler(**options)
        self._derivatives: list[Tensor] = []
        self._index = 0

    def set_timesteps(self, steps: int) -> None:
        self._euler.set_timesteps(steps)

    def set_begin_index(self, index: int) -> None:
        self._euler.set_begin_index(index)
        self._index = index

    @property
    def timesteps(self) -> Tensor:
        timesteps: Tensor = self._euler.timesteps
        return timesteps

    @timesteps.setter
    def timesteps(self, timesteps: Tensor) -> None:
        self._euler.timesteps = timesteps

    @property
    def sigmas(self) -> Tensor:
        sigmas: Tensor = self._euler.sigmas
        return sigmas

    @sigmas.setter
    def sigmas(self, sigmas: Tensor) -> None:
        self._euler.sigmas = sigmas

    @property
    def init_noise_sigma(self) -> Any:
        return self._euler.init_noise_sigma

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        scaled: Tensor = self._euler.scale_model_input(sample, timestep)
        return scaled

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, **_: Any) -> Step:
        """Extrapolate from the last four derivatives to the next noise level."""
        clean = self._euler.step(model_output, timestep, sample).pred_original_sample
        levels = [float(sigma) for sigma in self.sigmas]
        self._derivatives = [*self._derivatives[1 - ORDER :], (sample - clean) / levels[self._index]]
        known = levels[self._index + 1 - len(self._derivatives) : self._index + 1]
        for weight, derivative in zip(_weights(known, levels[self._index + 1]), self._derivatives, strict=True):
            sample = sample + weight * derivative
        self._index += 1
        return Step(sample)


def _weights(known: list[float], target: float) -> list[float]:
    """Integrals from the last of the known points to `target` of the Lagrange polynomials through them all."""
    origin = known[-1]
    weights = []
    for own in known:
        basis = Polynomial([1.0])
        for other in known:
            if other != own:
                basis *= Polynomial([origin - other, 1.0]) / (own - other)
        integral = basis.integ()
        weights.append(float(integral(target - origin) - integral(0.0)))
    return weights
