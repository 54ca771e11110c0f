import functools
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from minibng import plot

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

PNG = b"\x89PNG\r\n\x1a\n"


def run(optimizer, lr, seed, losses, errors=None, first=1, **other):
    """Records of one run; a loss of None is where it diverged."""
    errors = [0.1] * len(losses) if errors is None else errors
    return [
        {
            "run": f"{optimizer}{lr}{seed}",
            "optimizer": optimizer,
            "lr": lr,
            "seed": seed,
            "epoch": first + epoch,
        }
        | {"schedule": "constant", "dataset": "digits", "depth": 18, "activation": "tanh", "seconds": 0.8}
        | {"train_loss": loss, "val_error": error, "test_error": error, "diverged": loss is None}
        | other
        for epoch, (loss, error) in enumerate(zip(losses, errors, strict=True))
    ]


def grid():
    """Records: adam, best in the middle, diverges once at its largest rate; adam-ng, best at the edge."""
    records = [{"kind": "header", "versions": {}}]
    for seed, factor in enumerate((1.0, 4.0)):
        records += run("adam", 0.01, seed, [1.0 * factor, 0.5 * factor], [0.5, 0.3])
        records += run("adam", 0.1, seed, [1.0 * factor, 0.1 * factor], [0.5, 0.1 + 0.1 * seed])
        records += run("adam", 1.0, seed, [1.0 * factor, None if seed else 0.01], [0.5, None if seed else 0.2])
        for lr, final in ((0.001, 0.1), (0.01, 0.05), (0.1, 0.02)):
            records += run("adam-ng", lr, seed, [0.7, final * factor], [0.4, 0.02])
    return records


def lines(axes):
    """Lines by the first word of their label, without the unnamed ones (stars)."""
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label().split(",")[0]: line for line in named}


def stars(axes):
    return [line for line in axes.lines if line.get_marker() == "*"]


def norms(optimizers=("adam", "adam-ng"), blocks=3, steps=10, seeds=1, value=None):
    value = value or (lambda optimizer, seed, step, block: 10.0**-block)
    return [
        {"run": seed, "optimizer": name, "lr": 0.001, "seed": seed, "step": step}
        | {"blocks": [str(2 * block) for block in range(blocks)]}
        | {"gradient": [value(name, seed, step, block) for block in range(blocks)], "update": [1.0] * blocks}
        for name in optimizers
        for seed in range(seeds)
        for step in range(1, steps + 1)
    ]


def maps(figure):
    """The heat maps: the colour bar has a mesh too, in an axes with a label of its own."""
    return [axes.collections[0] for axes in figure.axes if axes.get_title()]


def drawn(figure):
    """Draw it all, so that every warning of the layout is an error."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


# style


def test_style_gives_a_family_one_colour_and_a_form_one_line():
    forms = ("", "-clip", "-ng", "-ng-adaptive")
    for family in ("sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam", "lion"):
        styles = [plot.style(family + form) for form in forms]
        assert len({style["color"] for style in styles}) == len({style["marker"] for style in styles}) == 1
        assert len({(str(style["linestyle"]), style["linewidth"]) for style in styles}) == 4
        assert [style["label"] for style in styles] == [family + form for form in forms]
    assert len({plot.style(family)["color"] for family in plot.FAMILIES}) == len(plot.FAMILIES)
    assert plot.style("adam-ng")["linewidth"] > plot.style("adam-ng-adaptive")["linewidth"]
    assert plot.style("adam-ng")["linewidth"] > 2 * plot.style("adam")["linewidth"]
    assert plot.style("adam-ng")["linestyle"] == plot.style("adam")["linestyle"] == "solid"


def test_style_is_what_plot_takes():
    (line,) = Figure().subplots().plot([1, 2], **plot.style("adam-clip"))
    assert line.get_label() == "adam-clip"


# training_curves


def test_training_curves_draw_means_at_the_best_rate():
    figure = drawn(plot.training_curves(grid()))
    loss, error = figure.axes
    assert loss.get_yscale() == "log"
    assert list(lines(loss)) == list(lines(error)) == ["adam", "adam-ng"]
    assert lines(loss)["adam"].get_label() == "adam, lr 0.1"  # 1.0 has the one smaller loss, and a diverged run
    np.testing.assert_array_equal(lines(loss)["adam"].get_xdata(), [1, 2])
    np.testing.assert_allclose(lines(loss)["adam"].get_ydata(), [2.0, 0.2])  # √(1·4), √(0.1·0.4)
    np.testing.assert_allclose(lines(loss)["adam-ng"].get_ydata(), [0.7, 0.04])
    np.testing.assert_allclose(lines(error)["adam"].get_ydata(), [50.0, 15.0])
    assert "%" in error.get_ylabel()
    (title,) = [row.get_suptitle() for row in figure.subfigs]
    assert title == "digits, depth 18, tanh, constant schedule"
    assert "2 seeds" in figure.get_supxlabel() and "smallest to largest" in figure.get_supxlabel()


def test_perplexities_are_the_powers_of_the_losses():
    columns = ("train_perplexity", "test_perplexity")
    records = [r for seed in (0, 1) for lr in (0.1, 0.3) for r in run("adam", lr, seed, [4.0, 2.0 + lr * seed])]
    records = [r | {"test_loss": 5.0 if r["epoch"] == 1 else None} for r in records]
    left, right = drawn(plot.training_curves(records, columns=columns)).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("training perplexity", "test perplexity")
    assert left.get_yscale() == right.get_yscale() == "log"
    (line,), (other,) = lines(left).values(), lines(right).values()
    np.testing.assert_allclose(line.get_ydata(), [math.exp(4), math.exp(2.05)])  # at 0.1, the better one
    np.testing.assert_allclose((other.get_xdata(), other.get_ydata()), [[1], [math.exp(5)]])
    (panel,) = drawn(plot.rate_sensitivity(records, column=columns[0])).axes
    assert panel.get_ylabel() == "final training perplexity"
    np.testing.assert_allclose(lines(panel)["adam"].get_ydata(), [math.exp(2.05), math.exp(2.15)])
    with pytest.raises(ValueError, match="unknown column 'perplexity'"):
        plot.training_curves(records, columns=("perplexity", "test_error"))


def test_training_curves_band_reaches_from_the_smallest_to_the_largest_seed():
    loss = plot.training_curves(grid(), {"adam": 0.1}).axes[0]
    (band,) = loss.collections
    corners = band.get_paths()[0].vertices
    at_end = corners[corners[:, 0] == 2, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((0.1, 0.4))


def test_chosen_rates_choose_the_lines():
    loss = plot.training_curves(grid(), {"adam": 0.01}).axes[0]
    assert list(lines(loss)) == ["adam"]
    np.testing.assert_allclose(lines(loss)["adam"].get_ydata(), [2.0, 1.0])
    with pytest.raises(ValueError, match=r"adam was not run with the learning rate 3, only with 0\.01, 0\.1, 1"):
        plot.training_curves(grid(), {"adam": 3})
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        plot.training_curves(grid(), {"adan": 0.1})


def test_a_line_ends_with_a_cross_where_a_seed_diverged():
    figure = drawn(plot.training_curves(grid(), {"adam": 1.0}))
    loss = figure.axes[0]
    assert lines(loss)["adam"].get_label() == "adam, lr 1 (1 of 2 diverged)"
    np.testing.assert_array_equal(lines(loss)["adam"].get_xdata(), [1])
    cross = loss.collections[-1]
    np.testing.assert_allclose(cross.get_offsets(), [[1, 2.0]])
    assert "Cross" in figure.get_supxlabel()
    assert "Cross" not in plot.training_curves(grid()).get_supxlabel()


def test_a_run_without_one_finite_number_keeps_its_place_in_the_legend():
    figure = drawn(plot.training_curves(run("sgd", 10.0, 0, [None], [None]) + grid()))
    assert lines(figure.axes[0])["sgd"].get_label() == "sgd, lr 10 (1 of 1 diverged)"
    assert len(lines(figure.axes[0])["sgd"].get_xdata()) == 0
    assert "1 to 2 seeds" in figure.get_supxlabel()
    alone = drawn(plot.training_curves(run("sgd", 10.0, 0, [None], [None])))
    assert alone.get_supxlabel().startswith("Lines: one seed.")


def test_a_loss_of_zero_goes_off_the_bottom():
    figure = drawn(plot.training_curves(run("adam", 0.1, 0, [1.0, 0.0, -1e-17], [0.1, 0.0, 0.0], first=0)))
    np.testing.assert_array_equal(lines(figure.axes[0])["adam"].get_ydata(), [1, 0, 0])
    drawn(plot.training_curves(run("adam", 0.1, 0, [0.0], [0.0])))
    drawn(plot.rate_sensitivity(run("adam", 0.1, 0, [0.0], [0.0])))


def test_test_error_may_be_missing_and_keeps_a_linear_axis_where_it_varies_little():
    figure = drawn(plot.training_curves(run("adam", 0.1, 0, [1.0, 0.5, 0.2], [None, 0.3, 0.2])))
    np.testing.assert_array_equal(lines(figure.axes[1])["adam"].get_xdata(), [2, 3])
    assert figure.axes[1].get_yscale() == "linear"
    wide = drawn(plot.training_curves(run("adam", 0.1, 0, [1.0, 0.5], [0.9, 0.01])))
    assert wide.axes[1].get_yscale() == "log"
    drawn(plot.training_curves(run("adam", 0.1, 0, [1.0], [None])))


def test_every_setting_has_a_row_of_its_own():
    deep = [dict(record, depth=36) for record in grid() if "kind" not in record]
    for draw, panels in ((plot.training_curves, 2), (plot.rate_sensitivity, 2)):
        figure = drawn(draw(grid() + deep))
        assert [row.get_suptitle().split(", ")[1] for row in figure.subfigs] == ["depth 18", "depth 36"]
        assert len(figure.axes) == 2 * panels


def test_legend_covers_no_panel():
    figure = drawn(plot.training_curves(grid()))
    (legend,) = figure.subfigs[0].legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert box.x1 <= figure.bbox.x1
    assert [text.get_text() for text in legend.get_texts()] == ["adam, lr 0.1", "adam-ng, lr 0.1"]


@pytest.mark.parametrize("draw", [plot.training_curves, plot.rate_sensitivity])
def test_records_that_cannot_be_drawn_are_refused(draw):
    with pytest.raises(ValueError, match="no records"):
        draw([])
    with pytest.raises(ValueError, match="no records"):
        draw([{"kind": "header"}])
    with pytest.raises(ValueError, match="not a training record, for want of epoch, train_loss"):
        draw(norms())
    twice = run("adam", 0.1, 0, [1.0], run=1) + run("adam", 0.1, 0, [1.0], run=2)
    with pytest.raises(ValueError, match=r"runs 1 and 2 are both adam, lr 0\.1, seed 0"):
        draw(twice)


# rate_sensitivity


def test_rate_sensitivity_draws_geometric_means_of_the_final_loss():
    figure = drawn(plot.rate_sensitivity(grid()))
    strip, panel = figure.axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(lines(panel)["adam"].get_xdata(), [0.1, 1.0])  # ÷ 0.1; the diverged 1.0 left out
    np.testing.assert_allclose(lines(panel)["adam"].get_ydata(), [1.0, 0.2])
    np.testing.assert_allclose(lines(panel)["adam-ng"].get_xdata(), [0.1, 1.0, 10.0])  # ÷ 0.01
    np.testing.assert_allclose(lines(panel)["adam-ng"].get_ydata(), [0.2, 0.1, 0.04])
    assert "median" in panel.get_xlabel()
    assert "2 seeds" in figure.get_supxlabel() and "smallest to largest" in figure.get_supxlabel()
    assert strip.get_position().y0 > panel.get_position().y1


def test_rate_sensitivity_in_rates_themselves():
    panel = plot.rate_sensitivity(grid(), relative=False).axes[-1]
    np.testing.assert_allclose(lines(panel)["adam-ng"].get_xdata(), [0.001, 0.01, 0.1])
    assert panel.get_xlabel() == "learning rate"


def test_best_rate_is_a_star_hollow_at_the_edge_of_the_grid():
    inner, edge = stars(plot.rate_sensitivity(grid()).axes[-1])
    assert (inner.get_xdata()[0], inner.get_ydata()[0]) == pytest.approx((1.0, 0.2))
    assert inner.get_markerfacecolor() == plot.style("adam")["color"]
    assert (edge.get_xdata()[0], edge.get_ydata()[0]) == pytest.approx((10.0, 0.04))
    assert edge.get_markerfacecolor() == "white"


def test_diverged_runs_are_crosses_with_their_count():
    strip = drawn(plot.rate_sensitivity(grid())).axes[0]
    (crosses,) = strip.collections
    np.testing.assert_allclose(crosses.get_offsets(), [[10.0, 0]])
    assert [text.get_text() for text in strip.texts] == ["1/2"]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["adam"]


def test_no_strip_where_nothing_diverged_and_no_star_where_all_did():
    calm = [record for record in grid() if record.get("lr") != 1.0]
    assert len(drawn(plot.rate_sensitivity(calm)).axes) == 1
    wild = drawn(plot.rate_sensitivity(run("sgd", 1.0, 0, [None]) + run("sgd", 10.0, 0, [1.0, None])))
    assert lines(wild.axes[-1])["sgd"].get_label() == "sgd, runs diverged at every rate"
    assert not stars(wild.axes[-1])
    assert [text.get_text() for text in wild.axes[0].texts] == ["1/1", "1/1"]


def test_an_even_grid_is_centred_between_its_two_middle_rates():
    records = [record for lr in (0.1, 1.0) for record in run("sgd", lr, 0, [1.0])]
    panel = plot.rate_sensitivity(records).axes[-1]
    np.testing.assert_allclose(lines(panel)["sgd"].get_xdata(), [10**-0.5, 10**0.5])


def test_a_rate_of_zero_has_no_place_on_the_axis():
    with pytest.raises(ValueError, match="sgd: the learning rate 0"):
        plot.rate_sensitivity(run("sgd", 0.0, 0, [1.0]))


# norm_heatmap


def test_norm_heatmap_shows_log10_on_one_scale():
    def value(optimizer, seed, step, block):
        return 10.0 ** (step - (6 if optimizer == "adam" else 3))

    figure = drawn(plot.norm_heatmap(norms(value=value)))
    raw, normalized = maps(figure)
    assert raw.norm is normalized.norm
    assert (raw.norm.vmin, raw.norm.vmax) == pytest.approx((-5, 7))
    np.testing.assert_allclose(raw.get_array(), np.tile(np.arange(10) - 5.0, (3, 1)))
    bars = [axes for axes in figure.axes if "log10" in axes.get_ylabel()]
    assert len(bars) == 1 and "gradient" in bars[0].get_ylabel() and "not finite" in bars[0].get_ylabel()
    assert [axes.get_title() for axes in figure.axes[:2]] == ["adam, lr 0.001", "adam-ng, lr 0.001"]
    assert "bottom" in figure.axes[0].get_ylabel() and figure.axes[1].get_xlabel() == "step"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0", "2", "4"]
    low, high = figure.axes[0].get_ylim()
    assert low < high  # block 0, the first row, is at the bottom


def test_zero_and_non_finite_norms_have_a_colour_of_their_own():
    bad = {1: 0.0, 2: None, 3: math.inf, 4: math.nan}
    figure = drawn(plot.norm_heatmap(norms(["adam"], value=lambda o, s, step, b: bad.get(step, 1.0))))
    (mesh,) = maps(figure)
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array())[0], [True] * 4 + [False] * 6)
    red = mesh.cmap.get_bad()
    assert not any(np.allclose(red, colour, atol=0.2) for colour in mesh.cmap(np.linspace(0, 1, 64)))
    drawn(plot.norm_heatmap(norms(["adam"], value=lambda *a: 0.0)))


@pytest.mark.parametrize(("blocks", "steps"), [(1, 1), (1, 10), (31, 10), (31, 5000)])
def test_norm_heatmap_of_any_size(blocks, steps):
    (mesh,) = maps(drawn(plot.norm_heatmap(norms(["adam-ng"], blocks, steps), quantity="update")))
    assert mesh.get_array().shape == (blocks, min(steps, 500))


def test_many_steps_are_binned_and_seeds_joined_by_the_geometric_mean():
    def value(optimizer, seed, step, block):
        return 10.0 ** (step + 100 * seed) if step <= 100 else 1.0

    (mesh,) = maps(plot.norm_heatmap(norms(["adam"], 1, 1000, seeds=2, value=value)))
    assert mesh.get_array().shape == (1, 500)
    np.testing.assert_allclose(mesh.get_array()[0, :3], [51.5, 53.5, 55.5])  # steps (1, 2), seeds (0, 100)
    np.testing.assert_allclose(mesh.get_coordinates()[0, [0, 1, -1], 0], [0.5, 2.5, 1000.5])


def test_norm_heatmap_takes_the_optimizers_asked_for():
    figure = plot.norm_heatmap(norms(["sgd", "adam", "adam-ng"]), ["adam-ng", "sgd"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["adam-ng, lr 0.001", "sgd, lr 0.001"]
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        plot.norm_heatmap(norms(["adam"]), ["adm"])
    with pytest.raises(ValueError, match="did you mean 'update'"):
        plot.norm_heatmap(norms(), quantity="updates")


def test_five_heat_maps_leave_no_empty_axes():
    five = ["sgd", "sgd-ng", "momentum", "adam", "adam-ng"]
    figure = drawn(plot.norm_heatmap(norms(five)))
    assert len(maps(figure)) == 5 and len(figure.axes) == 6


def test_norms_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="no norms"):
        plot.norm_heatmap([{"kind": "header"}], ["adam"])
    with pytest.raises(ValueError, match=r"same blocks \(2, 3 of them\)"):
        plot.norm_heatmap(norms(["adam"], 2) + norms(["sgd"], 3))


# save, and where the figures can be drawn


def test_save_writes_a_png_and_nothing_else(tmp_path):
    path = plot.save(plot.training_curves(grid()), str(tmp_path / "curves.png"))
    data = path.read_bytes()
    assert data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82")
    assert int.from_bytes(data[16:20], "big") == 1650  # 11 inches of 150 dots
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    plot.save(plot.rate_sensitivity(grid()), path)  # over a file that exists
    assert path.read_bytes() != data


def test_save_names_the_folder_that_cannot_be_written(tmp_path):
    figure = plot.training_curves(grid())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(OSError, match=f"into the folder {folder}"):
            plot.save(figure, folder / "curves.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OSError, match=r"cannot write taken\.png"):
        plot.save(figure, tmp_path / "taken.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "taken.png"]
    with pytest.raises(ValueError, match=r"must end in \.png"):
        plot.save(figure, tmp_path / "curves.pdf")


def test_a_notebook_can_show_a_figure():
    figure = plot.training_curves(grid())
    assert figure._repr_png_().startswith(PNG)


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path):
    program = f"""
import json, sys
from minibng import plot
assert not [name for name in sys.modules if name.startswith("matplotlib")]
records, norms = json.loads(sys.stdin.read())
plot.save(plot.training_curves(records), {str(tmp_path / "a.png")!r})
plot.save(plot.rate_sensitivity(records), {str(tmp_path / "b.png")!r})
plot.save(plot.norm_heatmap(norms), {str(tmp_path / "c.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    execute = functools.partial(subprocess.run, text=True, capture_output=True, check=False)
    done = execute([sys.executable, "-W", "error", "-c", program], input=json.dumps([grid(), norms()]))
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 3


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'minibng\[experiments\]'"):
        plot.training_curves(grid())


# growth of norms, effects along an axis, errors at other rates, details


def test_growth_is_each_blocks_norm_against_its_first():
    def grown(name, seed, step, block):
        return (2.0 if block else 0.0) * 1.1 ** ((step - 1) * (1 + (name == "adam")) * block)

    records = [row | {"parameter": row["gradient"], "step": row["step"] * 7} for row in norms(value=grown, seeds=2)]
    figure = drawn(plot.norm_growth(records))
    panels = {axes.get_title().split(",")[0]: axes for axes in figure.axes if axes.get_title()}
    assert set(panels) == {"adam", "adam-ng"}
    for name, axes in panels.items():
        assert len(axes.lines) == 2 and axes.get_yscale() == "log"  # the block that is zero at first has no line
        for block, line in enumerate(axes.lines, 1):
            np.testing.assert_allclose(line.get_xdata(), 7 * np.arange(1, 11), atol=0.6)
            np.testing.assert_allclose(line.get_ydata(), 1.1 ** (np.arange(10) * (1 + (name == "adam")) * block))
    assert len(drawn(plot.norm_growth(records, ["adam-ng"], quantity="update")).axes) == 2
    with pytest.raises(ValueError, match="unknown quantity 'parameters'; did you mean 'parameter'"):
        plot.norm_growth(records, quantity="parameters")


def effect(value, treatment="adam-ng", setting="", **other):
    pair = {"baseline": "adam", "treatment": treatment, "axis": "depth", "setting": setting}
    return pair | {"value": value, "ratio": 0.5, "low": 0.25, "high": 1.0} | other


def test_effects_are_ratios_with_their_intervals_along_the_axis():
    figure = drawn(
        plot.effects(
            [effect(20, ratio=2.0, low=1.0, high=4.0), effect(8), effect(20, "adam-clip"), effect(8, "adam-clip")]
        )
    )
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["8", "20"] and axes.get_xlabel() == "depth"
    found = {c.get_label(): c for c in axes.containers}
    assert set(found) == {"adam-ng / adam", "adam-clip / adam"}
    line, _, (bars,) = found["adam-ng / adam"]
    assert line.get_ydata().tolist() == [0.5, 2.0]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[0.25, 1.0], [1.0, 4.0]])
    both = drawn(plot.effects([effect(8, setting="width 4"), effect(20, setting="width 8")]))
    assert "adam-ng / adam, width 4" in {c.get_label() for c in both.axes[0].containers}
    with pytest.raises(ValueError, match="no effects to draw"):
        plot.effects([])


def test_effects_against_several_baselines_are_told_apart():
    against = [effect(value) | {"baseline": name} for name in ("adam", "adam-clip") for value in (8, 20)]
    found = {c.get_label(): c[0] for c in drawn(plot.effects(against)).axes[0].containers}
    looks = {(line.get_linestyle(), line.get_linewidth(), line.get_markerfacecolor()) for line in found.values()}
    assert len(found) == len(looks) == 2
    assert found["adam-ng / adam"].get_linestyle() == "-" != found["adam-ng / adam-clip"].get_linestyle()


def test_intervals_that_there_are_not_are_left_out():
    drawn(
        plot.effects([effect(8, low=math.nan, high=math.nan), effect(20, ratio=math.nan, low=math.nan, high=math.nan)])
    )


def test_errors_can_be_of_another_rate_than_the_losses():
    losses = run("adam", 0.1, 0, [1.0, 0.1], [0.5, 0.4]) + run("sgd", 0.1, 0, [1.0, 0.2], [0.5, 0.45])
    errors = run("adam", 0.01, 0, [1.0, 0.3], [0.5, 0.2]) + run("sgd", 0.1, 0, [1.0, 0.2], [0.5, 0.45])
    left, right = drawn(plot.training_curves(losses, errors=errors)).axes
    np.testing.assert_allclose(lines(left)["adam"].get_ydata(), [1.0, 0.1])
    np.testing.assert_allclose(lines(right)["adam"].get_ydata(), [50, 20])
    assert lines(right)["adam"].get_label() == "adam, lr 0.1, error at 0.01"
    assert lines(right)["sgd"].get_label() == "sgd, lr 0.1"


def test_details_are_named_where_they_differ_alone():
    narrow, wide = ({"depth": 8, "width": width, "norm_blocks": "own"} for width in (4, 8))
    one = plot.training_curves(run("adam", 0.1, 0, [1.0, 0.1], **narrow))
    assert [row.get_suptitle() for row in one.subfigs] == ["digits, depth 8, tanh, constant schedule"]
    two = plot.training_curves(run("adam", 0.1, 0, [1.0, 0.1], **narrow) + run("adam", 0.1, 0, [1.0, 0.2], **wide))
    told = "digits, depth 8, tanh, constant schedule, width "
    assert [row.get_suptitle() for row in two.subfigs] == [told + "4", told + "8"]


# curves by name


def test_curves_are_drawn_by_name_with_their_levels():
    t = np.arange(1, 100)
    figure = drawn(
        plot.curves(
            {"gap": (t, 1 / t), "bound": (t, 2 / t), "few": (t[:5], 3 / t[:5])},
            "step",
            "f − f*",
            title="A sentence that is longer than the figure is wide, " * 3,
            levels={"gap": 0.01, "theory": 0.5},
            log="xy",
            note="What to look at.",
        )
    )
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()) == (
        *("step", "f − f*", "log", "log"),
    )
    by_name = lines(axes)
    assert set(by_name) == {"gap", "bound", "few", "theory"}
    np.testing.assert_array_equal(by_name["bound"].get_ydata(), 2 / t)
    assert by_name["theory"].get_ydata() == [0.5, 0.5] and by_name["few"].get_marker() == "o"
    (own,) = [line for line in axes.lines if line.get_label().startswith("_")]
    assert list(own.get_ydata()) == [0.01, 0.01] and own.get_color() == by_name["gap"].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gap", "bound", "few", "theory"]
    assert figure.get_supxlabel() == "What to look at."
    plain = plot.curves({"gap": (t, -t)}, "step", "loss").axes[0]
    assert (plain.get_xscale(), plain.get_yscale()) == ("linear", "linear")


def test_equal_curves_stay_visible():
    (axes,) = plot.curves({name: ([0, 1], [1, 1]) for name in ("first", "second", "third", "fourth")}, "x", "y").axes
    assert len({(line.get_linestyle(), line.get_linewidth()) for line in axes.lines}) == 4
    assert len({line.get_color() for line in axes.lines}) == 4


def test_curves_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="no curves to draw"):
        plot.curves({}, "x", "y")
    with pytest.raises(ValueError, match=r"curve 'gap': x has shape \(2,\), y has \(3,\)"):
        plot.curves({"gap": ([0, 1], [0, 1, 2])}, "x", "y")
    with pytest.raises(ValueError, match="unknown choice of logarithmic axes 'yx'; did you mean"):
        plot.curves({"gap": ([0, 1], [0, 1])}, "x", "y", log="yx")


def test_every_counterexample_has_a_picture():
    from minibng.verify.counterexamples import COUNTEREXAMPLES

    quick = {"steps": 30, "replicas": 5, "at": 5}
    for function in COUNTEREXAMPLES.values():
        known = function.__code__.co_varnames[: function.__code__.co_argcount]
        finding = function(**{name: value for name, value in quick.items() if name in known})
        (axes,) = plot.curves(**finding.picture).axes
        assert set(lines(axes)) == {label.split(",")[0] for label in {**finding.curves, **finding.levels}}
        assert axes.get_xlabel() == finding.x and axes.get_ylabel() == finding.y
