"""A JVM with SystemDS in it, as a child of this process."""

import contextlib
import logging
import os
import re
import select
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sysds_resnet.engine.jvm.death import LOG_HEADER, last_words
from sysds_resnet.engine.jvm.environment import SPINNING, jvm_environment
from sysds_resnet.engine.jvm.folders import PrivateFolder
from sysds_resnet.engine.jvm.gateway import MAX_PATH, PrivateGateway
from sysds_resnet.engine.jvm.java import find_java
from sysds_resnet.engine.jvm.multiply import HELPER_FOLDER, Multiply
from sysds_resnet.engine.jvm.options import class_path, dml_home, jvm_options
from sysds_resnet.errors import UserError
from sysds_resnet.system import forks
from sysds_resnet.system.command_lines import own_command
from sysds_resnet.system.machine import address_space, cores

START_TIMEOUT = 60.0  # seconds
LAUNCHER = Path(__file__).with_name("Launcher.java")  # runs programs from the command line
LOG_FILE, CRASH_FILES = "jvm.log", "hs_err_*.log"
GATEWAY = Path(__file__).with_name("PrivateGateway.java")
SOCKET = "gateway"  # its name in the JVM's folder


def command_line(
    heap: int,
    multiply: Multiply,
    folder: Path,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
    logs: Path | None = None,
    initial_heap: int | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Gives the command of a JVM with SystemDS in it, and the variables that `jvm_environment` is to add.

    Args:
        heap: The largest size of the heap in bytes.
        multiply: The library and the precision that the engine will multiply with.
        folder: The folder for the JVM's files, native libraries among them.
        threads: How many threads to compute with; by default as many as there are cores.
        environment: More variables for the JVM's environment.
        logs: The folder for the file that the JVM writes when it crashes; by default `folder`.
        initial_heap: As for `jvm_options`.

    Raises:
        UserError: If there is no usable Java.
    """
    crashes = str((logs or folder) / CRASH_FILES).replace("%", "%%").replace("*", "%p")
    command = [
        str(find_java().path),
        *jvm_options(heap, initial_heap),
        *([f"-XX:ActiveProcessorCount={threads}"] if threads else []),
        f"-Djava.io.tmpdir={folder}",
        f"-XX:ErrorFile={crashes}",  # by default it would be in the working directory
        "-XX:+DisplayVMOutputToStderr",  # the log, which tells which memory ran out
        "-classpath",
        f"{HELPER_FOLDER}{os.pathsep}{class_path()}" if multiply.native else class_path(),
        "org.codehaus.janino.SimpleCompiler",
        str(GATEWAY),
        GATEWAY.stem,
        str(folder / SOCKET),
    ]
    # OpenBLAS and OpenMP do not see how much of the cores a container may use.
    computing = str(threads or cores())
    return command, {
        **SPINNING,
        "OPENBLAS_NUM_THREADS": computing,
        "OMP_NUM_THREADS": computing,
        "SYSDS_RESNET_PRECISION": multiply.precision,  # for the native helper
        **(environment or {}),
    }


class Jvm:
    """A running JVM and the py4j gateway to it.

    The gateway listens at a socket in a folder that nobody else may enter, and asks for a token that only
    this process knows. The JVM ends when this process ends, however that happens, whether or not processes
    that were forked from it go on, and does not see the terminal's Ctrl-C.

    Args:
        heap: The largest size of the heap in bytes.
        multiply: The library and the precision that the engine will multiply with.
        threads: How many threads to compute with; by default as many as there are cores.
        environment: More variables for the JVM's environment.
        logs: A folder for the JVM's log and crash file, which stay there; by default they are removed.
        initial_heap: As for `jvm_options`.

    Attributes:
        gateway: The py4j gateway of the JVM.
        log: The file that the JVM's standard error goes to.
        folder: A private folder for files that this process and the JVM share; removed by `close`.

    Raises:
        UserError: If there is no usable Java or the JVM does not start.
    """

    def __init__(
        self,
        heap: int,
        multiply: Multiply,
        threads: int | None = None,
        environment: Mapping[str, str] | None = None,
        logs: Path | None = None,
        initial_heap: int | None = None,
    ) -> None:
        _quiet_py4j()
        self._folder = PrivateFolder()
        self.folder = self._folder.path
        if len(os.fsencode(self.folder / SOCKET)) > MAX_PATH:
            self._folder.close()
            raise UserError(
                f"TMPDIR: found {self.folder.parent}, expected a name of at most "
                f"{MAX_PATH - len(f'{self.folder.name}/{SOCKET}') - 1} bytes, as sockets have; set it to a "
                "shorter one"
            )
        self._logs = (logs or self.folder).absolute()
        self.log = self._logs / LOG_FILE
        command, additions = command_line(
            heap, multiply, self.folder, threads, environment, self._logs, initial_heap
        )
        with self._open_log() as log, forks.opening:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # select() below must see what readline() has not taken
                cwd=dml_home(),
                env=jvm_environment(additions, command),
                start_new_session=True,
            )
            forks.register(self)
        said = []
        try:
            line = self._read_line()
            while line and not re.fullmatch("[0-9a-f]{64}", line):  # what JVM options make Java print first
                said.append(line)
                line = self._read_line()
            token = bytes.fromhex(line)
            if not token:
                raise ValueError
        except (ValueError, TimeoutError) as error:
            # the JVM says on its standard output why it does not start, and Java on its standard error
            cause = said[-1] if said else last_words(self.log)
            if (size := address_space()) is not None:
                cause += f"; ulimit -v allows it {size // 2**20}m in all"
            self.close()
            raise UserError(
                f"JVM: {command[0]} did not start with a heap of {heap // 2**20}m ({cause}); "
                f"choose another --heap, or run {own_command('doctor')}"
            ) from error
        except BaseException:  # Ctrl-C while it starts
            self.close()
            raise
        self.gateway = PrivateGateway(self.folder / SOCKET, token, self.process.pid)
        # programs print to the JVM's standard output, a pipe that must not fill up
        threading.Thread(target=_drain, args=(self.process.stdout,), daemon=True).start()

    def crash_file(self) -> Path | None:
        """Gives the file that the JVM wrote when it crashed, or None."""
        path = self._logs / CRASH_FILES.replace("*", str(self.process.pid))
        return path if path.exists() else None

    def _open_log(self) -> BinaryIO:
        """Opens the log behind what earlier JVMs wrote, or one in the private folder if that fails."""
        try:
            file = open(self.log, "ab", buffering=0)  # noqa: SIM115
        except OSError:
            self.log = self.folder / LOG_FILE
            file = open(self.log, "ab", buffering=0)  # noqa: SIM115
        with suppress(OSError):  # a full disk
            file.write(LOG_HEADER.encode())
        return file

    def wait_alive(self) -> bool:
        """Tells whether the JVM still runs, after a moment in which one that is going down can end."""
        return wait_alive(self.process)

    def close(self) -> None:
        """Ends the JVM and removes the private folder."""
        if getattr(self, "gateway", None) is not None:
            self.gateway.close()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        self._folder.close()

    def disown(self) -> None:
        """Leaves the JVM, in a forked process, to the process that started it."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.returncode = 0  # not a child of this process, which must neither wait for it nor end it
        if getattr(self, "gateway", None) is not None:
            self.gateway.disown()

    def _read_line(self) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        if not ready:
            raise TimeoutError
        return self.process.stdout.readline().decode().strip()


def wait_alive(process: subprocess.Popen) -> bool:
    """Tells whether a JVM still runs, after a moment in which one that is going down can end."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return True
    return False


def _quiet_py4j() -> None:
    """Keeps py4j from logging a traceback for each handle that outlives the JVM, and for Ctrl-C."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_not_from_py4j)  # some of the tracebacks go to the root logger


def _not_from_py4j(record: logging.LogRecord) -> bool:
    return Path(record.pathname).parent.name != "py4j"


def _drain(pipe: object) -> None:
    try:
        while pipe.read(65536):
            pass
    except (OSError, ValueError):
        pass  # the pipe was closed with the JVM
