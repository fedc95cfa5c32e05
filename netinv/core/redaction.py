"""Secrets out of texts: whatever is printed or stored passes here."""

import re

_SECRET = r"[\w-]*(?:token|secret|password|passwd|pwd|api_?key|access_?key|signature|credential)[\w-]*"
_RULES = (
    # An address with its scheme: user, password and all between, slashes and spaces included, up to the last @.
    (r"://[^\s/@]*@(?:[^\s/@]*@)*", "://"),
    (r"(://)[^\s/:@\"<>]*:[^\s\"<>]*@", r"\1"),
    (r"(://)[^\s/:@\"<>]*:(?!\d{1,5}(?:[/?#\s,;)'\"]|$))[^@\n\"<>]*@(?:[^\s/@]*@)*", r"\1"),
    # One without: as it stands in a sentence, and as the whole text, where its password may have anything in it.
    (r"(?<![\w/@.+%-])[\w.+%-]+:(?!//)[^\s@\"<>]+@(?:[^\s/@\"<>]*@)*(?=[\w\[])", ""),
    (r"\A(?!\w+://)[\w.+%-]+:[^\n]+@(?=[\w\[])", ""),
    # What follows an address, and what calls itself a secret.
    (r"(://[^\s?#]*)[?#][^\s)'\"]*", r"\1"),
    (rf"[?#&]{_SECRET}=[^\s&)'\"]*", ""),
    (rf"(?i)\b({_SECRET}=)[^\s&,;)'\"]+", r"\1***"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), put) for pattern, put in _RULES)


def redacted(text: str) -> str:
    """A text, for instance an address or a message that quotes one, without users, passwords, tokens and queries.

    Rather too little is left than too much.

    Example:
        >>> redacted("https://ada:secret@host:5000/mlflow?token=1 is away")
        'https://host:5000/mlflow is away'
        >>> redacted("ada:sec/ret@host:5000 has no scheme")
        'host:5000 has no scheme'
    """
    for pattern, put in _COMPILED:
        text = pattern.sub(put, text)
    return text
