"""Published accuracy of every classical filter (slow: about ten minutes; `pytest -m slow`)."""

import numpy as np
import published_accuracy as published
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, setup in published.SETUPS.items() if setup[-1]])
def test_median_over_ten_seeds_meets_the_published_accuracy(name):
    rmse = published.run(name, 10)["analysis"]
    target = published.SETUPS[name][-1]
    assert published.met(float(np.median(rmse)), target) == "yes", f"{name}: {rmse}, target {target}"
