"""Optional packages: imported where they are used, with an error that names what to install."""

import importlib
from types import ModuleType

DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image", "PIL": "pillow"}
"""The name to install, for packages whose import name is another one."""


class MissingExtraError(ImportError):
    """An optional package that is not installed; the message says how to install it."""


def require(module: str, extra: str, what: str = "this") -> ModuleType:
    """Import an optional module.

    Parameters
    ----------
    module
        Its full name, such as ``"sklearn.datasets"``.
    extra
        The extra of minibng that installs it, such as ``"experiments"``.
    what
        What needs it, the subject of the message: ``"data set 'digits'"``.

    Returns
    -------
    ModuleType
        The module.

    Raises
    ------
    MissingExtraError
        Where the module, or a package that it is in, is not installed. A package that is installed but
        fails to import raises its own error, which says more.

    Examples
    --------
    >>> require("json", "experiments").loads("[1, 2]")
    [1, 2]
    >>> require("nosuchpackage.data", "experiments", "data set 'moon'")
    Traceback (most recent call last):
        ...
    minibng.extras.MissingExtraError: data set 'moon' needs nosuchpackage, which is not installed:
    pip install 'minibng[experiments]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{what} needs {DISTRIBUTIONS.get(package, package)}, which is not installed: "
            f"pip install 'minibng[{extra}]'",
            name=error.name,
        ) from error
