"""What may be asked of the parameters after a step."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from minibng.backend import backend_of
from minibng.params import Params, partition


def max_norm(params: Params, pattern: str, limit: float) -> None:
    """Shorten, in place, every unit of some tensors whose norm is above a limit: w ← w·min(1, limit/‖w‖₂).

    A unit of W (D, K) is a column, the weights that lead to one output; of an embedding, a row. To be called after each
    step (Srebro, Shraibman, 2005; Srivastava et al., 2014, section 5.1; Kim, 2014, of the last layer, with 3). Units
    within the limit keep their bits. Nothing waits for a device.

    Parameters
    ----------
    params
        The parameters.
    pattern
        The tensors, by name: ``*`` stands for any text, ``?`` for a letter.
    limit
        Largest norm of a unit, above 0.

    Raises
    ------
    ValueError
        For a limit that is not positive, and a pattern that fits no tensor.
    TypeError
        For parameters that are no `Params`.

    Examples
    --------
    >>> params = Params.of({"head.W": np.array([[3.0, 0.3], [4.0, 0.4]]), "head.b": np.array([9.0, 9.0])})
    >>> max_norm(params, "head.W", 1.0)
    >>> params["head.W"]
    array([[0.6, 0.3],
           [0.8, 0.4]])
    """
    if not isinstance(params, Params):
        raise TypeError(f"max_norm takes a Params, such as model.init() makes, got a {type(params).__name__}")
    if not limit > 0:
        raise ValueError(f"the limit of a norm must be above 0, got {limit}")
    layout = params.layout
    shapes = {n: s for n, s in zip(layout.names, layout.shapes, strict=True) if fnmatchcase(n, pattern)}
    if not shapes:
        raise ValueError(f"max_norm: the pattern {pattern!r} fits none of {', '.join(layout.names)}")
    for name, shape in shapes.items():
        (group,) = partition({name: shape}, "unit", unit_axes=layout.unit_axes)
        tensor = params[name]
        norms = backend_of(tensor).block_norms([tensor], [group]).values()
        scales = (limit / np.maximum(norms, limit)).astype(tensor.dtype)
        rows = layout.unit_axes.get(name) == 0
        with np.errstate(invalid="ignore"):  # of a norm that is inf
            tensor *= scales.reshape(shape[:1] + (1,) * (len(shape) - 1) if rows else shape[-1:])
