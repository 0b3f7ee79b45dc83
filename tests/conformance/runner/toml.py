"""Writes settings files: plain values first, then a section for each dictionary."""
import json


def write(settings, path=()):
    lines = []
    for key, value in settings.items():
        if value is not None and not isinstance(value, dict):
            lines.append("%s = %s" % (key_of(key), value_of(value)))
    for key, value in settings.items():
        if isinstance(value, dict):
            below = path + (key_of(key),)
            lines += ["", "[%s]" % ".".join(below), write(value, below).rstrip("\n")]
    return "\n".join(lines) + "\n"


def key_of(key):
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def value_of(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # The escapes of JSON are those of TOML, once everything outside ASCII and DEL is left alone or escaped by us.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(value_of(item) for item in value)
    if isinstance(value, dict):
        return "{ %s }" % ", ".join("%s = %s" % (key_of(k), value_of(v)) for k, v in value.items() if v is not None)
    raise TypeError("no TOML for %r" % (value,))
