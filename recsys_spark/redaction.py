"""Secrets taken out of all that is written: by the names of keys, by the form of URLs, and by their known values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

# Parts of a name, once its dots, dashes and capitals are gone, that make it a credential's.
_PARTS = (
    "password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "accountkey", "privatekey",
    "sharedkey", "encryptionkey", "providedkey", "signature", "authorization",
)  # fmt: skip
# Words that do so where they stand alone, as in `fs.azure.sas.CONTAINER` or `sig`.
_WORDS = {"pwd", "pass", "sig", "sas", "jwt", "bearer"}
# Mappings whose keys name columns, types and rules of the data.
_NAMES = {"types", "filters", "measures", "columns", "events"}
# Last words of names that say how credentials are found or made, not what they are.
_ABOUT = {"provider", "providers", "class", "enabled", "type", "regex", "id", "algorithm", "bits"}
_LEAST = 4  # letters of a secret that is looked for by its value: a shorter one stands in too many words

_QUOTED = r"""\\*"(?:[^"\\]|\\[^"])*\\*"|\\*'(?:[^'\\]|\\[^'])*\\*'"""
_KEY = re.compile(r"""(?<![\w.\-])([\w.\-]++)(?:\\*["']?\s*[=:]\s*|(?<=[\w.\-])\s+(?!-))""")
_VALUE = re.compile(rf"""(?!//)(?:{_QUOTED}|\[[^\]]*\]|[^\s,;&'")}}\]\\]+)""")
_HEADER = re.compile(r"(?i)\b(authorization[\"']?\s*[=:]\s*[\"']?(?:\w+\s+)?|bearer\s+)[\w.~+/=\-]{8,}")
_USER = re.compile(
    r"""((?<![\w+.\-])[A-Za-z][\w+.\-]*+://[^\s/:@'"]{0,512}):(?!\d+[/:])([^\s/'"]{0,512}|[^\s@'"]{0,512})@"""
    r"""|(https?://)([^\s/:@'"]{1,512})@"""
)
_ORACLE = re.compile(r"(jdbc:oracle:\w+:[^\s/@]+/)([^\s@]+)@")
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.S)
_PLACE = re.compile(r"[A-Za-z][\w+.\-]*://")


def is_credential(name: str) -> bool:
    """Whether a key is by its name one of a secret.

    >>> [is_credential(name) for name in ("fs.s3a.secret.key", "X-Amz-Signature", "authToken", "fs.azure.sas.logs.x")]
    [True, True, True, True]
    >>> [is_credential(name) for name in ("sep", "user_key", "max_tokens", "credentials.provider")]
    [False, False, False, False]
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower())
    if not words or words[-1] in _ABOUT:
        return False
    joined = "".join(words)
    return any(part in joined for part in _PARTS) or any(word in _WORDS or word.endswith("token") for word in words)


def redacted(text: str) -> str:
    """Return a text with the secrets masked that show by their form: values of credentials, passwords in URLs.

    >>> redacted("cannot open ftp://night:owl@files/log.csv?sig=abc&part=1 with {'password': 'owl', 'sep': ';'}")
    "cannot open ftp://night:***@files/log.csv?sig=***&part=1 with {'password': ***, 'sep': ';'}"
    """
    text = _PEM.sub(rf"-----BEGIN \1-----{MASK}\2", text)
    text = _HEADER.sub(lambda found: found[1] + MASK, text)
    text = _ORACLE.sub(lambda found: f"{found[1]}{MASK}@", text)
    text = _USER.sub(lambda found: f"{found[1]}:{MASK}@" if found[1] else f"{found[3]}{MASK}@", text)
    parts, at = [], 0
    for _, start, end in _pairs(text):
        parts += [text[at:start], MASK]
        at = end
    return "".join([*parts, text[at:]])


def _pairs(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the values of credentials in a text, and where they are: `key=value`, `"key": "value"`, `--key value`."""
    at = 0
    for key in _KEY.finditer(text):
        argument = not re.search("[=:]", key[0][len(key[1]) :])
        if key.start() < at or not is_credential(key[1]) or (argument and not key[1].startswith("--")):
            continue
        value = _VALUE.match(text, key.end())
        if value:
            at = value.end()
            yield value[0], value.start(), at


def has_secret(place: str) -> bool:
    """Whether a path is a URL with a password or a signature in it.

    >>> has_secret("https://files/log.csv?sig=abc"), has_secret("abfss://logs@acme.dfs.core.windows.net/2024/*.csv")
    (True, False)
    """
    return bool(_PLACE.match(place)) and redacted(place) != place


def redacted_config(tree: Any) -> Any:
    """Return a configuration, or a part of one, with its secrets masked; what is no secret stays as it is.

    >>> redacted_config({"options": {"password": "owl", "sep": ";"}, "filters": {"token": "token > ''"}})
    {'options': {'password': '***', 'sep': ';'}, 'filters': {'token': "token > ''"}}
    """
    if isinstance(tree, dict):
        return {key: _redacted_value(key, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [redacted_config(value) for value in tree]
    return redacted(tree) if isinstance(tree, str) and _PLACE.search(tree) else tree


def _redacted_value(key: Any, value: Any) -> Any:
    if key in _NAMES and isinstance(value, dict):
        return value
    if is_credential(str(key)) and value is not None:
        return MASK
    return redacted_config(value)


def restored_config(masked: Any, now: Any) -> Any:
    """Return a masked configuration with the secrets of the present one, where it has any in the same place.

    >>> restored_config({"options": {"password": "***", "sep": ";"}}, {"options": {"password": "owl", "sep": "|"}})
    {'options': {'password': 'owl', 'sep': ';'}}
    """
    if isinstance(masked, dict) and isinstance(now, dict):
        return {
            key: now[key] if value == MASK and is_credential(str(key)) and key in now
            else restored_config(value, now.get(key))
            for key, value in masked.items()
        }  # fmt: skip
    if isinstance(masked, str) and isinstance(now, str) and MASK in masked and redacted(now) == masked:
        return now
    return masked


@dataclass(frozen=True)
class Secrets:
    """The values of secrets that a run knows, longest first, so that they are found in any words."""

    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, *trees: Any) -> "Secrets":
        """Gather the secrets of configurations, as they are before they are checked.

        >>> Secrets.of({"source": {"options": {"password": "hoot-owl"}}}).redacted("no such user: hoot-owl")
        'no such user: ***'
        """
        found = {value for tree in trees for value in _secrets(tree) if len(value) >= _LEAST}
        spelt = {other for value in found for other in (value, quote(value, safe=""), unquote(value))}
        return cls(tuple(sorted(spelt, key=lambda value: (-len(value), value))))

    def redacted(self, text: str) -> str:
        """Return a text with known secrets masked, and those that show by their form."""
        return redacted(self.hidden(text))

    def hidden(self, tree: Any) -> Any:
        """Return a text, or a tree of them, with the known secrets masked and all else as it is."""
        if isinstance(tree, dict):
            return {self.hidden(key): self.hidden(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.hidden(value) for value in tree]
        if isinstance(tree, str):
            for value in self.values:
                tree = tree.replace(value, MASK)
        return tree


def _secrets(tree: Any, named: bool = False) -> Iterator[str]:
    """Yield the values of credentials, named by their keys, and what is secret in URLs."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            data = key in _NAMES and isinstance(value, dict)
            yield from (_secrets(list(value.values())) if data else _secrets(value, named or is_credential(str(key))))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _secrets(value, named)
    elif named and tree is not None and not isinstance(tree, bool):
        yield str(tree)
    elif isinstance(tree, str) and _PLACE.search(tree):
        yield from (found[2] or found[4] for found in _USER.finditer(tree))
        yield from (value for value, _, _ in _pairs(tree))
