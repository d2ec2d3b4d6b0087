import pytest

from medseg_core.phantoms import oct_bscan


@pytest.fixture(scope="package")
def layers():
    return oct_bscan(80, (128, 64), seed=3)


@pytest.fixture(scope="package")
def drusen():
    return oct_bscan(60, (64, 128), seed=3, slices=4, pathology="drusen")


@pytest.fixture(scope="package")
def ga():
    return oct_bscan(96, 64, seed=3, slices=8, pathology="ga", registration_error=3)
