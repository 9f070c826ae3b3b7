"""A small tokenizer of transformers, made without a network: words, and an unknown one."""

from pathlib import Path

WORDS = "the quick brown fox jumps over a lazy dog and cat good bad film very".split()


def make_tokenizer(folder: Path, pad: bool = True) -> str:
    """Saved in a folder; the path to load it from."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[END]", *(["[PAD]"] if pad else []), *WORDS]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"unk_token": "[UNK]", "eos_token": "[END]", **({"pad_token": "[PAD]"} if pad else {})}
    PreTrainedTokenizerFast(tokenizer_object=core, **named).save_pretrained(folder)
    return str(folder)
