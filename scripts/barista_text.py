# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""Gives the barista corpus a text column, since it has no transcripts: the words of every slot but the drink.

  python scripts/barista_text.py [labels.tsv [with-text.tsv]]     # without paths: stdin to stdout

Reads the columns file, drink and slots (JSON) and writes file, drink, slots and text. An order that names nothing
but a drink gets an empty text. The drink (`coffeeDrink`) is the label, so its words are left out.
"""

from __future__ import annotations

import argparse
import json
import sys


def text_of(slots: str) -> str:
    return " ".join(" ".join(str(value).split()) for key, value in json.loads(slots).items() if key != "coffeeDrink")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="?", default="-", help="TSV to read; default: stdin")
    parser.add_argument("output", nargs="?", default="-", help="TSV to write; default: stdout")
    args = parser.parse_args()
    source = sys.stdin if args.labels == "-" else open(args.labels, encoding="utf-8")
    header, *lines = source.read().splitlines()
    slots = header.split("\t").index("slots")
    result = [f"{header}\ttext"]
    result += [f"{line}\t{text_of(line.split(chr(9))[slots])}" for line in lines if line.strip()]
    target = sys.stdout if args.output == "-" else open(args.output, "w", encoding="utf-8")
    target.write("\n".join(result) + "\n")
    target.flush()


if __name__ == "__main__":
    main()
