#!/usr/bin/env python3
# A policy server for a step [forward.NAME] of policyd: what `restriction` in a custom plugin of iRedAPD returned, it returns here.
# The parameters have the names of the attributes that Postfix sends, and some that iRedAPD made of them; all of them are texts but
# smtp_session_data, which has them all.
import socketserver
import sys

SPAM_TRAPS = {"trap@example.com"}
RELAYS = {"newsletter@example.com": "smtp:[192.0.2.25]:25"}


def restriction(sender="", recipient="", size="0", **others):
    if recipient.lower() in SPAM_TRAPS:
        return "REJECT Blacklisted"
    if sender.lower() in RELAYS:
        return "FILTER " + RELAYS[sender.lower()]
    return "DUNNO"


def arguments(request):
    for name in ("sender", "recipient", "sasl_username", "reverse_client_name"):
        request[name] = request.get(name, "").lower()
    more = {"smtp_session_data": dict(request)}
    for name in ("sender", "recipient", "sasl_username"):
        local, at, domain = request[name].partition("@")
        more[name + "_domain"] = domain
        more[name + "_without_ext"] = local.partition("+")[0] + at + domain
    return {**request, **more}


class Policy(socketserver.StreamRequestHandler):
    def handle(self):
        request = {}
        for line in self.rfile:
            name, equals, value = line.decode(errors="replace").rstrip("\n").partition("=")
            if equals:
                request[name] = value
            elif not name:
                self.wfile.write(f"action={restriction(**arguments(request))}\n\n".encode())
                request = {}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 10040), Policy).serve_forever()
