"""Models: functions that put layers together."""

from minibng.nn.models.mlp import logistic, mlp

__all__ = ["logistic", "mlp"]
