"""Figures from records: training curves, sensitivity to the learning rate, norms of the blocks.

Every function takes records as they are read from a run's JSON lines and returns a matplotlib ``Figure``,
which a notebook shows and :func:`save` writes. No pyplot and no global state: the figures can be drawn in
worker processes and without a display.
"""

from __future__ import annotations

import functools
import io
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minibng.extras import require
from minibng.names import choose
from minibng.train import perplexity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

Record: TypeAlias = Mapping[str, Any]
Run: TypeAlias = list[Record]  # the records of one run, by epoch
Rates: TypeAlias = dict[float, list[Run]]  # learning rate, ascending → one run per seed
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SMALL = 8.5  # points: notes, legends and counts; all other text has matplotlib's 10 to 12
MAX_COLUMNS = 500  # of a heat map: more steps than this are binned

# What makes two runs incomparable: those that differ here are never averaged, and stand in rows of their own. DETAILS
# are named only where they differ.
SETTING = {
    "dataset": "{}",
    "task": "{}",
    "level": "{} level",
    "model": "{}",
    "length": "length {}",
    "depth": "depth {}",
    "activation": "{}",
    "batch": "batch {}",
    "schedule": "{} schedule",
}
DETAILS = {
    "data_dir": "{}",
    "size": "size {}",
    "samples": "{} samples",
    "tokens": "{} tokens",
    "width": "width {}",
    "hidden": "hidden {}",
    "layers": "{} layers",
    "dropout": "dropout {}",
    "tied": "tied {}",
    "augment": "augmentation {}",
    "weight_decay": "weight decay {}",
    "norm_blocks": "norm blocks {}",
}

# The palette of Okabe and Ito, told apart by colour-blind readers; the marker tells the family in grey print.
FAMILIES = {
    "sgd": ("#000000", "o"),
    "momentum": ("#D55E00", "s"),
    "adagrad": ("#009E73", "D"),
    "rmsprop": ("#56B4E9", "v"),
    "adadelta": ("#CC79A7", "P"),
    "adam": ("#0072B2", "^"),
}
OTHERS = (("#E69F00", "<"), ("#882255", ">"), ("#7F7F7F", "h"), ("#999933", "p"), ("#332288", "d"))
FORMS = {  # suffix of the optimizer's name: line style, line width, filled markers
    "-ng-adaptive": ((0, (4.0, 1.6)), 1.8, True),
    "-ng": ("solid", 2.6, True),
    "-clip": ((0, (1.0, 1.4)), 1.6, False),
    "": ("solid", 1.0, False),
}
COLUMNS = {  # what a figure is about → the field of a record, and the words on the axis
    "train_loss": ("train_loss", "training loss"),
    "test_loss": ("test_loss", "test loss"),
    "test_error": ("test_error", "test error (%)"),
    "train_perplexity": ("train_loss", "training perplexity"),
    "test_perplexity": ("test_loss", "test perplexity"),
    "gap": ("train_loss", "f − f*"),
}
QUANTITIES = dict.fromkeys(("gradient", "update", "parameter"))
BAD = "#E4002B"  # zero or non-finite norms: a red that viridis, the colour map of the norms, does not contain


def style(optimizer: str) -> dict[str, Any]:
    """Return how an optimizer is drawn, as keywords of matplotlib's ``plot``.

    The colour and the marker tell the rule (adam, momentum, …), the line its form: raw thin, clip dotted, NG
    thick, adaptive NG dashed.

    Parameters
    ----------
    optimizer
        A name such as "adam", "adam-clip", "adam-ng" or "adam-ng-adaptive".

    Examples
    --------
    >>> style("adam-ng")["color"] == style("adam")["color"], style("adam-ng")["linewidth"]
    (True, 2.6)
    """
    suffix = next(end for end in FORMS if optimizer.endswith(end))
    family = optimizer.removesuffix(suffix)
    color, marker = FAMILIES.get(family) or OTHERS[zlib.crc32(family.encode()) % len(OTHERS)]
    line, width, filled = FORMS[suffix]
    return {
        "color": color,
        "linestyle": line,
        "linewidth": width,
        "marker": marker,
        "markersize": 5.0,
        "markerfacecolor": color if filled else "white",
        "label": optimizer,
    }


def training_curves(
    records: Iterable[Record],
    chosen: Mapping[str, float] | None = None,
    errors: Iterable[Record] | None = None,
    columns: tuple[str, str] = ("train_loss", "test_error"),
) -> Figure:
    """Draw training loss and test error against epochs, one line per optimizer at its chosen learning rate.

    A line is the mean over seeds (the geometric mean for losses and perplexities, whose axes are logarithmic), in a
    band from the smallest to the largest seed. A point is drawn only where every seed has a finite value, so that a
    line ends where its first run ends; where a run diverged, a cross stands there. Each setting (data set,
    depth, activation, schedule) has a row of its own.

    Parameters
    ----------
    records
        One mapping per run and epoch; header lines are skipped.
    chosen
        The learning rate to show of each optimizer; optimizers that it does not name are left out. By default
        every optimizer, at the rate where the fewest runs diverged and, among those, the geometric mean of
        the final training loss is lowest.
    errors
        Records that the test errors are drawn from, of one rate an optimizer: where it was chosen by validation error.
        By default the same.
    columns
        What the two panels show: names of `COLUMNS`, such as "train_perplexity".

    Returns
    -------
    Figure
        Two panels per setting.

    Raises
    ------
    ValueError
        Where there is nothing to draw, a chosen rate was not run, or one seed was run twice.
    """
    (left_field, left_words), (right_field, right_words) = (choose(COLUMNS, name, "column") for name in columns)
    settings = _settings(records, columns[0])
    others = settings if errors is None else _settings(errors, columns[0])
    figure, rows = _rows(settings, width=11.0, height=4.0)
    crossed = False
    for row, (setting, optimizers) in zip(rows, settings.items(), strict=True):
        left, right = row.subplots(1, 2)
        picked = {name: _best(rates) for name, rates in optimizers.items()} if chosen is None else chosen
        for index, (name, lr) in enumerate(picked.items()):
            runs = _at(choose(optimizers, name, "optimizer"), lr, name)
            rates = others[setting][name]
            at = lr if errors is None else _best(rates)
            lost = sum(map(_diverged, runs))
            crossed = crossed or lost > 0
            label = f"{name}, lr {lr:.3g}" + (f", error at {at:.3g}" if at != lr else "")
            label += f" ({lost} of {len(runs)} diverged)" if lost else ""
            _curve(left, runs, left_field, index, label)
            _curve(right, _at(rates, at, name), right_field, index, label)
        left.set(xlabel="epoch", ylabel=left_words)
        right.set(xlabel="epoch", ylabel=right_words)
        for panel, field in ((left, left_field), (right, right_field)):
            if field == "test_error":
                _percent(panel)
            else:
                panel.set_yscale(_scale(panel))
                _plain_ticks(panel.yaxis)
        for panel in (left, right):
            _tidy(panel)
            panel.xaxis.get_major_locator().set_params(integer=True)
        _legend(row, right)
    kind = "mean over {} (geometric for the loss)" if "test_error" in columns else "geometric mean over {}"
    text = _what_lines_are(settings, kind)
    _note(figure, text + (" Cross: a seed diverged after this epoch." if crossed else ""))
    return figure


def rate_sensitivity(records: Iterable[Record], relative: bool = True, column: str = "train_loss") -> Figure:
    """Draw the final training loss against the learning rate, one line per optimizer.

    A point is the geometric mean over seeds, in a band from the smallest to the largest. The best rate is a
    star, hollow where it is the smallest or largest rate tried, so that a better one may lie outside. Rates
    at which a run diverged have no point; they are crosses, with the count of diverged runs, in a strip along
    the top.

    Parameters
    ----------
    records
        One mapping per run and epoch; header lines are skipped.
    relative
        Divide each rate by the median of the optimizer's rates: a rate is a length for a normalized optimizer
        and a multiplier for a raw one, so that the rates themselves share no scale.
    column
        "train_loss" or "train_perplexity".

    Returns
    -------
    Figure
        One panel per setting.

    Raises
    ------
    ValueError
        Where there is nothing to draw, a rate is not positive, or one seed was run twice.
    """
    settings = _settings(records, column)
    figure, rows = _rows(settings, width=8.5, height=4.8)
    for row, optimizers in zip(rows, settings.values(), strict=True):
        lost = [name for name, rates in optimizers.items() if any(map(_diverged, chain(*rates.values())))]
        strip, panel = row.subplots(2, 1, sharex=True, height_ratios=[0.06 * len(lost) + 1e-3, 1.0])
        for name, rates in optimizers.items():
            if min(rates) <= 0:
                raise ValueError(f"{name}: the learning rate {min(rates):g} has no place on a log axis")
            centre = math.exp(float(np.median(np.log(list(rates))))) if relative else 1.0
            _sensitivity(panel, name, rates, centre)
            _crosses(strip, name, rates, centre)
        _tidy_strip(strip, lost)
        divided = " ÷ median of the optimizer's rates" if relative else ""
        panel.set(xlabel="learning rate" + divided, ylabel=f"final {choose(COLUMNS, column, 'column')[1]}")
        panel.set(xscale="log", yscale=_scale(panel))
        panel.margins(x=0.08)
        _plain_ticks(panel.xaxis)
        _plain_ticks(panel.yaxis)
        _tidy(panel)
        _legend(row, panel)
    _note(
        figure,
        _what_lines_are(settings, "geometric mean over {}")
        + "\nStar: best rate; hollow where it is at the edge of the grid.",
    )
    return figure


def norm_heatmap(
    norms: Iterable[Record], optimizers: Iterable[str] | None = None, quantity: str = "gradient"
) -> Figure:
    """Draw the norm of every block at every step: one heat map per optimizer and rate, on one colour scale.

    Several seeds are joined by the geometric mean, and so are neighbouring steps where there are over 500.
    A zero or non-finite norm in a cell colours it red; after the end of a run the map is white.

    Parameters
    ----------
    norms
        One mapping per recorded run and step; header lines are skipped.
    optimizers
        Which to draw, in this order; by default all, in the order of the records.
    quantity
        "gradient", "update" or "parameter".

    Returns
    -------
    Figure
        Up to three heat maps side by side, or two in each row, and one colour bar.

    Raises
    ------
    ValueError
        Where there is nothing to draw, or the runs do not have the same blocks.
    """
    choose(QUANTITIES, quantity, "quantity")
    panels, blocks = _norm_panels(norms, optimizers)
    figure, grid = _norm_grid(len(panels), blocks)
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    images = [_log_norms(rows, quantity) for rows in panels.values()]
    norm = Normalize(*_limits(np.concatenate([values[np.isfinite(values)] for _, values in images])))
    colors = colormaps["viridis"].with_extremes(bad=BAD)
    heights = np.arange(len(blocks) + 1) - 0.5
    for axes, title, (edges, values) in zip(grid, panels, images, strict=True):
        axes.grid(False)
        mesh = axes.pcolormesh(edges, heights, np.ma.masked_invalid(values), cmap=colors, norm=norm)
        axes.set_title(title, fontsize=10)
    bar = figure.colorbar(mesh, ax=grid, aspect=30, pad=0.02)
    bar.set_label(f"log10 of the {quantity} norm\n(red: zero or not finite)")
    what = _describe(next(iter(panels.values()))[0])
    figure.suptitle(f"Norm of each block's {quantity}" + (f": {what}" if what else ""))
    return figure


def norm_growth(
    norms: Iterable[Record], optimizers: Iterable[str] | None = None, quantity: str = "parameter"
) -> Figure:
    """Draw each block's norm against steps, divided by its first value: a line a block, a panel an optimizer and rate.

    Of parameters in front of a batch norm this is the growth that theory I13 tells of: ‖x^i‖² gains lr² a step under
    SGD-NG, and a factor of 1 + lr² under adaptive NG. Seeds are joined by the geometric mean. A block whose first norm
    is zero has no line.

    Parameters
    ----------
    norms
        One mapping per recorded run and step; header lines are skipped.
    optimizers
        Which to draw, in this order; by default all, in the order of the records.
    quantity
        "parameter", "gradient" or "update".

    Returns
    -------
    Figure
        Panels with one scale; the colour of a line tells how deep its block lies.

    Raises
    ------
    ValueError
        Where there is nothing to draw, or the runs do not have the same blocks.
    """
    choose(QUANTITIES, quantity, "quantity")
    panels, blocks = _norm_panels(norms, optimizers)
    columns = min(len(panels), 3)
    figure = _figure(1.6 + 3.4 * columns, 0.9 + 2.7 * -(-len(panels) // columns))
    grid = list(figure.subplots(-(-len(panels) // columns), columns, sharey=True, squeeze=False).flat)
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colors = colormaps["viridis"]
    for axes, (title, rows) in zip(grid, panels.items(), strict=False):
        edges, values = _log_norms(rows, quantity)
        for b, line in enumerate(values):
            if np.isfinite(line[0]):
                axes.plot(
                    edges[:-1] + 0.5, 10.0 ** (line - line[0]), color=colors(b / max(len(blocks) - 1, 1)), linewidth=1.0
                )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        _tidy(axes)
    heights = np.concatenate([_heights(axes) for axes in grid])
    if len(heights) and heights.max() > 3 * heights.min():
        grid[0].set_yscale("log")  # for all of them
        _plain_ticks(grid[0].yaxis)
    for axes in grid[::columns]:
        axes.set_ylabel(f"{quantity} norm ÷ first")
    for axes in grid[len(panels) :]:
        axes.remove()
    depth = ScalarMappable(Normalize(0, len(blocks) - 1), colors)
    bar = figure.colorbar(depth, ax=grid[: len(panels)], aspect=30, pad=0.02)
    bar.set_label(f"block, 0 is {blocks[0]}")
    what = _describe(next(iter(panels.values()))[0])
    figure.suptitle(f"Norm of each block's {quantity}, divided by its first" + (f": {what}" if what else ""))
    return figure


def effects(points: Iterable[Record], words: str = "final training losses") -> Figure:
    """Draw the ratio of final training losses, treatment to baseline, along an axis such as the depth.

    Parameters
    ----------
    points
        Mappings with baseline, treatment, axis, value, ratio, low and high (the ends of its interval), and setting.
    words
        What the ratios are of.

    Returns
    -------
    Figure
        One panel: a line for each pair and setting, with its intervals; below 1 the treatment does better. It is drawn
        as the treatment, or, of a treatment with several baselines, with the line of the baseline.

    Raises
    ------
    ValueError
        Where there is nothing to draw.
    """
    lines: dict[tuple[str, str, str], list[Record]] = {}
    for point in points:
        lines.setdefault((point["setting"], point["baseline"], point["treatment"]), []).append(point)
    if not lines:
        raise ValueError("no effects to draw: the list holds no point")
    figure = _figure(6.6, 4.2)
    axes = figure.subplots()
    settings = {setting for setting, _, _ in lines}
    values = sorted({point["value"] for row in lines.values() for point in row})
    for k, ((setting, baseline, treatment), row) in enumerate(lines.items()):
        row = sorted(row, key=lambda point: point["value"])
        y, low, high = (np.array([_number(point[name]) for point in row]) for name in ("ratio", "low", "high"))
        shift = 0.08 * (k - (len(lines) - 1) / 2)  # intervals stand beside each other
        x = [values.index(point["value"]) + shift for point in row]
        label = f"{treatment} / {baseline}" + (f", {setting}" if len(settings) > 1 else "")
        look = style(treatment) | {"label": label}
        if len({against for _, against, it in lines if it == treatment}) > 1:  # against several: the line tells which
            look |= {key: style(baseline)[key] for key in ("linestyle", "linewidth", "markerfacecolor")}
        axes.errorbar(x, y, yerr=np.array([y - low, high - y]), capsize=3, **look)
    axes.axhline(1.0, color="0.5", linewidth=0.8)
    axes.set(xlabel=str(row[0]["axis"]), ylabel=f"ratio of {words}", yscale="log")
    axes.set_xticks(range(len(values)), labels=[str(v) for v in values])
    _plain_ticks(axes.yaxis)
    _tidy(axes)
    axes.legend(frameon=False, fontsize=SMALL)
    _note(figure, "Below 1 the treatment does better. Bars: 95 % intervals over paired seeds; exploratory.")
    return figure


def curves(
    curves: Mapping[str, tuple[Array, Array]],
    x: str,
    y: str,
    *,
    title: str = "",
    levels: Mapping[str, float] | None = None,
    log: str = "",
    note: str = "",
) -> Figure:
    """Draw curves by name: a measured gap and its bound, say, or what a counterexample of `minibng.verify` shows.

    Later lines are thinner and broken, so that they leave equal ones before them visible.

    Parameters
    ----------
    curves
        Label → (x, y), sequences of one length.
    x, y
        What stands on the axes.
    title
        A sentence above the panel.
    levels
        Label → height of a horizontal line. One with the label of a curve has its colour; others are grey.
    log
        The logarithmic axes: "", "x", "y" or "xy".
    note
        A sentence below the panel.

    Returns
    -------
    Figure
        One panel, the legend beside it.

    Raises
    ------
    ValueError
        Where there is nothing to draw, x and y of a curve are not of one length, or ``log`` names no axes.

    Examples
    --------
    >>> t = np.arange(1, 100)
    >>> figure = curves({"gap": (t, 1 / t), "bound": (t, 2 / t)}, "step", "f − f*", log="xy")
    """
    if not curves:
        raise ValueError("no curves to draw: the mapping is empty")
    choose(dict.fromkeys(("", "x", "y", "xy")), log, "choice of logarithmic axes")
    figure = _figure(8.5, 4.2)
    axes = figure.subplots()
    colors = [color for color, _ in (*FAMILIES.values(), *OTHERS)]
    looks = (("solid", 2.8), ((0, (4.0, 1.6)), 2.2), ("solid", 1.2), ((0, (1.0, 1.4)), 1.8))
    drawn = {}
    for k, (label, (across, up)) in enumerate(curves.items()):
        if np.shape(across) != np.shape(up):
            raise ValueError(f"curve {label!r}: x has shape {np.shape(across)}, y has {np.shape(up)}")
        line, width = looks[k % len(looks)]
        drawn[label] = colors[k % len(colors)]
        (drawing,) = axes.plot(across, up, linestyle=line, linewidth=width, color=drawn[label], label=label, zorder=3)
        if np.size(across) <= 60:  # few points are shown as such
            drawing.set(marker="o", markersize=3.5)
    for label, height in (levels or {}).items():
        look: dict[str, Any] = {"color": drawn[label]} if label in drawn else {"color": "0.45", "label": label}
        axes.axhline(height, linestyle=(0, (6.0, 3.0)), linewidth=1.0, zorder=2, **look)
    axes.set(xlabel=x, ylabel=y, xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
    _plain_ticks(axes.xaxis)
    _plain_ticks(axes.yaxis)
    _tidy(axes)
    _legend(figure, axes)
    if title:
        figure.suptitle(title, fontsize=10.5, wrap=True)
    if note:
        _note(figure, note)
    return figure


def bounds(panels: Mapping[str, Mapping[str, tuple[Array, Array]]]) -> Figure:
    """Draw gaps and what theorems bound them by, over steps, both on logarithmic axes: small panels, three in a row.

    Parameters
    ----------
    panels
        Title → label → (steps, values). What is not positive has no place on the axes and is left out; step 0 too.

    Returns
    -------
    Figure
        The gap is a solid line, bounds are broken ones; of several gaps each has a solid line.

    Raises
    ------
    ValueError
        Where there is nothing to draw.
    """
    if not panels:
        raise ValueError("no gaps to draw: the mapping is empty")
    rows = -(-len(panels) // 3)
    figure = _figure(12.6, 0.6 + 2.9 * rows)
    grid = list(figure.subplots(rows, min(3, len(panels)), squeeze=False).flat)
    colors = [color for color, _ in (*FAMILIES.values(), *OTHERS)]
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        several = not any(":" in label for label in curves)
        for k, (label, (steps, values)) in enumerate(curves.items()):
            shown = (np.asarray(steps) > 0) & (np.asarray(values) > 0)
            look: dict[str, Any] = {"linestyle": "dashed", "linewidth": 1.5} if k else {"linewidth": 1.6}
            look = {"linewidth": 1.3} if several and len(curves) > 1 else look
            if shown.sum() < 20 and k:
                look["marker"] = "v"
            axes.plot(np.asarray(steps)[shown], np.asarray(values)[shown], color=colors[k], label=label, **look)
        axes.set(xscale="log", yscale="log")
        axes.set_title(title, fontsize=SMALL)
        axes.legend(frameon=False, fontsize=SMALL - 1.5, loc="best")
        _tidy(axes)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[: len(panels)][-3:]:
        axes.set_xlabel("step")
    for axes in grid[: len(panels) : 3]:
        axes.set_ylabel("f − f*")
    _note(figure, "Seed 0. Broken: what the theorem allows at that step; a triangle: at the end of a stage.")
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as a PNG of 150 dots per inch, whole or not at all.

    Parameters
    ----------
    figure
        What to write.
    path
        A name that ends in ".png", in a folder that exists.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        Where the name does not end in ".png".
    OSError
        Where the folder cannot be written; the message names it.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"save writes PNG, so the name must end in .png, not {path.name!r}")
    data = _png(figure, dpi=150)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path.name} into the folder {path.parent}: {error.strerror}"
        ) from error
    finally:
        if part.is_file():
            part.unlink()
    return path


# Records → runs


def _settings(records: Iterable[Record], column: str = "train_loss") -> dict[str, dict[str, Rates]]:
    """Sort the records into setting → optimizer → rate → runs; in their own order, but rates ascend.

    Where the column is a perplexity, it takes the place of the losses.
    """
    found: dict[str, dict[str, dict[float, dict[Any, Run]]]] = {}
    records = [record for record in records if record.get("kind") != "header"]
    if column.endswith("perplexity"):
        records = [{**r, **{k: perplexity(_number(r[k])) for k in r if k.endswith("_loss")}} for r in records]
    details = [key for key in DETAILS if len({record.get(key) for record in records}) > 1]
    for record in records:
        if missing := {"optimizer", "lr", "seed", "epoch", "train_loss"} - record.keys():
            raise ValueError(f"not a training record, for want of {', '.join(sorted(missing))}: {dict(record)!r:.200}")
        seeds = (
            found.setdefault(_describe(record, details), {})
            .setdefault(record["optimizer"], {})
            .setdefault(record["lr"], {})
        )
        run = seeds.setdefault(record["seed"], [])
        if run and run[0].get("run") != record.get("run"):
            raise ValueError(
                f"runs {run[0].get('run')} and {record.get('run')} are both {record['optimizer']}, lr "
                f"{record['lr']:g}, seed {record['seed']} ({_describe(record)}): give one of them"
            )
        run.append(record)
    if not found:
        raise ValueError(
            "no records to draw: the list holds no line of a run (does records.jsonl hold only its header?)"
        )
    return {
        setting: {
            name: {lr: [sorted(run, key=lambda r: r["epoch"]) for run in rates[lr].values()] for lr in sorted(rates)}
            for name, rates in optimizers.items()
        }
        for setting, optimizers in found.items()
    }


def _describe(record: Record, details: Iterable[str] = ()) -> str:
    """Tell a record's setting in words."""
    words = SETTING | {key: DETAILS[key] for key in details}
    return ", ".join(text.format(record[key]) for key, text in words.items() if record.get(key) is not None)


def _number(value: object) -> float:
    """Return a record's value as a float: null, as non-finite numbers are written, is NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def _diverged(run: Run) -> bool:
    """Tell whether a run ended because its numbers did."""
    return bool(run[-1].get("diverged")) or not math.isfinite(_number(run[-1]["train_loss"]))


def _final(runs: list[Run]) -> Array:
    """Return the final training losses of the runs that did not diverge."""
    return np.array([_number(run[-1]["train_loss"]) for run in runs if not _diverged(run)])


def _geometric(values: Array) -> Array:
    """Return the geometric mean over the first axis; a zero, or a rounding error below it, makes it zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.log(np.maximum(values, 0.0)).mean(axis=0)))


def _best(rates: Rates) -> float:
    """Return the rate where the fewest runs diverged and, among those, the final loss is lowest."""

    def badness(lr: float) -> tuple[int, float]:
        final = _final(rates[lr])
        return len(rates[lr]) - len(final), float(_geometric(final)) if len(final) else math.inf

    return min(rates, key=badness)


def _at(rates: Rates, lr: float, name: str) -> list[Run]:
    """Return the runs at a learning rate."""
    for tried, runs in rates.items():
        if math.isclose(tried, lr, rel_tol=1e-6):
            return runs
    raise ValueError(
        f"{name} was not run with the learning rate {lr:g}, only with {', '.join(f'{r:.3g}' for r in rates)}"
    )


def _what_lines_are(settings: dict[str, dict[str, Rates]], mean: str) -> str:
    """Say what lines and bands show; the number of seeds goes into the words about the mean."""
    counts = [len(runs) for rates in settings.values() for by_lr in rates.values() for runs in by_lr.values()]
    low, high = min(counts), max(counts)
    if high == 1:
        return "Lines: one seed."
    seeds = f"{high} seeds" if low == high else f"{low} to {high} seeds"
    return f"Lines: {mean.format(seeds)}. Bands: smallest to largest seed."


# Drawing


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure on the Agg canvas, outside pyplot, that a notebook can show."""
    require("matplotlib", "experiments", "a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)  # inches
    figure = Figure(figsize=(width, height), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)  # IPython asks for it where pyplot has not been set up
    return figure


def _png(figure: Figure, dpi: float | None = None) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi or figure.dpi)
    return buffer.getvalue()


def _rows(settings: dict[str, dict[str, Rates]], width: float, height: float) -> tuple[Figure, list[SubFigure]]:
    """Return a figure and one titled row in it per setting, high enough for the legend."""
    most = max(len(optimizers) for optimizers in settings.values())
    figure = _figure(width, 0.4 + len(settings) * max(height, 1.0 + 0.23 * most))
    rows = list(figure.subfigures(len(settings), 1, squeeze=False).flat)
    for row, setting in zip(rows, settings, strict=True):
        row.suptitle(setting)
    return figure, rows


def _curve(axes: Axes, runs: list[Run], field: str, index: int, label: str) -> None:
    """Draw one optimizer's mean against epochs, its band and, where a run diverged, a cross at the end."""
    epochs = sorted({record["epoch"] for run in runs for record in run})
    tables = [{record["epoch"]: _number(record.get(field)) for record in run} for run in runs]
    values = np.array([[table.get(epoch, math.nan) for epoch in epochs] for table in tables])
    kept = np.isfinite(values).all(axis=0)
    x, values = np.array(epochs)[kept], values[:, kept] * (100.0 if field == "test_error" else 1.0)
    mean = values.mean(axis=0) if field == "test_error" else _geometric(values)
    drawn = style(runs[0][0]["optimizer"]) | {"label": label}
    every = -(-len(x) // 8) or 1
    axes.plot(x, mean, **drawn, markevery=(index % every, every), zorder=3)
    _band(axes, x, values, drawn["color"])
    if len(x) and any(map(_diverged, runs)):
        axes.scatter(x[-1:], mean[-1:], marker="x", s=70, linewidths=2.2, color=drawn["color"], zorder=4)


def _heights(axes: Axes) -> Array:
    """Return the values of all lines of the axes."""
    return np.concatenate([np.empty(0), *(np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines)])


def _scale(axes: Axes) -> str:
    """Return the scale for losses: logarithmic, except where no value is positive (or there is none)."""
    return "log" if (_heights(axes) > 0).any() else "linear"


def _percent(axes: Axes) -> None:
    """Give errors that differ by more than a factor of five a log axis, which shows the small ones too."""
    errors = _heights(axes)
    if len(errors) and errors.max() > 5 * errors.min() > 0:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)


def _plain_ticks(axis: Axis) -> None:
    """Label a log axis with plain numbers (0.3, 1, 3), as few as fit side by side; leave another as it is."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if axis.get_scale() != "log":
        return
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if decades < 0.8 else (1, 3) if decades < 3 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _band(axes: Axes, x: Array, values: Array, color: str) -> None:
    """Shade from the smallest to the largest seed."""
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, linewidth=0)


def _sensitivity(axes: Axes, name: str, rates: Rates, centre: float) -> None:
    """Draw one optimizer's final loss against the rate, with a star on the best."""
    whole = {lr: _final(runs) for lr, runs in rates.items() if not any(map(_diverged, runs))}
    x = np.array(list(whole)) / centre
    mean = np.array([_geometric(final) for final in whole.values()])
    best = _best(rates)
    drawn = style(name)
    told = f"best lr {best:.3g}" if best in whole else "runs diverged at every rate"
    drawn["label"] = f"{name}, {told}"
    axes.plot(x, mean, **drawn, zorder=3)
    if max(map(len, whole.values()), default=1) > 1:
        ends = np.array([(final.min(), final.max()) for final in whole.values()]).T
        _band(axes, x, ends, drawn["color"])
    if best in whole:
        face = "white" if best in (min(rates), max(rates)) else drawn["color"]
        edge = drawn["color"] if face == "white" else "white"
        y = float(_geometric(whole[best]))
        axes.plot(best / centre, y, "*", mfc=face, mec=edge, markersize=15, markeredgewidth=1.3, zorder=5)


def _crosses(strip: Axes, name: str, rates: Rates, centre: float) -> None:
    """Mark, at the height of the optimizer's name, the rates at which runs diverged, with how many."""
    counts = {lr: count for lr, runs in rates.items() if (count := sum(map(_diverged, runs)))}
    if counts:
        x = [lr / centre for lr in counts]
        strip.scatter(x, [name] * len(x), marker="x", s=36, linewidths=1.8, color=style(name)["color"])
    for lr, count in counts.items():
        strip.annotate(
            f"{count}/{len(rates[lr])}",
            (lr / centre, name),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def _tidy_strip(strip: Axes, names: list[str]) -> None:
    """Name the rows of the strip of crosses, or leave it out where nothing diverged."""
    if not names:
        strip.remove()
        return
    strip.set_title("diverged runs / all runs at that rate", fontsize=SMALL)
    strip.set_ylim(len(names) - 0.4, -0.6)
    strip.tick_params(which="both", bottom=False, labelbottom=False, left=False, labelsize=SMALL)
    strip.spines[:].set_visible(False)
    strip.grid(True, axis="y", color="0.9", linewidth=0.6)
    strip.set_axisbelow(True)


def _tidy(axes: Axes) -> None:
    """Leave the lines of the axes that carry a scale, and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(row: Figure | SubFigure, axes: Axes) -> None:
    """Put the legend of the axes to the right of the row, where it covers no curve."""
    row.legend(
        *axes.get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=SMALL,
        handlelength=3.4,
    )


def _note(figure: Figure, text: str) -> None:
    """Say below the panels how to read them."""
    figure.supxlabel(text, fontsize=SMALL, color="0.3")


# Norms


def _norm_panels(
    norms: Iterable[Record], optimizers: Iterable[str] | None
) -> tuple[dict[str, list[Record]], list[str]]:
    """Return title → records, one title per optimizer and learning rate, and the names of the blocks."""
    found: dict[str, dict[float, list[Record]]] = {}
    for record in norms:
        if record.get("kind") != "header":
            found.setdefault(record["optimizer"], {}).setdefault(record["lr"], []).append(record)
    names = list(found) if optimizers is None else list(optimizers)
    panels: dict[str, list[Record]] = {}
    for name in names if found else []:
        for lr, rows in choose(found, name, "optimizer").items():
            runs = len({(row.get("run"), row.get("seed")) for row in rows})
            panels[f"{name}, lr {lr:.3g}" + (f", {runs} runs" if runs > 1 else "")] = rows
    if not panels:
        raise ValueError("no norms to draw: the list holds no step of a run (was the recording of norms on?)")
    different = {tuple(map(str, row["blocks"])) for rows in panels.values() for row in rows}
    if len(different) > 1:
        lengths = ", ".join(str(n) for n in sorted(map(len, different)))
        raise ValueError(
            f"the runs do not have the same blocks ({lengths} of them): give the norms of one model at a time"
        )
    return panels, list(different.pop())


def _norm_grid(count: int, blocks: list[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure and, in it, axes with steps to the right and blocks upwards."""
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    height = 1.6 + 0.08 * max(len(blocks), 12)
    figure = _figure(2.2 + (3.6 if columns == 3 else 4.4) * columns, 1.0 + height * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    every = -(-len(blocks) // 16)
    for axes in grid[:, 0]:
        axes.set_ylabel("block (first layer at the bottom)")
        axes.set_yticks(range(0, len(blocks), every), labels=blocks[::every], fontsize=SMALL)
    used, spare = list(grid.flat)[:count], list(grid.flat)[count:]
    for axes in used[-columns:]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    for axes in spare:
        axes.remove()
    return figure, used


def _log_norms(rows: list[Record], quantity: str) -> tuple[Array, Array]:
    """Return the edges of the columns, and log10 of the geometric mean norm by block and column."""
    steps, where = np.unique([row["step"] for row in rows], return_inverse=True)
    columns = min(len(steps), MAX_COLUMNS)
    starts = np.arange(columns) * len(steps) // columns
    edges = np.append(steps[starts], 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1) - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.array([row[quantity] for row in rows], dtype=np.float64))
        sums = np.zeros((columns, logs.shape[1]))
        column = np.searchsorted(starts, where, side="right") - 1
        np.add.at(sums, column, logs)
    return edges, (sums / np.bincount(column, minlength=columns)[:, None]).T


def _limits(values: Array) -> tuple[float, float]:
    """Return the range of the colours, never of width zero."""
    if not len(values):
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)
