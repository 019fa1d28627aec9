"""What of CUDA a machine has, on machines of stand-ins: libraries of our own under the names of NVIDIA's."""

import shlex
import subprocess

import pytest
import yaml

from sysds_resnet.doctor import main as doctor
from sysds_resnet.engine.gpu import cuda
from sysds_resnet.errors import UserError
from sysds_resnet.evaluate import main as evaluate
from sysds_resnet.system.command_lines import install_command
from sysds_resnet.train import main as train
from sysds_resnet.training.processes.job import Job

DRIVER = """
extern "C" int cuInit(unsigned) { return INIT; }
extern "C" int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
"""


class Machine:
    """A folder with a driver and one with packages, where this process looks for them."""

    def __init__(self, folder, monkeypatch):
        self.driver, self.packages = folder / "driver", folder / "packages"
        self.driver.mkdir()
        (self.packages / "nvidia").mkdir(parents=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(self.driver))
        monkeypatch.syspath_prepend(self.packages)
        cuda.probe.cache_clear()

    def add_driver(self, init=0, count=1):
        compile_library(self.driver / cuda.DRIVER, DRIVER, f"-DINIT={init}", f"-DCOUNT={count}")

    def add(self, name, text=None):
        folder = self.packages / "nvidia" / cuda.LIBRARIES[name].split("-")[1] / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        if text is None:
            compile_library(folder / name, "extern int unused;")
        else:
            (folder / name).write_text(text)

    def add_all_but(self, *names):
        for name in cuda.LIBRARIES:
            if name not in names:
                self.add(name)


def compile_library(path, source, *options):
    command = ["c++", "-shared", "-fPIC", "-x", "c++", *options, "-o", str(path), "-"]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.fixture
def machine(folder, monkeypatch):
    yield Machine(folder, monkeypatch)
    cuda.probe.cache_clear()


def test_a_machine_with_everything_has_no_problem(machine):
    machine.add_driver(count=2)
    machine.add_all_but()
    assert cuda.problem() is None
    assert cuda.gpu_count() == 2
    assert [cuda.choose_gpus(device) for device in ("cpu", "gpu", "cuda:1", "auto")] == [(), (0,), (1,), (0,)]
    assert [cuda.choose_gpus("cuda:1,0"), cuda.choose_gpus("auto", 2)] == [(1, 0), (0, 1)]
    with pytest.raises(UserError, match="device: found 3 GPUs, expected at most cuda:1; choose another"):
        cuda.choose_gpus("gpu", 3)


def test_what_is_missing_is_named_with_what_brings_it(machine):
    assert cuda.problem().startswith("no NVIDIA driver (libcuda.so.1: cannot open shared object file")
    cuda.probe.cache_clear()
    machine.add_driver()
    machine.add_all_but("libcudnn.so.9")
    problem = cuda.problem()
    assert problem.startswith("nvidia-cudnn-cu12 is missing or broken (libcudnn.so.9: cannot open shared")
    assert problem.endswith(f"run {install_command('gpu')}")


def test_a_library_that_does_not_load_is_named(machine):
    machine.add_driver()
    machine.add_all_but("libcublas.so.12")
    machine.add("libcublas.so.12", text="a download that ended early")
    assert cuda.problem().startswith("nvidia-cublas-cu12 is missing or broken (")


def test_a_library_that_ends_the_process_is_named(machine):
    machine.add_driver()
    machine.add_all_but("libcusparse.so.12")
    folder = machine.packages / "nvidia" / "cusparse" / "lib"
    folder.mkdir(parents=True)
    source = "#include <cstdlib>\nstruct End { End() { std::abort(); } } end;"
    compile_library(folder / "libcusparse.so.12", source)
    assert cuda.problem().startswith("nvidia-cusparse-cu12 is missing or broken (it ends the process")


@pytest.mark.parametrize("driver", [{"init": 100}, {"count": 0}])
def test_a_driver_without_gpus_is_told(machine, driver):
    machine.add_driver(**driver)
    machine.add_all_but()
    assert cuda.problem().startswith("the NVIDIA driver finds no GPU (CUDA's code")
    assert cuda.choose_gpus("auto") == ()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:3", "device: found cuda:3, expected at most cuda:1; choose another"),
        ("cuda:0,2", "device: found cuda:0,2, expected at most cuda:1; choose another"),
        ("cuda:1,1", "device: found cuda:1,1, expected each GPU once; leave out the others"),
        ("cuda", "device: found cuda, expected cpu, gpu, cuda:N, cuda:N,M or auto; choose one"),
    ],
)
def test_devices_that_are_not_there_are_refused(machine, device, message):
    machine.add_driver(count=2)
    machine.add_all_but()
    with pytest.raises(UserError) as error:
        cuda.choose_gpus(device)
    assert str(error.value) == message


def test_a_number_of_gpus_means_gpus(machine, capsys):
    machine.add_driver(count=2)
    machine.add_all_but()
    assert train(["--gpus", "3", "--out", str(machine.packages / "run")]) == 2
    assert "device: found 3 GPUs, expected at most cuda:1; choose another" in capsys.readouterr().err
    assert evaluate(["--gpus", "3", "--weights", "none"]) == 2
    assert "device: found 3 GPUs, expected at most cuda:1; choose another" in capsys.readouterr().err


def test_commands_say_in_one_line_why_there_is_no_gpu(machine, capsys):
    assert train(["--device", "gpu", "--out", str(machine.packages / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: device: found gpu, but no NVIDIA driver (") and error.count("\n") == 1
    assert not (machine.packages / "run").exists()


def test_a_dry_run_shows_what_a_gpu_would_run(machine, capsys):
    """Also where there is none."""
    assert train(["--device", "cuda:0,1", "--amp", "--dry-run", "--heap", "1g"]) == 0
    settings, _, shown = capsys.readouterr().out.partition("# the engine of each of 2 processes, on ")
    assert yaml.safe_load(settings)["device"] == "cuda:0,1"
    comment, line, end = shown.split("\n")
    assert comment.startswith("cuda:0,1; not here: no NVIDIA driver (") and not end
    words = shlex.split(line)
    assert words[0] == "env" and "NVIDIA_TF32_OVERRIDE=1" in words and "-Xmx1024m" in words
    [path] = [word for word in words if word.startswith("LD_LIBRARY_PATH=")]
    assert path.split("=")[1].split(":")[: len(cuda.library_folders())] == list(
        map(str, cuda.library_folders())
    )
    # it is a line that runs, as far as there is no gateway to start
    words[words.index("org.codehaus.janino.SimpleCompiler") :] = ["-version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", [["--device", "cuda:1"], ["--gpus", "2"]])
def test_each_executor_of_spark_has_one_gpu_at_most(capsys, flags):
    assert train(["--engine", "spark", *flags]) == 2
    assert "with engine spark, expected device cpu or gpu for each" in capsys.readouterr().err


def test_a_process_whose_gpu_is_not_there_says_so(machine):
    job = Job(1, 2, "run", {}, heap=2**30, threads=1, gpus=[3])
    with pytest.raises(UserError, match="device: found cuda:3, but no NVIDIA driver"):
        job.engine_options(job.settings())


def test_doctor_tells_of_the_gpu(machine, capsys):
    machine.add_driver(count=1)
    machine.add_all_but()
    assert doctor(["--heap", "1g"]) == 0
    assert "GPU         1 usable, with --device gpu" in capsys.readouterr().out
