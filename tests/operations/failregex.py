# Which addresses a filter of fail2ban finds in the lines on standard input: one line of output each, "-" for none.
#
#     failregex.py FILTER.conf
#
# fail2ban is written in Python and its expressions are Python's, which no other library reads in quite the same way. <HOST>
# and <ADDR> become what fail2ban 1.0 makes of them (server/failregex.py). The time is cut off already.
import configparser
import re
import sys

IP4 = r"(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
IP6 = r"(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):))"
ADDR = r"\[?(?:%s|%s)\]?" % (IP4, IP6)
HOST = r"(?:%s|(?P<dns>[\w\-.^_]*\w))" % ADDR

conf = configparser.ConfigParser(interpolation=configparser.BasicInterpolation())
conf.optionxform = str
conf.read(sys.argv[1], encoding="utf-8")
lines = [line for line in conf["Definition"]["failregex"].splitlines() if line.strip()]
expressions = [re.compile(line.replace("<ADDR>", ADDR).replace("<HOST>", HOST)) for line in lines]
for line in sys.stdin.buffer.read().decode("utf-8", "replace").split("\n")[:-1]:
    found = next((match for match in (e.search(line) for e in expressions) if match), None)
    groups = found.groupdict() if found else {}
    print(groups.get("ip4") or groups.get("ip6") or groups.get("dns") or "-")
