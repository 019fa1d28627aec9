"""A ResNet in DML that starts with the weights of a PyTorch model."""

from dml_runner import pixel_major, to_engine
from reference import arrays

EPS = 1e-5
DESCRIBE = """
source("dml/network/registry.dml") as reg
registry = reg::describe(depth, channels, num_classes)
"""
PLAN = """
source("dml/network/plan.dml") as plan
plan = plan::build(registry, N, H, W, TRUE, FALSE)
"""
FORWARD = """
source("dml/network/folding.dml") as folding
source("dml/network/inference.dml") as inference
folded = folding::fold(model, eps)
logits = inference::forward(X, folded, plan)
"""
GRADIENTS = """
source("dml/training/gradients.dml") as trainer
settings = trainer::settings(matrix(0, 1, 1), matrix(1, 1, 1), label_smoothing, 0, eps)
[grads, metrics] = trainer::batch_gradients(X, y, model, plan, settings, micro_batch)
"""
INIT_MOMENTS = """
source("dml/optim/optimizer.dml") as optim
[velocities, second] = optim::init_moments(model, "lars")
"""
STEP = f"""{GRADIENTS}
source("dml/optim/optimizer.dml") as optim
opt = optim::settings(name=optimizer, momentum=momentum, weight_decay=weight_decay, trust_coeff=0.001,
                      eps=0.0, trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
[model, velocities, second, grad_norm] = optim::update(model, grads, velocities, list(), registry, opt, lr, 0)
"""


def tensors(reference):
    """The tensors of a PyTorch model in the engine's layout and order."""
    state = arrays(reference)
    return {name: to_engine(a) for name, a in state.items() if not name.endswith("num_batches_tracked")}


class DmlResNet:
    """A ResNet on an engine.

    Attributes:
        model: Handle of a list in registry order.
        velocities: The same, from the first step on.
    """

    def __init__(self, engine, reference, depth):
        self.engine = engine
        weights = tensors(reference)
        self.names = list(weights)
        self.model = self.make_list(weights.values())
        self.velocities = None
        sizes = {
            "depth": depth,
            "channels": reference.conv1.in_channels,
            "num_classes": reference.fc.out_features,
        }
        self.registry = engine.run(DESCRIBE, sizes, {"registry": "list"})["registry"]
        self.plans = {}

    def make_list(self, matrices):
        return self.engine.make_list([self.engine.from_numpy(matrix) for matrix in matrices])

    def named_arrays(self, handle):
        """A list in registry order as arrays by name."""
        blocks = self.engine.list_items(handle)
        return {n: self.engine.to_numpy(b) for n, b in zip(self.names, blocks, strict=True)}

    def plan(self, n, height, width):
        key = n, height, width
        if key not in self.plans:
            inputs = {"registry": self.registry, **dict(zip("NHW", key, strict=True))}
            self.plans[key] = self.engine.run(PLAN, inputs, {"plan": "list"})["plan"]
        return self.plans[key]

    def common(self, images, micro_batch=None):
        n, _, height, width = images.shape
        return {
            "X": pixel_major(images),
            "model": self.model,
            "registry": self.registry,
            "plan": self.plan(micro_batch or n, height, width),
            "eps": EPS,
        }

    def logits(self, images):
        return self.engine.to_numpy(
            self.engine.run(FORWARD, self.common(images), {"logits": "matrix"})["logits"]
        )

    def gradients(self, images, labels, micro_batch=None, label_smoothing=0.0):
        """Gradients and statistics by name, and [summed loss, top-1 hits, top-5 hits, images]."""
        micro_batch = micro_batch or len(images)
        inputs = {
            "y": labels.numpy()[:, None] + 1.0,
            "micro_batch": micro_batch,
            "label_smoothing": label_smoothing,
        }
        outputs = self.engine.run(
            GRADIENTS, self.common(images, micro_batch) | inputs, {"grads": "list", "metrics": "matrix"}
        )
        return self.named_arrays(outputs["grads"]), self.engine.to_numpy(outputs["metrics"])[0]

    def step(self, images, labels, lr, optimizer, momentum=0.9, weight_decay=1e-4, micro_batch=None):
        """Move one step and return the mean loss before it."""
        if self.velocities is None:
            inputs = {"model": self.model}
            self.velocities = self.engine.run(INIT_MOMENTS, inputs, {"velocities": "list"})["velocities"]
        micro_batch = micro_batch or len(images)
        inputs = {
            "y": labels.numpy()[:, None] + 1.0,
            "velocities": self.velocities,
            "optimizer": optimizer,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "micro_batch": micro_batch,
            "lr": lr,
            "label_smoothing": 0.0,
        }
        kinds = {"model": "list", "velocities": "list", "metrics": "matrix"}
        outputs = self.engine.run(STEP, self.common(images, micro_batch) | inputs, kinds)
        self.model, self.velocities = outputs["model"], outputs["velocities"]
        return self.engine.to_numpy(outputs["metrics"])[0, 0] / len(images)
