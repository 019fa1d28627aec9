"""Prepared data sets under URLs: the same images as from the folder, and errors that name the file."""

import pickle
import shutil
from types import SimpleNamespace

import boto3
import numpy as np
import pyarrow.fs
import pytest
from command_line import assert_one_line_error, run_here
from moto.server import ThreadedMotoServer

from sysds_resnet import prepare
from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images import open_dataset

BUCKET = "data"
REGION = "us-east-1"
CREDENTIALS = ("key", "secret")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Shards of synthetic images; no test changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "set"
    flags = ["--dataset", "synthetic", "--image-size", "16", "--shard-images", "100"]
    assert prepare.main([*flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def storage(prepared):
    """The address of a stand-in of S3 on loopback that has a copy."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.session.Session(*CREDENTIALS, region_name=REGION).client("s3", endpoint_url=address)
    client.create_bucket(Bucket=BUCKET)
    for path in prepared.iterdir():
        client.upload_file(str(path), BUCKET, f"sets/{path.name}")
    yield address
    server.stop()


@pytest.fixture
def bucket(storage, monkeypatch):
    """The URL of that copy, for a user who has access to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", storage)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), CREDENTIALS, strict=True):
        monkeypatch.setenv(name, value)
    return f"s3a://{BUCKET}/sets"


def assert_same(found, expected):
    assert np.array_equal(found.labels, expected.labels) and found.classes == expected.classes
    assert np.array_equal(found.mean, expected.mean) and np.array_equal(found.std, expected.std)
    for index in (0, 99, 100, len(expected) - 1):
        assert np.array_equal(found.image(index, 1), expected.image(index, 1))


def open_both(url, prepared):
    return (open_dataset(place, "train", image_size=8, resize_size=8) for place in (url, prepared))


def test_images_in_a_bucket_are_those_of_the_folder(bucket, prepared):
    found, expected = open_both(bucket, prepared)
    assert_same(found, expected)
    # as it is sent to executors, with files open
    assert_same(pickle.loads(pickle.dumps(found)), expected)  # noqa: S301


def test_images_under_a_url_of_this_machine(prepared):
    assert_same(*open_both(prepared.as_uri() + "/", prepared))


@pytest.mark.long
def test_commands_take_urls(bucket, prepared, shared, capfd, tmp_path):
    flags = ["--model", "resnet18", "--epochs", 1, "--batch-size", 64, "--image-size", 32, "--workers", 1]
    outcome = run_here(capfd, "train", "--dataset", bucket, *flags, "--out", tmp_path / "run")
    assert outcome.code == 0 and "weights: " in outcome.out, outcome


def test_what_is_not_there(bucket, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--dataset", f"{bucket}/no", "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"{bucket}/no/manifest.json: cannot be read", "check the URL")
    outcome = run_here(capfd, "train", "--dataset", "gopher://a/b", "--out", tmp_path / "run")
    assert_one_line_error(outcome, "gopher://a/b: cannot be read")
    outcome = run_here(capfd, "train", "--dataset", bucket, "--layout", "tar", "--out", tmp_path / "run")
    assert_one_line_error(outcome, "layout: found tar", "expected shards")


KINDS = "file, s3, s3a, hdfs, viewfs"


@pytest.mark.parametrize(
    "url",
    [
        "gs://b/x",
        "gcs://b/x",
        "abfs://c@a.dfs.core.windows.net/x",
        "abfss://c@a/x",
        "http://h/x",
        "HDFS://h/x",
    ],
)
def test_kinds_of_urls_that_are_not_read_are_refused_before_any_connection(url, monkeypatch):
    monkeypatch.setattr(
        pyarrow.fs, "FileSystem", SimpleNamespace(from_uri=lambda _: pytest.fail("Arrow was asked"))
    )
    with pytest.raises(UserError) as error:
        open_dataset(url, "train")
    assert str(error.value).startswith(f"{url}: cannot be read (")
    assert f"is none of the kinds of URLs that are read: {KINDS}" in str(error.value)


@pytest.mark.parametrize("kind", ["hdfs", "viewfs"])
def test_a_missing_hadoop_client_is_named_in_short(kind, monkeypatch):
    def from_uri(_):
        raise OSError("Unable to load libjvm\n" + "dlopen(/usr/lib/jvm/libjvm.so) failed\n" * 500)

    monkeypatch.setattr(pyarrow.fs, "FileSystem", SimpleNamespace(from_uri=from_uri))
    with pytest.raises(UserError) as error:
        open_dataset(f"{kind}://host:8020/set", "train")
    text = str(error.value)
    assert len(text) < 500 and "\n" not in text
    for name in ("HADOOP_HOME", "ARROW_LIBHDFS_DIR", "CLASSPATH", "hadoop classpath --glob", "libjvm"):
        assert name in text


def test_other_failures_of_hadoop_keep_their_cause(monkeypatch):
    def from_uri(_):
        raise OSError("HDFS connection failed")

    monkeypatch.setattr(pyarrow.fs, "FileSystem", SimpleNamespace(from_uri=from_uri))
    with pytest.raises(UserError, match=r"hdfs://host/set: cannot be read \(HDFS connection failed\)"):
        open_dataset("hdfs://host/set", "train")


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UserError) as error:
        open_dataset("s3://AKIA:secret@bucket/set", "train")
    assert "bucket: found a password in the URL" in str(error.value)
    assert "secret" not in str(error.value) and "AKIA" not in str(error.value)


def test_damaged_files(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    url = folder.as_uri()
    shard = folder / "train-00001-images.npy"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{url}/{shard.name}: found {len(content) - 1} bytes, expected"):
        open_dataset(url, "train")
    shard.write_bytes(content.replace(b"|u1", b"|i1", 1))
    data = open_dataset(url, "train", image_size=8)
    with pytest.raises(UserError, match=rf"{shard.name}: found no such array as was prepared \(int8 of"):
        data.image(100, 0)
    shard.write_bytes(content)
    later = open_dataset(url, "train", image_size=8)
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name}: cannot be read"):
        later.image(100, 0)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="found no readable manifest"):
        open_dataset(url, "train")


def test_a_split_that_was_not_prepared(tmp_path):
    flags = ["--dataset", "synthetic", "--image-size", "8", "--splits", "val", "--out", str(tmp_path / "set")]
    assert prepare.main(flags) == 0
    with pytest.raises(NoSuchSplit, match="found no train images"):
        open_dataset((tmp_path / "set").as_uri(), "train")
