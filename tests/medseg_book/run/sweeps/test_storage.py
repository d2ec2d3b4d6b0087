"""Outputs in an object store: a local S3 server, and keys that must show up nowhere."""

import csv
import io
import logging
import os
from pathlib import Path

import nbformat
import pytest

from medseg_book.run.errors import UsageError
from medseg_book.run.sweeps.storage import Folder

from .conftest import statuses

moto = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIARECOGNISABLE0001",
    "AWS_SECRET_ACCESS_KEY": "recognisable-secret-0002",
    "AWS_SESSION_TOKEN": "recognisable-token-0003",
}


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket; the store's keys are in the environment and nowhere else."""
    from papermill.s3 import S3

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(S3, "s3_session", (None, None, None))  # papermill keeps its first one
    store = boto3.resource("s3").Bucket("data")
    store.create()
    yield store
    store.objects.delete()
    store.delete()


def content(bucket):
    return {o.key: (o.get()["Body"].read().decode(), o.last_modified) for o in bucket.objects.all()}


def read_table(text):
    return {row["point"]: row for row in csv.DictReader(io.StringIO(text))}


def assert_no_secret(*texts):
    for text in texts:
        for name, value in SECRETS.items():
            assert value not in text, name


def test_a_sweep_into_a_bucket(medseg, bucket, tmp_path):
    # A folder whose name the bucket's ends with, and a neighbour that is none of its files.
    out = "s3://data/a"
    bucket.put_object(Key="a/below/x.ipynb", Body=b"{}")
    bucket.put_object(Key="ab.ipynb", Body=b"{}")
    sweep = ["sweep", "tiny", "-g", "act=fine,environment", "--seeds", "0,1", "--out", out]
    first = medseg(*sweep, "--workers", 2)
    assert first.exit_code == 1 and "2 done, 2 failed" in first.output, first.output
    assert "UserWarning" not in first.output and f"{out}/sweep.csv" in first.output
    stored = content(bucket)
    assert set(stored) == {"a/below/x.ipynb", "ab.ipynb", "a/sweep.csv"} | {
        f"a/act={act},seed={seed}{end}.ipynb"
        for act, end in (("fine", ""), ("environment", ".failed"))
        for seed in (0, 1)
    }
    rows = read_table(stored["a/sweep.csv"][0])
    assert len(rows) == 4
    for row in rows.values():
        nb = nbformat.reads(stored[f"a/{row['notebook']}"][0], 4)
        assert nb.metadata["medseg"]["code_hash"] == row["code_hash"]
        if row["status"] == "done":
            data = nb.cells[-1].outputs[0]["data"]["application/vnd.medseg.claims+json"]
            assert float(row["claims.C1.mean"]) == data["claims"][0]["mean"]

    # A chapter that prints its environment, and fails with it, has shown none of the keys.
    failed = stored["a/act=environment,seed=0.failed.ipynb"][0]
    assert "PATH" in failed and "RuntimeError" in failed
    assert_no_secret(first.output, *(text for text, _ in stored.values()))

    def changed():
        now = content(bucket)
        return {key for key in now if now[key] != stored.get(key)} - {"a/sweep.csv"}

    fine = ["sweep", "tiny", "-g", "act=fine", "--seeds", "0,1", "--out", out]
    again = medseg(*fine)
    assert again.exit_code == 0 and "2 done already" in again.output and not changed()
    boto3.resource("s3").Object("data", "a/act=fine,seed=1.ipynb").delete()
    assert medseg(*fine).exit_code == 0
    assert changed() == {"a/act=fine,seed=1.ipynb"}
    assert len(read_table(content(bucket)["a/sweep.csv"][0])) == 4


def test_a_run_into_a_bucket(medseg, bucket):
    done = medseg("run", "tiny", "-o", "s3://data/run.ipynb", "--no-progress")
    assert done.exit_code == 0 and done.output.strip().endswith("s3://data/run.ipynb")
    act = ["--set", "act=environment", "--no-progress"]
    failed = medseg("run", "tiny", "-o", "s3://data/b/run.ipynb", *act)
    assert failed.exit_code == 1
    stored = content(bucket)
    assert set(stored) == {"run.ipynb", "b/run.failed.ipynb"}
    nbformat.validate(nbformat.reads(stored["run.ipynb"][0], 4))
    assert_no_secret(done.output, failed.output, *(text for text, _ in stored.values()))


def test_keys_do_not_reach_a_folder_here_either(medseg, bucket):
    done = medseg("sweep", "tiny", "-g", "act=environment", "--out", "out")
    assert done.exit_code == 1 and statuses("out") == {"act=environment": "failed"}
    assert_no_secret(done.output, *(p.read_text() for p in Path("out").iterdir()))


def test_a_bucket_that_is_not_there_is_refused_before_anything_runs(medseg, bucket, monkeypatch):
    monkeypatch.setattr("medseg_book.run.run._papermill", lambda *a: pytest.fail("started"))
    sweep = medseg("sweep", "tiny", "--seeds", "0", "--out", "s3://wrong/a")
    run = medseg("run", "tiny", "-o", "s3://wrong/a.ipynb")
    for said in (sweep, run):
        assert said.exit_code == 2 and "cannot reach s3://wrong" in said.output, said.output
        assert "NoSuchBucket" in said.output and "Traceback" not in said.output
        assert_no_secret(said.output)


def test_a_bucket_that_goes_away_is_named(medseg, bucket, monkeypatch):
    from papermill.iorw import papermill_io

    monkeypatch.setattr("medseg_book.run.run._papermill", _pretend)
    monkeypatch.setattr(papermill_io, "listdir", lambda url: [])
    said = medseg("run", "tiny", "-o", "s3://wrong/a.ipynb", "--no-progress")
    assert said.exit_code != 0 and "s3://wrong/a.ipynb" in said.output
    assert "NoSuchBucket" in said.output and "Traceback" not in said.output


def _pretend(prepared, partial, *rest):
    nbformat.write(prepared.nb, partial)


@pytest.mark.parametrize("place", ["s3://data", "s3://data/", "s3://data/a/b", "s3://data/a/b/"])
def test_names_of_a_folder_in_a_bucket(bucket, place):
    folder = Folder(place)
    folder.prepare()
    assert folder.names() == set()
    folder.write("x.ipynb", "ä {}")
    folder.write("sweep.csv", "a\n")
    below = folder.place.removeprefix("s3://data").lstrip("/")
    bucket.put_object(Key=f"{below}/deeper/y.ipynb".lstrip("/"), Body=b"")
    assert folder.names() == {"x.ipynb", "sweep.csv"} and folder.read("x.ipynb") == "ä {}"


def test_names_of_a_folder_here(tmp_path):
    folder = Folder(tmp_path / "a" / "b")
    assert folder.names() == set()
    folder.prepare()
    folder.write("x.ipynb", "ä")
    (tmp_path / "a/b/.hidden.ipynb").touch()
    (tmp_path / "a/b/below").mkdir()
    assert folder.names() == {"x.ipynb"} and folder.read("x.ipynb") == "ä"
    assert str(Folder("~/x")) == os.path.expanduser("~/x")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="out: cannot make the folder"):
        Folder(tmp_path / "file" / "x").prepare()
