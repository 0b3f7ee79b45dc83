"""What every service needs: a database, built binaries, ports, a folder, the player, and an end to all of it."""
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from daemon import Daemon, end, start

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
CLOSING = re.compile(r"(\d+) passed, (\d+) failed\s*$")


class SetupError(Exception):
    """The run cannot begin: something is missing or does not start."""


class Ground:
    def __init__(self, options):
        self.options = options
        self.passed = self.failed = self.status = 0
        self.closed = False
        self.files = [os.path.abspath(name) for name in options.files]
        for name in self.files:
            if not os.path.exists(name):
                raise SetupError("no such file: %s" % name)
        self.shared = os.path.abspath(os.environ.get("OUTRIDER_SHARED") or os.path.join(ROOT, "..", "shared"))
        self.players = os.path.join(self.shared, "conformance")
        if not os.path.isdir(self.players):
            raise SetupError("the players are not here: no folder %s (OUTRIDER_SHARED names another place)"
                             % self.players)
        self.profile = os.environ.get("OUTRIDER_PROFILE", "release")
        self.folder = tempfile.mkdtemp(prefix="otr-conf-")
        os.chmod(self.folder, 0o755)
        self.running = []
        self.reserved = []
        self.database = None
        self.url = None
        self.python = sys.executable

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends what was started, last first, and removes the folder."""
        if self.closed:
            return
        self.closed = True
        for process in reversed(self.running):
            end(process)
        if self.database:
            self.database.stdin.close()
            end(self.database, patience=60, signal_first=False)
        if self.options.keep:
            print("kept %s" % self.folder, file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------ build
    def build(self, *packages):
        """Builds the binaries of packages such as outrider-policyd, and gives the folder they lie in. With
        OUTRIDER_BIN_DIR nothing is built: they are there already."""
        if os.environ.get("OUTRIDER_BIN_DIR"):
            return os.path.abspath(os.environ["OUTRIDER_BIN_DIR"])
        command = ["cargo", "build", "--quiet"]
        if self.profile != "debug":
            command += ["--profile", self.profile]
        for package in packages:
            name, _, binary = package.partition("/")
            command += ["--package", name]
            if binary:
                command += ["--bin", binary]
        if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
            raise SetupError("cargo build failed: %s" % " ".join(command))
        target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
        return os.path.join(ROOT, target, self.profile)

    # --------------------------------------------------------------- database
    def start_database(self):
        """A database of the wanted kind with empty iRedMail tables; sets self.url."""
        binaries = self.build("outrider-tests/outrider-test-database")
        program = os.path.join(binaries, "outrider-test-database")
        self.database = start([program, self.options.db], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.database.stdout.readline().split()
        if len(line) != 2 or line[0] != "ready":
            raise SetupError("no %s database could be started" % self.options.db)
        self.url = line[1]
        return self.url

    def execute(self, statements):
        """Runs SQL that every engine reads, {database: [statement]}, with the player's own driver."""
        code = ("import json, sys; from databases import Databases; db = Databases(sys.argv[1])\n"
                "for name, sql in json.load(sys.stdin).items(): db.script(name, sql)")
        environment = dict(os.environ, PYTHONPATH=self.players, PYTHONDONTWRITEBYTECODE="1")
        if subprocess.run([self.python, "-c", code, self.url], input=json.dumps(statements), text=True,
                          env=environment).returncode:
            raise SetupError("the rows of the profile could not be inserted")

    def database_settings(self):
        """Section [database] of the daemons' settings; nothing is given up early on a slow machine."""
        names = ("vmail", "iredapd", "amavisd", "iredadmin")
        if self.url.startswith("sqlite:"):
            urls = {name: "%s/%s.db" % (self.url, name) for name in names}
        else:
            urls = {name: self.url.rstrip("/") + "/" + name for name in names}
        return dict(urls, acquire_timeout="10s", statement_timeout="10s")

    # ------------------------------------------------------------------ ports
    def port(self):
        """A free loopback port. The sockets that reserve them are closed together by free_ports()."""
        while True:
            reserve = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            reserve.bind(("127.0.0.1", 0))
            number = reserve.getsockname()[1]
            # The same number for UDP: the players serve DNS.
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind(("127.0.0.1", number))
            except OSError:
                udp.close()
                reserve.close()
                continue
            self.reserved += [reserve, udp]
            return number

    def free_ports(self):
        for reserve in self.reserved:
            reserve.close()
        self.reserved = []

    # ---------------------------------------------------------------- daemons
    def daemon(self, name, package, arguments=()):
        """A daemon that is not started yet."""
        program = os.path.join(self.build(package), name)
        daemon = Daemon(name, program, os.path.join(self.folder, name), list(arguments))
        self.running.append(daemon)
        return daemon

    # ----------------------------------------------------------------- player
    def prepare_player(self, driver):
        """A Python that has the database driver: ours, or that of an environment kept in target/."""
        module = {"mysql": "pymysql", "postgres": "psycopg"}.get(self.options.db) if driver else None
        if module is None or has_module(self.python, module):
            return
        requirements = os.path.join(self.players, "requirements.txt")
        with open(requirements, "rb") as file:
            mark = hashlib.sha256(file.read()).hexdigest()[:12]
        home = os.path.join(ROOT, "target", "conformance-python-" + mark)
        self.python = os.path.join(home, "bin", "python3")
        if has_module(self.python, module):
            return
        print("installing the drivers of %s" % requirements, file=sys.stderr, flush=True)
        shutil.rmtree(home, ignore_errors=True)
        for command in ([sys.executable, "-m", "venv", home],
                        [self.python, "-m", "pip", "install", "--quiet", "-r", requirements]):
            if subprocess.run(command, stdout=sys.stderr).returncode:
                shutil.rmtree(home, ignore_errors=True)
                raise SetupError("%s failed; is python3-venv installed?" % " ".join(command))

    def play(self, player, arguments, label=None):
        """Runs a player, passes on what it prints and adds up its closing line."""
        command = [self.python, "-u", os.path.join(self.players, player)] + list(arguments)
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
        process = start(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.running.append(process)
        closing = None
        for line in process.stdout:
            found = CLOSING.match(line)
            if found:
                closing = found
                if label:
                    print("%s: %s" % (label, line.rstrip()), flush=True)
            else:
                print(line, end="", flush=True)
        status = process.wait()
        self.running.remove(process)
        if closing is None:
            raise SetupError("%s ended with status %d and no closing line" % (player, status))
        self.passed += int(closing[1])
        self.failed += int(closing[2])
        self.status = max(self.status, status)


def has_module(python, module):
    try:
        return subprocess.run([python, "-c", "import " + module], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False
