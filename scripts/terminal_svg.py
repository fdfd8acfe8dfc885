"""A picture of a command in a terminal, from what the command really prints.

    python scripts/terminal_svg.py --width 134 --keep :13 docs/demo.svg target/release/clasp train --config demo.toml

Runs the command in a pseudo-terminal, follows the control sequences that it sends, and writes the last screen as SVG. The
first line shows the command as a user types it; paths within the current folder are shown relative to it. Needs Python 3.11 and nothing else.
"""

import argparse
import fcntl
import html
import os
import pathlib
import pty
import re
import shlex
import struct
import sys
import termios

COLOURS = {
    30: "#5c6370", 31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 34: "#61afef", 35: "#c678dd", 36: "#56b6c2", 37: "#dcdfe4",
}  # fmt: skip
CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()].|\x1b.")


class Screen:
    """The lines of a terminal that is as high as it needs to be: each is a list of (character, style)."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[list[tuple[str, str]]] = [[]]
        self.row = self.column = 0
        self.style: dict[str, str] = {}

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at] == "\x1b" and (found := CONTROL.match(text, at)):
                if found[2]:
                    self.control(found[1], found[2])
                at = found.end()
                continue
            self.put(text[at])
            at += 1

    def put(self, character: str) -> None:
        if character == "\n":
            self.row += 1
        elif character == "\r":
            self.column = 0
        elif character == "\b":
            self.column = max(0, self.column - 1)
        elif character >= " ":
            if self.column == self.width:  # a full line goes on in the next one
                self.row, self.column = self.row + 1, 0
            line = self.line()
            line += [(" ", "")] * (self.column + 1 - len(line))
            line[self.column] = (character, ";".join(f"{key}:{value}" for key, value in sorted(self.style.items())))
            self.column += 1
        self.line()

    def line(self) -> list[tuple[str, str]]:
        while len(self.lines) <= self.row:
            self.lines.append([])
        return self.lines[self.row]

    def control(self, parameters: str, final: str) -> None:
        numbers = [int(number or 0) for number in parameters.lstrip("?").split(";")]
        count = max(1, numbers[0])
        if final == "A":
            self.row = max(0, self.row - count)
        elif final == "B":
            self.row += count
        elif final == "C":
            self.column += count
        elif final == "D":
            self.column = max(0, self.column - count)
        elif final == "G":
            self.column = count - 1
        elif final == "K":
            line = self.line()
            if numbers[0] == 2:
                line.clear()
            elif numbers[0] == 0:
                del line[self.column :]
        elif final == "J" and numbers[0] == 0:
            del self.line()[self.column :]
            del self.lines[self.row + 1 :]
        elif final == "m":
            for number in numbers:
                self.attribute(number)

    def attribute(self, number: int) -> None:
        if number == 0:
            self.style.clear()
        elif number == 1:
            self.style["font-weight"] = "bold"
        elif number == 2:
            self.style["opacity"] = "0.6"
        elif number == 22:
            self.style.pop("font-weight", None)
            self.style.pop("opacity", None)
        elif number == 39:
            self.style.pop("fill", None)
        elif number in COLOURS or number - 60 in COLOURS:
            self.style["fill"] = COLOURS[number if number in COLOURS else number - 60]


def run(command: list[str], width: int) -> Screen:
    """Runs the command in a terminal of this width and returns the last screen."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        try:
            os.execvp(command[0], command)
        except OSError as problem:
            print(f"{command[0]}: {problem}")
            os._exit(127)
    output = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that the child has closed its side
            break
        if not part:
            break
        output += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    screen = Screen(width)
    screen.feed(output.decode(errors="replace"))
    here = f"{os.getcwd()}/"
    for line in screen.lines:
        place = "".join(character for character, _ in line).find(here)
        if place >= 0:
            del line[place : place + len(here)]
    if code != 0:
        lines = ["".join(character for character, _ in line) for line in screen.lines]
        sys.exit("\n".join([*lines, f"exit code {code}: no picture"]))
    return screen


def spans(line: list[tuple[str, str]]) -> str:
    """The characters of a line, those of one style together."""
    parts: list[tuple[str, str]] = []
    for character, style in line:
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + character, style)
        else:
            parts.append((character, style))
    texts = ((html.escape(text, quote=False), style) for text, style in parts)
    return "".join(f'<tspan style="{style}">{text}</tspan>' if style else text for text, style in texts)


def picture(lines: list[list[tuple[str, str]]], width: int) -> str:
    advance, height, margin, bar = 8.4, 19, 16, 30
    wide, high = round(width * advance + 2 * margin), len(lines) * height + 2 * margin + bar
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">',
        f'<rect width="{wide}" height="{high}" rx="8" fill="#21252b"/>',
        *(
            f'<circle cx="{20 + 20 * place}" cy="18" r="6" fill="{fill}"/>'
            for place, fill in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
        ),
        '<g font-family="ui-monospace, \'DejaVu Sans Mono\', Menlo, Consolas, monospace" font-size="14" fill="#dcdfe4" '
        'xml:space="preserve">',
    ]
    body = [
        f'<text x="{margin}" y="{bar + margin + height * number + 10}" textLength="{len(line) * advance:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{spans(line)}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    return "\n".join([*head, *body, "</g>", "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=100, help="columns of the terminal")
    parser.add_argument("--keep", default=":", help="lines of the output that are shown, as FROM:TO in Python's way")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    screen = run(arguments.command, arguments.width)
    first, last = (int(number) if number else None for number in arguments.keep.split(":"))
    typed = shlex.join([pathlib.Path(arguments.command[0]).name, *arguments.command[1:]])
    lines = [[("$", f"fill:{COLOURS[32]}"), *((character, "font-weight:bold") for character in f" {typed}")]]
    lines += screen.lines[first:last]
    for line in lines:
        while line and line[-1][0] == " ":
            line.pop()
    arguments.output.write_text(picture(lines, arguments.width))


if __name__ == "__main__":
    main()
