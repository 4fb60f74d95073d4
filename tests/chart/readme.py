"""The README of the chart: an introduction, and a table of values from the comments in values.yaml."""

import re

from chart import CHART

BEGIN = "<!-- values: written by tests/chart/run --regenerate -->"


def table():
    rows = ["| value | default | |", "|---|---|---|"]
    rows += [f"| `{key}` | {default} | {text} |" for key, default, text in entries()]
    return "\n".join(rows)


def entries():
    """Key, default and explanation of every value that holds something."""
    path, comment = [], []
    lines = (CHART / "values.yaml").read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""]):
        stripped = line.strip()
        if not stripped:
            comment = []
        elif stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
        elif match := re.match(r"( *)([A-Za-z_][\w.]*): ?(.*)$", line):
            indent, key, value = len(match[1]) // 2, match[2], match[3]
            path = [*path[:indent], key]
            is_group = not value and following.startswith("  " * (indent + 1))
            if not is_group or comment:
                yield ".".join(path), "" if is_group else f"`{value}`", escaped(" ".join(comment))
            comment = []


def escaped(text):
    return text.replace("|", "\\|")


def current():
    return (CHART / "README.md").read_text()


def expected():
    """The README as it should be: what stands above the table is written by hand."""
    introduction = current().split(BEGIN)[0]
    return f"{introduction}{BEGIN}\n\n{table()}\n"
