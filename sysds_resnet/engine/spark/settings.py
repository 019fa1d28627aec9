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
from sysds_resnet.settings.command_line import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.shared_files import absolute, is_url

SCRATCH_FOLDER = "scratch"  # in a run folder


class SparkSettings(Settings):
    """Settings of commands that can run on a Spark cluster."""

    engine: Literal["jvm", "spark"] = setting(
        "jvm",
        group="Spark cluster",
        resume="free",
        description="Where gradients are computed: in a JVM beside Python, or by a Spark cluster.",
    )
    master: str | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        description="Spark's: local[N], spark://HOST:PORT, yarn, k8s://...; by default local[*].",
    )
    executors: int | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        ge=1,
        description="Spark executors to ask for and wait for.",
    )
    executor_cores: int = setting(
        1, group="Spark cluster", resume="free", ge=1, description="Cores of each; a micro-batch has one."
    )
    executor_memory: str = setting(
        "4g", group="Spark cluster", resume="free", description="Memory of each, shared by its cores."
    )
    scratch: str | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        description="Folder that driver and executors share, for what they exchange: a path or a URL such as "
        "hdfs://... By default in the run folder where all is on one machine.",
    )
    spark_conf: list[str] = setting(
        [],
        group="Spark cluster",
        resume="free",
        description="More of Spark's settings, as NAME=VALUE; secrets as NAME=env:VARIABLE, or in a "
        "--spark-conf-file.",
    )
    spark_conf_file: Path | None = setting(
        None,
        group="Spark cluster",
        resume="free",
        description="File of more of Spark's settings, as spark-submit's --properties-file; with secrets in "
        "it only you may read it.",
    )

    @field_validator("spark_conf_file")
    @classmethod
    def _from_anywhere(cls, path: Path | None) -> Path | None:
        """A run may be resumed from another working directory."""
        return path and Path(absolute(str(path)))

    @model_validator(mode="after")
    def _without_secrets(self) -> SparkSettings:
        check_pairs(self.spark_conf)
        return self

    @model_validator(mode="after")
    def _only_for_spark(self) -> SparkSettings:
        names = ("master", "executors", "scratch", "spark_conf", "spark_conf_file")
        # flags of a resumed run, whose engine stands in its folder
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
        """The cluster to compute on, if any.

        Args:
            folder: Of the run, where it needs a scratch folder; under a URL there is none by default.

        Raises:
            UserError: If something is missing that has no default there.
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
        """Checks, before anything is read or written, that the cluster that is asked for can be tried.

        Args:
            folder: As for `cluster`.

        Raises:
            UserError: As of `cluster` and `check_start`.
        """
        cluster = self.cluster(folder)
        if cluster is not None:
            check_start(cluster)
