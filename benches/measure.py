"""Shared by the benches: running a program under each recorder, and what it cost.

The program's CPU time (user and system) is taken by a static wrapper of its own (programs/cpu_of.c),
apart from what the recorder's other processes use.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What a variant needs: a command, and Debian's packages.
NEEDED = {
    "heaptrack": ("heaptrack", ["heaptrack"]),
    "lttng": ("lttng-sessiond", ["lttng-tools", "liblttng-ust-dev"]),
    "dhat": ("valgrind", ["valgrind"]),
}
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """A variant can't be run here; the text says why."""


def shell_library(call):
    """Calls a function of scripts/lib.sh."""
    script = 'source "$1/scripts/lib.sh"; ' + call
    return subprocess.run(["bash", "-euc", script, "lib", ROOT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def run(command, **options):
    """Runs a command that must succeed; its output on failure."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def run_counted(command, env, quiet=False):
    """Runs a command; its output (without what is `quiet`, stdout) and the CPU microseconds of it and
    every child it waited for."""
    with tempfile.TemporaryFile(mode="w+", errors="replace") as output:
        stdout = subprocess.DEVNULL if quiet else output
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=output, env=env, process_group=0)
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # interrupted: what runs below goes, too
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with status {child.returncode}:\n{text[-4000:]}")
    return text, round((used.ru_utime + used.ru_stime) * 1e6)


def bytes_of(path):
    """Bytes of a file, or of all files below a directory."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(p, f)) for p, _, files in os.walk(path) for f in files)


def build_rmtrace(path=None):
    """Paths of `rmtrace` (`path`, or built now) and of librmtrace.so beside it."""
    if not path:
        built = subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "-p", "rmtrace", "-p", "rmtrace-interpose"], cwd=ROOT)
        if built.returncode != 0:
            raise Missing("rmtrace could not be built")
        path = shell_library('target_directory "$1"').stdout.strip() + "/release/rmtrace"
    path = os.path.abspath(path)
    library = os.path.join(os.path.dirname(path), "librmtrace.so")
    for file in (path, library):
        if not os.path.exists(file):
            raise Missing(f"{file} is not there")
    return path, library


def remove_run(run):
    """Removes a run directory, with its pool, which is in memory elsewhere."""
    shutil.rmtree(os.path.realpath(os.path.join(run, "pool")), ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)


class Lttng:
    """A session daemon of our own, with one session for each run."""

    def __init__(self, temp):
        found = subprocess.run(["sh", "-c", "ldconfig -p; ls /usr/lib/*/liblttng-ust-libc-wrapper.so*"], capture_output=True, text=True).stdout
        libraries = sorted(re.findall(r"(/\S*liblttng-ust-libc-wrapper\.so\S*)", found), key=len)
        if not libraries or not shutil.which("lttng"):
            raise Missing("the lttng command or liblttng-ust-libc-wrapper.so is not there")
        self.library = libraries[0]
        self.env = {**os.environ, "LTTNG_HOME": temp, "LTTNG_UST_REGISTER_TIMEOUT": "-1"}
        running = subprocess.run(["lttng", "list"], env=self.env, capture_output=True).returncode == 0
        if running and os.geteuid() == 0:
            raise Missing("a session daemon is running already; its CPU time can't be told from other sessions'")
        pid_file = os.path.join(temp, "sessiond.pid")
        run(["lttng-sessiond", "--daemonize", "--no-kernel", "--pidfile", pid_file], env=self.env)
        with open(pid_file, encoding="ascii") as file:
            self.pid = int(file.read())
        self.count = 0

    def processes(self):
        """The session daemon and the consumers it started: process number and CPU microseconds."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            if int(name) == self.pid or int(fields[1]) == self.pid:
                yield int(name), (int(fields[11]) + int(fields[12])) * TICK_US

    def cpu(self):
        return sum(used for _, used in self.processes())

    def measure(self, command, env, out, quiet=False):
        self.count += 1
        session = f"cost{self.count}"
        lttng = lambda *words: run(["lttng", "--no-sessiond", *words], env=self.env)
        lttng("create", session, "--output", out)
        # Large buffers: what is discarded would not be paid for.
        lttng("enable-channel", "-u", "events", "-s", session, "--subbuf-size=4M", "--num-subbuf=8")
        lttng("enable-event", "-u", "lttng_ust_libc:*", "-c", "events", "-s", session)
        lttng("start", session)
        before = self.cpu()
        env = {**env, "LTTNG_HOME": self.env["LTTNG_HOME"], "LTTNG_UST_REGISTER_TIMEOUT": "-1", "LD_PRELOAD": self.library}
        text, _ = run_counted(command, env, quiet)
        lttng("stop", session)
        tool = self.cpu() - before
        lost = sum(map(int, re.findall(r"Discarded events:\s*(\d+)", lttng("list", session))))
        lttng("destroy", session)
        return text, tool, bytes_of(out), lost

    def stop(self):
        """Ends the daemon, and waits for it: the next run must not take it for somebody else's."""
        try:
            os.kill(self.pid, signal.SIGTERM)
            for _ in range(100):
                time.sleep(0.1)
                os.kill(self.pid, 0)
            # One that was interrupted while it set up a session may hang for ever.
            for number, _ in list(self.processes()):
                os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Recorders:
    """Runs programs as they are (`plain`) and under each recorder (`bare`, `record`, `heaptrack`, `lttng`,
    `memusage`, `dhat`)."""

    def __init__(self, temp, rmtrace=None):
        self.temp = temp
        self.wanted = rmtrace
        self.rmtrace = self.library = self.lttng = self.memusage = None
        if shell_library("need_cc").returncode != 0:
            sys.exit("a C compiler is needed")
        compile_c(f"{temp}/cpu_of", "cpu_of", "-static")

    def prepare(self, variant):
        """Finds or installs what a variant needs; `Missing` says what is not there."""
        if variant in ("bare", "record") and not self.rmtrace:
            self.rmtrace, self.library = build_rmtrace(self.wanted)
        elif variant == "memusage":
            found = subprocess.run(["sh", "-c", "ls /lib/*/libmemusage.so /lib64/libmemusage.so /usr/lib/libmemusage.so"], capture_output=True, text=True).stdout.split()
            if not found:
                raise Missing("libmemusage.so is not installed (glibc has it: libc6, or libc-devtools of later Debian)")
            self.memusage = found[0]
        elif variant in NEEDED:
            tool, packages = NEEDED[variant]
            if not shutil.which(tool):
                shell_library("install_packages " + " ".join(packages))
            if not shutil.which(tool):
                raise Missing(f"{tool} is not installed")
            if variant == "lttng":
                self.lttng = Lttng(self.temp)

    def finish(self):
        if self.lttng:
            self.lttng.stop()

    def info(self, trace):
        return json.loads(subprocess.run([self.rmtrace, "info", "--json", trace], check=True, stdout=subprocess.PIPE, text=True).stdout)

    def measure(self, variant, words, extra, quiet=False):
        """One run: what the program printed, CPU microseconds of the program and of the recorder, bytes written,
        events lost, and of our own traces the events."""
        place = tempfile.mkdtemp(dir=self.temp)
        cpu_file = os.path.join(self.temp, "cpu")
        command = [f"{self.temp}/cpu_of", cpu_file, *words]
        env = {**os.environ, **extra}
        tool, size, lost, events, trace = 0, None, None, None, None
        if variant == "plain":
            text, _ = run_counted(command, env, quiet)
        elif variant == "bare":
            text, _ = run_counted(command, {**env, "LD_PRELOAD": self.library, "RMTRACE_DIR": place}, quiet)
            left = [e.path for e in os.scandir(place) if e.name.endswith(".rmspool")]
            if len(left) != 1:
                sys.exit(f"the bare run of {words[0]} left {len(left)} run directories")
            trace = left[0]
        elif variant == "record":
            trace = os.path.join(place, "out.rmt")
            text, total = run_counted([self.rmtrace, "record", "-o", trace, "--", *command], env, quiet)
        elif variant == "heaptrack":
            text, total = run_counted(["heaptrack", "--output", os.path.join(place, "out"), *command], env, quiet)
            size = bytes_of(place)
        elif variant == "lttng":
            text, tool, size, lost = self.lttng.measure(command, env, place, quiet)
        elif variant == "memusage":
            text, _ = run_counted(command, {**env, "LD_PRELOAD": self.memusage, "MEMUSAGE_OUTPUT": f"{place}/out"}, quiet)
            size = bytes_of(place)
        else:
            command[2:2] = ["valgrind", "--tool=dhat", f"--dhat-out-file={place}/out"]
            text, _ = run_counted(command, env, quiet)
            size = bytes_of(place)
        with open(cpu_file, encoding="ascii") as file:
            cpu = sum(map(int, file.read().split()))
        if variant in ("record", "heaptrack"):
            tool = total - cpu
        if trace:
            size = bytes_of(trace)
            said = self.info(trace)["events"]
            events, lost = said["total"], said.get("dropped", 0)
        if variant == "bare":
            remove_run(trace)
        shutil.rmtree(place, ignore_errors=True)
        return {"text": text, "cpu_us": cpu, "tool_us": tool, "bytes": size, "lost": lost, "events": events}


def compile_c(out, name, *flags):
    """Compiles benches/programs/NAME.c."""
    run(["cc", "-O2", *flags, "-o", out, f"{ROOT}/benches/programs/{name}.c"])


def python3():
    """Debian's own python3 if it is there: a python3 in PATH may be a launcher script."""
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    return os.path.realpath(python)


def json_work(rounds):
    """A JSON workload of python3 that takes every block from malloc: words and environment."""
    return [python3(), f"{ROOT}/benches/programs/json_work.py", str(rounds)], {"PYTHONMALLOC": "malloc"}


def large_c_file(temp, functions=3000):
    """A C file with many functions."""
    path = f"{temp}/large.c"
    with open(path, "w", encoding="ascii") as out:
        out.write("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n")
        for n in range(functions):
            out.write(f"double f{n}(double x, int k) {{ double s = {n}; for (int i = 0; i < k; i++) s += sin(x * i) / (i + {n % 7 + 1}); "
                      f"return s > {n} ? s : sqrt(s + k); }}\n")
    return path


def sql_file(temp, rows=300_000):
    """SQL that fills, indexes, queries and updates a table."""
    path = f"{temp}/work.sql"
    with open(path, "w", encoding="ascii") as out:
        out.write("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL);\n"
                  f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {rows})\n"
                  "INSERT INTO t SELECT i, printf('row %d of many', i * 7919 % 10007), i / 3.0 FROM n;\n"
                  "CREATE INDEX ib ON t(b);\nSELECT count(*), sum(c) FROM t WHERE b LIKE 'row 1%';\n"
                  "SELECT b, count(*) FROM t GROUP BY b ORDER BY 2 DESC, 1 LIMIT 5;\nUPDATE t SET c = c + 1 WHERE a % 3 = 0;\n")
    return path


def rounds(count, programs, variants, one, left_out=lambda turn, program, variant: False):
    """Interleaved rounds, the order within each rotated, so that a machine that slows down does so for all.
    Calls `one(program, variant)` and returns its results by program and variant; the first round is not counted."""
    results = {name: {variant: [] for variant in variants} for name in programs}
    for turn in range(count + 1):
        for name in programs:
            shift = turn % len(variants)
            for variant in variants[shift:] + variants[:shift]:
                if left_out(turn, name, variant):
                    continue
                if sys.stderr.isatty():
                    print(f"\rround {turn} of {count}: {name:7} {variant:10}", end="\x1b[K", file=sys.stderr, flush=True)
                figures = one(name, variant)
                if turn > 0:
                    results[name][variant].append(figures)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return results


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return None


def circumstances(variants, rmtrace):
    """What a reader needs to know to compare these figures with others."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    tools = {"heaptrack": ["heaptrack", "--version"], "lttng": ["lttng", "--version"], "dhat": ["valgrind", "--version"]}
    versions = [first_line(tools[v]) for v in variants if v in tools]
    if rmtrace:
        versions.append(first_line([rmtrace, "--version"]))
        versions.append("commit " + (first_line(["git", "-C", ROOT, "describe", "--always", "--dirty"]) or "unknown"))
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "versions": [v for v in versions if v],
    }


def spread(values, digits):
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} .. {max(values):.{digits}f}]"


def names(allowed):
    def parse(text):
        chosen = text.split(",")
        unknown = [c for c in chosen if c not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(allowed)}")
        return chosen
    return parse


def leave_on_signals():
    """Interrupted or ended, the session daemon must go as well; a second signal must not prevent that."""
    def leave(number, _frame):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
