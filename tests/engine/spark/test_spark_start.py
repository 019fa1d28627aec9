"""What a Spark session is started with, and what stops one is said before anything happens; without a JVM."""

import os
import shlex

import pytest
from command_line import assert_one_line_error, run_here

from sysds_resnet.engine.jvm import options
from sysds_resnet.engine.jvm.death import last_words
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.conf import combined, driver_conf, executor_conf, with_defaults
from sysds_resnet.engine.spark.session import ClusterSession
from sysds_resnet.errors import UserError
from sysds_resnet.system import machine

PLAIN_JAVA = Multiply("double", None, False)


@pytest.fixture
def spaced(tmp_path):
    """SystemDS under a path with a space and a quote."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "systemds").symlink_to(options.systemds_home())
    return folder / "systemds"


def test_paths_with_spaces_are_quoted_as_spark_takes_options_apart(spaced, monkeypatch):
    monkeypatch.setattr(options, "systemds_home", lambda: spaced)
    words = shlex.split(driver_conf(2**30, PLAIN_JAVA)["spark.driver.extraJavaOptions"])
    assert f"-Dlog4j.configuration=file:{spaced}/conf/log4j.properties" in words
    found = executor_conf(Cluster("local-cluster[1,1,1024]", 1), PLAIN_JAVA)
    assert (spaced / "SystemDS.jar").as_uri() in found["spark.jars"].split(",")
    assert all(name.startswith("file:///") for name in found["spark.jars"].split(","))
    assert all(name.startswith("file:///") for name in found["spark.files"].split(","))


def test_what_users_add_to_lists_does_not_replace_ours(tmp_path, monkeypatch):
    ours = {
        "spark.jars": "file:///a.jar",
        "spark.executor.extraJavaOptions": "-Da=1",
        "spark.ui.enabled": "false",
    }
    users = {
        "spark.jars": "file:///b.jar",
        "spark.executor.extraJavaOptions": "-Db=2",
        "spark.ui.enabled": "true",
    }
    assert combined(ours, users) == {
        "spark.jars": "file:///a.jar,file:///b.jar",
        "spark.executor.extraJavaOptions": "-Da=1 -Db=2",
        "spark.ui.enabled": "true",
    }
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "spark-defaults.conf").write_text("spark.jars file:///c.jar\nspark.eventLog.enabled true\n")
    assert with_defaults(ours) == ours | {
        "spark.jars": "file:///a.jar,file:///c.jar",
        "spark.eventLog.enabled": "true",
    }


def a_spark(folder, version="2.12-3.5.7", script="exit 1"):
    """A folder that looks like Spark, whose spark-submit is a script."""
    (folder / "jars").mkdir(parents=True)
    (folder / "jars" / f"spark-core_{version}.jar").touch()
    (folder / "bin").mkdir()
    (folder / "bin" / "spark-submit").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "spark-submit").chmod(0o755)
    return str(folder)


def test_a_user_without_a_name_is_told_how_to_get_one(tmp_path, monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(machine.pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match=r"^user: found no name for the number \d+, .*/etc/passwd: uid\d+:x:"):
        ClusterSession(Cluster("local[1]", 1), {}, tmp_path, tmp_path / "jvm.log")


def test_why_a_jvm_does_not_start_is_in_the_message(tmp_path, monkeypatch):
    script = "echo 'WARNING: Using incubator modules: jdk.incubator.vector'\n"
    script += "echo 'Exception in thread \"main\" java.lang.X: no'\necho '\tat a.B.c(B.java:1)'\n"
    script += "echo 'Caused by: java.net.UnknownHostException: nowhere: Name or service not known'\n"
    script += "echo '\t... 3 more' >&2\nexit 1"
    monkeypatch.setenv("SPARK_HOME", a_spark(tmp_path / "spark", script=script))
    before = dict(os.environ)
    with pytest.raises(UserError, match="nowhere: Name or service not known") as caught:
        ClusterSession(Cluster("local[1]", 1), {}, tmp_path, tmp_path / "jvm.log")
    assert "\n" not in str(caught.value) and dict(os.environ) == before
    assert not list(tmp_path.glob("*.properties"))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            "Error occurred during initialization of VM\nConflicting collector combinations in option list\n",
            "Conflicting collector combinations in option list",
        ),
        (
            "Unrecognized VM option 'UseX'\nError: Could not create the Java Virtual Machine.\n"
            "Error: A fatal exception has occurred. Program will exit.\n",
            "Unrecognized VM option 'UseX'",
        ),
        (
            "/spark-submit: line 27: python3: command not found\n",
            "/spark-submit: line 27: python3: command not found",
        ),
        ("", "it said nothing"),
        (
            "java.lang.X: no\nCaused by: a.bError: https://me:pw@host\n\tat x\n",
            "Caused by: a.bError: https://***@host",
        ),
    ],
)
def test_the_line_of_a_log_that_says_why(tmp_path, lines, found):
    (tmp_path / "jvm.log").write_text(lines)
    assert last_words(tmp_path / "jvm.log") == found


@pytest.mark.parametrize("version", ["2.12-3.3.0", "2.13-3.5.7"])
def test_another_spark_in_spark_home_is_named(tmp_path, monkeypatch, capfd, version):
    monkeypatch.setenv("SPARK_HOME", a_spark(tmp_path / "spark", version))
    outcome = run_here(capfd, "train", "--engine", "spark", "--master", "local[1]", "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"SPARK_HOME: found {version} in", "unset it")
    assert not (tmp_path / "run").exists()


def test_a_python_that_is_not_there_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYSPARK_PYTHON", str(tmp_path / "python"))
    outcome = run_here(capfd, "train", "--engine", "spark", "--master", "local[1]", "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"PYSPARK_PYTHON: found {tmp_path / 'python'}", "unset it")


def test_yarn_needs_the_settings_of_hadoop(tmp_path, monkeypatch, capfd):
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    options = ["--engine", "spark", "--master", "yarn", "--executors", 2]
    outcome = run_here(capfd, "train", *options, "--out", tmp_path / "run")
    assert_one_line_error(outcome, "master: found yarn without HADOOP_CONF_DIR or YARN_CONF_DIR")


@pytest.mark.parametrize(
    "master",
    [
        "local[0]",
        "local[-1]",
        "local[]",
        "spark:/host:7077",
        "spark://host",
        "spark://",
        "mesos://a:5050",
        "Yarn",
        "k8s",
    ],
)
def test_masters_of_other_forms_are_refused(tmp_path, capfd, master):
    options = ["--engine", "spark", "--master", master, "--executors", 2]
    outcome = run_here(capfd, "train", *options, "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"master: found {master!r}, expected local[N]")
