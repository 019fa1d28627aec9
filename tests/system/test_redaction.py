"""Secrets come from files and the environment, and stand in nothing that is written, drawn or printed."""

import os
import shlex

import pytest
import yaml
from command_line import assert_one_line_error, run_here

from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.properties import read_properties, write_private_properties
from sysds_resnet.settings.command_line import build
from sysds_resnet.system.redaction import looks_secret, redacted, redacted_text
from sysds_resnet.training.settings import TrainSettings

SPARK = ["--engine", "spark", "--master", "local[1]"]
NAME, SECRET = "spark.hadoop.fs.s3a.secret.key", "hunter2"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        (NAME, True),
        ("spark.hadoop.fs.s3a.access.key", True),
        ("spark.hadoop.fs.s3a.session.token", True),
        ("spark.hadoop.fs.azure.account.key.mine.blob.core.windows.net", True),
        ("spark.hadoop.fs.azure.sas.box.mine.blob.core.windows.net", True),
        ("spark.executorEnv.AWS_SECRET_ACCESS_KEY", True),
        ("spark.ssl.keyStorePassword", True),
        ("spark.authenticate.secret", True),
        ("spark.authenticate.secret.file", False),
        ("spark.authenticate.enableSaslEncryption", False),
        ("spark.hadoop.fs.s3a.aws.credentials.provider", False),
        ("spark.kubernetes.executor.secretKeyRef.TOKEN", False),
        ("spark.task.maxFailures", False),
    ],
)
def test_names_of_secrets(name, secret):
    assert looks_secret(name) == secret
    assert redacted({name: "value"}) == {name: "***" if secret else "value"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://me:pw@bucket/data", "s3://***@bucket/data"),
        ("s3:/me:pw@bucket/data", "s3:/***@bucket/data"),  # as pathlib has it
        ("https://host/data?sig=abc&part=2", "https://host/data?sig=***&part=2"),
        ("-Dstore.password='a b' -Dother=c", "-Dstore.password=*** -Dother=c"),
        ("hdfs://me@host:8020/data", "hdfs://me@host:8020/data"),
        ("runs/a:b@c", "runs/a:b@c"),
    ],
)
def test_texts_without_secrets(text, shown):
    assert redacted_text(text) == shown


@pytest.mark.parametrize("value", [SECRET, f"a env:{SECRET}", f"$ {SECRET}"])
def test_a_secret_in_a_command_is_refused_and_not_repeated(capfd, tmp_path, value):
    outcome = run_here(capfd, "train", *SPARK, "--spark-conf", f"{NAME}={value}", "--out", tmp_path / "run")
    assert_one_line_error(
        outcome, f"secret as the value of {NAME}", "--spark-conf-file", f"{NAME}=env:VARIABLE"
    )
    assert SECRET not in outcome.err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["dataset", "out", "init_from"])
def test_a_password_in_a_url_is_refused_and_not_repeated(capfd, name):
    flag = f"--{name.replace('_', '-')}"
    outcome = run_here(capfd, "train", *SPARK, flag, f"s3://me:{SECRET}@bucket/data")
    assert_one_line_error(outcome, f"{name}: found a password or key in s3:", "***@bucket/data")
    assert SECRET not in outcome.err


@pytest.mark.parametrize("text", ["env:MY_KEY", "$MY_KEY", "${MY_KEY}"])
def test_secrets_from_the_environment_reach_spark_and_no_text(monkeypatch, tmp_path, text):
    monkeypatch.setenv("MY_KEY", SECRET)
    settings = build(TrainSettings, {"engine": "spark", "spark_conf": [f"{NAME}={text}", "spark.a=b=$c"]})
    cluster = settings.cluster()
    assert cluster.conf == {NAME: SECRET, "spark.a": "b=$c"}
    assert all(SECRET not in shown for shown in (repr(cluster), str(cluster), str(settings.model_dump())))


def test_a_variable_that_is_not_set_is_named(monkeypatch, capfd, tmp_path):
    monkeypatch.delenv("MY_KEY", raising=False)
    options = ["--spark-conf", f"{NAME}=env:MY_KEY", "--out", tmp_path / "run"]
    outcome = run_here(capfd, "train", *SPARK, *options)
    assert_one_line_error(
        outcome, f"no variable MY_KEY in the environment, expected one with the value of {NAME}"
    )


@pytest.fixture
def secrets(tmp_path):
    path = tmp_path / "secrets.conf"
    write_private_properties(path, {NAME: SECRET, "spark.eventLog.enabled": "true"})
    return path


def test_secrets_from_a_file_are_kept_by_name_and_found_again(secrets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = build(TrainSettings, {"engine": "spark", "spark_conf_file": "secrets.conf"})
    written = yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json")))
    assert written["spark_conf_file"] == str(secrets) and SECRET not in str(written)
    monkeypatch.chdir("/")
    again = build(TrainSettings, {name: value for name, value in written.items() if value is not None})
    assert again.cluster().conf == {NAME: SECRET, "spark.eventLog.enabled": "true"}


def test_a_file_of_secrets_that_others_can_read_is_refused(secrets, capfd, tmp_path):
    secrets.chmod(0o640)
    outcome = run_here(capfd, "train", *SPARK, "--spark-conf-file", secrets, "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"found {NAME} in a file with the mode 640", f"chmod 600 {secrets}")
    secrets.write_text("spark.eventLog.enabled=true\n")
    settings = build(TrainSettings, {"engine": "spark", "spark_conf_file": secrets})
    assert settings.cluster().conf == {"spark.eventLog.enabled": "true"}, "it has no secrets"


def test_printed_lines_have_no_secrets(secrets, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", SECRET)
    given = ["--spark-conf", f"{NAME}=env:MY_KEY", "spark.a=b", "--spark-conf-file", secrets]
    line = run_here(capfd, "spark_command", "train", *SPARK, *given, "--out", tmp_path / "run")
    dry = run_here(capfd, "train", *SPARK, *given, "--out", tmp_path / "run", "--dry-run")
    for outcome in (line, dry):
        assert outcome.code == 0 and SECRET not in outcome.out + outcome.err, outcome
        words = shlex.split(outcome.out.splitlines()[-1])
        assert f"{NAME}=env:MY_KEY" in words[words.index("train") :] and str(secrets) in words
        assert words[words.index("spark.a=b") - 1] == "--conf" and "spark.eventLog.enabled=true" in words
    settings = yaml.safe_load(dry.out.split("# the same by spark-submit")[0])
    assert settings["spark_conf"] == [f"{NAME}=env:MY_KEY", "spark.a=b"]
    assert not (tmp_path / "run").exists()


PROPERTIES = {"spark.a": 'x y = z # \\ "q"', "b:c d": "line\nnext\t.", "e": "", "u": "é", "#n": "!v"}


def test_files_of_properties_come_back_as_they_were_written(tmp_path):
    write_private_properties(tmp_path / "p", PROPERTIES)
    assert read_properties(tmp_path / "p") == PROPERTIES
    assert os.stat(tmp_path / "p").st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_private_properties(tmp_path / "p", {})


def test_files_of_properties_are_read_as_java_reads_them(engine, tmp_path):
    """Which is asked in the engine's JVM."""
    text = "# c\n! d\n\n spark.master   local[2]\r\nspark.x : a\\\n   b\\\\\n"
    text += "k=\\u00e9\\t.\na\\ b\\:c d = e\n=f\nlast"
    (tmp_path / "p").write_text(text)
    jvm = engine._jvm
    java = jvm.java.util.Properties()
    java.load(jvm.java.io.StringReader(text))
    expected = {name: java.getProperty(name).strip() for name in java.stringPropertyNames()}
    assert len(expected) == 6 and read_properties(tmp_path / "p") == expected


def test_a_cluster_shows_no_settings():
    assert SECRET not in repr(Cluster("local[1]", 1, conf={NAME: SECRET}))
