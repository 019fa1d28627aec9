"""The package without its extras: what needs none of them works, and what needs one names it."""

import subprocess
import sys

import pytest
from command_line import assert_one_line_error, run_here, share_engine
from noise_images import write_noise

from sysds_resnet.errors import UserError
from sysds_resnet.system import command_lines
from sysds_resnet.system.command_lines import install_command, requirements_of
from sysds_resnet.system.extras import extra, installed_extras

OF_EXTRAS = (
    *("matplotlib", "plotly", "sklearn", "skimage", "pyarrow", "pyspark", "torch", "transformers"),
    *("tensorboard", "onnx", "onnxruntime", "mlflow", "pynvml"),
)


@pytest.fixture
def core(monkeypatch):
    """Python without the packages of the extras, as far as imports go; pandas may have loaded pyarrow."""
    lacking = [name for name in OF_EXTRAS if name != "pyarrow"]
    for name in [name for name in sys.modules if name.partition(".")[0] in lacking]:
        monkeypatch.delitem(sys.modules, name)
    for name in [*lacking, "pyarrow.fs", "pyarrow.parquet"]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("images"), 6, 2, (40, 40))


SMALL = ("--model", "resnet18", "--image-size", 32, "--batch-size", 4, "--epochs", 1, "--workers", 1)


def test_training_and_scoring_need_no_extra(core, engine, monkeypatch, capfd, images, tmp_path):
    share_engine(monkeypatch, engine)
    run = tmp_path / "run"
    outcome = run_here(capfd, "train", "--dataset", images, *SMALL, "--heap", "2g", "--out", run)
    assert outcome.code == 0, outcome
    assert (run / "weights.safetensors").exists() and not (run / "curves.png").exists()
    text = outcome.out + outcome.err
    assert text.count("curves.png not written") == 1 and "curves:" not in outcome.out
    assert install_command("plots") in text
    for command in (
        ("evaluate", "--weights", run, "--dataset", images, "--workers", 1),
        ("predict", "--weights", run, "--input", images / "val", "--out", tmp_path / "p.csv", "--workers", 1),
        ("convert", run, tmp_path / "hf", "--to", "huggingface"),
        ("verify", images),
        ("results", run),
    ):
        outcome = run_here(capfd, *command)
        assert outcome.code == 0, outcome


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("train", "--dataset", "digits", *SMALL), "samples"),
        (("train", "--dataset", "IMAGES", *SMALL, "--tensorboard"), "tensorboard"),
        (("train", "--dataset", "IMAGES", *SMALL, "--mlflow", "runs"), "mlflow"),
        (("show", "--dataset", "IMAGES", "--out", "OUT.png", "--workers", 1), "plots"),
        (("verify", "PARQUET"), "parquet"),
        (("train", "--dataset", "s3://bucket/data", *SMALL), "parquet"),
    ],
)
def test_what_needs_an_extra_names_the_command_that_installs_it(
    core, shared, capfd, images, tmp_path, command, name, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parquet").mkdir()
    for split in ("train", "val"):
        (tmp_path / "parquet" / f"{split}.parquet").write_bytes(b"PAR1")
    places = {"IMAGES": images, "OUT.png": tmp_path / "o.png", "PARQUET": tmp_path / "parquet"}
    outcome = run_here(capfd, *[places.get(word, word) for word in command])
    assert_one_line_error(outcome, f"extra '{name}'", install_command(name))


def test_no_file_of_the_package_imports_an_extra_at_its_top():
    """But for the doors of scikit-learn and Spark ML, which are about one."""
    program = (
        "import sys, pkgutil, importlib, sysds_resnet\n"
        f"for name in {OF_EXTRAS}: sys.modules[name] = None\n"
        "for m in pkgutil.walk_packages(sysds_resnet.__path__, 'sysds_resnet.'):\n"
        "    if m.name.rpartition('.')[2] not in ('sklearn', 'spark_ml', '__main__'):\n"
        "        importlib.import_module(m.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_not_there_is_one_line():
    with pytest.raises(UserError) as caught, extra("plots", "curves"):
        import no_such_package  # noqa: F401
    assert str(caught.value).startswith("curves: found No module named 'no_such_package', expected ")
    assert str(caught.value).endswith(f"run {install_command('plots')}")


def test_installed_extras_are_told_from_others(monkeypatch):
    listed = ["numpy>=1", "no-such-package>=2; extra == 'gpu'", "numpy>=1; extra == 'plots'"]
    there = installed_extras()
    assert there["plots"] and there["parquet"] and "test" not in there
    assert [line.partition(">")[0] for line in requirements_of("plots")] == ["matplotlib", "plotly"]
    monkeypatch.setattr(command_lines, "requires", lambda _: listed)
    there = installed_extras()
    assert there["plots"] and not there["gpu"]
