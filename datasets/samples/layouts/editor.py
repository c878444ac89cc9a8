"""Code in an editor, and terminals."""

from __future__ import annotations

import re

from PIL import Image

from layouts.canvas import Page, width_of

PYTHON = """\
def bisect(values, target):
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low

assert bisect([1, 3, 8], 4) == 2
"""
SCRIPT = """\
// answer every ping
const port = 8080;
let served = 0;

function answer(request) {
  served += 1;
  if (request.path === "/ping") {
    return "pong #" + served;
  }
  return null;
}

listen(port, answer);
"""
CONFIG = """\
{
  "name": "weather-station",
  "version": "2.3.1",
  "interval": 300,
  "sensors": [
    { "id": 17, "unit": "hPa" },
    { "id": 22, "unit": "mm" }
  ],
  "upload": true
}
"""
QUERY = """\
SELECT city, COUNT(*) AS n,
       AVG(price) AS mean_price
FROM sales
WHERE sold_on >= '2024-01-01'
  AND price < 250000
GROUP BY city
HAVING COUNT(*) > 10
ORDER BY mean_price DESC
LIMIT 20;
"""
SIFT = """\
/* sift the root down */
static void sift(int *a, int n)
{
    int i = 0, c;
    while ((c = 2 * i + 1) < n) {
        if (c + 1 < n && a[c+1] > a[c])
            c++;
        if (a[i] >= a[c]) return;
        int t = a[i];
        a[i] = a[c]; a[c] = t;
        i = c;
    }
}
"""
CODE = [("bisect.py", PYTHON), ("server.js", SCRIPT), ("config.json", CONFIG), ("report.sql", QUERY), ("heap.c", SIFT)]
WORDS = re.compile(
    r"(?P<note>^//.*|^/\*.*)|(?P<quoted>\"[^\"]*\"|'[^']*')|(?P<number>\b\d[\d.]*)|"
    r"(?P<key>\b(?:def|while|if|else|return|assert|const|let|function|null|true|static|void|int|"
    r"SELECT|COUNT|AS|AVG|FROM|WHERE|AND|GROUP|BY|HAVING|ORDER|DESC|LIMIT)\b)"
)


def code(index: int) -> Image.Image:
    name, source = CODE[index]
    dark = index in (1, 2, 4)
    paper, ink, grey = ("#1e1e2e", "#cdd6f4", "#6c7086") if dark else ("#ffffff", "#24292f", "#8c959f")
    hues = {
        "note": grey,
        "quoted": "#a6e3a1" if dark else "#0a7d33",
        "number": "#fab387" if dark else "#b35900",
        "key": "#cba6f7" if dark else "#9b1c8a",
    }
    size = (11, 11, 13, 13, 10)[index]
    page = Page(paper)
    page.panel(0, 0, 255, 20, "#313244" if dark else "#eaeef2")
    page.text(10, 10, name, 11, ink, "lm")
    page.text(246, 10, f"{len(source.splitlines())} lines", 9, grey, "rm")
    step = (236 - 8) / max(13, len(source.splitlines()))
    for row, line in enumerate(source.splitlines()):
        y = 34 + step * row
        page.text(22, y, str(row + 1), 9, grey, "rm")
        x = 30.0 + 0.55 * size * (len(line) - len(line.lstrip()))
        rest = line.lstrip()
        at = 0
        for match in [*WORDS.finditer(rest), None]:
            plain = rest[at : match.start() if match else len(rest)]
            for words, hue in (
                (plain, ink),
                (match.group() if match else "", hues[str(match.lastgroup)] if match else ink),
            ):
                if words.strip():
                    page.text(x, y, words, size, hue, "lm")
                x += width_of(words, size)
            at = match.end() if match else at
    return page.image


def terminal(index: int) -> Image.Image:
    lines = [
        [
            "$ make test",
            "collected 214 items",
            "test_batch.py ........ [  8%]",
            "test_metric.py ....... [ 31%]",
            "test_order.py ...F.... [ 57%]",
            "test_tokens.py ....... [100%]",
            "",
            "FAILED test_order.py::seven",
            "  expected 7, got 8",
            "1 failed, 213 passed in 9.4s",
            "$ _",
        ],
        [
            "ada@lab:~/data$ ls -lh",
            "total 418M",
            "-rw-r--r--  96K  notes.txt",
            "-rw-r--r--  12M  scan_01.tif",
            "-rw-r--r--  12M  scan_02.tif",
            "drwxr-x---  4.0K  raw",
            "-rwxr-xr-x  2.1K  sync.sh",
            "ada@lab:~/data$ df -h /",
            "/dev/sda2   476G  391G  82%",
            "ada@lab:~/data$",
        ],
        [
            "C:\\> ping 10.0.0.7",
            "Reply: bytes=32 time=4ms TTL=61",
            "Reply: bytes=32 time=5ms TTL=61",
            "Request timed out.",
            "Reply: bytes=32 time=4ms TTL=61",
            "",
            "Sent = 4, Received = 3, Lost = 1",
            "Minimum 4ms, Maximum 5ms",
            "",
            "C:\\>",
        ],
    ][index]
    paper, ink = [("#0b0f0a", "#66ff66"), ("#300a24", "#eeeeec"), ("#012456", "#f2f2f2")][index]
    page = Page(paper)
    for row, line in enumerate(lines):
        if line.startswith(("FAILED", "  exp", "Request")):
            hue = "#ff5555"
        else:
            hue = "#8ae234" if line.startswith("ada@") else ink
        if line:
            page.text(8, 8 + 22 * row, line, (13, 13, 14)[index], hue)
    return page.image
