"""The search for a Java that the engine runs on."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sysds_resnet.engine.jvm.environment import java_options, jvm_environment
from sysds_resnet.errors import UserError
from sysds_resnet.system.machine import address_space

# Java 24 removed the security manager that Hadoop 3.3 calls at start-up ("getSubject is not supported").
MIN_VERSION, MAX_VERSION = 17, 23
VECTOR_MODULE = "jdk.incubator.vector"
INSTALL_HINT = (
    "install it (Debian, Ubuntu: apt-get install openjdk-17-jre-headless or openjdk-21-jre-headless) or set "
    "JAVA_HOME"
)


@dataclass(frozen=True)
class Java:
    """A Java executable, and the version and modules that it reports.

    Attributes:
        path: The path of the executable.
        version: Its feature version (17 for "17.0.15"), or 0 if it does not run.
        has_vector_module: Whether it carries jdk.incubator.vector, which SystemDS needs.
    """

    path: Path
    version: int
    has_vector_module: bool

    @property
    def problem(self) -> str | None:
        """The reason why the engine cannot run on this Java, or None."""
        if self.version == 0:
            return "it does not run"
        if not MIN_VERSION <= self.version <= MAX_VERSION:
            return f"it is Java {self.version}"
        if not self.has_vector_module:
            return f"it lacks the module {VECTOR_MODULE}"
        return None


def candidates() -> list[Path]:
    """Lists the Java executables of this machine: of JAVA_HOME, on PATH, then those under /usr/lib/jvm."""
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path))
    found += sorted(Path("/usr/lib/jvm").glob("*/bin/java"))
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def probe(path: Path) -> Java:
    """Asks a Java executable for its version and modules."""
    try:
        match = re.search(r'version "(?:1\.)?(\d+)', _run(path, "-version"))
        version = int(match.group(1)) if match else 0
        # Java 8 has no modules, nor the option that lists them
        modules = _run(path, "--list-modules") if version >= MIN_VERSION else ""
    except (OSError, subprocess.SubprocessError):
        return Java(path, 0, False)
    return Java(path, version, VECTOR_MODULE in modules)


def find_java() -> Java:
    """Gives the first usable Java of `candidates`.

    Raises:
        UserError: If there is none; the message says why each one that was found cannot be used.
    """
    rejected = []
    for path in candidates():
        java = probe(path)
        if java.problem is None:
            return java
        rejected.append(f"{path} ({java.problem})")
    found = ", ".join(rejected) or "none"
    if rejected and (size := address_space()) is not None:
        found += f" where ulimit -v allows {size // 2**20}m"
    raise UserError(
        f"Java: found {found}; expected Java {MIN_VERSION} to {MAX_VERSION} with the module {VECTOR_MODULE}; "
        f"{INSTALL_HINT}"
        + "".join(f"; {name} is {value}: try without it" for name, value in java_options().items())
    )


def _run(path: Path, *arguments: str) -> str:
    # with a small heap, since Java's default may set aside more memory than a limit allows (ulimit -v)
    environment = jvm_environment({})
    options = f"{environment.get('JDK_JAVA_OPTIONS', '')} -Xmx64m".strip()
    done = subprocess.run(
        [path, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment | {"JDK_JAVA_OPTIONS": options},
    )
    return done.stdout + done.stderr
