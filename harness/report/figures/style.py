"""What all figures share: colours, sizes, and how a figure becomes inline SVG or files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

# name: (on light paper, on dark paper). Each is at least 4.5:1 against its paper but for `grid`, and is never the only
# sign: markers, labels and order say the same.
COLOURS = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1f2328", "#e6eaee"),
    "muted": ("#57606a", "#a4aeb8"),
    "grid": ("#e2e6ea", "#2c333b"),
    "blue": ("#0060a8", "#6cb6ff"),
    "orange": ("#b04a00", "#ffa05c"),
    "green": ("#00704f", "#4fd1a5"),
    "purple": ("#8e3b86", "#e29bd9"),
    "ochre": ("#7a5c00", "#e3c34e"),
    "red": ("#a8123e", "#ff8fa3"),
    "teal": ("#006a80", "#5ccfe6"),
    "slate": ("#4b5563", "#b3bdc9"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
MODEL_COLOURS = [LIGHT[n] for n in ("blue", "orange", "green", "purple", "ochre", "red", "teal", "slate")]
FONT_PX = {False: 13.0, True: 12.0}  # by whether the figure is narrow
WIDTH_PX = {False: 860, True: 352}
SVG_METADATA: dict[str, Any] = {"Date": None, "Creator": None}  # the same figure has the same bytes


@dataclass(frozen=True, repr=False)
class Drawing:
    """A figure that can be drawn for a wide and for a narrow window. A notebook shows the wide one.

    name: of its files. title, about, parts: what a reader who cannot see it is told.
    draw: from whether it shall be narrow to a matplotlib Figure.
    """

    name: str
    title: str
    about: str
    parts: Sequence[str]
    draw: Callable[[bool], Any]

    def __repr__(self) -> str:
        return f"{self.title}. {self.about}"

    def _repr_png_(self) -> bytes:
        with drawing_style(False):
            buffer = io.BytesIO()
            self.draw(False).savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


@dataclass(frozen=True)
class Series:
    """How one router of one run is shown, the same in every figure: its label, colour, marker and role."""

    label: str
    colour: str
    marker: str
    role: str


def new_figure(width: int, height: float) -> Any:
    """An empty figure of a size in CSS pixels. Must be called, and drawn on, inside `drawing_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 96, height / 96), dpi=96)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place given in CSS pixels from the figure's upper left corner."""
    whole_width, whole_height = figure.get_size_inches() * 96
    bottom = whole_height - top - height
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def points(pixels: float) -> float:
    """CSS pixels as typographic points, the unit of matplotlib's sizes."""
    return pixels * 0.75


@contextmanager
def drawing_style(narrow: bool) -> Iterator[None]:
    """matplotlib's settings while a figure is drawn and written, whatever the user's own are."""
    import matplotlib

    size = points(FONT_PX[narrow])
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size,
        "ytick.labelsize": size,
        "legend.fontsize": size,
        "text.color": LIGHT["ink"],
        "axes.labelcolor": LIGHT["ink"],
        "axes.edgecolor": LIGHT["muted"],
        "axes.facecolor": LIGHT["paper"],
        "figure.facecolor": LIGHT["paper"],
        "xtick.color": LIGHT["muted"],
        "ytick.color": LIGHT["muted"],
        "grid.color": LIGHT["grid"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.parse_math": False,  # a model may have a dollar sign in its name
        "svg.fonttype": "none",
        "svg.hashsalt": "harness",
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs that the font of the measurements lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def printable(text: str) -> str:
    """The text with a sign in place of what XML cannot hold and of what would turn the direction of writing."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def fitted(text: str, width: float, figure: Any, weight: str = "normal") -> str:
    """The printable text, or as much of its beginning as is at most `width` pixels wide, with an ellipsis."""
    text = shown = printable(text)
    while len(shown) > 1 and text_width(shown, figure, weight) > width:
        text = text[:-1]
        shown = text + "…"
    return shown


def text_width(text: str, figure: Any, weight: str = "normal") -> float:
    """How many pixels wide a text is."""
    from matplotlib.font_manager import FontProperties

    found = figure.canvas.get_renderer().get_text_width_height_descent(text, FontProperties(weight=weight), False)
    return float(found[0])


def inline_svg(drawing: Drawing) -> Markup:
    """Both variants as SVG elements for a page, whose style sheet shows one of them.

    Colours are CSS variables with the light scheme's as fallback; identifiers are the drawing's own.
    """
    return Markup("\n").join(_inline(drawing, narrow) for narrow in (False, True))


def write_files(drawing: Drawing, folder: Path) -> None:
    """The wide variant as `NAME.svg` and `NAME.png`, the latter at twice its size."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    with drawing_style(False):
        figure = drawing.draw(False)
        figure.savefig(folder / f"{drawing.name}.svg", metadata=SVG_METADATA)
        for text in figure.findobj(Text):  # not in the SVG file, where an outlined letter is no text any more
            text.set_path_effects([withStroke(linewidth=points(3), foreground=LIGHT["paper"])])
        figure.savefig(folder / f"{drawing.name}.png", dpi=192, metadata={"Software": None})


def _inline(drawing: Drawing, narrow: bool) -> Markup:
    variant = "narrow" if narrow else "wide"
    with drawing_style(narrow):
        buffer = io.StringIO()
        figure = drawing.draw(narrow)
        figure.savefig(buffer, format="svg", metadata=SVG_METADATA)
    content = buffer.getvalue()
    content = content[content.index("<svg") :]
    content = re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.S)
    own = f"{drawing.name}-{variant}"
    content = re.sub(r'(?<= )id="', f'id="{own}-', content)
    content = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}-", content)
    variables = {light: name for name, light in LIGHT.items()}
    content = re.sub(
        r"(?<=: )#[0-9a-f]{6}(?=[;\"])",
        lambda m: f"var(--{variables[m[0]]}, {m[0]})" if m[0] in variables else m[0],
        content,
    )
    body = content[content.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]*)"', content)
    assert box is not None
    width = round(figure.get_figwidth() * 96)
    return Markup(
        f'<svg class="{variant}" role="img" aria-labelledby="{own}-title {own}-desc" viewBox="{box[1]}" '
        f'style="max-width: {width}px" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{own}-title">{escape(drawing.title)}</title>'
        f'<desc id="{own}-desc">{escape(drawing.about)} {escape("; ".join(drawing.parts))}.</desc>'
    ) + Markup(body)
