"""The settings of commands that can run on a Spark cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sysds_resnet.engine.cluster import Cluster, local_workers, on_this_machine
from sysds_resnet.engine.memory import parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.images import BUILT_IN
from sysds_resnet.settings import Settings
from sysds_resnet.shared_files import absolute, is_url

SCRATCH_FOLDER = "scratch"  # in a run folder


class SparkSettings(Settings):
    """Settings of commands that can run on a Spark cluster."""

    engine: Literal["jvm", "spark"] = Field(
        "jvm", description="Where gradients are computed: in a JVM beside Python, or by a Spark cluster."
    )
    master: str | None = Field(
        None,
        description="Spark's: local[N], spark://HOST:PORT, yarn, k8s://...; by default local[*].",
    )
    executors: int | None = Field(None, ge=1, description="Spark executors to ask for and wait for.")
    executor_cores: int = Field(1, ge=1, description="Cores of each; a micro-batch has one.")
    executor_memory: str = Field("4g", description="Memory of each, shared by its cores.")
    scratch: str | None = Field(
        None,
        description="Folder that driver and executors share, for what they exchange: a path or a URL such as "
        "hdfs://... By default in the run folder where all is on one machine.",
    )
    spark_conf: list[str] = Field([], description="More of Spark's settings, as NAME=VALUE.")

    @model_validator(mode="after")
    def _only_for_spark(self) -> SparkSettings:
        names = ("master", "executors", "scratch", "spark_conf")
        # flags of a resumed run, whose engine stands in its folder
        unknown = getattr(self, "resume", None) and "engine" not in self.model_fields_set
        if (
            self.engine != "spark"
            and not unknown
            and (given := [name for name in names if getattr(self, name)])
        ):
            raise ValueError(f"{given[0]} without engine spark")
        on_gpu = getattr(self, "device", "cpu") != "cpu" or getattr(self, "gpus", None)
        if self.engine == "spark" and on_gpu:
            raise ValueError("device cpu with engine spark, whose executors compute on CPUs")
        pairs("spark_conf", self.spark_conf)
        return self

    def located(self, dataset: str) -> str:
        """A data set as `open_dataset` takes it: with engine spark no path that is relative.

        Executors run in folders of their own.
        """
        return dataset if self.engine != "spark" or dataset in BUILT_IN else absolute(dataset)

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
            conf=pairs("spark_conf", self.spark_conf),
        )


def pairs(name: str, texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts of a setting as a mapping; raises a ValueError, for pydantic, if one is none."""
    if wrong := [text for text in texts if "=" not in text]:
        raise ValueError(f"{name} {wrong[0]!r}, expected NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)
