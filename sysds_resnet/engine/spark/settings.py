"""The settings of commands that can run on a Spark cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.spark.checks import check_start
from sysds_resnet.engine.spark.cluster import Cluster, check_form, local_workers, on_this_machine
from sysds_resnet.engine.spark.secrets import check_pairs, read_conf
from sysds_resnet.errors import UserError
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.urls import absolute, is_url

SCRATCH_FOLDER = "scratch"  # its name in a run folder


class SparkSettings(Settings):
    """Settings of commands that can run on a Spark cluster."""

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
        description="Cores of each executor; a micro-batch is computed by one.",
    )
    executor_memory: str = setting(
        "4g",
        group="Spark cluster",
        value="SIZE",
        resume="free",
        description="Heap of each executor, which its cores share.",
    )
    scratch: str | None = setting(
        None,
        group="Spark cluster",
        value="FOLDER",
        resume="free",
        description="Folder that driver and executors share, for the files that they exchange: a path, or a "
        "URL such as hdfs://... By default in the run folder, if everything is on one machine.",
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
        names = ("master", "executors", "scratch", "spark_conf", "spark_conf_file")
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
        on_gpu = getattr(self, "device", "cpu") != "cpu" or getattr(self, "gpus", None)
        if self.engine == "spark" and on_gpu:
            raise UserError(
                "settings: found a GPU, expected device cpu with engine spark, whose executors compute on "
                "CPUs; leave --device and --gpus out"
            )
        return self

    def cluster(self, folder: Path | str | None = None) -> Cluster | None:
        """Gives the cluster to compute on, or None for the engine "jvm", which needs none.

        Args:
            folder: The folder of a run that needs a scratch folder, which is inside of it by default. There
                is no default if this is a URL, or if the cluster is more than this machine.

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
        scratch = self.scratch or ""
        if not scratch and folder is not None:
            elsewhere = is_url(str(folder))
            if elsewhere or not on_this_machine(master):
                raise UserError(
                    f"scratch: found none for {folder if elsewhere else master}, expected a folder that all "
                    "its machines share; add --scratch"
                )
            scratch = str(Path(folder).resolve() / SCRATCH_FOLDER)
        return Cluster(
            master=master,
            executors=1 if workers else self.executors,
            cores=workers or self.executor_cores,
            memory=parse_size(self.executor_memory, "executor_memory", here=False),
            scratch=scratch,
            conf=read_conf(self.spark_conf, self.spark_conf_file),
        )

    def check_cluster(self, folder: Path | str | None = None) -> None:
        """Checks, before anything is read or written, that a session on the chosen cluster can be started.

        Args:
            folder: The folder of a run that needs a scratch folder, as for `cluster`.

        Raises:
            UserError: If a setting is wrong or missing (see `cluster`), or no session can be started, for the
                reasons that `check_start` gives.
        """
        cluster = self.cluster(folder)
        if cluster is not None:
            check_start(cluster)
