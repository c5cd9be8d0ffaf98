"""What the network is fitted by: softmax over all items or over sampled ones, binary cross-entropy, squared error."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 256  # rows whose logits exist at a time


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
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
            w = shares[start : start + _ROWS, None]
            loss += ((log_sum - at_target) * w).sum()
            p.scatter_add_(1, t, p.new_full(t.shape, -1.0)).mul_(w)
            torch.mm(p, items, out=grad_users[start : start + _ROWS])
            grad_items.addmm_(p.t(), u)
            grad_bias += p.sum(0)
        ctx.save_for_backward(grad_users, grad_items, grad_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_users, grad_items, grad_bias = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_users * scale, grad_items * scale, grad_bias * scale, None, None


def full_softmax(
    users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Weighted mean over N rows of -log softmax(users @ items.T + bias)[target].

    users (N, d), items (I, d), bias (I,), targets (N,) int64, weights (N,), None: all the same. smoothing: the share of
    a target's mass that is spread over all items (Szegedy et al. 2016, section 7).

    Both gradients are accumulated in the forward pass from 256 rows of logits at a time, so the (N, I) matrix never
    exists: half the time of autograd's, and memory for 256 rows.
    """
    shares = _shares(weights, users)
    loss: Tensor = _FullSoftmax.apply(users, items, bias, targets, shares)  # type: ignore[no-untyped-call]
    if smoothing:
        # (1 - e) CE(t) + e mean_i CE(i) = CE(t) + e (score(t) - mean_i score(i)): the sum over items is in both.
        at_target = (users * F.embedding(targets, items)).sum(1) + bias[targets]
        loss = loss + smoothing * ((at_target - users @ items.mean(0) - bias.mean()) * shares).sum()
    return loss


def _shares(weights: Tensor | None, users: Tensor) -> Tensor:
    """(N,): the weights, that sum to 1; zeros where all of them are zero, and there is nothing to learn."""
    if weights is None:
        return users.new_full((len(users),), 1 / len(users))
    return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def sampled_softmax(
    users: Tensor,
    items: Tensor,
    bias: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Weighted mean sampled softmax with log-Q correction (Bengio & Senécal 2008; Jean et al. 2015, section 3.2).

    users (N, d); items (n, d), bias (n,) and log_q (n,), the log of the chance to be drawn, of the items at hand;
    targets (N,) and negatives (S,), shared by all rows, are rows of items. A negative that is a row's own target is
    left out of that row.
    """
    corrected = bias - log_q
    positive = (users * F.embedding(targets, items)).sum(1) + corrected[targets]  # (N,)
    logits = torch.addmm(corrected[negatives], users, F.embedding(negatives, items).t())  # (N, S)
    logits = logits.masked_fill(targets[:, None] == negatives, -torch.inf)
    lost = torch.cat([positive[:, None], logits], dim=1).logsumexp(1) - positive
    return (lost * _shares(weights, users)).sum()


def binary_cross_entropy(
    users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Weighted mean over N rows of -log s(target) - mean over negatives of log(1 - s(negative)), s the sigmoid.

    As SASRec is trained (Kang & McAuley 2018), with the negatives (S,) shared by all rows; a row's own target is left
    out of them.
    """
    positive, scores, kept = _against(users, items, bias, targets, negatives)
    lost = F.softplus(-positive) + (F.softplus(scores) * kept).sum(1) / kept.sum(1).clamp(min=1)
    return (lost * _shares(weights, users)).sum()


def squared_error(
    users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean over N rows of (score(target) - weight)^2 + mean over negatives of score^2; arguments as above.

    What a user did is worth its weight and anything else 0 (implicit feedback as in Hu, Koren & Volinsky 2008, with
    the weight as the value and not as the confidence).
    """
    positive, scores, kept = _against(users, items, bias, targets, negatives)
    wanted = torch.ones_like(positive) if weights is None else weights
    lost = (positive - wanted).square() + (scores.square() * kept).sum(1) / kept.sum(1).clamp(min=1)
    return lost.mean()


def _against(
    users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the targets (N,), of the negatives (N, S), and whether a negative is not the row's target (N, S)."""
    positive = (users * F.embedding(targets, items)).sum(1) + bias[targets]
    scores = torch.addmm(bias[negatives], users, F.embedding(negatives, items).t())
    return positive, scores, (targets[:, None] != negatives).to(users.dtype)
