"""How the network, popularity and co-occurrence become one score.

    score(u, i) = u . v_i + network_bias * b_i + trend * t_i + lam * log(1 + c(u, i) / eps)

t_i = log(r_i + 0.02 n_i + 0.1) with r_i the users who took the item recently and n_i those who ever did: a log-linear
prior in which what is not sold any more fades and nothing falls to minus infinity. The bias b_i that the softmax
learns is the log-odds of an item among all *positions* of the past; where only new items are recommended it punishes
what most users own already, so its weight is fitted and may be zero. c(u, i) is the sum over the user's last
`behaviours` behaviours h of decay^(position from the end) * w(h -> i).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Popularity:
    """Users an item, (I,) float32 each: of all the past, and of its last days."""

    ever: Tensor
    recent: Tensor

    def trend(self) -> Tensor:
        """(I,) float32: t_i of the module's formula."""
        return torch.log(self.recent + 0.02 * self.ever + 0.1)


@dataclass(frozen=True)
class Fusion:
    """The fitted weights of the module's formula; eps in the unit of c."""

    lam: float
    eps: float
    behaviours: int
    decay: float
    network_bias: float = 1.0
    trend: float = 0.0

    def bias(self, network: Tensor, popularity: Popularity) -> Tensor:
        """(I,) float32: all of the score that depends on the item alone."""
        return self.network_bias * network + self.trend * popularity.trend()


BARE = Fusion(lam=0.0, eps=1.0, behaviours=1, decay=1.0)  # the network alone
