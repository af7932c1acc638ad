import re

from harness.plot import Curve, in_bytes, plot


def _texts(drawn: str) -> set[str]:
    return set(re.findall(r">([^<]+)</text>", drawn))


def test_a_plot_has_every_curve_and_point() -> None:
    curves = [Curve("one < two", [(100, 20_000), (100_000, 3_000_000)]), Curve("flat", [(100, 10), (1000, 10)])]
    drawn = plot("Bytes", curves, below="layers", label=in_bytes)
    assert drawn.count("<polyline ") == 2
    assert drawn.count("<circle ") == 4
    assert {"one &lt; two", "layers", "100,000", "10 B", "10 MB"} <= _texts(drawn)


def test_values_that_differ_by_little_are_on_a_linear_axis_from_nothing_on() -> None:
    drawn = plot("Rate", [Curve("publisher", [(0, 31.5), (1000, 44), (10_000, 40)])], below="layers", beside="per s")
    assert {"0", "10", "50", "2,000", "10,000", "per s"} <= _texts(drawn)
    assert not {"1", "100"} & _texts(drawn)


def test_labels_of_curves_that_end_together_stand_apart() -> None:
    curves = [Curve(name, [(1, 10), (2, end)]) for name, end in (("a", 20), ("b", 20.01), ("c", 20.02))]
    drawn = plot("Close", curves, below="n")
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" style=', drawn)]
    assert min(abs(one - other) for one in heights for other in heights if one is not other) >= 15
