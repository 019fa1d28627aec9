"""What a dry run prints: the command line that would start the engine, or the one for spark-submit."""

from __future__ import annotations

import shlex

from sysds_resnet.engine.gpu import cuda
from sysds_resnet.engine.gpu.gpus import gpu_environment
from sysds_resnet.engine.jvm.environment import dropped
from sysds_resnet.engine.jvm.multiply import choose, on_gpu
from sysds_resnet.engine.jvm.process import command_line
from sysds_resnet.engine.spark.settings_file import cache_folder
from sysds_resnet.engine.spark.submission import python_line
from sysds_resnet.training.micro_batch import expected_heap
from sysds_resnet.training.processes.launcher import share_of_machine
from sysds_resnet.training.settings import TrainSettings


def engine_command(settings: TrainSettings, image_size: tuple[int, int]) -> str:
    """Gives the line that would start the engine of a run, below a comment on what it lacks on this machine.

    With engine spark, it is the line that has spark-submit do the whole run.

    Args:
        settings: The settings of the run.
        image_size: The height and width of its images in pixels.

    Raises:
        UserError: If there is no usable Java.
    """
    if settings.engine == "spark":
        return spark_line(settings)
    gpus = settings.engine_options()["gpus"]
    if gpus:
        multiply = on_gpu(settings.precision, "a GPU")
        environment = gpu_environment(multiply.precision == "tf32")
    else:
        multiply, environment = choose(settings.precision, settings.blas, own_jvm=True), {}
    folder = cache_folder() / "engine"  # in place of a run's private folder, whose name is not known yet
    size = settings.processes_on(gpus)
    heap, threads = share_of_machine(settings, size)
    initial = None if gpus else expected_heap(settings, heap, image_size, size)
    command, additions = command_line(
        heap, multiply, folder, threads if size > 1 else None, environment, initial_heap=initial
    )
    unset = [word for name in dropped() for word in ("-u", name)]
    line = shlex.join(["env", *unset, *(f"{name}={value}" for name, value in additions.items()), *command])
    device = f"cuda:{','.join(map(str, gpus))}" if gpus else "the CPU"
    problem = gpus and cuda.problem()
    whose = f"the engine of each of {size} processes" if size > 1 else "the engine"
    return f"# {whose}, on {device}{f'; not here: {problem}' if problem else ''}\n{line}"


def spark_line(settings: TrainSettings) -> str:
    """Gives the line for spark-submit that trains as the settings say, below a comment.

    Raises:
        UserError: If a setting does not fit.
    """
    return f"# the same by spark-submit\n{shlex.join(python_line('train', settings, _options(settings)))}"


def _options(settings: TrainSettings) -> list[str]:
    """Gives the options of a command line for those settings that were given explicitly."""
    words = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name not in settings.model_fields_set or name in ("config", "dry_run") or value is None:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)] if value else []
        else:
            words += [f"--{flag}", str(value)]
    return words
