"""Keys of contents, while somebody uses them: a record's head names the key that it is sealed with, here is what opens it.

```
 record's filters   zstd:3,aes-gcm@9f0c…   ──▶  keyring["aes-gcm@9f0c…"]  ──▶  the filter under that key
```

Nothing here is kept: whoever reads or writes sealed content holds its key meanwhile, and the last one to let go takes it from memory.
"""

from __future__ import annotations

from collections.abc import Callable

from warp_core.errors import InvalidArgument, Sealed
from warp_core.interfaces.codecs import Cipher, Codec, Filter

MARK = "@"  # between a filter's word and the id of the key


def only_sealed(filters: str) -> bool:
    """Say whether a record's filters are nothing but a seal."""
    return MARK in filters and "," not in filters


class Hold:
    """A claim on one key; what is sealed with it can be read and written until `release`."""

    __slots__ = ("_keyring", "word")

    def __init__(self, keyring: Keyring | None, word: str) -> None:
        self._keyring = keyring
        self.word = (
            word  # what a policy's filters and a record's head call the filter under this key
        )

    def release(self) -> None:
        """Let go; harmless when repeated."""
        keyring, self._keyring = self._keyring, None
        if keyring is not None:
            keyring._let_go(self.word)


class Keyring:
    """The keys that are held now, as filters."""

    def __init__(self, codec: Callable[[str], Codec]) -> None:
        """Take what makes a codec of its word; a cipher is made once and then had under each key."""
        self._codec = codec
        self._ciphers: dict[str, Cipher] = {}
        self._held: dict[str, tuple[Filter, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, cipher: str, key_id: str, key: bytes) -> Hold:
        """Claim a key of a content: `key_id` is its name, the same for as long as the content lives.

        Raises:
            NotFound: No such codec is installed.
            InvalidArgument: It is no cipher.
        """
        word = cipher + MARK + key_id
        found = self._held.get(word)
        if found is None:
            self._held[word] = self._cipher(cipher).with_key(key), 1
        else:
            self._held[word] = found[0], found[1] + 1
        return Hold(self, word)

    def get(self, word: str) -> Filter:
        """Return the filter under a key.

        Raises:
            Sealed: Nobody holds the key.
        """
        found = self._held.get(word)
        if found is None:
            cipher, _, key_id = word.partition(MARK)
            raise Sealed(f"content is sealed with key {key_id} ({cipher}), which nobody opened")
        return found[0]

    def key_size(self, cipher: str) -> int:
        """Return the bytes of a cipher's keys; raises as `hold`."""
        return self._cipher(cipher).key_size

    def _cipher(self, name: str) -> Cipher:
        cipher = self._ciphers.get(name)
        if cipher is None:
            codec = self._codec(name)
            if not isinstance(codec, Cipher):
                raise InvalidArgument(f'codec "{name}" takes no keys: it cannot seal contents')
            cipher = self._ciphers[name] = codec
        return cipher

    def _let_go(self, word: str) -> None:
        found = self._held.get(word)
        if found is not None:
            if found[1] == 1:
                del self._held[word]
            else:
                self._held[word] = found[0], found[1] - 1
