"""What commands import before they have anything to compute or to draw."""

import subprocess
import sys

COMMANDS = ("train", "verify", "show", "convert", "prepare")
LATER = ("pandas", "pyarrow", "scipy", "matplotlib", "plotly", "torch")


def test_commands_start_without_large_libraries():
    imports = ", ".join(f"sysds_resnet.{name}" for name in COMMANDS)
    program = f"import sys, {imports}\nprint([name for name in {LATER} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
