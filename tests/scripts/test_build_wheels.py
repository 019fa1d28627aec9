"""What is published: the files of the project that it names, and what is in wheels and loaded from them."""

import importlib.util
import os
import re
import subprocess

import pytest
from command_line import ROOT

SPEC = importlib.util.spec_from_file_location("check_wheel", ROOT / "scripts" / "check_wheel.py")
check_wheel = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_wheel)

PROJECT = (ROOT / "pyproject.toml").read_text()  # Python 3.10 has no reader of TOML
LICENCES = "sysds_resnet-0.1.0.dist-info/licenses"
FILES = [
    "sysds_resnet/__init__.py",
    "sysds_resnet/dml/train.dml",
    "sysds_resnet/py.typed",
    f"{LICENCES}/LICENSE",
    f"{LICENCES}/licenses/onednn/THIRD-PARTY-PROGRAMS",
]
LIBRARIES = [
    "sysds_resnet/engine/native/lib/libsystemds_openblas-Linux-x86_64.so",
    "sysds_resnet/engine/native/lib/libdnnl.so.3",
    "sysds_resnet.libs/libgomp-f9a9ad78.so.1.0.0",
]
MAPS = """
7f00-7f01 r-xp 00000000 fe:00 123 /usr/lib/libgomp.so.1.0.0
7f01-7f02 r--p 00001000 fe:00 123 /usr/lib/libgomp.so.1.0.0
7f02-7f03 r-xp 00000000 fe:00 124 /a folder/sysds_resnet.libs/libgomp-1.so.1.0.0
7f03-7f04 r-xp 00000000 fe:00 125 /a folder/sysds_resnet/engine/native/lib/libdnnl.so.3
7f04-7f05 rw-p 00000000 00:00 0
7f05-7f06 r-xp 00000000 fe:00 126 /usr/lib/libc.so.6
7ffe-7fff rw-p 00000000 00:00 0 [stack]
"""


def listed(name):
    """The texts of a list in pyproject.toml."""
    found = re.search(rf"^{name} = \[(.*?)\](  #.*)?$", PROJECT, re.M | re.S)
    return re.findall(r'"([^"]+)"', found[1])


@pytest.mark.parametrize("name", ["license-files", "only-include", "exclude"])
def test_what_the_project_names_is_there(name):
    patterns = listed(name)
    assert patterns and all(any(ROOT.glob(pattern)) for pattern in patterns)


def test_all_licences_are_in_packages():
    there = {path for path in (ROOT / "licenses").rglob("*") if path.is_file()}
    assert there <= {path for pattern in listed("license-files") for path in ROOT.glob(pattern)}
    named = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "licenses" / "README.md").read_text()))
    assert {(ROOT / "licenses" / name).resolve() for name in named} >= there - {
        ROOT / "licenses" / "README.md"
    }


def test_onednn_is_for_builds_alone_and_in_one_version():
    assert not any("onednn" in requirement for requirement in listed("dependencies"))
    found = re.findall(r'"(onednn-[\w-]+)==([\w.]+)', PROJECT)
    assert {name for name, _ in found} == {"onednn-cpu-gomp", "onednn-devel-cpu-gomp"}
    assert len({version for _, version in found}) == 1


def test_wheels_with_what_belongs_to_them_are_right():
    check_wheel.check_files(FILES, helper=False)
    check_wheel.check_files(FILES + LIBRARIES, helper=True)


@pytest.mark.parametrize("missing", FILES[1:] + LIBRARIES)
def test_a_file_that_a_wheel_lacks_is_named(missing):
    with pytest.raises(SystemExit, match=r"^files: found 0 of .*, expected one$"):
        check_wheel.check_files([name for name in FILES + LIBRARIES if name != missing], helper=True)


@pytest.mark.parametrize(
    ("helper", "added"),
    [
        (False, LIBRARIES[1]),
        (True, "sysds_resnet/engine/native/lib/libdnnl.so.3.2"),
        (True, "sysds_resnet.libs/libstdc++-1.so.6"),
        (False, "tests/conftest.py"),
        (True, "sysds_resnet/__pycache__/a.cpython-310.pyc"),
        (True, "sysds_resnet/engine/native/helper.cpp"),
    ],
)
def test_a_file_too_many_in_a_wheel_is_named(helper, added):
    with pytest.raises(SystemExit, match=f"^files: found .*{re.escape(added)}, expected"):
        check_wheel.check_files([*FILES, *(LIBRARIES if helper else []), added], helper)


def test_every_openmp_that_a_process_has_loaded_is_found():
    assert check_wheel.loaded_libraries(MAPS) == [
        "/a folder/sysds_resnet.libs/libgomp-1.so.1.0.0",
        "/a folder/sysds_resnet/engine/native/lib/libdnnl.so.3",
        "/usr/lib/libgomp.so.1.0.0",
    ]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_wheels_are_built_and_train_in_environments_of_their_own(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "build_wheels.sh", tmp_path / "made"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kinds = [re.sub(r"manylinux_\d+_\d+", "manylinux", path.name) for path in (tmp_path / "made").iterdir()]
    assert sorted(kinds) == [
        "sysds_resnet-0.1.0-py3-none-any.whl",
        "sysds_resnet-0.1.0-py3-none-manylinux_x86_64.whl",
        "sysds_resnet-0.1.0.tar.gz",
    ]
