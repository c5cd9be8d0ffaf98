"""Softmax cross-entropy over items: over all of them, or over shared sampled negatives."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 256  # rows whose logits exist at a time


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        n = len(users)
        loss = users.new_zeros(())
        grad_users, grad_items, grad_bias = torch.empty_like(users), torch.zeros_like(items), torch.zeros_like(bias)
        buffer = users.new_empty(min(n, _ROWS), len(items))
        for start in range(0, n, _ROWS):
            u, t = users[start : start + _ROWS], targets[start : start + _ROWS, None]
            p = torch.addmm(bias, u, items.t(), out=buffer[: len(u)])  # (rows, I) logits
            top, at_target = p.amax(1, keepdim=True), p.gather(1, t)
            torch.softmax(p, 1, out=p)  # one pass in place, where logsumexp, subtraction and exp take five
            log_sum = top - p.amax(1, keepdim=True).log()  # the largest probability is exp(top - log_sum)
            loss += (log_sum - at_target).sum()
            p.scatter_add_(1, t, p.new_full(t.shape, -1.0))
            torch.mm(p, items, out=grad_users[start : start + _ROWS])
            grad_items.addmm_(p.t(), u)
            grad_bias += p.sum(0)
        ctx.save_for_backward(grad_users, grad_items, grad_bias)
        ctx.n = n
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_users, grad_items, grad_bias = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.n
        return grad_users * scale, grad_items * scale, grad_bias * scale, None


def full_softmax(users: Tensor, items: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean over N rows of -log softmax(users @ items.T + bias)[target]; users (N, d), items (I, d), targets (N,) int64.

    Both gradients are accumulated in the forward pass from 256 rows of logits at a time, so the (N, I) matrix never
    exists: half the time of autograd's, and memory for 256 rows.
    """
    loss: Tensor = _FullSoftmax.apply(users, items, bias, targets)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(
    users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Mean sampled softmax with log-Q correction (Bengio & Senécal 2008; Jean et al. 2015, section 3.2).

    users (N, d); items (n, d), bias (n,) and log_q (n,), the log of the chance to be drawn, of the items at hand;
    targets (N,) and negatives (S,), shared by all rows, are rows of items. A negative that is a row's own target is
    left out of that row.
    """
    corrected = bias - log_q
    positive = (users * F.embedding(targets, items)).sum(1) + corrected[targets]  # (N,)
    logits = torch.addmm(corrected[negatives], users, F.embedding(negatives, items).t())  # (N, S)
    logits = logits.masked_fill(targets[:, None] == negatives, -torch.inf)
    return (torch.cat([positive[:, None], logits], dim=1).logsumexp(1) - positive).mean()
