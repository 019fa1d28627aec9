"""LARS's trust ratio, a step with momentum, and a step of LAMB, from their formulas, in NumPy."""

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


def lamb_step(w, g, m, v, step, lr, weight_decay, beta1, beta2, eps, adapted):
    """Algorithm 2 of You et al. 2019, as updates are counted from 1; its ratio is 1 for zero norms."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * np.square(g)
    unbiased_m, unbiased_v = m / (1 - beta1**step), v / (1 - beta2**step)
    update = unbiased_m / (np.sqrt(unbiased_v) + eps) + weight_decay * w
    w_norm, update_norm = np.sqrt(np.square(w).sum()), np.sqrt(np.square(update).sum())
    ratio = w_norm / update_norm if adapted and w_norm > 0 and update_norm > 0 else 1.0
    return w - lr * ratio * update, m, v
