"""Child processes: the daemon under test with its settings, and how they end."""
import os
import shutil
import signal
import subprocess
import time

from toml import write

# util-linux asks the kernel to end the child when we are killed.
GUARD = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
PATIENCE = 60


def start(command, **options):
    return subprocess.Popen(GUARD + command, **options)


def end(process, patience=15, signal_first=True):
    """Asks a process to end, and kills it when it does not."""
    if isinstance(process, Daemon):
        process.stop()
        return
    if process.poll() is None and signal_first:
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class NotReady(RuntimeError):
    """The daemon did not print its ready line; the text is its log."""


class Daemon:
    """One of our daemons: settings file, state directory, log, ready line."""

    def __init__(self, name, program, folder, arguments):
        self.name, self.program, self.folder, self.arguments = name, program, folder, arguments
        self.process = None
        self.addresses = {}
        self.log = os.path.join(folder, name + ".log")
        os.makedirs(os.path.join(folder, "state"))

    def start(self, settings):
        """Starts it anew with these settings and waits until it is ready; addresses by role."""
        self.stop()
        path = os.path.join(self.folder, self.name + ".toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(write(settings))
        os.chmod(path, 0o600)
        command = [self.program, "--config", path, "--state-directory", os.path.join(self.folder, "state")]
        output = os.path.join(self.folder, "output")
        with open(output, "wb") as ready, open(self.log, "ab") as log:
            self.process = start(command + self.arguments, stdin=subprocess.DEVNULL, stdout=ready, stderr=log)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with open(output, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("ready ") and line.endswith("\n"):
                        self.addresses = dict(pair.split("=", 1) for pair in line.split()[1:])
                        return self.addresses
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        with open(self.log, encoding="utf-8", errors="replace") as file:
            tail = "".join(file.readlines()[-30:])
        raise NotReady("%s did not get ready:\n%s" % (self.name, tail))

    def stop(self):
        if self.process:
            end(self.process)
            self.process = None
