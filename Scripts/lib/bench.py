"""The second half of Scripts/bench, which makes the btrfs volume that this measures on."""

import argparse
import glob
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback

LIBRARY = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    pass


class Run:
    """One process: seconds on the clock on the wall, peak memory in KiB, what it printed."""

    def __init__(self, *command, environment=None, sync=None, output=False):
        """sync: a file system to synchronize at the end, which counts."""
        command = [os.fspath(part) for part in command]
        with open(os.path.join(volume, ".output"), "w+b") as out, open(os.path.join(volume, ".errors"), "w+b") as err:
            null = os.open(os.devnull, os.O_RDONLY)
            actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                       (os.POSIX_SPAWN_DUP2, err.fileno(), 2)]
            start = time.perf_counter()
            child = os.posix_spawnp(command[0], command, dict(os.environ, **(environment or {})), file_actions=actions)
            _, status, usage = os.wait4(child, 0)
            if sync:
                synchronize(sync)
            self.seconds = time.perf_counter() - start
            os.close(null)
            self.memory = usage.ru_maxrss
            out.seek(0)
            self.output = out.read() if output else b""
            if status:
                err.seek(0)
                words = err.read().decode(errors="replace").strip().splitlines()
                raise Failed(f"{' '.join(command)[:200]}: ended with {os.waitstatus_to_exitcode(status)}: "
                             + " / ".join(words[-4:]))


def synchronize(path=None):
    """Of one file system, else the btrfs: syncfs(2)."""
    subprocess.run(["sync", "--file-system", path or volume], check=True)


def quiet(*command):
    Run(*command)


def delete_subvolumes(*paths):
    for path in paths:
        if os.path.lexists(path):
            quiet("btrfs", "subvolume", "delete", path)


def settle(path=None):
    """What was deleted is cleaned up in the background, which the next measurement should not pay for."""
    # This sync wakes the cleaner, which else sleeps up to half a minute; sync(1) does not.
    path = path or volume
    quiet("btrfs", "filesystem", "sync", path)
    quiet("btrfs", "subvolume", "sync", "-s", "1", path)
    synchronize(path)


# --- the table -----------------------------------------------------------------------------------------------------

rows = []
group = ""


def row(case, ours, against, theirs, ratio, limit, met, unit="ms", kind="peer", **more):
    """limit: as the requirement says it. met: True, False, or None where nothing is required or, as a note in `more` then
    says, nothing can be. kind: what Varve is compared with: "peer", a program that does the same work; "part", one that does a part
    of it and no more; "reference", another measure, such as Varve itself in another size. `picture` in `more`: what the picture of
    README calls the case; it lacks rows that have none."""
    rows.append(dict(group=group, case=case, varve=ours, against=against, other=theirs, ratio=ratio, required=limit, met=met,
                     unit=unit, kind=kind, **more))
    print_row(rows[-1])


def number(value, unit):
    if value is None:
        return ""
    return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


COLUMNS = "{:<50} {:>12}  {:<42} {:>12} {:>8}  {:<12} {}"


def print_row(r):
    met = {True: "yes", False: "NO", None: r.get("note") or ""}[r["met"]]
    ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
    print(COLUMNS.format(r["case"][:50], number(r["varve"], r["unit"]), r["against"][:42],
                         number(r["other"], r["unit"]), ratio, r["required"], met), flush=True)


def judged(met, bound_ratio, bound_met):
    """The `met` and the note of a row: what the least that must be done does not meet is not held against what was measured."""
    if met or bound_ratio is None or bound_met:
        return dict(met=met)
    return dict(met=None, note=f"the bound is {bound_ratio:.2f}")


def at_most(case, ours, against, theirs, factor, bound=None, **more):
    """`bound`: the time of a program that does only what must be done, if there is one."""
    ratio, least = ours / theirs, bound and bound / theirs
    row(case, ours, against, theirs, ratio, f"≤ {factor} ×", **judged(ratio <= factor, least, bound and least <= factor), **more)


def faster(case, ours, against, theirs, factor, bound=None, **more):
    """`bound` as for `at_most`."""
    ratio, most = theirs / ours, bound and theirs / bound
    row(case, ours, against, theirs, ratio, f"≥ {factor} × as fast", **judged(ratio >= factor, most, bound and most >= factor), **more)


def milliseconds(runs):
    return statistics.median(r.seconds if isinstance(r, Run) else r for r in runs) * 1000


def spread(runs):
    values = sorted((r.seconds if isinstance(r, Run) else r) * 1000 for r in runs)
    return [round(value, 2) for value in values]


def take_turns(rounds, *contestants):
    """Each contestant once a round, in turn, so that what disturbs one disturbs all. Returns the runs of each."""
    runs = [[] for _ in contestants]
    for number_of_round in range(rounds):
        # Each is the first of a round in its turn: what comes after another finds the caches as that one left them.
        for offset, _ in enumerate(contestants):
            index = (number_of_round + offset) % len(contestants)
            contestant = contestants[index]
            if runs[index] is None:
                continue
            try:
                runs[index].append(contestant())
            except Failed as error:
                if contestant is contestants[0]:
                    raise
                print(f"    cannot be measured: {error}", file=sys.stderr)
                failures.append(str(error))
                runs[index] = None
    return runs


failures = []
cases = {"unpack": [], "delta": [], "containerd": [], "build": [], "docker": []}


def case(group):
    def register(function):
        cases[group].append(function)
        return function
    return register


# --- images and the store ------------------------------------------------------------------------------------------

class Image:
    def __init__(self, name, *arguments):
        self.layout = os.path.join(volume, "image-" + name)
        if not os.path.exists(self.layout):
            subprocess.run([os.path.join(options.scripts, "make-image"), self.layout, *arguments], check=True,
                           stdout=sys.stderr)
        self.layers, self.chains = (
            subprocess.run([sys.executable, "-B", os.path.join(LIBRARY, "layout_info.py"), what, self.layout, "latest"],
                           check=True, capture_output=True, text=True).stdout.split()
            for what in ("layers", "chains"))
        self.blobs = [os.path.join(self.layout, "blobs/sha256", layer) for layer in self.layers]
        self.reference = self.layout + ":latest"


def bench_image():
    return Image("bench", "--bench", *(["--scale", "0.1"] if options.quick else []))


def varve(*arguments, **more):
    return Run(options.varve, *arguments, **more)


def remove_chains():
    for name in varve("store", "ls", "-q", output=True).output.decode().split():
        varve("store", "rm", name)


def place(name):
    path = os.path.join(volume, "work", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def remove_bundle(path):
    if os.path.lexists(path):
        varve("bundle", "rm", path)


def unpacked(image, name):
    path = place(name)
    if not os.path.exists(path):
        varve("unpack", "--image", image.reference, path)
    return path


# --- the floor -----------------------------------------------------------------------------------------------------

def used(path):
    """The bytes that a file system has given out."""
    synchronize(path)
    state = os.statvfs(path)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


class Floor:
    """The program that does nothing but what an unpack of an image has to do (floor.c), while a case runs."""

    def __init__(self, image):
        self.blobs = image.blobs
        self.memory = os.path.join("/dev/shm", f"varve-bench-{os.getpid()}")
        self.program = os.path.join(volume, "floor-program")

    def __enter__(self):
        subprocess.run(["cc", "-O2", "-pthread", "-o", self.program, os.path.join(LIBRARY, "floor.c"), "-lisal", "-lcrypto"],
                       check=True)
        os.makedirs(self.memory)
        self.tars = []
        for index, blob in enumerate(self.blobs):
            self.tars.append(os.path.join(self.memory, f"{index}.tar"))
            with open(self.tars[-1], "wb") as out:
                subprocess.run(["gzip", "-dc", "--", blob], check=True, stdout=out, stdin=None)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.memory, ignore_errors=True)
        os.unlink(self.program)

    def bare(self, *more):
        """Makes all files, of tars in memory."""
        subvolume = place("floor")
        quiet("btrfs", "subvolume", "create", subvolume)
        run = Run(self.program, subvolume, *self.tars, *more, output=True)
        delete_subvolumes(subvolume)
        settle()
        return int(run.output) / 1e6

    def space_of_snapshots(self):
        """The bytes that all files take where a snapshot is made after each layer."""
        subvolume = place("floor")
        before = used(volume)
        quiet("btrfs", "subvolume", "create", subvolume)
        made = []
        for number, tar in enumerate(self.tars):
            Run(self.program, subvolume, tar, output=True)
            made.append(place(f"floor-{number}"))
            quiet("btrfs", "subvolume", "snapshot", "-r", subvolume, made[-1])
        taken = used(volume) - before
        delete_subvolumes(subvolume, *made)
        settle()
        return taken

    def space_of_a_directory(self, disk):
        """The bytes that they take in one directory of another file system."""
        directory = os.path.join(disk, "floor")
        before = used(disk)
        os.mkdir(directory)
        Run(self.program, directory, *self.tars, output=True)
        taken = used(disk) - before
        shutil.rmtree(directory)
        synchronize(disk)
        return taken

    def bound(self):
        """The same, and beside it verifies, inflates and hashes the blobs."""
        return self.bare("--", *self.blobs)


# --- delta ---------------------------------------------------------------------------------------------------------

def plain_file(root, choice=0):
    """A regular file with one name, from the middle of the tree, the same each time."""
    found = []
    for directory, directories, names in os.walk(root):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.lstat(path).st_nlink == 1:
                found.append(path)
        if len(found) > 5000:
            break
    return found[(len(found) // 2 + choice) % len(found)]


@case("delta")
def one_of_many(rounds):
    """one changed file"""
    image = bench_image()
    bundle = unpacked(image, "delta")
    with open(plain_file(bundle + "/rootfs"), "ab") as file:
        file.write(b"changed\n")
    synchronize()
    chain = os.path.join(os.environ["VARVE_STORE"], "chains", image.chains[-1])
    frozen = place("frozen")

    def commands():
        seconds = Run("btrfs", "subvolume", "snapshot", "-r", bundle, frozen).seconds
        seconds += Run("btrfs", "send", "--no-data", "-p", chain, "-f", "/dev/null", frozen).seconds
        return seconds + Run("btrfs", "subvolume", "delete", frozen).seconds

    ours_runs, theirs = take_turns(rounds * 5, lambda: varve("diff", bundle, output=True), commands)
    if len(ours_runs[0].output.splitlines()) != 1:
        raise Failed(f"varve diff found something else than one change: {ours_runs[0].output[:500]!r}")
    at_most("diff, 1 of 36,000 files changed", milliseconds(ours_runs), "btrfs snapshot -r; send; delete",
            milliseconds(theirs), 1.5, kind="part", picture="varve diff: one of 36,000 files changed", runs=spread(ours_runs),
            other_runs=spread(theirs))

    layout = place("delta-layout")
    subprocess.run(["cp", "-a", "--reflink=auto", image.layout, layout], check=True)
    umoci_bundle = place("umoci-delta")
    quiet(options.umoci, "unpack", "--image", layout + ":latest", umoci_bundle)
    with open(plain_file(umoci_bundle + "/rootfs"), "ab") as file:
        file.write(b"changed\n")
    synchronize()
    tags = iter(range(1000))

    def ours():
        return varve("repack", "--image", f"{layout}:varve{next(tags)}", bundle)

    def umoci():
        return Run(options.umoci, "repack", "--image", f"{layout}:umoci{next(tags)}", umoci_bundle)

    ours_runs, theirs = take_turns(rounds, ours, umoci)
    faster("repack, 1 of 36,000 files changed", milliseconds(ours_runs), "umoci 0.6 repack", milliseconds(theirs), 100,
           picture="Repack: one of 36,000 files changed", runs=spread(ours_runs), other_runs=spread(theirs))
    remove_bundle(bundle)
    remove_chains()
    shutil.rmtree(umoci_bundle)
    shutil.rmtree(layout)
    settle()


FILES_PER_DIRECTORY = 100


def make_tree(path, count):
    """A subvolume of `count` files (`fill_tree`)."""
    quiet("btrfs", "subvolume", "create", path)
    fill_tree(path, count)
    settle()


def fill_tree(path, count):
    """Makes `count` files of a few bytes, 100 in a directory, 100 directories in a directory."""
    for first in range(0, count, FILES_PER_DIRECTORY):
        directory = tree_directory(path, first)
        os.makedirs(directory, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for index in range(first, min(count, first + FILES_PER_DIRECTORY)):
            file = os.open(b"file%07d" % index, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
            os.write(file, b"%d\n" % index)
            os.close(file)
        os.close(fd)


def tree_directory(path, index):
    directory = index // FILES_PER_DIRECTORY
    return os.path.join(path, "top%03d" % (directory // 100), "sub%02d" % (directory % 100))


def change(path, index):
    with open(os.path.join(tree_directory(path, index), "file%07d" % index), "ab") as file:
        file.write(b"changed\n")


class Pair:
    """A read-only snapshot of a tree, and a snapshot of that to change."""

    def __init__(self, tree, name):
        self.old, self.new = place(name + "-old"), place(name + "-new")
        delete_subvolumes(self.old, self.new)
        quiet("btrfs", "subvolume", "snapshot", "-r", tree, self.old)
        quiet("btrfs", "subvolume", "snapshot", self.old, self.new)

    def freeze(self):
        synchronize()
        quiet("btrfs", "property", "set", "-t", "subvol", self.new, "ro", "true")

    def diff(self):
        return varve("diff", self.old, self.new, output=True)

    def send(self):
        return Run("btrfs", "send", "--no-data", "-p", self.old, "-f", "/dev/null", self.new)

    def remove(self):
        delete_subvolumes(self.old, self.new)
        settle()


def expect(run, lines):
    found = len(run.output.splitlines())
    if found != lines:
        raise Failed(f"varve diff printed {found} lines where {lines} had changed")


def scale(count):
    return count // 10 if options.quick else count


@case("delta")
def by_size_of_the_tree(rounds):
    """size of the tree"""
    times = []
    for count in map(scale, (10_000, 100_000, 1_000_000)):
        tree = place("tree")
        make_tree(tree, count)
        pair = Pair(tree, "size")
        change(pair.new, count // 2)
        pair.freeze()
        runs, sends = take_turns(rounds * 5, pair.diff, pair.send)
        expect(runs[0], 1)
        times.append(milliseconds(runs))
        row(f"diff, 1 change among {count:,} files", times[-1], "btrfs send --no-data", milliseconds(sends),
            times[-1] / milliseconds(sends), "", None, kind="part", runs=spread(runs), other_runs=spread(sends))
        pair.remove()
        if count == scale(1_000_000):
            pair = Pair(tree, "memory")
            for index in range(10):
                change(pair.new, index * (count // 10) + 7)
            pair.freeze()
            run = pair.diff()
            expect(run, 10)
            row(f"peak memory, 10 changes among {count:,} files", run.memory / 1024, "", None, None, "≤ 32 MiB",
                run.memory <= 32 * 1024, unit="MiB")
            pair.remove()
        delete_subvolumes(tree)
        settle()
    at_most("diff, the slowest of the three sizes", max(times), "the fastest", min(times), 2, kind="reference")


@case("delta")
def by_size_of_the_change(rounds):
    """size of the change"""
    count = scale(100_000)
    tree = place("tree")
    make_tree(tree, count)
    times = {}
    for changes in map(scale, (100, 1_000, 10_000) if options.quick else (10, 100, 1_000, 10_000)):
        pair = Pair(tree, "changes")
        for index in random.Random(changes).sample(range(count), changes):
            change(pair.new, index)
        pair.freeze()
        runs, sends = take_turns(rounds * 3, pair.diff, pair.send)
        expect(runs[0], changes)
        times[changes] = milliseconds(runs)
        bare = milliseconds(sends)
        name = f"diff, {changes:,} changes among {count:,} files"
        if changes == scale(10_000):
            at_most(name, times[changes], "btrfs send --no-data", bare, 2, kind="part",
                    runs=spread(runs), other_runs=spread(sends))
        else:
            row(name, times[changes], "btrfs send --no-data", bare, times[changes] / bare, "", None, kind="part",
                runs=spread(runs), other_runs=spread(sends))
        pair.remove()
    most = max(times)
    # Linear: ten times the changes take no more than ten times as long, and what measuring adds.
    at_most(f"diff, {most:,} changes", times[most], f"{most // 10:,} changes", times[most // 10], 12, kind="reference")
    delete_subvolumes(tree)
    settle()


def with_directory(count):
    tree = place("tree")
    make_tree(tree, scale(20_000))
    directory = os.path.join(tree, "directory")
    os.mkdir(directory)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for index in range(count):
        os.close(os.open(b"file%07d" % index, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)
    settle()
    return tree


@case("delta")
def renamed_directory(rounds):
    """renamed directory"""
    count = scale(10_000)
    tree = with_directory(count)
    pair = Pair(tree, "renamed")
    os.rename(pair.new + "/directory", pair.new + "/renamed")
    pair.freeze()

    def listing():
        return Run("find", pair.new + "/renamed", "-printf", "%s %T@ %p\n", output=True)

    runs, theirs = take_turns(rounds * 5, pair.diff, listing)
    # The root's own times, the old name, the new name and all that is in it.
    expect(runs[0], count + 3)
    row(f"diff, a directory of {count:,} files renamed", milliseconds(runs), "find -printf of that directory",
        milliseconds(theirs), milliseconds(runs) / milliseconds(theirs), "in its order", None, kind="part", runs=spread(runs),
        other_runs=spread(theirs))
    pair.remove()
    delete_subvolumes(tree)
    settle()


@case("delta")
def deleted_directory(rounds):
    """deleted directory"""
    count = scale(100_000)
    tree = with_directory(count)
    pair = Pair(tree, "deleted")
    shutil.rmtree(pair.new + "/directory")
    pair.freeze()
    runs, theirs = take_turns(rounds, pair.diff, pair.send)
    expect(runs[0], 2)
    ours = milliseconds(runs)
    bare = milliseconds(theirs)
    row(f"diff, a directory of {count:,} files deleted", ours, "btrfs send --no-data", bare, ours / bare, "≤ 50 ms",
        ours <= 50, kind="part", picture=f"varve diff: a directory of {count:,} files deleted", runs=spread(runs), other_runs=spread(theirs))
    pair.remove()
    delete_subvolumes(tree)
    settle()


# --- all of it -----------------------------------------------------------------------------------------------------

def text(*command):
    try:
        lines = subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()
        return lines[0] if lines else ""
    except FileNotFoundError:
        return ""


def host():
    model = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "kernel": os.uname().release, "processors": os.cpu_count(), "processor": model,
        "memoryBytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "btrfs": text("btrfs", "--version"), "umoci": text(options.umoci, "--version") if options.umoci else "",
        "skopeo": text("skopeo", "--version"), "buildah": text("buildah", "--version"), "crun": text("crun", "--version"),
        "docker": text(options.docker + "/usr/sbin/dockerd", "--version") if options.docker else "",
        "containerd": text(options.containerd + "/usr/bin/containerd", "--version") if options.containerd else "",
        "imageFileSystem": text("stat", "-f", "-c", "%T", volume + ".img"),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": options.quick, "rounds": options.rounds,
    }


def main():
    # So that what a case has started and mounted goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(COLUMNS.format("case", "varve", "against", "", "ratio", "must be", "met"), flush=True)
    global group
    for group in cases if options.what == "all" else [options.what]:
        for function in cases[group]:
            if options.only and options.only not in function.__doc__:
                continue
            print(f"==> {group}: {function.__doc__}", file=sys.stderr)
            try:
                function(options.rounds)
            except (Failed, OSError, subprocess.CalledProcessError, statistics.StatisticsError) as error:
                failures.append(f"{function.__doc__}: {error}")
                print(f"    cannot be measured: {error}", file=sys.stderr)
                if not isinstance(error, Failed):
                    traceback.print_exc()
    document = {"host": host(), "rows": rows, "failures": failures}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
    if options.plot:
        try:
            bench_plot.write(options.plot, [document], options.summary)
        except bench_plot.Unusable as error:
            failures.append(f"the picture: {error}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    missed = [r for r in rows if r["met"] is False]
    print(f"{len(rows)} rows, {len(missed)} not as they must be, {len(failures)} could not be measured",
          file=sys.stderr)
    return 1 if failures or (options.strict and missed) else 0


parser = argparse.ArgumentParser()
parser.add_argument("what", choices=[*cases, "all"])
parser.add_argument("--varve", required=True)
parser.add_argument("--scripts", required=True)
parser.add_argument("--volume", required=True)
parser.add_argument("--rounds", type=int)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--strict", action="store_true")
parser.add_argument("--json")
parser.add_argument("--only")
parser.add_argument("--plot")
parser.add_argument("--summary", action="store_true")
parser.add_argument("--umoci", help="the program umoci 0.6")
parser.add_argument("--containerd", help="where the packages of containerd are unpacked")
parser.add_argument("--daemon", help="the program varve-containerd")
parser.add_argument("--calls", help="the program of Tests/ContainerdCalls")
parser.add_argument("--overlay-by-proxy", help="the program of Tests/OverlayByProxy")
parser.add_argument("--docker", help="where the package of Docker is unpacked")
parser.add_argument("--busybox", help="a shell without libraries")
options = parser.parse_args()
options.rounds = options.rounds or (1 if options.quick else 3)
volume = options.volume
# Their cases use what is defined here.
sys.modules["bench"] = sys.modules[__name__]
import bench_plot  # noqa: E402
import bench_unpack  # noqa: E402, F401
if options.daemon:
    import bench_containerd  # noqa: F401
if options.busybox:
    import bench_docker  # noqa: F401
elif options.docker:
    import bench_build  # noqa: F401
sys.exit(main())
