"""Writes tests/fixtures/tokenizer-parts.json: tokenizers in parts, with what lies beside them, and the ids that
transformers gives for some texts. Needs transformers 5.24 and tokenizers; no torch.

    python scripts/make_tokenizer_parts.py
"""

import json
import pathlib
import tempfile

from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

TARGET = pathlib.Path(__file__).parent.parent / "tests/fixtures/tokenizer-parts.json"
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
CORPUS = ["the window and the radio", "a window, the music", "turn the music down", "the lamp and a lamp"] * 3
TEXTS = [
    "",
    " ",
    "hello world",
    " the window",
    "the window\nthe  lamp",
    "a [laugh] b",
    "a[laugh]b[laugh]",
    "[laugh] the [cry]",
    "the musical MUSIC lamps",
    "x <mask> y",
    "café ☕ naïve",
]
ROBERTA = {"tokenizer_class": "RobertaTokenizer"}


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False} | flags


def main():
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS, vocab_size=289, min_frequency=2, special_tokens=SPECIALS, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)
        vocab = json.loads(pathlib.Path(folder, "vocab.json").read_text())
        merges = pathlib.Path(folder, "merges.txt").read_text()
    vocab["<mask>"] = len(vocab)
    size = len(vocab)
    # transformers 5 takes no space in front of a mask that it builds from parts; RoBERTa's own does, as stated here.
    mask = {"mask_token": token("<mask>", lstrip=True) | {"__type": "AddedToken"}}
    cases = {
        "nothing beside": {},
        "a space in front": {"tokenizer_config.json": ROBERTA | mask | {"add_prefix_space": True}},
        "no space in front": {"tokenizer_config.json": ROBERTA | mask | {"add_prefix_space": False}},
        "added tokens": {"added_tokens.json": {"[laugh]": size, "[cry]": size + 1}},
        "added tokens and a space": {
            "tokenizer_config.json": ROBERTA | mask | {"add_prefix_space": True},
            "added_tokens.json": {"[cry]": size + 1, "[laugh]": size},
        },
        "added tokens with flags": {
            "tokenizer_config.json": ROBERTA
            | {
                "added_tokens_decoder": {
                    str(size): token("[laugh]", lstrip=True, rstrip=True, special=False),
                    str(size + 1): token("lamp", single_word=True, special=False),
                }
            }
        },
        "more special tokens": {
            "tokenizer_config.json": ROBERTA | mask | {"additional_special_tokens": ["[laugh]", "[cry]"]}
        },
        "a mask without the space": {"tokenizer_config.json": ROBERTA | {"mask_token": token("<mask>") | {"__type": "AddedToken"}}},
    }
    found = []
    for name, beside in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            files = {"vocab.json": json.dumps(vocab), "merges.txt": merges, "config.json": '{"model_type": "roberta"}'}
            files |= {file: json.dumps(value) for file, value in beside.items()}
            for file, text in files.items():
                pathlib.Path(folder, file).write_text(text)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = [[text, tokenizer(text)["input_ids"]] for text in TEXTS]
            if "mask_token" not in beside.get("tokenizer_config.json", {}):
                ids = [[text, found] for text, found in ids if "<mask>" not in text]
            found.append({"name": name, "beside": beside, "size": len(tokenizer), "ids": ids})
    TARGET.write_text(json.dumps({"vocab": vocab, "merges": merges, "cases": found}, ensure_ascii=False) + "\n")


main()
