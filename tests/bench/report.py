"""From measurements to ratios, a table, CSV files and plots."""
import csv
import os
import shutil
import statistics
import subprocess

import rows

PROJECT = "rampool"


class Results:
    """Every number that was measured: values[row][system] is one number for each round that gave one."""

    def __init__(self):
        self.values, self.units, self.systems, self.notes = {}, {}, [], []

    def add(self, key, system, round_number, value, unit):
        if key not in rows.EVERY:
            raise KeyError(f"no row is called {key}")
        self.units[key] = unit
        if system not in self.systems:
            self.systems.append(system)
        self.values.setdefault(key, {}).setdefault(system, {})[round_number] = value

    def median(self, key, system):
        found = self.values.get(key, {}).get(system)
        return statistics.median(found.values()) if found else None

    def ratio(self, key, system, peer):
        """Of the two in the same round: median, least, most. None when they never met."""
        mine, other = (self.values.get(key, {}).get(s, {}) for s in (system, peer))
        pairs = [mine[r] / other[r] for r in mine if other.get(r)]
        return (statistics.median(pairs), min(pairs), max(pairs)) if pairs else None

    def reached(self, key, value, bound):
        less = rows.less_is_better(self.units[key])
        return value <= bound if less else value >= bound


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def bound_text(results, key, bound):
    sign = "≤" if rows.less_is_better(results.units[key]) else "≥"
    return f"{sign} {bound:.3g}"


def _row_line(results, row, peers):
    mine = results.median(row.key, PROJECT)
    cells = [row.title, results.units[row.key], number(mine)]
    if "" in row.reach and mine is not None:
        good = results.reached(row.key, mine, row.reach[""])
        cells[2] += f" ({bound_text(results, row.key, row.reach[''])} {'yes' if good else 'NO'})"
    for peer in peers:
        ratio = results.ratio(row.key, PROJECT, peer)
        if ratio is None:
            cells.append(number(results.median(row.key, peer)))
            continue
        text = f"{number(results.median(row.key, peer))}  ×{ratio[0]:.2f} [{ratio[1]:.2f} {ratio[2]:.2f}]"
        if peer in row.reach:
            good = results.reached(row.key, ratio[0], row.reach[peer])
            text += f" {bound_text(results, row.key, row.reach[peer])} {'yes' if good else 'NO'}"
        cells.append(text)
    return cells


def table(results):
    """Each peer's cell: its median, then ×ratio of rampool to it [range], then what is to be reached."""
    out = []
    for title, section in rows.SECTIONS:
        present = [row for row in section if row.key in results.values]
        if not present:
            continue
        peers = [s for s in results.systems if s != PROJECT and any(s in results.values[r.key] for r in present)]
        lines = [[title, "unit", PROJECT, *peers]] + [_row_line(results, row, peers) for row in present]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        out += ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        out.append("")
    return "\n".join(out + results.notes) + "\n"


def write_csv(results, folder):
    with open(os.path.join(folder, "measurements.csv"), "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["row", "system", "round", "value", "unit"])
        for key, systems in results.values.items():
            for system, found in systems.items():
                out.writerows([key, system, n, f"{v:.6g}", results.units[key]] for n, v in sorted(found.items()))
    with open(os.path.join(folder, "ratios.csv"), "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["row", "peer", "median", "least", "most", "reach", "reached"])
        for key in results.values:
            reach = rows.EVERY[key].reach
            for peer in results.systems:
                ratio = results.ratio(key, PROJECT, peer) if peer != PROJECT else None
                if ratio:
                    good = results.reached(key, ratio[0], reach[peer]) if peer in reach else ""
                    out.writerow([key, peer, *(f"{r:.4g}" for r in ratio), reach.get(peer, ""), good])


# Bars: rampool's speed as a part of the peer's, whichever way the row's unit goes, so that longer is better.
PLOT = """set terminal svg size 900,{height} font "sans-serif,12" background "white"
set output "{path}"
set title "{title}"
set style fill solid 0.7 border -1
set yrange [{top}:-0.6]
set xrange [0:*]
set xlabel "speed relative to {peer}: more is better, lines show the range"
set ytics nomirror
set grid xtics
set key off
set arrow from 1, graph 0 to 1, graph 1 nohead lc rgb "#444444" dt 2
set lmargin 40
$data << END
{data}
END
plot $data using ($2/2):0:($2/2):(0.35):ytic(1) with boxxyerrorbars lc rgb "#3b75af", \\
     $data using 2:0:3:4 with xerrorbars lc rgb "#222222" pt 0
"""


def _speed(results, key, peer):
    median, least, most = results.ratio(key, PROJECT, peer)
    if rows.less_is_better(results.units[key]):
        return 1 / median, 1 / most, 1 / least
    return median, least, most


def plots(results, folder):
    """One SVG for each section and peer that has bounds. Returns the paths; nothing without gnuplot."""
    made = []
    if not shutil.which("gnuplot"):
        return made
    for title, peer, name in (("Files", "tmpfs", "files"), ("Block devices", "nbd-memory", "nbd")):
        section = dict(rows.SECTIONS)[title]
        shown = [r for r in section if r.key in results.values and results.ratio(r.key, PROJECT, peer)]
        if not shown:
            continue
        path = os.path.join(folder, name + ".svg")
        data = "\n".join('"%s" %.4g %.4g %.4g' % (r.title, *_speed(results, r.key, peer)) for r in shown)
        script = PLOT.format(height=120 + 22 * len(shown), path=path, title=f"rampool and {peer}", peer=peer,
                             top=len(shown) - 0.4, data=data)
        if subprocess.run(["gnuplot"], input=script.encode(), check=False).returncode == 0:
            made.append(path)
    return made
