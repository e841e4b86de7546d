"""Draws what Scripts/bench measured: bench_plot.py --plot FILE.svg [--summary] --from RUN.json…

Each case has its own scale, from zero to its slowest: its bars are as long as its times. One scale for all cases would have to be a
logarithm's, as the ratios go from a half to a thousand, and a bar on such a scale is as long as one likes.

Two files, for light and for dark pages, as README names both in a <picture>: GitHub then shows the one of the theme that was chosen
there. A media query in one file follows the system's theme instead, which may be the other one.
"""

import argparse
import json
import os
import re
import sys
from xml.sax.saxutils import escape

# In the order in which they are drawn.
GROUPS = {
    "unpack": "Unpack and repack",
    "delta": "What changed, and repack of it",
    "build": "A step of a build",
    "containerd": "Under containerd",
    "docker": "Under Docker",
}

THEMES = {
    "light": dict(page="#ffffff", text="#1f2328", muted="#59636e", ours="#0969da", theirs="#818b98", warning="#cf222e"),
    "dark": dict(page="#0d1117", text="#f0f6fc", muted="#9198a1", ours="#4493f8", theirs="#7d8590", warning="#f85149"),
}

WIDTH, MARGIN = 900, 16
TITLES, LABELS, VALUES = 230, 250, 116
BAR, PITCH, GAP = 12, 16, 8


class Unusable(Exception):
    pass


def time_text(value):
    """Two or three digits of milliseconds or seconds: more would be noise."""
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 10_000 else f"{value / 1000:,.0f} s"


def value_text(value, unit):
    return time_text(value) if unit == "ms" else f"{value:,.0f} {unit}".rstrip()


def ratio_text(ratio):
    return f"{ratio:.2f}×" if ratio < 1 else f"{ratio:.1f}×" if ratio < 10 else f"{ratio:,.0f}×"


def readable(text):
    """Without what XML has no way to say."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def text_width(text, size):
    """About, and rather too much: fonts differ."""
    return len(text) * size * 0.55


def shortened(text, size, width):
    most = int(width / text_width("m", size))
    return text if len(text) <= most else text[:most - 1].rstrip() + "…"


def wrapped(text, size, width):
    lines = [""]
    for word in text.split():
        if lines[-1] and text_width(f"{lines[-1]} {word}", size) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [shortened(line, size, width) for line in lines]


def machine(host):
    parts = [f"{host['processors']} cores" + (f" ({host['processor']})" if host.get("processor") else ""),
             "Linux " + re.match(r"[\d.]*\d", host["kernel"]).group(),
             "file systems in memory" if host["imageFileSystem"] == "tmpfs" else "file systems on a disk",
             host["date"][:10]]
    return ", ".join(parts)


class Case:
    """Bars of one scale: Varve's, and those of what it was measured against."""

    def __init__(self, title, unit, ours):
        self.title, self.unit, self.ours = title, unit, ours
        self.others = []

    def bars(self):
        """(name, value, ratio to Varve's, class)"""
        yield "Varve", self.ours, None, "ours"
        for row in self.others:
            yield row["against"], row["other"], row["other"] / self.ours, "part" if row["kind"] == "part" else "theirs"

    def sentence(self):
        bars = "; ".join(f"{name} {value_text(value, self.unit)}" + (f" ({ratio_text(ratio)})" if ratio is not None else "")
                         for name, value, ratio, _ in self.bars())
        return f"{self.title}: {bars}."


class Section:
    def __init__(self, group, machine, is_quick):
        self.group, self.machine, self.is_quick = group, machine, is_quick
        self.cases = []

    def add(self, row):
        title = row.get("picture") or row["case"]
        last = self.cases[-1] if self.cases else None
        if last is None or (last.title, last.unit, last.ours) != (title, row["unit"], row["varve"]):
            last = Case(title, row["unit"], row["varve"])
            self.cases.append(last)
        last.others.append(row)


def is_drawn(row, summary):
    """What compares Varve with nothing, or with itself, has no bar beside it."""
    return row["other"] is not None and row["varve"] > 0 and row["kind"] != "reference" and (not summary or bool(row.get("picture")))


def sections_of(documents, summary=False):
    sections = {}
    for document in documents:
        where, is_quick = machine(document["host"]), document["host"]["quick"]
        for row in document["rows"]:
            if is_drawn(row, summary):
                section = sections.setdefault((row["group"], where, is_quick), Section(row["group"], where, is_quick))
                section.add(row)
    order = list(GROUPS)
    return sorted(sections.values(), key=lambda section: order.index(section.group) if section.group in order else len(order))


class Drawing:
    def __init__(self):
        self.parts = []
        self.y = MARGIN

    def text(self, x, y, text, kind, more=""):
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}"{more}>{escape(readable(text))}</text>')

    def bar(self, x, y, width, kind):
        # An outline lies on the edge of its rectangle.
        inset = 0.5 if kind == "part" else 0
        self.parts.append(f'<rect x="{x + inset:g}" y="{y + inset:g}" width="{max(width - 2 * inset, 1):.1f}" height="{BAR - 2 * inset:g}" '
                          f'class="{kind}"/>')

    def head(self):
        self.text(MARGIN, self.y + 12, "Varve beside other programs", "title")
        self.text(MARGIN, self.y + 32, "Medians; shorter is better. Each case has its own scale, from zero. "
                  "×: multiples of what Varve takes.", "small")
        x = MARGIN
        for kind, words in (("ours", "Varve"), ("theirs", "another program"), ("part", "a program that does a part of the work and no more")):
            self.bar(x, self.y + 42, 18, kind)
            self.text(x + 24, self.y + 52, words, "small")
            x += 24 + text_width(words, 11) + 22
        self.y += 60

    def section(self, section):
        self.y += 24
        self.text(MARGIN, self.y, GROUPS.get(section.group, section.group), "section")
        self.text(WIDTH - MARGIN, self.y, section.machine, "small end")
        self.y += 6
        self.parts.append(f'<path d="M{MARGIN} {self.y + 0.5:g}H{WIDTH - MARGIN}" class="rule"/>')
        if section.is_quick:
            self.y += 16
            self.text(MARGIN, self.y, "a --quick run: its ratios say nothing", "warning")
            self.y += 4
        self.y += 8
        for case in section.cases:
            self.case(case)

    def case(self, case):
        lines = wrapped(case.title, 12, TITLES - 12)
        bars = list(case.bars())
        scale = (WIDTH - 2 * MARGIN - TITLES - LABELS - VALUES) / max(value for _, value, _, _ in bars)
        for index, line in enumerate(lines):
            self.text(MARGIN, self.y + PITCH * index + 10, line, "own")
        x = MARGIN + TITLES + LABELS
        for index, (name, value, ratio, kind) in enumerate(bars):
            y, own = self.y + PITCH * index, " own" if kind == "ours" else ""
            self.text(x - 8, y + 10, shortened(name, 12, LABELS - 8), "name end" + own)
            self.bar(x, y, value * scale, kind)
            words = value_text(value, case.unit) + (f" · {ratio_text(ratio)}" if ratio is not None else "")
            self.text(x + max(value * scale, 1) + 6, y + 10, words, "value" + own)
        self.y += PITCH * max(len(lines), len(bars)) + GAP

    def document(self, sections, theme):
        height = self.y + MARGIN - GAP
        told = " ".join(f"{GROUPS.get(section.group, section.group)} ({section.machine}): "
                        + " ".join(case.sentence() for case in section.cases) for section in sections)
        colors = THEMES[theme]
        style = (
            "text{font:12px -apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif;fill:%(text)s}"
            "text.title{font-size:18px;font-weight:600}text.section{font-size:14px;font-weight:600}"
            "text.small{font-size:11px;fill:%(muted)s}text.warning{fill:%(warning)s;font-weight:600}"
            "text.end{text-anchor:end}text.name{fill:%(muted)s}text.own{fill:%(text)s;font-weight:600}"
            ".page{fill:%(page)s}.ours{fill:%(ours)s}.theirs{fill:%(theirs)s}.part{fill:none;stroke:%(muted)s;stroke-dasharray:3 2}"
            ".rule{stroke:%(muted)s;stroke-opacity:.4}" % colors)
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            'aria-labelledby="title figures">',
            '<title id="title">Varve beside other programs</title>',
            f'<desc id="figures">{escape(readable(told))}</desc>',
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{height:g}" rx="6" class="page"/>',
            *self.parts, "</svg>", ""])


def draw(documents, theme, summary=False):
    """The text of one SVG. documents: what --json wrote, each."""
    sections = sections_of(documents, summary)
    if not sections:
        raise Unusable("no row compares Varve with another program" + (", of those that README shows" if summary else ""))
    drawing = Drawing()
    drawing.head()
    for section in sections:
        drawing.section(section)
    return drawing.document(sections, theme)


def write(path, documents, summary=False):
    stem, suffix = os.path.splitext(path)
    for theme, target in (("light", path), ("dark", f"{stem}-dark{suffix}")):
        content = draw(documents, theme, summary)
        with open(target, "w", encoding="utf-8") as file:
            file.write(content)
        print(f"    {target}: {len(content.encode()):,} bytes", file=sys.stderr)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        machine(document["host"]), document["host"]["quick"]
        for row in document["rows"]:
            for key in ("group", "case", "kind", "varve", "against", "other", "unit"):
                row[key]
        return document
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise Unusable(f"\"{path}\" is not what Scripts/bench --json writes: {what}") from None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--plot", required=True)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--from", dest="runs", action="append", required=True)
    options = parser.parse_args()
    try:
        write(options.plot, [read(run) for run in options.runs], options.summary)
    except (Unusable, OSError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
