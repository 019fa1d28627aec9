"""What each command of `python -m sysds_resnet` is told by its flags."""

from sysds_resnet import convert, doctor, evaluate, predict, prepare, results, show, train, verify

SETTINGS = {
    "train": train.TrainSettings,
    "evaluate": evaluate.EvaluateSettings,
    "predict": predict.PredictSettings,
    "convert": convert.ConvertSettings,
    "doctor": doctor.DoctorSettings,
    "prepare": prepare.PrepareSettings,
    "results": results.ResultsSettings,
    "show": show.ShowSettings,
    "verify": verify.VerifySettings,
}
