"""Events of steps and epochs as a run reports them, with made-up figures."""

from sysds_resnet.report.events import EpochEvent, StepEvent, StepMetrics


def step(number, epoch=1, seconds=2.0, wait=0.5, loss=1.5, skipped=False):
    """An event of 64 images."""
    metrics = StepMetrics(loss=loss, top1=0.25, top5=0.75, lr=9.6239, grad_norm=1.0, skipped=skipped)
    return StepEvent(step=number, epoch=epoch, metrics=metrics, seconds=seconds, images=64, data_wait=wait)


def epoch(number, **changed):
    """An event of an epoch of ten steps."""
    values = dict(train_loss=1.8294, val_loss=2.5, val_top1=0.1, val_top5=0.4917, lr=9.6239)
    values |= dict(images_per_s=38.8, seconds=36.0, data_wait_s=0.5) | changed
    return EpochEvent(epoch=number, step=10 * number, **values)


def step_event(step):
    return StepEvent(step, 1, StepMetrics(0.5, 0.5, 0.1, 0.1, 1.0), 1.0, 8, 0.1)


def epoch_event(epoch):
    return EpochEvent(epoch, 2 * epoch, 0.5, 0.5, 0.5, 1.0, 0.1, 8.0, 2.0, 0.2)
