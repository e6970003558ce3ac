"""Text that cannot drive a terminal."""


def assert_harmless(text: str) -> None:
    for character in text:
        assert character in "\n\t" or ord(character) >= 0x20, repr(text)
        assert not 0x7F <= ord(character) < 0xA0
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
    text.encode("utf-8")
