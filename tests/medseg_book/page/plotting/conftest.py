import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert not plt.get_fignums()  # else notebooks show figures twice
