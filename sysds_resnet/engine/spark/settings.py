"""The settings of commands that can run on a Spark cluster."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.spark.checks import check_start
from sysds_resnet.engine.spark.cluster import Cluster, check_form, local_workers
from sysds_resnet.engine.spark.secrets import check_pairs, read_conf
from sysds_resnet.errors import UserError
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.urls import absolute


class SparkSettings(Settings):
    """Settings of commands that can run on a Spark cluster."""

    devices_on_spark: ClassVar[tuple[str, ...]] = ("cpu",)
    """The devices that executors may compute on."""

    engine: Literal["jvm", "spark"] = setting(
        "jvm",
        group="Spark cluster",
        common=True,
        resume="free",
        description="Where to compute: without Spark on this machine (jvm), or on a Spark cluster (spark).",
    )
    master: str | None = setting(
        None,
        group="Spark cluster",
        value="URL",
        resume="free",
        description="URL of the master: local[N], spark://HOST:PORT, yarn, k8s://...; by default local[*].",
    )
    executors: int | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        ge=1,
        description="Number of Spark executors to ask for and to wait for.",
    )
    executor_cores: int = setting(
        1,
        group="Spark cluster",
        resume="free",
        ge=1,
        description="Cores of each executor.",
    )
    executor_memory: str = setting(
        "4g",
        group="Spark cluster",
        value="SIZE",
        resume="free",
        description="Heap of each executor; in training, of the JVM that computes there.",
    )
    spark_conf: list[str] = setting(
        [],
        group="Spark cluster",
        value="NAME=VALUE",
        resume="free",
        description="More of Spark's settings, as NAME=VALUE; give secrets as NAME=env:VARIABLE, or in a "
        "--spark-conf-file.",
    )
    spark_conf_file: Path | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        description="File with more of Spark's settings, in the form of spark-submit's --properties-file. If "
        "it holds secrets, only you may be able to read it.",
    )

    @field_validator("spark_conf_file")
    @classmethod
    def _from_anywhere(cls, path: Path | None) -> Path | None:
        """Makes the path absolute, since a run may be resumed from another working directory."""
        return path and Path(absolute(str(path)))

    @model_validator(mode="after")
    def _without_secrets(self) -> SparkSettings:
        check_pairs(self.spark_conf)
        return self

    @model_validator(mode="after")
    def _only_for_spark(self) -> SparkSettings:
        names = ("master", "executors", "spark_conf", "spark_conf_file")
        # with --resume and no --engine, the engine is the one in the run's folder
        unknown = getattr(self, "resume", None) and "engine" not in self.model_fields_set
        if (
            self.engine != "spark"
            and not unknown
            and (given := [name for name in names if getattr(self, name)])
        ):
            raise UserError(
                f"settings: found {given[0]} without engine spark, expected both; add --engine spark, or "
                f"leave {given[0]} out"
            )
        device, gpus = getattr(self, "device", "cpu"), getattr(self, "gpus", None)
        if self.engine == "spark" and (gpus or device not in self.devices_on_spark):
            expected = " or ".join(self.devices_on_spark)
            raise UserError(
                f"settings: found {f'gpus {gpus}' if gpus else f'device {device}'} with engine spark, "
                f"expected device {expected} for each of its executors; choose one, or leave it out"
            )
        return self

    def cluster(self) -> Cluster | None:
        """Gives the cluster to compute on, or None for the engine "jvm", which needs none.

        Raises:
            UserError: If a setting is wrong, or one is missing that has no default for this cluster.
        """
        if self.engine != "spark":
            return None
        master = self.master or "local[*]"
        check_form(master)
        workers = local_workers(master)
        if workers is None and self.executors is None:
            raise UserError(f"executors: found none for {master}, expected a number; add --executors")
        return Cluster(
            master=master,
            executors=1 if workers else self.executors,
            cores=workers or self.executor_cores,
            memory=parse_size(self.executor_memory, "executor_memory", here=False),
            conf=read_conf(self.spark_conf, self.spark_conf_file),
        )

    def check_cluster(self) -> None:
        """Checks, before anything is read or written, that a session on the chosen cluster can be started.

        Raises:
            UserError: If a setting is wrong or missing (see `cluster`), or no session can be started, for the
                reasons that `check_start` gives.
        """
        cluster = self.cluster()
        if cluster is not None:
            check_start(cluster)
