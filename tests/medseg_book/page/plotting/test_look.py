import subprocess
import sys

import matplotlib as mpl

from medseg_book.page import plotting


def test_import_loads_no_heavy_package():
    code = (
        "import sys; from medseg_book.page import plotting; plotting.Table(['a'], []); "
        "print(*{'matplotlib', 'PIL', 'torch', 'pandas', 'IPython'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == ""


def test_every_public_name_is_there():
    assert all(hasattr(plotting, name) for name in plotting.__all__)
    # A sub-module of a function's name would take its place.
    assert all(callable(getattr(plotting, name)) for name in plotting.__all__ if name.islower())


def test_style_sets_the_cycle_and_colours_are_the_palette_s():
    with mpl.rc_context():
        plotting.style()
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert tuple(cycle) == plotting.CYCLE
    for colours in (plotting.CYCLE, plotting.ON_IMAGE, plotting.ERRORS.values()):
        assert len(set(colours)) == len(colours) and set(colours) <= set(plotting.PALETTE.values())
    assert plotting.PALETTE["blue"] not in plotting.ON_IMAGE  # drowns in grey
