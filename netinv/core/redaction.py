"""Secrets out of texts: whatever is printed or stored passes here."""

import re

_WORDS = r"(?:token|secret|password|passwd|pwd|api_?key|access_?key|signature|credential)"
_SECRET = rf"[\w-]*{_WORDS}[\w-]*"
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
    (rf"(['\"]{_SECRET}['\"]\s*:\s*)(['\"])[^'\"]*\2", r"\1\2***\2"),
    (r"(\bAuthorization['\"]?\s*[:=]\s*['\"]?(?:Bearer|Basic|Token)?\s*)[^\s'\"]+", r"\1***"),
    (r"(\bBearer\s+)[\w.~+/=-]{8,}", r"\1***"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), put) for pattern, put in _RULES)


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret, such as a token or a password.

    Example:
        >>> is_secret("api_key"), is_secret("accessToken"), is_secret("tokenizer"), is_secret("monkey")
        (True, True, False, False)
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return (
        re.search(rf"(?:^|[\W_])(?:{_WORDS}|passphrase|(?:(?:private|secret|ssh|auth)[\W_]?)?key)s?$", words)
        is not None
    )


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
