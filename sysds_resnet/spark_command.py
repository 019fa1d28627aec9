"""The command that prints lines for spark-submit: python -m sysds_resnet.spark_command."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from sysds_resnet.engine.jvm.memory import heap_of
from sysds_resnet.engine.jvm.multiply import Blas, choose
from sysds_resnet.engine.jvm.options import dml_home, systemds_home
from sysds_resnet.engine.jvm.process import LAUNCHER
from sysds_resnet.engine.spark.cluster import Cluster, cluster_conf, on_this_machine
from sysds_resnet.engine.spark.conf import driver_conf, engine_settings, executor_conf
from sysds_resnet.engine.spark.secrets import pairs, read_private, shown_conf
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.engine.spark.settings_file import settings_file
from sysds_resnet.engine.spark.submission import python_line, submit_words
from sysds_resnet.errors import UserError
from sysds_resnet.images.sources.remote_shards import read_manifest
from sysds_resnet.images.sources.shards import MANIFEST, Manifest
from sysds_resnet.preparing.matrices import MATRICES, blocks_file
from sysds_resnet.preparing.settings import PrepareSettings
from sysds_resnet.scoring.settings import EvaluateSettings, PredictSettings
from sysds_resnet.settings.command_line import build, refuse_command, run
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.command_lines import own_command, program_name
from sysds_resnet.system.similar_names import did_you_mean
from sysds_resnet.system.urls import absolute, is_url
from sysds_resnet.training.hyperparameters import HYPERPARAMETERS
from sysds_resnet.training.settings import TrainSettings

USAGE = """usage: {program} {{dml,train,prepare,evaluate,predict}} ...

Prints the line for spark-submit that has SystemDS train by dml/train.dml, whose executors need no Python
(dml --help), or that runs a command of this package (its options, --master and --executors among them).
"""
_KINDS: dict[str, type[SparkSettings]] = {
    "train": TrainSettings,
    "prepare": PrepareSettings,
    "evaluate": EvaluateSettings,
    "predict": PredictSettings,
}


class DmlSettings(SparkSettings):
    """Prints the line for spark-submit that has SystemDS train by dml/train.dml."""

    command: ClassVar[str] = "spark-command dml"

    engine: Literal["spark"] = setting(
        "spark", group="Spark cluster", description="Where gradients are computed."
    )
    data: str = setting(
        group="input",
        description="The data set, prepared with --blocks: a path that all machines see, or a URL.",
    )
    blocks: int = setting(
        group="input", ge=1, description="The number of images in a block, as the data set was prepared."
    )
    out: str = setting(group="output", description="The folder for the weights, or its URL.")
    scratch: str | None = setting(
        None,
        group="Spark cluster",
        value="FOLDER",
        description="Folder that driver and executors share, for the files that they exchange: a path, or a "
        "URL such as hdfs://... By default in --out, if everything is on one machine.",
    )
    heap: str | None = setting(
        None,
        group="hardware",
        description="The JVM heap of the driver, such as 12g; by default half of the memory.",
    )
    precision: Literal["double", "single"] = setting(
        "double", group="hardware", description="The precision of matrix multiplies."
    )
    blas: Blas = setting("auto", group="hardware", description="What multiplies matrices, as for train.")
    arguments: list[str] = setting(
        [],
        group="training",
        value="NAME=VALUE",
        description="More arguments of dml/train.dml, as NAME=VALUE.",
    )

    def scratch_folder(self) -> str:
        """Gives the folder for the files that driver and executors exchange.

        Raises:
            UserError: If there is none, and the output is a URL or the cluster is more than this machine.
        """
        if self.scratch:
            return self.scratch
        elsewhere = is_url(self.out)
        if elsewhere or not on_this_machine(self.cluster().master):
            raise UserError(
                f"scratch: found none for {self.out if elsewhere else self.master}, expected a folder that "
                "all its machines share; add --scratch"
            )
        return str(Path(self.out).resolve() / "scratch")

    @model_validator(mode="after")
    def _arguments_are_pairs(self) -> DmlSettings:
        program = dml_home() / "dml" / "train.dml"
        known = re.findall(r"\$(\w+)", program.read_text(encoding="utf-8"))
        given = pairs("arguments", self.arguments)
        if len(given) < len(self.arguments):
            raise ValueError(f"arguments {' '.join(self.arguments)}, expected each name once")
        for name in given:
            if name not in known:
                raise UserError(
                    f"arguments: found {name}, expected arguments of {program}, which it describes"
                    f"{did_you_mean(name, known)}"
                )
        # refuses what the program would refuse when it runs, perhaps hours later
        build(TrainSettings, {name: text for name, text in given.items() if name in HYPERPARAMETERS})
        return self


def dml_line(settings: DmlSettings) -> list[str]:
    """Gives the words of the line for dml/train.dml.

    Raises:
        UserError: If the data set has no such blocks, or a setting does not fit.
    """
    cluster, scratch = settings.cluster(), settings.scratch_folder()
    heap = heap_of(settings.heap)
    multiply = choose(settings.precision, settings.blas, own_jvm=False)
    conf = driver_conf(heap, multiply) | executor_conf(cluster, multiply)
    own = engine_settings(scratch, multiply)
    config = settings_file(own | _ONE_THREAD | {"sysds.floating.point.precision": multiply.precision})
    # programs look for source("dml/...") there
    home = dml_home()
    conf["spark.driver.extraClassPath"] += f"{os.pathsep}{home}"
    jar = systemds_home() / "SystemDS.jar"
    arguments = _arguments(settings, cluster, scratch) | pairs("arguments", settings.arguments)
    program = [
        *("--class", "org.codehaus.janino.SimpleCompiler", str(jar), str(LAUNCHER), "Launcher"),
        str(LAUNCHER.parents[1]),  # the folder of the Java files that it compiles
        *("-f", str(home / "dml" / "train.dml"), "-exec", "hybrid", "-config", str(config), "-nvargs"),
        *(f"{name}={value}" for name, value in arguments.items()),
    ]
    shown = shown_conf(settings.spark_conf, settings.spark_conf_file)
    submit = submit_words(cluster, conf | cluster_conf(cluster), shown)
    if hidden := sorted(cluster.conf.keys() - shown.keys()):
        submit += _hidden(settings, hidden)
    return [*submit, *program]


def _hidden(settings: DmlSettings, names: list[str]) -> list[str]:
    """Gives options that have spark-submit itself read secrets, which the line must not show.

    Raises:
        UserError: If a secret comes from the environment, which spark-submit does not read.
    """
    known = read_private(settings.spark_conf_file) if settings.spark_conf_file else {}
    if missing := [name for name in names if name not in known]:
        raise UserError(
            f"spark_conf: found {missing[0]} in the environment, expected it in a file that spark-submit "
            "reads itself; put it into one for --spark-conf-file"
        )
    return ["--properties-file", str(settings.spark_conf_file)]


# In Spark's driver, operators share no threads, and a matrix in several files is not found under a path of
# this machine.
_ONE_THREAD = {"sysds.cp.parallel.ops": "false", "sysds.cp.parallel.io": "false"}


def _arguments(settings: DmlSettings, cluster: Cluster, scratch: str) -> dict[str, object]:
    """Gives the arguments of dml/train.dml."""
    root = absolute(settings.data)
    manifest = read_manifest(root) if is_url(root) else Manifest.read(Path(root) / MANIFEST)
    name = blocks_file("train", settings.blocks)
    if name not in manifest.files:
        raise UserError(
            f"{settings.data}: found no {name}, expected blocks of {settings.blocks} images; run "
            f"{own_command('prepare')} as before with --blocks {settings.blocks}"
        )
    arguments = {"X": f"{root}/{name.removesuffix('.mtd')}", "Y": f"{root}/{MATRICES}/train_Y"}
    if manifest.shards.get("val"):
        arguments["X_val"] = f"{root}/{blocks_file('val', settings.blocks).removesuffix('.mtd')}"
        arguments["Y_val"] = f"{root}/{MATRICES}/val_Y"
    height, width = manifest.image_size
    return {
        **arguments,
        "mean_std": f"{root}/{MATRICES}/mean_std",
        "H": height,
        "W": width,
        "num_classes": len(manifest.classes),
        "workers": cluster.workers,
        "scratch": scratch,
        "out": absolute(settings.out),
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    name, *options = (sys.argv[1:] if argv is None else argv) or [""]
    if name == "dml":
        return run(DmlSettings, lambda settings: print(shlex.join(dml_line(settings))), options)
    if name in _KINDS:
        options = options if "--engine" in options else ["--engine", "spark", *options]
        return run(
            _KINDS[name], lambda settings: print(shlex.join(python_line(name, settings, options))), options
        )
    if name and not name.startswith("-"):
        return refuse_command(name, ["dml", *_KINDS])
    asked = name in ("-h", "--help")
    print(
        USAGE.format(program=program_name("spark-command")), end="", file=sys.stdout if asked else sys.stderr
    )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
