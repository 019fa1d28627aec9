"""LARS's trust ratio and a step with momentum, from their formulas, in NumPy."""

import numpy as np


def trust_ratio(w, g, weight_decay, trust_coeff, eps):
    """Equation 6 of You et al. 2017, with MLPerf's epsilon and its ratio of 1 for zero norms."""
    w_norm, g_norm = np.sqrt(np.square(w).sum()), np.sqrt(np.square(g).sum())
    if w_norm == 0 or g_norm == 0:
        return 1.0
    return trust_coeff * w_norm / (g_norm + weight_decay * w_norm + eps)


def momentum_step(w, g, v, lr, momentum, weight_decay, ratio, nesterov, lr_in_momentum):
    """Algorithm 1 of You et al. 2017 with the rate inside; as torch.optim.SGD with it outside."""
    summand = ratio * (g + weight_decay * w)
    if lr_in_momentum:
        summand = lr * summand
    v = momentum * v + summand
    move = momentum * v + summand if nesterov else v
    return w - (move if lr_in_momentum else lr * move), v
