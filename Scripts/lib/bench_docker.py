"""Scripts/bench docker: a Docker with its containerd image store, on Varve, on overlayfs, and on containerd's own btrfs.

Three daemons of Docker on one containerd, each with a snapshotter and a name space of its own, work in turn. For builds and containers there is a fourth,
on an overlayfs that is a process of its own, as Varve is: what that takes longer than overlayfs is the bound of any such snapshotter. Where what lies is as in
Scripts/bench containerd, and the databases of all three dockerd lie on the ext4. What writes ends with a sync of all file systems, which counts.
"""

import json
import os
import shutil
import subprocess
import time

import bench as tools
import bench_containerd
from bench import Failed, Run, at_most, case, faster, milliseconds, place, quiet, row, spread, take_turns, varve
from bench_containerd import BY_PROXY, NAMES

BASE = "example.org/bench:latest"


class Docker:
    """A daemon on a snapshotter of a containerd, while a case runs."""

    def __init__(self, world, snapshotter):
        self.world = world
        self.folder = os.path.join(world.folder, "docker-" + snapshotter)
        os.makedirs(self.folder, exist_ok=True)
        self.program = tools.options.docker + "/usr/bin/docker"
        self.socket = self.folder + "/socket"
        # Its databases, BuildKit's among them; no trees.
        data = os.path.join(world.disk, "docker-" + snapshotter)
        configuration = {
            "features": {"containerd-snapshotter": True}, "storage-driver": snapshotter, "iptables": False, "ip6tables": False,
            "bridge": "none", "data-root": data, "exec-root": "/run/docker/" + snapshotter, "pidfile": self.folder + "/pid",
            "hosts": ["unix://" + self.socket], "containerd": world.socket, "containerd-namespace": snapshotter,
            "containerd-plugins-namespace": snapshotter + "-plugins"}
        with open(self.folder + "/daemon.json", "w") as file:
            json.dump(configuration, file)
        path = ":".join(tree + folder for tree in (tools.options.docker, tools.options.containerd) for folder in ("/usr/bin", "/usr/sbin"))
        self.environment = {"PATH": path + ":" + os.environ["PATH"], "DOCKER_HOST": "unix://" + self.socket, "DOCKER_BUILDKIT": "1",
                            "HOME": self.folder}
        plugins = self.folder + "/.docker/cli-plugins"
        os.makedirs(plugins, exist_ok=True)
        for name in os.listdir(tools.options.docker + "/usr/libexec/docker/cli-plugins"):
            if not os.path.lexists(f"{plugins}/{name}"):
                os.symlink(f"{tools.options.docker}/usr/libexec/docker/cli-plugins/{name}", f"{plugins}/{name}")
        with open(self.folder + "/log", "ab") as log:
            self.process = subprocess.Popen([tools.options.docker + "/usr/sbin/dockerd", "--config-file", self.folder + "/daemon.json"],
                                            stdout=log, stderr=log, env=dict(os.environ, **self.environment))
        world.wait(lambda: subprocess.run([self.program, "version"], capture_output=True,
                                          env=dict(os.environ, **self.environment)).returncode == 0, f"Docker with {snapshotter}")

    def run(self, *words, **more):
        return Run(self.program, *words, environment=self.environment, **more)

    def timed(self, *words):
        start = time.perf_counter()
        self.run(*words)
        self.world.synchronize()
        return time.perf_counter() - start

    def build(self, number, lines):
        """A Dockerfile on the base; `number` makes it one that no cache has."""
        context = self.folder + "/context"
        os.makedirs(context, exist_ok=True)
        with open(context + "/Dockerfile", "w") as file:
            file.write(f"FROM {BASE}\nARG NUMBER={number}\n" + "".join(f"RUN {line}\n" for line in lines))
        return self.timed("build", "--quiet", "--network", "host", "--tag", "made", context)

    def remove_all(self):
        self.drop("made")
        self.run("builder", "prune", "--all", "--force")

    def drop(self, image):
        """Removes an image that may be there."""
        subprocess.run([self.program, "rmi", "--force", image], capture_output=True, env=dict(os.environ, **self.environment))

    def stop(self):
        self.process.terminate()
        self.process.wait()


class World:
    """All of them."""

    def __init__(self, more=()):
        self.containerd = bench_containerd.Containerd(overlay_by_proxy=BY_PROXY in more)
        self.names = NAMES + more

    def __enter__(self):
        self.containerd.__enter__()
        self.dockers = {}
        try:
            for name in self.names:
                self.dockers[name] = Docker(self.containerd, name)
        except BaseException:
            self.__exit__(True)
            raise
        return self

    def __exit__(self, kind, *more):
        for docker in self.dockers.values():
            docker.stop()
        self.containerd.__exit__(kind, *more)

    def settle(self):
        self.containerd.settle()

    def compare(self, rounds, name, work, against_overlayfs, against_btrfs, undo=lambda docker: None, bound=None, **more):
        """One row for each other. `work` gets a Docker and a number that was never used. `bound`: the least time; where overlayfs runs as
        a process of its own too, that is the least against it. Returns the runs of Varve."""
        numbers = iter(range(1_000_000))

        def contestant(docker):
            def run():
                try:
                    return work(docker, f"{name}-{next(numbers)}")
                finally:
                    undo(docker)
                    self.settle()
            return run

        ours, overlay, own, *proxied = take_turns(rounds, *(contestant(self.dockers[key]) for key in self.names))
        by_proxy = milliseconds(proxied[0]) if proxied and proxied[0] else bound
        for runs, what, rule, least in ((overlay, "overlayfs, on ext4", against_overlayfs, by_proxy),
                                        (own, "containerd's btrfs", against_btrfs, bound)):
            if runs and rule:
                kind, factor = rule
                kind(name, milliseconds(ours), what, milliseconds(runs), factor, least, runs=spread(ours), other_runs=spread(runs), **more)
            elif runs:
                row(name, milliseconds(ours), what, milliseconds(runs), milliseconds(runs) / milliseconds(ours), "", None,
                    runs=spread(ours), other_runs=spread(runs), **more)
        for runs in proxied:
            row(name, milliseconds(ours), "overlayfs as a process of its own", milliseconds(runs),
                milliseconds(ours) / milliseconds(runs), "", None, kind="part", runs=spread(ours), other_runs=spread(runs))
        return ours


def base_archive():
    """The image of the benchmarks with a shell in it."""
    layout = place("docker-layout")
    if not os.path.exists(layout):
        whole = place("docker-whole")
        shutil.copytree(tools.bench_image().layout, whole)
        programs = place("docker-programs")
        os.makedirs(programs)
        shutil.copy(tools.options.busybox, programs + "/busybox")
        for name in subprocess.run([tools.options.busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
            if name != "busybox":
                os.symlink("busybox", f"{programs}/{name}")
        varve("insert", "--image", whole + ":latest", "--tag", "base", programs, "/bin")
        quiet("skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{whole}:base", f"oci:{layout}:latest")
        shutil.rmtree(whole)
    return bench_containerd.archive_of(layout, "bench")


@case("docker")
def load(rounds):
    """load"""
    archive = base_archive()
    with World() as world, tools.Floor(tools.bench_image()) as floor:
        def forget(docker):
            docker.run("rmi", "--force", BASE)
            world.containerd.forget()

        def work(docker, _):
            return docker.timed("load", "--quiet", "--input", archive)

        # Not counted: the first to write to a new volume pays for the blocks of its image file.
        work(world.dockers["varve"], None)
        forget(world.dockers["varve"])

        def fetched():
            try:
                return world.containerd.load(archive, "--no-unpack")
            finally:
                world.containerd.forget(BASE)

        # What containerd does before it unpacks, and what no unpack can do without, one after the other as containerd has it.
        runs, bound = take_turns(rounds, fetched, floor.bound)
        least = milliseconds(runs) + milliseconds(bound)
        ours = world.compare(rounds, "docker load, 11 layers", work, (faster, 2), (faster, 8), forget, least, picture="docker load, 11 layers")
        row("docker load, 11 layers", milliseconds(ours), "import --no-unpack, and the bound", least, milliseconds(ours) / least, "", None,
            kind="part", runs=spread(ours), other_runs=spread(bound))


def compare_builds(rounds, steps):
    archive = base_archive()
    with World((BY_PROXY,)) as world:
        for docker in world.dockers.values():
            docker.run("load", "--quiet", "--input", archive)
        world.settle()
        for name, lines, overlay, own in steps:
            world.compare(rounds, name, lambda docker, number, lines=lines: docker.build(number, lines), overlay, own,
                          lambda docker: docker.remove_all(), picture=name)


@case("docker")
def builds(rounds):
    """builds"""
    files = "mkdir /n && cd /n && for i in $(seq {}); do echo $NUMBER >$i; done"
    many, more = tools.scale(1_000), tools.scale(10_000)
    compare_builds(rounds * 3, [
        ("docker build, two trivial RUNs", ["true $NUMBER", "true"], (at_most, 1.2), (faster, 25)),
        (f"docker build, {many:,} changed files", [files.format(many)], (faster, 1), None),
        (f"docker build, {more:,} changed files", [files.format(more)], (faster, 1), None),
    ])


@case("docker")
def new_data(rounds):
    """new data"""
    size = tools.scale(1 << 30)
    compare_builds(rounds, [("docker build, 1 GB of new data", [f"head -c {size} /dev/urandom >/data"], (faster, 1), None)])


@case("docker")
def containers(rounds):
    """containers"""
    archive = base_archive()
    with World((BY_PROXY,)) as world:
        for docker in world.dockers.values():
            docker.run("load", "--quiet", "--input", archive)
        words = ("run", "--rm", "--network", "host", BASE, "true")
        for docker in world.dockers.values():
            docker.run(*words)
        world.compare(rounds * 5, "docker run --rm, true", lambda docker, _: docker.run(*words).seconds, (at_most, 1.1), None)

        def together(docker, _):
            start = time.perf_counter()
            runs = [subprocess.Popen([docker.program, *words], stdout=subprocess.DEVNULL, env=dict(os.environ, **docker.environment))
                    for _ in range(20)]
            if any([run.wait() for run in runs]):
                raise Failed("a container fails")
            return time.perf_counter() - start

        world.compare(rounds, "the same, 20 at once", together, (at_most, 1.1), None)


@case("docker")
def many_images(rounds):
    """many images"""
    archive = base_archive()
    count, more = 20, 50
    with World() as world:
        found = {}
        for name, docker in world.dockers.items():
            if name == "btrfs":
                continue
            volume = tools.volume if name == "varve" else tools.volume + "-ext4"
            content = tools.volume + "-ext4"
            before = tools.used(volume) + (tools.used(content) if volume != content else 0)
            docker.run("load", "--quiet", "--input", archive)
            for number in range(more):
                docker.build(f"many-{number}", [f"echo $NUMBER {number} >/file-{number} && head -c 1000000 /dev/urandom >/data-{number}"])
                docker.run("tag", "made", f"many:{number}")
                if number + 1 == count:
                    world.settle()
                    space = tools.used(volume) + (tools.used(content) if volume != content else 0) - before
            start = time.perf_counter()
            docker.run("rmi", "--force", "made", *(f"many:{number}" for number in range(more)))
            docker.run("system", "prune", "--all", "--force")
            asked = time.perf_counter() - start
            world.settle()
            found[name] = (space, asked, time.perf_counter() - start)
            docker.drop(BASE)
            world.containerd.forget()
        ours, theirs = found["varve"], found["overlayfs"]
        with tools.Floor(tools.bench_image()) as floor:
            least, once = floor.space_of_snapshots(), floor.space_of_a_directory(tools.volume + "-ext4")
        # The same with the base's files on btrfs, a snapshot for each layer.
        bound = (theirs[0] + least - once) / 2**20
        at_most(f"disk used after {count} images on one base", ours[0] / 2**20, "overlayfs, on ext4", theirs[0] / 2**20, 1, bound, unit="MiB")
        row("… of it the base: files written, a snapshot after each of 10 layers", least / 2**20, "files written, one directory on ext4",
            once / 2**20, least / once, "", None, kind="reference", unit="MiB")
        at_most(f"rmi and system prune of {more} images", ours[1] * 1000, "overlayfs, on ext4", theirs[1] * 1000, 1)
        row("… until the space is back", ours[2] * 1000, "overlayfs, on ext4", theirs[2] * 1000, ours[2] / theirs[2], "", None)
