"""The bridge for players that start a command (--apply-settings): it hands its input to us over a UNIX socket."""
import json
import os
import shlex
import socket
import sys
import threading
import traceback


class Control:
    """Calls `apply(request)` for each JSON document that the command hands over; an exception is a failure."""

    def __init__(self, folder, apply):
        self.path = os.path.join(folder, "control")
        self.apply = apply
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(4)
        threading.Thread(target=self._serve, daemon=True).start()

    def command(self):
        """For a player's option that takes a shell command."""
        return "%s %s %s" % tuple(shlex.quote(word) for word in
                                  (sys.executable, os.path.abspath(__file__), self.path))

    def _serve(self):
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rwb") as stream:
                status = b"0"
                try:
                    self.apply(json.loads(stream.read()))
                except Exception as error:                  # reported to the player as a failed command
                    print("settings not applied: %s" % error, file=sys.stderr, flush=True)
                    if not isinstance(error, (ValueError, RuntimeError)):
                        traceback.print_exc()
                    status = b"1"
                stream.write(status)


def main(path):
    """The command itself: standard input to the socket, the answer as exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(sys.stdin.buffer.read())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    return 0 if answer == b"0" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
