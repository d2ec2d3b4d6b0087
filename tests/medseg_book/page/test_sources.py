import pytest

from medseg_book.page import sources
from medseg_core.solvers import star_dp


def test_shows_the_source_that_runs(capsys):
    sources.show(star_dp.circular_dp, star_dp.smooth_indices)
    out = capsys.readouterr().out
    assert "# medseg_core.solvers.star_dp.circular_dp\ndef circular_dp(g: Tensor" in out
    assert "# medseg_core.solvers.star_pattern.smooth_indices" in out


@pytest.mark.parametrize("things", [(), (len,)])
def test_refuses_what_has_no_source(things):
    with pytest.raises(TypeError):
        sources.show(*things)
