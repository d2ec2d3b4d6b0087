import dataclasses
import json
import os
from dataclasses import dataclass

import pytest
import torch

from medseg_book.page import claims, scales


@dataclass(frozen=True)
class Settings:
    steps: int = 5
    lr: float = 1e-3
    widths: tuple = (8, 16)
    size: tuple = ((64, 64), (32, 32))
    loss: str = "dice"
    flip: bool = True
    limit: "int | None" = None
    n_seeds: int = 3
    expected: str = "three minutes"


TABLE = {"smoke": Settings(steps=1, n_seeds=1), "lesson": Settings(), "paper": Settings(steps=900)}


def begin(table=TABLE, **changes):
    options = {"scale": "lesson", "seed": 0, "device": "cpu", "overrides": {}} | changes
    return scales.begin("edpcnn", table, **options)


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(scales.display, "show", bundles.append)
    return bundles


def test_a_run_holds_the_scale_s_settings():
    run = begin()
    assert run.s == TABLE["lesson"]
    assert (run.slug, run.scale, run.seed, run.seeds) == ("edpcnn", "lesson", 0, [0, 1, 2])
    assert run.device == torch.device("cpu")
    assert (run.smoke, run.extended, run.data_dir) == (False, False, None)
    assert begin(scale="smoke", seed=4).smoke
    assert begin(scale="smoke", seed=4).seeds == [4]


class Reader:
    """A reader of folders that hold `scans`."""

    def __init__(self, root):
        self.root = root

    def check(self):
        return self

    def require(self):
        if not (self.root / "scans").is_dir():
            raise FileNotFoundError(f"{self.root} lacks scans")


SOURCES = {"phantom": None, "real": Reader}


def test_a_data_set_is_opened_and_checked_before_anything_else(tmp_path):
    (tmp_path / "scans").mkdir()
    run = begin(dataset="real", sources=SOURCES, data_dir=str(tmp_path))
    assert isinstance(run.reader, Reader) and run.reader.root == tmp_path == run.data_dir
    assert (begin(sources=SOURCES).reader, begin().dataset) == (None, "phantom")
    with pytest.raises(FileNotFoundError, match="lacks scans"):
        begin(dataset="real", sources=SOURCES, data_dir=tmp_path / "scans")
    with pytest.raises(ValueError, match="ivus_dir must be a folder that exists, got '/no/such'"):
        scales.open_reader(Reader, "/no/such", "ivus_dir")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dataset": "reel"}, "dataset must be one of 'phantom', 'real'.*did you mean 'real'"),
        ({"dataset": "real"}, "dataset='real' needs its folder: data_dir is None"),
        ({"data_dir": "."}, r"a phantom takes no folder; data sets that need one: 'real'"),
        ({"dataset": "real", "data_dir": "/no/such"}, "data_dir must be a folder that exists"),
    ],
)
def test_a_data_set_and_its_folder_must_fit(changes, text):
    with pytest.raises(ValueError, match=text):
        begin(sources=SOURCES, **changes)


def test_workers_share_a_cpu_only(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert begin().workers == 4
    assert begin(scale="smoke").workers == 1
    assert dataclasses.replace(begin(), device=torch.device("cuda")).workers == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert begin().workers == 2


def test_fewer_seeds_on_a_cpu_where_the_settings_say_so():
    @dataclass(frozen=True)
    class Few(Settings):
        n_seeds_cpu: int = 2

    assert begin(dict.fromkeys(scales.SCALES, Few())).seeds == [0, 1]
    assert scales._n_seeds(Few(), torch.device("cuda")) == 3
    with pytest.raises(ValueError, match="n_seeds_cpu must be at least 1, got 0"):
        begin(dict.fromkeys(scales.SCALES, Few(n_seeds_cpu=0)))


def test_settings_without_seeds_run_once():
    @dataclass
    class Plain:
        steps: int = 1

    assert begin(dict.fromkeys(scales.SCALES, Plain())).seeds == [0]


def test_everything_is_seeded_and_the_claims_start_anew():
    begin()
    first = torch.rand(3)
    claims.note("C1", "a claim of the run before", 1.0)
    begin(seed=0, extended=True)
    assert torch.equal(first, torch.rand(3))
    content = claims.payload()
    assert (content["claims"], content["slug"], content["extended"]) == ([], "edpcnn", True)


def test_threads_and_environment_are_left_alone():
    before = torch.get_num_threads(), dict(os.environ)
    begin()
    assert before == (torch.get_num_threads(), dict(os.environ))


def test_overrides_replace_settings_and_lists_become_tuples():
    run = begin(
        overrides={
            "steps": 7,
            "lr": 1,
            "widths": [4, 8, 16],
            "size": [[8, 8], [4, 4]],
            "limit": 3,
            "flip": False,
            "loss": "ce",
        }
    )
    assert run.s == Settings(7, 1.0, (4, 8, 16), ((8, 8), (4, 4)), "ce", False, 3)
    assert isinstance(run.s.lr, float)
    assert begin(overrides={"limit": None}).s.limit is None
    assert begin(overrides=None).s == begin(overrides="").s == Settings()
    assert begin(overrides='{"steps": 7}').s.steps == 7


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"step": 7}, ValueError, r"unknown setting 'step' \(did you mean 'steps'\?\); .*widths"),
        ({"zzz": 7}, ValueError, "unknown setting 'zzz'; settings are steps, lr"),
        ({"steps": 7.5}, TypeError, r"overrides\['steps'\] must be of type int such as 5, got 7.5"),
        ({"steps": True}, TypeError, "must be of type int"),
        ({"steps": None}, TypeError, "must be of type int"),
        ({"flip": 1}, TypeError, "must be of type bool"),
        ({"lr": "fast"}, TypeError, "must be of type float"),
        ({"lr": float("nan")}, ValueError, "must be finite"),
        ({"loss": 3}, TypeError, "must be of type str"),
        ({"widths": 8}, TypeError, "must be a tuple"),
        ({"widths": [8, "a"]}, TypeError, r"overrides\['widths'\]\[1\] must be of type int"),
        ({"steps": [1]}, TypeError, "must be of type int"),
        ("{steps: 7}", ValueError, "overrides must be JSON"),
        ([1], TypeError, "overrides must be {setting: value}"),
        ("[1]", TypeError, "overrides must be {setting: value}"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(overrides, error, message):
    with pytest.raises(error, match=message):
        begin(overrides=overrides)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scale": "leson"}, ValueError, r"scale must be one of .* \(did you mean 'lesson'\?\)"),
        ({"table": {"lesson": Settings()}}, ValueError, "table must have the scales"),
        ({"table": TABLE | {"huge": Settings()}}, ValueError, "table must have the scales"),
        (
            {"table": TABLE | {"paper": {"steps": 1}}},
            TypeError,
            "one dataclass, got Settings, dict",
        ),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"seed": "0"}, TypeError, "seed must be an integer"),
        ({"device": "toaster"}, ValueError, "device"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        begin(**changes)


def test_a_refused_start_leaves_the_claims_alone():
    begin()
    claims.note("C1", "kept", 1.0)
    with pytest.raises(ValueError):
        begin(overrides={"step": 7})
    assert len(claims.payload()["claims"]) == 1


def test_the_line_tells_what_runs(shown, tmp_path):
    folder = tmp_path / "acdc"
    (folder / "scans").mkdir(parents=True)
    sources = {"real": lambda root: Reader(root)}
    begin(overrides={"steps": 7}, data_dir=folder, dataset="real", sources=sources, extended=True)
    line = shown[0]["text/markdown"]
    for part in ("**edpcnn**", "`lesson`", "seeds 0 to 2", "on cpu (", "extended", "`steps = 7`"):
        assert part in line
    assert "Expected time: three minutes." in line
    assert "Data: `acdc`" in line
    assert str(tmp_path) not in json.dumps(shown[0])
    assert "**" not in shown[0]["text/plain"]


def test_the_record_is_plain_json_with_all_that_identifies_the_run(shown):
    begin(scale="smoke", overrides={"widths": [4]})
    record = shown[0][scales.MIME]
    assert record == json.loads(json.dumps(record))
    assert list(record) == [
        "slug", "scale", "seed", "device", "device_name", "extended", "overrides", "settings",
        "data", "versions", "started",
    ]  # fmt: skip
    assert record["settings"]["widths"] == [4]
    assert record["overrides"] == {"widths": [4]}
    assert (record["data"], record["device"]) == ("phantom", "cpu")
    assert record["started"].endswith("+00:00")
    assert "too short to judge" in shown[0]["text/markdown"]


def test_a_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        begin().seed = 3
