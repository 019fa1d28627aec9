"""How a run goes on when its JVM has ended: how often, with which micro-batch, what is said and written."""

import shlex

import pytest
import yaml

from sysds_resnet.errors import EngineDied, OutOfMemory, UserError
from sysds_resnet.training.restarting import MAX_RESTARTS, Restarts
from sysds_resnet.training.run_folder import config_text
from sysds_resnet.training.settings import TrainSettings

SETTINGS = TrainSettings(batch_size=12, micro_batch=6, heap="1g")
KILLED, FULL = EngineDied("JVM: killed"), OutOfMemory("JVM: found its heap full")


@pytest.fixture
def run(tmp_path):
    """A run folder without checkpoints."""
    folder = tmp_path / "my run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(config_text(SETTINGS))
    return folder


def save(run, step):
    (run / "checkpoints" / f"step-{step:08d}.safetensors").touch()


def test_a_jvm_that_was_killed_is_started_again_with_the_same_micro_batch(run, capsys):
    save(run, 5)
    settings = Restarts(run).after(KILLED, SETTINGS, stopping=False)
    assert settings == SETTINGS.model_copy(update={"resume": run})
    assert capsys.readouterr().err == (
        "warning: JVM: killed; going on in a new one from step 5, with the same micro-batch\n"
    )
    assert yaml.safe_load((run / "config.yaml").read_text())["micro_batch"] == 6


def test_it_is_started_again_a_few_times_unless_a_checkpoint_was_written_in_between(run):
    restarts = Restarts(run)
    for step in (0, 3, 9):
        if step:
            save(run, step)
        for _ in range(MAX_RESTARTS):
            restarts.after(KILLED, SETTINGS, stopping=False)
    restarts.reached(14)
    with pytest.raises(EngineDied) as caught:
        restarts.after(KILLED, SETTINGS, stopping=False)
    text = str(caught.value)
    assert text.startswith(
        "JVM: killed; the run goes on from the checkpoint of step 9 (5 steps are lost) with: "
    )
    assert shlex.split(text.partition(" with: ")[2])[1:] == ["-m", "sysds_resnet.train", "--resume", str(run)]


def test_a_full_heap_halves_the_micro_batch_and_writes_down_why(run, capsys):
    save(run, 5)
    restarts = Restarts(run)
    settings = restarts.after(FULL, SETTINGS, stopping=False)
    assert settings == SETTINGS.model_copy(update={"micro_batch": 3, "resume": run})
    settings = restarts.after(FULL, settings, stopping=False)
    assert settings.micro_batch == 1
    text = (run / "config.yaml").read_text()
    assert text.startswith(
        "# micro_batch 3 in place of 6 from step 5 on: JVM: found its heap full\n"
        "# micro_batch 1 in place of 3 from step 5 on: JVM: found its heap full\n"
    )
    assert yaml.safe_load(text)["micro_batch"] == 1
    assert [(c["step"], c["micro_batch"], c["micro_batch_before"]) for c in restarts.changes] == [
        (5, 3, 6),
        (5, 1, 3),
    ]
    assert restarts.changes[0]["reason"] == str(FULL)
    assert "going on with micro_batch 3 in place of 6\n" in capsys.readouterr().err
    with pytest.raises(OutOfMemory, match="heap full; the run goes on from the checkpoint of step 5 "):
        restarts.after(FULL, settings, stopping=False)


@pytest.mark.parametrize("error", [KILLED, FULL])
def test_before_a_run_has_begun_the_cause_is_what_is_said(tmp_path, error):
    with pytest.raises(UserError) as caught:
        Restarts(tmp_path).after(error, SETTINGS, stopping=False)
    assert caught.value is error


@pytest.mark.parametrize("error", [KILLED, FULL])
def test_a_run_that_was_asked_to_stop_does_not_go_on(run, error):
    restarts = Restarts(run)
    restarts.reached(1)
    with pytest.raises(UserError, match=r"from its beginning, without a checkpoint \(1 step is lost\)"):
        restarts.after(error, SETTINGS, stopping=True)
