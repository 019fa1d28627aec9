"""The functions of dml/resnet50_LARS.dml, which other programs call: they do what their parts do."""

import re

import pytest
from command_line import run_systemds


@pytest.mark.long
def test_snippet_of_the_seed_document_runs(tmp_path):
    script = tmp_path / "snippet.dml"
    script.write_text(
        'source("dml/resnet50_LARS.dml") as resnet50\n'
        "model = resnet50::init(C=3, num_classes=1000, seed=42)\n"
        "optim_state = resnet50::init_lars_optim_params(model)\n"
        'print("tensors " + length(model) + " " + length(optim_state))\n'
    )
    outcome = run_systemds(script)
    assert outcome.code == 0, outcome
    assert "tensors 267 267" in outcome.out


@pytest.mark.long
def test_public_face_trains_as_its_parts_do(tmp_path):
    """One step of `train` against `forward`, `backward` and the update, and `evaluate` against `predict`."""
    script = tmp_path / "face.dml"
    script.write_text("""
source("dml/resnet50_LARS.dml") as resnet50
source("dml/layers/cross_entropy.dml") as loss
X = rand(rows=4, cols=2*32*40, min=-1, max=1, seed=1)
Y = matrix("1 3 2 3", rows=4, cols=1)
one_hot = table(seq(1, 4), Y, 4, 3)
none = matrix(0, rows=0, cols=0)
[trained, velocities, history] = resnet50::train(X_train=X, Y_train=one_hot, X_val=none, Y_val=none, C=2,
  Hin=32, Win=40, num_classes=3, epochs=1, batch_size=4, base_lr=0.5, warmup_epochs=0, seed=3)

model = resnet50::init(C=2, num_classes=3, seed=3)
optim_state = resnet50::init_lars_optim_params(model)
[out, cache] = resnet50::forward(X, 32, 40, model, "train")
log_p = loss::log_softmax(out)
dout = loss::backward(log_p, one_hot) / 4
gradients = resnet50::backward(dout, cache, model)
[model, optim_state] = resnet50::update_params_with_lars(model, gradients, 0.5, 0.9, 1e-4, 0.001, optim_state)
worst = 0.0
for (t in 1:267) {
  A = as.matrix(trained[t])
  B = as.matrix(model[t])
  V = as.matrix(velocities[t])
  U = as.matrix(optim_state[t])
  worst = max(worst, max(abs(A - B)) / max(max(abs(B)), 1e-300), max(abs(V - U)))
}
print("worst difference " + worst)

[test_out, none_cached] = resnet50::forward(X, 32, 40, model, "test")
probabilities = resnet50::predict(X, 32, 40, model, 3)
[mean_loss, top1, top5] = resnet50::evaluate(X, Y, 32, 40, model, 4)
log_p = loss::log_softmax(test_out)
print("predict " + max(abs(exp(log_p) - probabilities)))
print("evaluate " + abs(mean_loss + sum(one_hot*log_p)/4) + " " + top5)
""")
    outcome = run_systemds(script)
    assert outcome.code == 0, outcome
    found = dict(line.rsplit(" ", 1) for line in outcome.out.splitlines() if " " in line)
    assert float(found["worst difference"]) < 1e-9
    assert float(found["predict"]) < 1e-12
    assert re.search(r"^evaluate \S*E-1[3-9] 1.0$|^evaluate 0.0 1.0$", outcome.out, re.M), outcome.out
