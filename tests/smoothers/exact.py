"""The oracle of all smoothers: a linear-Gaussian trajectory, conditioned on all measurements at once."""

import numpy as np


def trajectory_prior(mean, covariance, matrix, noise_variance, length, every=1):
    """Mean (length, n) and covariance (length·n, length·n) of x_0 ~ N, x_{k+1} = A x_k + q, q ~ N(0, Q).

    Q: a number (times I) or a matrix. States after 0, every, 2·every, … steps.
    """
    n = len(mean)
    if np.ndim(noise_variance) == 0:
        noise_variance = noise_variance * np.eye(n)
    power, noise = np.eye(n), np.zeros((n, n))
    for _ in range(every):
        power, noise = matrix @ power, matrix @ noise @ matrix.T + noise_variance
    means, blocks = [np.asarray(mean)], np.zeros((length, n, length, n))
    blocks[0, :, 0] = covariance
    for k in range(1, length):
        means.append(power @ means[-1])
        for j in range(k):
            blocks[k, :, j] = power @ blocks[k - 1, :, j]
            blocks[j, :, k] = blocks[k, :, j].T
        blocks[k, :, k] = power @ blocks[k - 1, :, k - 1] @ power.T + noise
    return np.stack(means), blocks.reshape(length * n, length * n)


def conditioned(mean, covariance, matrix, noise_covariance, z):
    """Mean and covariance of x ~ N(mean, covariance) given z = matrix x + ε; NaN in z is missing."""
    valid = np.isfinite(z.ravel())
    h, r = matrix[valid], noise_covariance[np.ix_(valid, valid)]
    gain = np.linalg.solve(h @ covariance @ h.T + r, h @ covariance).T
    shape = mean.shape
    mean = mean.ravel() + gain @ (z.ravel()[valid] - h @ mean.ravel())
    return mean.reshape(shape), covariance - gain @ h @ covariance
