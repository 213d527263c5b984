"""The chart: each engine's time as a multiple of the native one, on a logarithmic axis, as SVG without any library."""

import math
from html import escape

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito: told apart by everyone
LEFT, RIGHT, TOP, WIDTH = 130, 70, 98, 860
BAR, GAP = 14, 12


class Axis:
    """A logarithmic axis whose ends are 1, 2 or 5 times a power of ten, around 1 and all values."""

    def __init__(self, values):
        low, high = min([1, *values]), max([1.01, *values])
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        self.low = max(mark for mark in marks if mark <= low)
        self.high = min(mark for mark in marks if mark >= high)
        self.ticks = [mark for mark in marks if self.low <= mark <= self.high]

    def x(self, value):
        """Pixels from the left."""
        return LEFT + math.log(value / self.low) / math.log(self.high / self.low) * (WIDTH - LEFT - RIGHT)


def _text(x, y, text, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _legend(guests):
    x = LEFT
    for colour, guest in zip(COLOURS, guests):
        label = f"{guest.engine.title}, mean {guest.gmean:.3g}" if guest.gmean else f"{guest.engine.title}: no result"
        yield f'<rect x="{x}" y="48" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 18, 59, label)
        x += 44 + 7 * len(label)


def _grid(axis, bottom):
    for tick in axis.ticks:
        strong = math.isclose(tick, 1)
        yield (f'<line x1="{axis.x(tick):.1f}" y1="{TOP - 6}" x2="{axis.x(tick):.1f}" y2="{bottom}" '
               f'stroke="{"#444" if strong else "#ddd"}"/>')
        yield _text(axis.x(tick), TOP - 12, f"{tick:g}", 'text-anchor="middle" fill="#555" font-size="11"')


def _bars(axis, guests, name, top):
    zero = axis.x(1)
    for i, (colour, guest) in enumerate(zip(COLOURS, guests)):
        y = top + i * BAR
        ratio = guest.ratio.get(name)
        if ratio is None:
            yield _text(zero + 6, y + BAR - 3, guest.absent(name), 'fill="#a00" font-size="11"')
            continue
        x = axis.x(ratio)
        yield f'<rect x="{min(x, zero):.1f}" y="{y}" width="{max(abs(x - zero), 1):.1f}" height="{BAR - 2}" fill="{colour}"/>'
        yield _text(max(x, zero) + 6, y + BAR - 4, f"{ratio:.3g}", 'font-size="11"')


def svg(guests, names, caption):
    """guests: report.Summary each; names: the workloads."""
    values = [ratio for guest in guests for ratio in guest.ratio.values()]
    axis = Axis(values)
    row = max(len(guests), 1) * BAR + GAP
    bottom = TOP + len(names) * row
    height = bottom + 34
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
             'font-family="sans-serif" font-size="13" fill="#222">',
             f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
             _text(LEFT, 28, "Time in the guest, native = 1 (logarithmic, shorter is better)", 'font-size="16" font-weight="bold"'),
             *_legend(guests), *_grid(axis, bottom)]
    for i, name in enumerate(names):
        top = TOP + i * row + GAP / 2
        parts.append(_text(LEFT - 10, top + (row - GAP) / 2 + 4, name, 'text-anchor="end"'))
        parts += _bars(axis, guests, name, top)
    parts += [_text(LEFT, height - 12, caption, 'font-size="11" fill="#555"'), "</svg>"]
    return "\n".join(parts) + "\n"
