import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.datasets.splits import group_split


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=5, max_size=15),
    seed=st.integers(0, 1000),
)
def test_parts_are_a_partition_and_no_group_straddles(sizes, seed):
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    parts = group_split(group, (0.6, 0.2, 0.2), seed)
    assert sorted(np.concatenate(parts)) == list(range(len(group)))
    owners = [set(group[part]) for part in parts]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    for owner, share in zip(owners, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(owner) - share * len(sizes)) < 1


def test_ten_groups_by_hand():
    parts = group_split(np.repeat(np.arange(10), 2), (0.7, 0.2, 0.1), 0)
    assert [len(part) for part in parts] == [14, 4, 2]


def test_same_seed_same_split_and_strings_are_groups():
    group = [f"SC-{i // 3}" for i in range(30)]
    one, two, other = (group_split(group, (0.5, 0.5), seed) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, other, strict=True))


def test_stratify_spreads_each_class():
    group = np.repeat(np.arange(20), 3)
    classes = (group >= 10).astype(int)
    for part in group_split(group, (0.5, 0.5), 1, stratify=classes):
        assert classes[part].sum() == 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0, 1, 1], (0.5, 0.3, 0.2), 0), "would leave part"),
        (([0, 1, 2], (0.5, 0.4), 0), "sum to 1"),
        (([0, 1, 2], (1.5, -0.5), 0), "numbers > 0"),
        (([0, 1, 2], (1.0,), 0), "two or more"),
        (([], (0.5, 0.5), 0), "non-empty"),
        (([0, 0, 1, 1], (0.5, 0.5), 0, [1, 2, 1, 1]), "group 0 has 1 and 2"),
        (([0, 1, 2, 3], (0.5, 0.5), 0, [0, 1, 1, 1]), "too few groups"),
        (([0, 1, 2, 3], (0.5, 0.5), 0, [0, 1]), "shape"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_split(*arguments)
