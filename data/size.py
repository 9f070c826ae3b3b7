"""The number of samples in a text file, counted without torch, for the plan."""

from data.bounds import existing, integer, share


def text(path: str) -> str:
    """The characters of a UTF-8 file. FileNotFoundError where there is none, ValueError if it is not text."""
    try:
        content = existing("data.path", path, "a UTF-8 text file").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path={path} is not UTF-8 text (byte {error.start}): convert it.") from None
    if not content:
        raise ValueError(f"data.path={path} is empty: give a file with text.")
    return content


def has_windows_line_ends(path: str) -> bool:
    """Whether lines at the start of a file end with \\r\\n, which `text` reads as \\n."""
    with existing("data.path", path, "a UTF-8 text file").open("rb") as file:
        return b"\r\n" in file.read(2**20)


def cut(chars: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Characters for training, validation and test, in this order in the file; both fractions are of the whole."""
    val = int(chars * share("data.val_fraction", val_fraction))
    test = int(chars * share("data.test_fraction", test_fraction))
    if val + test >= chars:
        raise ValueError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} leave nothing to train "
            f"on: their sum must be below 1."
        )
    return chars - val - test, val, test


def phased_windows(chars: int, context: int) -> int:
    """Windows of `context` tokens that fit for any phase in [0, context): (chars - context) // context."""
    count = (chars - integer("data.context", context)) // context
    if count < 1:
        raise ValueError(f"data.context={context} needs a text of at least {2 * context} characters, not {chars}.")
    return count


def windows(path: str, context: int, val_fraction: float = 0.1, test_fraction: float = 0.0) -> int:
    """The training samples in an epoch of `data.text.Text` on this file."""
    train, _, _ = cut(len(text(path)), val_fraction, test_fraction)
    return phased_windows(train, context)
