"""Scripts/bench build: the second run of a build, a build step that does nothing, and a look at an image that is there already.

Beside them buildah with a storage of its own for each driver: overlay on an ext4, for which that is the usual place, btrfs on the btrfs of
Varve's store; and Docker on overlayfs, on the same ext4. All run the same crun.
"""

import fcntl
import glob
import json
import os
import shutil
import struct
import subprocess
import sys
import time

import bench as tools
from bench import Failed, Run, case, delete_subvolumes, faster, fill_tree, milliseconds, place, quiet, row, spread, take_turns, varve

STAGES = 10
BUILDER = os.path.join(os.path.dirname(os.path.dirname(tools.LIBRARY)), "Docs/examples/build/build.py")


def within(name, ours, against, theirs, most, **more):
    """A row whose requirement is a number of milliseconds."""
    row(name, ours, against, theirs, None, f"≤ {most} ms", ours <= most, **more)


# --- what is built --------------------------------------------------------------------------------------------------

def with_programs(layout, tag, new_tag):
    """Puts a program that does nothing into an image, as its shell and as `true`."""
    folder = place("programs")
    if not os.path.exists(folder):
        os.makedirs(folder)
        subprocess.run(["cc", "-O2", "-static", "-o", folder + "/sh", os.path.join(tools.LIBRARY, "step.c")], check=True)
        shutil.copy(folder + "/sh", folder + "/true")
    varve("insert", "--image", f"{layout}:{tag}", "--tag", new_tag, folder, "/bin")


def new_layout(name):
    layout = place(name)
    shutil.rmtree(layout, ignore_errors=True)
    varve("init", "--layout", layout)
    return layout


class Registry:
    """Debian's docker-registry on loopback, with TLS, while a case runs."""

    def __init__(self):
        self.folder = place("registry")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.log = os.path.join(self.folder, "log")
        certificate, key = (os.path.join(self.folder, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        configuration = os.path.join(self.folder, "config.yml")
        with open(configuration, "w") as file:
            json.dump({"version": 0.1, "log": {"level": "info"},
                       "storage": {"filesystem": {"rootdirectory": os.path.join(self.folder, "data")}},
                       "http": {"addr": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}}, file)
        self.environment = {"SSL_CERT_FILE": certificate, "HOME": self.folder}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", configuration], stdout=log, stderr=log)

    def __enter__(self):
        for _ in range(600):
            with open(self.log) as log:
                found = log.read().partition("listening on ")[2].partition(",")[0]
            if found:
                self.host = found
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise Failed("docker-registry does not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def requests(self):
        with open(self.log) as log:
            return [line.split('] "')[1].split('"')[0] for line in log if line.startswith("127.0.0.1 ")]


# --- second run -----------------------------------------------------------------------------------------------------

@case("build")
def second_run(rounds):
    """second run of a build"""
    layout = new_layout("base")
    varve("new", "--image", layout + ":none")
    with_programs(layout, "none", "base")
    with Registry() as registry:
        reference = f"docker://{registry.host}/base:1"
        quiet("env", *(f"{name}={value}" for name, value in registry.environment.items()), tools.options.varve, "push",
              layout + ":base", reference)
        file = place("build.toml")
        with open(file, "w") as text:
            for number in range(STAGES):
                source = reference if number == 0 else f"stage:stage{number - 1}"
                text.write(f'[stage{number}]\nfrom = "{source}"\ncopy = [["build.toml", "/file{number}"]]\n'
                           f'run = ["/made{number}"]\nconfig = {{ label = ["stage={number}"] }}\n')
        words = [sys.executable, BUILDER, file, place("built")]
        environment = dict(registry.environment, VARVE=tools.options.varve, PYTHONDONTWRITEBYTECODE="1")
        first = Run(*words, environment=environment, output=True)
        made = len([line for line in first.output.decode().splitlines() if ": " in line])
        if made != 3 * STAGES:
            raise Failed(f"the first run made {made} steps, and not {3 * STAGES}")
        row(f"first run of a build, {STAGES} stages, a stage", first.seconds * 1000 / STAGES, "", None, None, "", None)

        def second():
            run = Run(*words, environment=environment, output=True)
            if run.output:
                raise Failed("the second run made a step")
            return run

        def python():
            return Run(sys.executable, "-c", "pass")

        ours, bare = take_turns(rounds * 5, second, python)
        within(f"second run of {STAGES} stages, a stage", milliseconds(ours) / STAGES, "python3 -c pass, once", milliseconds(bare),
               30, kind="reference", runs=spread(ours), other_runs=spread(bare))
    shutil.rmtree(layout)
    shutil.rmtree(place("built"))
    tools.varve("store", "gc")
    tools.settle()


# --- one step -------------------------------------------------------------------------------------------------------

class Stage:
    """A step of a build over the command: snapshot restore, run, repack, snapshot create."""

    def __init__(self, image):
        self.image = image
        self.layout = image.rpartition(":")[0]
        self.parts = {}
        bundle = place("base-bundle")
        varve("unpack", "--image", image, bundle)
        varve("snapshot", "create", bundle, "bench-base")
        tools.remove_bundle(bundle)
        # The configuration that the runtime gets, and the place of the bundle that it gets it for.
        self.alone = place("alone")
        varve("snapshot", "restore", "bench-base", self.alone)
        recorder = place("recorder")
        os.makedirs(recorder, exist_ok=True)
        program = os.path.join(recorder, "crun")
        with open(program, "w") as file:
            file.write('#!/bin/sh\nwhile [ "$1" != --bundle ]; do shift; done\ncp "$2/config.json" "${0%/*}/config.json"\n')
        os.chmod(program, 0o755)
        varve("run", "--runtime", program, self.alone, "--", "/bin/true")
        self.configuration = os.path.join(recorder, "config.json")
        tools.remove_bundle(self.alone)

    def runtime(self):
        """The runtime, with the configuration that it gets from `varve run`, in a bundle that is as new as that of a step: nothing that it
        reads from it is in memory."""
        state = os.path.join("/run", f"varve-bench-{os.getpid()}")
        varve("snapshot", "restore", "bench-base", self.alone)
        shutil.copy(self.configuration, os.path.join(self.alone, "config.json"))
        try:
            return Run("crun", "--root", state, "run", "--bundle", self.alone, f"varve-bench-{os.getpid()}")
        finally:
            shutil.rmtree(state, ignore_errors=True)
            tools.remove_bundle(self.alone)
            tools.settle()

    def snapshots(self):
        """Seconds of three snapshots, each of the one before, as a restore, a repack and the snapshot of a step take them: the kernel's
        part."""
        snapshots = [place(f"alone-{number}") for number in range(3)]
        varve("snapshot", "restore", "bench-base", self.alone)
        source = os.open(self.alone, os.O_RDONLY)
        parent = os.open(place("."), os.O_RDONLY)
        seconds = 0
        for path in snapshots:
            # struct btrfs_ioctl_vol_args_v2 (linux/btrfs.h): fd, transid, flags, 32 bytes unused, name.
            request = struct.pack("=qQQ32x4040s", source, 0, 0, os.fsencode(os.path.basename(path)))
            start = time.perf_counter()
            fcntl.ioctl(parent, 0x50009417, bytearray(request))  # BTRFS_IOC_SNAP_CREATE_V2
            seconds += time.perf_counter() - start
            os.close(source)
            source = os.open(path, os.O_RDONLY)
        for fd in (source, parent):
            os.close(fd)
        delete_subvolumes(*snapshots)
        tools.remove_bundle(self.alone)
        tools.settle()
        return seconds

    def run(self, *words):
        """Seconds of the four commands together."""
        bundle = place("stage")
        total = 0
        for arguments in (("snapshot", "restore", "bench-base", bundle),
                          ("run", "--runtime", "crun", bundle, "--", *words),
                          ("repack", "--image", self.layout + ":stage", bundle),
                          ("snapshot", "create", bundle, "bench-made")):
            run = varve(*arguments)
            name = " ".join(arguments[:2]) if arguments[0] == "snapshot" else arguments[0]
            self.parts.setdefault(name, []).append(run.seconds)
            total += run.seconds
        varve("snapshot", "rm", "bench-made")
        tools.remove_bundle(bundle)
        # The kernel deletes subvolumes behind: what the stage before had is none of this one's.
        tools.settle()
        return total

    def remove(self):
        varve("snapshot", "rm", "bench-base")


def write_steps(folder, base, number, words):
    """A Dockerfile with one step, which no cache has."""
    with open(os.path.join(folder, "Dockerfile"), "w") as file:
        file.write(f"FROM {base}\nRUN {json.dumps([words[0], str(number), *words[1:]])}\n")


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, driver, image):
        self.driver = driver
        self.root = os.path.join(tools.volume if driver == "btrfs" else tools.volume + "-ext4", "buildah-" + driver)
        self.number = 0
        self.context = place("context-" + driver)
        os.makedirs(self.context, exist_ok=True)
        quiet("skopeo", "--insecure-policy", "copy", "--quiet", "oci:" + image,
              f"containers-storage:[{driver}@{self.root}+{self.root}-run]localhost/base:latest")

    def run(self, *words):
        self.number += 1
        write_steps(self.context, "localhost/base:latest", self.number, words)
        return Run("buildah", "--root", self.root, "--runroot", self.root + "-run", "--storage-driver", self.driver, "bud", "--layers",
                   "--pull-never", "--network", "host", "--runtime", "crun", "--isolation", "oci", "--tag", "localhost/made",
                   self.context)

    def remove(self):
        subprocess.run(["umount", "--recursive", "--lazy", os.path.join(self.root, self.driver)], capture_output=True)
        if self.driver == "btrfs":
            delete_subvolumes(*(entry.path for entry in os.scandir(os.path.join(self.root, "btrfs/subvolumes"))))
        for path in (self.root, self.root + "-run", self.context):
            shutil.rmtree(path, ignore_errors=True)


def measure_stage(image, files, rounds, other_rounds):
    stage = Stage(image)
    # Not counted: the first reads what lies on the disk.
    stage.run("/bin/true")
    stage.runtime()
    stage.parts = {}
    ours, runtime, kernel = take_turns(rounds * 10, lambda: stage.run("/bin/true"), stage.runtime, stage.snapshots)
    parts = stage.parts
    stage.parts = {}
    changing = [stage.run("/bin/sh", f"/made{number}") for number in range(rounds * 3)]
    whole, alone = milliseconds(ours), milliseconds(runtime)
    within(f"a step that does nothing, {files:,} files", whole - alone, "crun alone, left out", alone, 60, kind="reference", runs=spread(ours),
           other_runs=spread(runtime))
    for name, seconds in parts.items():
        row(f"… of it: {name}", milliseconds(seconds), "", None, None, "", None, runs=spread(seconds))
    row("… of it: three snapshots, as calls of the kernel", milliseconds(kernel), "", None, None, "", None, runs=spread(kernel))
    row(f"a step that makes a file, {files:,} files", milliseconds(changing) - alone, "crun alone, left out", alone, None, "", None,
        kind="reference", runs=spread(changing))
    stage.remove()
    tools.settle()
    for make, what in ((lambda: Buildah("overlay", image), "buildah --layers, overlay on ext4"),
                       (lambda: Buildah("btrfs", image), "buildah --layers, btrfs"),
                       (lambda: Docker(image), "docker build, overlay2 on ext4")):
        contestant = make()
        try:
            contestant.run("/bin/true")
            theirs = [contestant.run("/bin/true") for _ in range(other_rounds)]
        finally:
            contestant.remove()
            tools.settle()
        faster(f"the same, with crun, {files:,} files", whole, what, milliseconds(theirs), 1,
               picture=f"A step that does nothing, crun included, on {files:,} files", runs=spread(ours), other_runs=spread(theirs))


@case("build")
def step_of_a_small_tree(rounds):
    """a step on 36,000 files"""
    layout = place("small-layout")
    shutil.copytree(tools.bench_image().layout, layout)
    with_programs(layout, "latest", "base")
    measure_stage(layout + ":base", tools.scale(36_000), rounds, rounds * 2)
    finish(layout)


@case("build")
def step_of_a_large_tree(rounds):
    """a step on 1,000,000 files"""
    count = tools.scale(1_000_000)
    layout = new_layout("large-layout")
    varve("new", "--image", layout + ":none")
    with_programs(layout, "none", "programs")
    bundle = place("large")
    varve("unpack", "--image", layout + ":programs", bundle)
    fill_tree(os.path.join(bundle, "rootfs"), count)
    varve("repack", "--image", layout + ":base", bundle)
    tools.remove_bundle(bundle)
    tools.settle()
    measure_stage(layout + ":base", count, rounds, rounds)
    finish(layout)


def finish(layout):
    shutil.rmtree(layout)
    tools.remove_chains()
    tools.settle()


class Docker:
    """A Docker daemon with its data on the ext4, and the image in it."""

    def __init__(self, image):
        tree = tools.options.docker
        self.root = tools.volume + "-ext4/docker"
        os.makedirs(self.root)
        self.number = 0
        self.program = tree + "/usr/bin/docker"
        path = ":".join([tree + "/usr/bin", tree + "/usr/sbin", tools.options.containerd + "/usr/bin", os.environ["PATH"]])
        self.environment = {"PATH": path, "DOCKER_HOST": f"unix://{self.root}/docker.sock", "DOCKER_BUILDKIT": "1", "HOME": self.root}
        self.log = os.path.join(self.root, "log")
        self.groups_before = self.control_groups()
        # It writes there whatever its options say; nobody else sees these mounts.
        self.mounts = []
        for point in ("/etc/docker", "/run/docker"):
            os.makedirs(self.root + point)
            self.mounts.append((point, not os.path.exists(point)))
            os.makedirs(point, exist_ok=True)
            quiet("mount", "--bind", self.root + point, point)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [tree + "/usr/sbin/dockerd", "--data-root", self.root + "/data", "--exec-root", self.root + "/exec", "--pidfile", self.root + "/pid",
                 "--host", self.environment["DOCKER_HOST"], "--iptables=false", "--ip6tables=false", "--bridge=none",
                 "--storage-driver", "overlay2"], stdout=log, stderr=log, env=dict(os.environ, **self.environment))
        for _ in range(600):
            if self.process.poll() is not None:
                raise Failed("dockerd does not start: " + open(self.log).read()[-300:])
            if subprocess.run([self.program, "version"], capture_output=True, env=dict(os.environ, **self.environment)).returncode == 0:
                break
            time.sleep(0.1)
        archive = self.root + "/base.tar"
        quiet("skopeo", "--insecure-policy", "copy", "--quiet", "oci:" + image, f"docker-archive:{archive}:base:latest")
        Run(self.program, "load", "--input", archive, environment=self.environment)
        os.unlink(archive)
        self.context = place("context-docker")
        os.makedirs(self.context, exist_ok=True)

    def run(self, *words):
        self.number += 1
        write_steps(self.context, "base:latest", self.number, words)
        return Run(self.program, "build", "--quiet", "--network", "host", "--tag", "made", self.context, environment=self.environment)

    @staticmethod
    def control_groups():
        return set(glob.glob("/sys/fs/cgroup/docker") + glob.glob("/sys/fs/cgroup/*/docker"))

    def remove(self):
        self.process.terminate()
        self.process.wait()
        for group in self.control_groups() - self.groups_before:
            for folder, *_ in os.walk(group, topdown=False):
                os.rmdir(folder)
        for point, is_new in self.mounts:
            subprocess.run(["umount", "--lazy", point], check=True)
            if is_new:
                os.rmdir(point)
        for path in (self.root, self.context):
            shutil.rmtree(path, ignore_errors=True)


# --- an image that is there -----------------------------------------------------------------------------------------

@case("build")
def look_at_an_image(rounds):
    """an image that is there"""
    layout = place("looked-at")
    shutil.copytree(tools.Image("layers-10", "--layers", "10").layout, layout)
    with Registry() as registry:
        reference = f"docker://{registry.host}/base:1"
        varve("push", layout + ":latest", reference, environment=registry.environment)
        bundle = place("there")

        def ours():
            try:
                return varve("unpack", "--image", reference, bundle, environment=registry.environment)
            finally:
                tools.remove_bundle(bundle)

        def inspect():
            return Run("skopeo", "inspect", "--raw", reference, environment=registry.environment)

        def inspect_all():
            return Run("skopeo", "inspect", reference, environment=registry.environment)

        # The first fetches it.
        ours()
        counts = []
        for contestant in (ours, inspect, inspect_all):
            before = len(registry.requests())
            contestant()
            counts.append(len(registry.requests()) - before)
        ours_runs, raw, whole = take_turns(rounds * 10, ours, inspect, inspect_all)
        time_of_ours = milliseconds(ours_runs)
        for runs, words, requests in ((raw, "skopeo inspect --raw", counts[1]), (whole, "skopeo inspect", counts[2])):
            theirs = milliseconds(runs)
            row("unpack of an image in a registry, there already", time_of_ours, f"{words}, {requests} requests", theirs,
                time_of_ours / theirs, "≤ 100 ms more", time_of_ours <= theirs + 100, kind="part", runs=spread(ours_runs), other_runs=spread(runs))
        row("… requests", counts[0], "", None, None, "≤ 2", counts[0] <= 2, unit="")
    finish(layout)
