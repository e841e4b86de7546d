"""Scripts/bench containerd: a real containerd with Varve's snapshotter and differ, and beside them its own overlayfs and btrfs.

All lie in memory or on one disk: Varve's store on a btrfs; the trees of containerd's btrfs on another, so that what one leaves to be
cleaned up does not slow the other; the trees of overlayfs, for which that is the usual place, and containerd's content store on one
ext4. Each run of an import ends with a sync of all three, which counts.
"""

import json
import os
import socket
import subprocess
import sys
import time

import bench as tools
from bench import Failed, Run, at_most, case, faster, milliseconds, quiet, row, spread, take_turns

NAMES = ("varve", "overlayfs", "btrfs")
# The snapshotter overlayfs once more, in a process of its own.
BY_PROXY = "overlayfs-by-proxy"
IMPORT = "ctr image import: 10 layers, 36,000 files, 1 GB"


def answers(address):
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(address) == 0


class Containerd:
    """containerd and the daemon, while a case runs, and on request overlayfs as a proxy plugin."""

    def __init__(self, overlay_by_proxy=False):
        self.tree = tools.options.containerd
        self.disk = tools.volume + "-ext4"
        self.folder = os.path.join(self.disk, "run")
        os.makedirs(self.folder, exist_ok=True)
        self.store = os.environ["VARVE_STORE"]
        self.socket = os.path.join(self.folder, "containerd.sock")
        self.daemon_socket = os.path.join(self.folder, "varve.sock")
        self.daemon_log = os.path.join(self.folder, "varve.log")
        self.own = tools.volume + "-own"
        own = os.path.join(self.own, "containerd-btrfs")
        os.makedirs(own, exist_ok=True)
        configuration = os.path.join(self.folder, "config.toml")
        with open(configuration, "w") as file:
            file.write(f'''version = 2
root = "{self.disk}/containerd"
state = "{self.folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{self.socket}"
[proxy_plugins.varve]
  type = "snapshot"
  address = "{self.daemon_socket}"
[proxy_plugins.varve-diff]
  type = "diff"
  address = "{self.daemon_socket}"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["varve-diff", "walking"]
[plugins."io.containerd.snapshotter.v1.btrfs"]
  root_path = "{own}"
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  root_path = "{self.disk}/overlayfs"
''')
            if overlay_by_proxy:
                file.write(f'''[proxy_plugins.{BY_PROXY}]
  type = "snapshot"
  address = "{self.folder}/{BY_PROXY}.sock"
''')
        self.overlay_by_proxy = overlay_by_proxy
        self.daemon = self.direct = self.containerd = self.overlay = None
        # A containerd removes what it has not made itself: calls that it does not make go to another daemon.
        self.direct_socket = os.path.join(self.folder, "direct.sock")
        self.configuration = configuration

    def __enter__(self):
        self.daemon = self.start_daemon("bench", self.daemon_socket)
        self.direct = self.start_daemon("direct", self.direct_socket)
        if self.overlay_by_proxy:
            address = os.path.join(self.folder, BY_PROXY + ".sock")
            self.overlay = subprocess.Popen([tools.options.overlay_by_proxy, address, os.path.join(self.disk, BY_PROXY)])
            self.wait(lambda: answers(address), BY_PROXY)
        log = open(os.path.join(self.folder, "containerd.log"), "ab")
        self.containerd = subprocess.Popen(
            [os.path.join(self.tree, "usr/bin/containerd"), "--config", self.configuration], stdout=log, stderr=log,
            env=dict(os.environ, PATH=os.path.join(self.tree, "usr/bin") + ":" + os.environ["PATH"]))
        self.wait(lambda: subprocess.run(self.ctr("version"), capture_output=True).returncode == 0, "containerd")
        plugins = subprocess.run(self.ctr("plugins", "ls"), capture_output=True, text=True).stdout
        for name in ("overlayfs", "btrfs", "varve", "varve-diff"):
            if not any(line.split()[1:2] == [name] and line.split()[-1] == "ok" for line in plugins.splitlines()):
                raise Failed(f"containerd has no working {name}:\n{plugins}")
        return self

    def start_daemon(self, name, address):
        with open(self.daemon_log, "ab") as log:
            daemon = subprocess.Popen(
                [tools.options.daemon, "--address", address, "--root", self.store, "--id", name, "--containerd", self.socket],
                stdout=log, stderr=log)

        self.wait(lambda: answers(address), "varve-containerd")
        return daemon

    def wait(self, is_there, name):
        for _ in range(600):
            if is_there():
                return
            time.sleep(0.05)
        raise Failed(f"{name} does not start")

    def __exit__(self, kind, *_):
        if kind:
            for name in ("varve.log", "containerd.log"):
                subprocess.run(["tail", "-n", "8", os.path.join(self.folder, name)], stdout=sys.stderr)
        for process in (self.containerd, self.daemon, self.direct, self.overlay):
            if process:
                process.terminate()
                process.wait()

    def ctr(self, *arguments):
        return [os.path.join(self.tree, "usr/bin/ctr"), "--address", self.socket, *arguments]

    def snapshots(self, name, *arguments):
        return self.ctr("snapshots", "--snapshotter", name, *arguments)

    def run(self, *arguments, **more):
        return Run(*self.ctr(*arguments), **more)

    def synchronize(self):
        for path in (self.disk, self.own, tools.volume):
            tools.synchronize(path)

    def load(self, archive, *options):
        """ctr images import, and a sync."""
        start = time.perf_counter()
        self.run("images", "import", *options, archive)
        self.synchronize()
        return time.perf_counter() - start

    def forget(self, *images):
        """Removes images, with all that they alone need. What the command holds stays."""
        for image in images:
            quiet(*self.ctr("images", "rm", "--sync", image))
        tools.varve("store", "gc")
        self.settle()

    def settle(self):
        for path in (self.own, tools.volume):
            tools.settle(path)
        tools.synchronize(self.disk)

    def applied(self):
        with open(self.daemon_log) as log:
            return log.read().count("applied the layer")

    def memory(self, field):
        """Of the daemon, in MiB: VmRSS or VmHWM."""
        with open(f"/proc/{self.daemon.pid}/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
        raise Failed(f"/proc does not tell {field}")


def image_name(name):
    return f"example.org/{name}:latest"


def archive_of(layout, name, *more):
    """An archive that containerd imports the image of a layout from."""
    path = tools.volume + f"-ext4/{name}.tar"
    if not os.path.exists(path):
        subprocess.run([sys.executable, "-B", os.path.join(tools.LIBRARY, "containerd_image.py"), "--of", layout, path, name,
                        *more], check=True)
    return path


@case("containerd")
def import_of_what_is_not_there(rounds):
    """import"""
    image = tools.bench_image()
    archive = archive_of(image.layout, "bench")
    with Containerd() as world, tools.Floor(image) as floor:
        def contestant(*options):
            def run():
                try:
                    return world.load(archive, *options)
                finally:
                    world.forget(image_name("bench"))
            return run

        # Not counted: the first to write to a new volume pays for the blocks of its image file.
        contestant("--snapshotter", "varve")()
        before = world.applied()
        ours, overlay, own, fetched, bound = take_turns(
            rounds, *(contestant("--snapshotter", name) for name in NAMES), contestant("--no-unpack"), floor.bound)
        if world.applied() - before != 10 * rounds:
            raise Failed("not every layer was applied each time")
        for runs, what, factor in ((overlay, "containerd's overlayfs, on ext4", 2), (own, "containerd's btrfs", 6)):
            if runs:
                faster("ctr image import, 10 layers", milliseconds(ours), what, milliseconds(runs), factor,
                       picture=IMPORT, runs=spread(ours), other_runs=spread(runs))
        # What containerd does before it unpacks, and what no unpack can do without, one after the other as containerd has it.
        least = milliseconds(fetched) + milliseconds(bound)
        row("ctr image import, 10 layers", milliseconds(ours), "import --no-unpack, and the bound", least,
            milliseconds(ours) / least, "", None, kind="part", picture=IMPORT, runs=spread(ours), other_runs=spread(bound))


@case("containerd")
def import_of_what_is_there(rounds):
    """import of what the store has"""
    image = tools.bench_image()
    archive = archive_of(image.layout, "bench")
    with Containerd() as world:
        bundle = tools.place("kept")
        tools.varve("unpack", "--image", image.reference, bundle)
        before = world.applied()

        def contestant(*options):
            def run():
                try:
                    return world.load(archive, *options)
                finally:
                    world.forget(image_name("bench"))
            return run

        ours, bare = take_turns(rounds * 3, contestant("--snapshotter", "varve"), contestant("--no-unpack"))
        if world.applied() != before:
            raise Failed("a layer was applied that the store had")
        at_most("the same of what the store has", milliseconds(ours), "ctr image import --no-unpack", milliseconds(bare), 1.5,
                kind="part", runs=spread(ours), other_runs=spread(bare))
        tools.remove_bundle(bundle)
        world.forget()


def prepare_changed(world, name, parent, key, change):
    quiet(*world.snapshots(name, "prepare", key, parent))
    words = Run(*world.snapshots(name, "mounts", "/point", key), output=True).output.decode().split()
    # mount -t TYPE SOURCE /point -o OPTIONS
    point = os.path.join(world.folder, "point")
    os.makedirs(point, exist_ok=True)
    quiet(*[point if word == "/point" else word for word in words])
    change(point)
    quiet("umount", point)


def top_snapshot(world, name):
    """The key of the uppermost committed snapshot."""
    lines = Run(*world.snapshots(name, "ls"), output=True).output.decode().splitlines()[1:]
    rows = [line.split() for line in lines]
    keys = {words[0] for words in rows if words[-1] == "Committed"}
    return (keys - {words[1] for words in rows if len(words) == 3}).pop()


def append(point):
    with open(tools.plain_file(point), "ab") as file:
        file.write(b"changed\n")


@case("containerd")
def diff_of_one_file(rounds):
    """diff of one changed file"""
    archive = archive_of(tools.bench_image().layout, "bench")
    count = tools.scale(1_000_000)
    with Containerd() as world:
        for name in NAMES:
            world.load(archive, "--snapshotter", name)
            prepare_changed(world, name, top_snapshot(world, name), "changed", append)
        # A tree that is committed as a container's is: nobody applied it as layers.
        quiet(*world.snapshots("varve", "prepare", "large-making"))
        source = Run(*world.snapshots("varve", "mounts", "/point", "large-making"), output=True).output.decode().split()[3]
        tools.fill_tree(source, count)
        quiet(*world.snapshots("varve", "commit", "large", "large-making"))
        prepare_changed(world, "varve", "large", "large-changed", lambda point: tools.change(point, count // 2))
        world.settle()

        def contestant(name, parent, key):
            def run():
                run = Run(*world.snapshots(name, "diff", parent, key), output=True)
                if not run.output:
                    raise Failed("the diff is empty")
                return run
            return run

        def floor():
            return Run(*world.ctr("version"), output=True)

        tops = {name: top_snapshot_of_chain(world, name) for name in NAMES}
        ours, large, bare = take_turns(rounds * 10, contestant("varve", tops["varve"], "changed"),
                                       contestant("varve", "large", "large-changed"), floor)
        overlay, own = take_turns(rounds, *(contestant(name, tops[name], "changed") for name in ("overlayfs", "btrfs")))
        small, most, start = (milliseconds(runs) for runs in (ours, large, bare))
        for runs, what in ((overlay, "containerd's overlayfs, on ext4"), (own, "containerd's btrfs")):
            theirs = milliseconds(runs)
            row("ctr snapshot diff, 1 of 36,000 files changed", small, what, theirs, theirs / small, "≤ 60 ms", small <= 60,
                picture="ctr snapshot diff: one of 36,000 files changed", runs=spread(ours), other_runs=spread(runs))
        row(f"ctr snapshot diff, 1 of {count:,} files changed", most, "1 of 36,000", small, most / small, "≤ 60 ms, flat",
            most <= 60 and most <= 1.25 * small, kind="reference", runs=spread(large), other_runs=spread(ours))
        row("ctr snapshot diff, without the start of ctr", small - start, "ctr version", start, None, "", None, kind="reference",
            runs=spread(ours), other_runs=spread(bare))
        for key in ("large-changed", "large", "changed"):
            quiet(*world.snapshots("varve", "rm", key))
        for name in ("overlayfs", "btrfs"):
            quiet(*world.snapshots(name, "rm", "changed"))
        world.forget(image_name("bench"))


def top_snapshot_of_chain(world, name):
    """The parent of the snapshot "changed"."""
    for line in Run(*world.snapshots(name, "ls"), output=True).output.decode().splitlines():
        words = line.split()
        if words[0] == "changed":
            return words[1]
    raise Failed("there is no snapshot \"changed\"")


@case("containerd")
def calls(rounds):
    """calls"""
    few, many = 200, tools.scale(20_000)
    with Containerd() as world:
        point = os.path.join(world.folder, "point")
        os.makedirs(point, exist_ok=True)
        contestants = [f"varve={world.direct_socket}=varve"]
        contestants += [f"{name}, through containerd={world.socket}={name}" for name in NAMES]
        found = {}
        run = Run(tools.options.calls, "-few", str(few), "-many", str(many), "-rounds", str(rounds * 10), "-point", point,
                  *contestants, output=True)
        for line in run.output.decode().splitlines():
            entry = json.loads(line)
            found.setdefault(entry["call"], {})[entry["label"], entry["files"]] = entry["seconds"]
        for call, figures in found.items():
            small, large = (milliseconds(figures["varve", files]) for files in (few, many))
            row(f"{call}: {many:,} files", large, f"{few} files", small, large / small, "≤ 20 ms, flat",
                large <= 20 and (large <= 1.25 * small or large - small <= 1), kind="reference", runs=spread(figures["varve", many]),
                other_runs=spread(figures["varve", few]))
            through = milliseconds(figures["varve, through containerd", many])
            for name in ("overlayfs", "btrfs"):
                theirs = milliseconds(figures[f"{name}, through containerd", many])
                row(f"{call}: {many:,} files, through containerd", through, f"containerd's {name}", theirs, theirs / through, "",
                    None, other_runs=spread(figures[f"{name}, through containerd", many]))
        world.forget()


@case("containerd")
def many_snapshots(rounds):
    """many snapshots"""
    count = tools.scale(1_000)
    with Containerd() as world:
        run = Run(tools.options.calls, "-list", str(count), "-rounds", str(rounds * 10), f"varve={world.direct_socket}=varve",
                  output=True)
        times = {entry["files"]: milliseconds(entry["seconds"]) for entry in map(json.loads, run.output.decode().splitlines())}
        few, many = sorted(times)
        # Linear: ten times the snapshots take no more than ten times as long.
        at_most(f"List, {many:,} snapshots", times[many], f"{few:,} snapshots", times[few], 10, kind="reference")
        layers = {}
        for number in (16, 127):
            archive = archive_of(tools.Image(f"layers-{number}", "--layers", str(number)).layout, f"layers-{number}")
            runs = []
            for _ in range(rounds + 1):
                runs.append(world.load(archive, "--snapshotter", "varve"))
                world.forget(image_name(f"layers-{number}"))
            layers[number] = milliseconds(runs[1:]) / number
        at_most("import of 127 small layers, for each", layers[127], "of 16, for each", layers[16], 1.25, kind="reference")


@case("containerd")
def memory(rounds):
    """memory of the daemon"""
    count = 16
    layout = tools.Image("quarter", "--bench", "--scale", "0.02" if tools.options.quick else "0.2").layout
    archives = [archive_of(layout, f"many-{number}", "--unique") for number in range(count)]
    with Containerd() as world:
        time.sleep(1)
        idle = world.memory("VmRSS")
        row("memory of the daemon, idle", idle, "", None, None, "≤ 32 MiB", idle <= 32, unit="MiB")
        before = world.applied()
        imports = [subprocess.Popen(world.ctr("images", "import", "--snapshotter", "varve", archive), stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE) for archive in archives]
        errors = [process.communicate()[1].decode() for process in imports]
        if any(process.returncode for process in imports):
            raise Failed(f"an import failed: {' / '.join(filter(None, errors))[:500]}")
        if world.applied() - before != count * 11:
            raise Failed(f"{world.applied() - before} layers were applied, and not {count * 11}")
        peak = world.memory("VmHWM")
        row(f"peak memory of the daemon, {count} imports at once", peak, "", None, None, "≤ 192 MiB", peak <= 192, unit="MiB")
        world.forget(*(image_name(f"many-{number}") for number in range(count)))
        row("memory of the daemon, after them", world.memory("VmRSS"), "", None, None, "", None, unit="MiB")
    for archive in archives:
        os.unlink(archive)
