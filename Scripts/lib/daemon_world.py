"""A containerd and a varve-containerd beside it, as the campaigns start, end and ask them.

It shares no code with Varve.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import time

from containerd_image import read, write_archive
from store_world import Wrong, must, read_tree, run

ID = "campaign"
# Seconds until a daemon that was started must serve. It does within one where nothing else runs.
LONGEST_START = 60
# Seconds for what is deleted behind calls to be gone.
LONGEST_REMOVAL = 60
# Seconds after which what came since is removed too.
AGAIN = 5


class Containerd:
    """A containerd at containerd.sock of the scratch directory, and what a varve-containerd with the ID above has for it in a store.

    volume: where containerd's root is."""

    def __init__(self, scratch, volume, store, containerd_tree):
        self.scratch = scratch
        self.volume = volume
        self.store = store
        self.place = f"{store}/containerd/{ID}"
        self.blobs = f"{volume}/containerd/io.containerd.content.v1.content/blobs/sha256"
        self.binaries = f"{containerd_tree}/usr/bin"
        self.address = f"{scratch}/containerd.sock"
        self.environment = {**os.environ, "PATH": f"{self.binaries}:{os.environ['PATH']}"}
        self.environment.pop("VARVE_STOP_AT", None)
        self.environment["CONTAINERD_NAMESPACE"] = "default"

    def ctr_command(self, *words):
        """The words that run `ctr` with them; its command `snapshots` is about varve's."""
        if words[0] == "snapshots":
            words = ("snapshots", "--snapshotter", "varve", *words[1:])
        return [f"{self.binaries}/ctr", "--address", self.address, *words]

    def import_command(self, archive):
        return self.ctr_command("images", "import", "--snapshotter", "varve", archive)

    def try_ctr(self, *words):
        return run(self.ctr_command(*words), env=self.environment)

    def ctr(self, *words):
        return must(self.ctr_command(*words), env=self.environment)

    def ctr_in(self, namespace, *words):
        return must(self.ctr_command(*words), env={**self.environment, "CONTAINERD_NAMESPACE": namespace})

    def images(self, namespace="default"):
        return set(self.ctr_in(namespace, "images", "ls", "-q").split())

    def diff_ids(self, image, namespace):
        """Those of the layers of an image, from its documents on the disk."""
        lines = self.ctr_in(namespace, "images", "ls", f"name=={image}").splitlines()
        digest = next(line.split()[2] for line in lines if line.startswith(image + " "))

        def blob(digest):
            with open(f"{self.blobs}/{digest.partition(':')[2]}") as file:
                return json.load(file)
        document = blob(digest)
        if "manifests" in document:
            # Not what BuildKit says of the build.
            document = blob(next(
                entry["digest"] for entry in document["manifests"] if entry.get("platform", {}).get("os") != "unknown"))
        return blob(document["config"]["digest"])["rootfs"]["diff_ids"]

    def snapshots(self, namespace="default"):
        """Name to kind, of those that containerd knows."""
        head, *lines = self.ctr_in(namespace, "snapshots", "ls").splitlines()
        # Names may hold spaces.
        return {line[:head.index("PARENT")].strip(): line.split()[-1] for line in lines}

    def tree_of(self, name, namespace="default"):
        """What a container made of a committed snapshot would see."""
        self.ctr_in(namespace, "snapshots", "prepare", "look", name)
        with Mounted(self, "look", namespace) as root:
            tree = read_tree(root)
        self.ctr_in(namespace, "snapshots", "rm", "look")
        return tree

    def records(self):
        """Of all snapshots that varve-containerd has, from the disk."""
        records = []
        for name in os.listdir(f"{self.place}/records"):
            if name.startswith("."):
                continue
            try:
                with open(f"{self.place}/records/{name}") as file:
                    records.append(json.load(file))
            except FileNotFoundError:
                continue
        return records

    def trees(self):
        return set(os.listdir(f"{self.place}/trees"))

    def blob_names(self):
        """Of containerd's content store. It makes the folder when it has the first."""
        return os.listdir(self.blobs) if os.path.exists(self.blobs) else []

    def forget_all(self):
        """Has containerd remove all that it has."""
        for namespace in self.ctr("namespaces", "ls", "-q").split():
            for image in self.images(namespace):
                self.ctr_in(namespace, "images", "rm", image)
            for lease in self.ctr_in(namespace, "leases", "ls", "-q").split():
                self.ctr_in(namespace, "leases", "rm", lease)
        # Those of ctr. Not `snapshots rm`: it refuses what had a view that containerd collected, as it goes on counting that as a child.
        for name in self.snapshots():
            if not name.startswith(("sha256:", "extract-")):
                self.ctr("snapshots", "label", name, "containerd.io/gc.root=")
        # containerd does not try again what it could not remove because one of them was killed, until something else of the kind is removed.
        self.ctr("snapshots", "prepare", "removed")
        self.ctr("snapshots", "rm", "removed")
        must(["sh", "-euc", '"$@" </dev/null', "sh", *self.ctr_command("content", "ingest", "removed")], env=self.environment)
        self.ctr("content", "rm", f"sha256:{hashlib.sha256().hexdigest()}")
        # What waits until it has collected.
        self.ctr("leases", "rm", "--sync", self.ctr("leases", "create").strip())

    def left(self):
        """What is there of snapshots, their trees, chains and blobs, and of what is being made."""
        left = [record["key"] for record in self.records()]
        left += [f"{place}/{name}" for place in ("work", "locks", "chains") for name in os.listdir(f"{self.store}/{place}")]
        left += [f"blobs/{name}" for name in self.blob_names()]
        return left + [f"trees/{name}" for name in self.trees() - {"0"}]

    def require_empty(self, collect):
        """After all was removed. collect: has the store delete the chains that nobody needs."""
        start = time.monotonic()
        forget_next = start + AGAIN
        while True:
            collect()
            if not (left := self.left()):
                return
            now = time.monotonic()
            if now > start + LONGEST_REMOVAL:
                raise Wrong(f"left over after all was removed: {left}; containerd has {self.snapshots()}")
            if now > forget_next:
                # BuildKit writes the history of a build down some time after its end.
                self.forget_all()
                forget_next = now + AGAIN
            time.sleep(0.1)


class Daemons(Containerd):
    """The two daemons, with containerd's configuration in config.toml of the scratch directory and its root below `volume`. The socket of
    varve-containerd is held here, as systemd holds it: whoever connects while it is not there waits."""

    def __init__(self, scratch, volume, store, containerd_tree, program):
        super().__init__(scratch, volume, store, containerd_tree)
        self.program = program
        self.daemon = None
        self.containerd = None
        self.dockerd = None
        # What a Docker keeps beside containerd: on disk, and in memory.
        self.docker_data = f"{volume}/docker"
        self.docker_state = f"{scratch}/places/run/docker"
        os.mkdir(f"{scratch}/daemon", 0o700)
        os.mkdir(f"{scratch}/state")
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(f"{scratch}/daemon/varve.sock")
        self.listening.listen(128)

    def start_daemon(self, stop_at=0):
        """stop_at: the durability point at which it stops itself."""
        environment = {**self.environment, **({"VARVE_STOP_AT": str(stop_at)} if stop_at else {})}
        with open(f"{self.scratch}/varve.log", "ab") as log:
            self.daemon = subprocess.Popen(
                ["sh", "-c", 'eval "exec 3<&$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"', str(self.listening.fileno()),
                 self.program, "--root", self.store, "--id", ID, "--containerd", self.address, "--log-level", "debug"],
                env=environment, pass_fds=(self.listening.fileno(),), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_containerd(self):
        with open(f"{self.scratch}/containerd.log", "ab") as log:
            self.containerd = subprocess.Popen(
                [f"{self.binaries}/containerd", "--config", f"{self.scratch}/config.toml"], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_docker(self):
        """Starts a Docker, with the configuration in docker.json of the scratch directory, if none runs, and waits until it serves."""
        if self.dockerd is None or self.dockerd.poll() is not None:
            with open(f"{self.scratch}/docker.log", "ab") as log:
                self.dockerd = subprocess.Popen(
                    ["dockerd", "--config-file", f"{self.scratch}/docker.json"], env=self.environment,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + LONGEST_START
        # Which asks containerd: Docker waits before it connects again to one that was started anew.
        while (result := run(self.docker_command("image", "ls"), env=self.environment)).returncode:
            if self.dockerd.poll() is not None or time.monotonic() > end:
                raise Wrong(f"Docker does not serve: {result.stderr}")
            time.sleep(0.05)

    def docker_command(self, *words):
        return ["docker", "--host", f"unix://{self.scratch}/varve.sock", *words]

    def docker(self, *words):
        return must(self.docker_command(*words), env=self.environment)

    def end_docker(self):
        """And forgets what it knew: containerd has its images."""
        self.kill(self.dockerd)
        self.dockerd = None
        self.lose_memory()
        shutil.rmtree(self.docker_data, ignore_errors=True)

    def lose_memory(self):
        """What a Docker that does not run any more had in files that do not outlive the host."""
        for name in os.listdir(self.docker_state):
            shutil.rmtree(f"{self.docker_state}/{name}")
        for name in ("varve.sock", "varve.pid"):
            if os.path.lexists(f"{self.scratch}/{name}"):
                os.unlink(f"{self.scratch}/{name}")

    def wait_until_serving(self):
        """Until snapshots can be listed through both."""
        end = time.monotonic() + LONGEST_START
        while True:
            result = self.try_ctr("snapshots", "ls")
            if result.returncode == 0:
                return
            for process, name in ((self.daemon, "varve-containerd"), (self.containerd, "containerd")):
                if process.poll() is not None:
                    raise Wrong(f"{name} ended by itself with {process.returncode}")
            if time.monotonic() > end:
                raise Wrong(f"they do not serve within {LONGEST_START} s: {result.stderr}")
            time.sleep(0.05)

    def is_stopped(self):
        """Whether varve-containerd has stopped itself at a durability point."""
        with open(f"/proc/{self.daemon.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")

    @staticmethod
    def kill(process):
        if process is not None:
            process.kill()
            process.wait()

    def lose_power(self):
        """What ends with the host: the daemons, containers with their shims, mounts, and what lies in memory."""
        for process in (self.dockerd, self.containerd, self.daemon):
            self.kill(process)
        self.lose_memory()
        for shim in self.shims():
            os.kill(shim, signal.SIGKILL)
        # Of containers, and of a build that was copying.
        for place in reversed(mounts_of(self.volume)):
            must(["umount", place])
        shutil.rmtree(f"{self.scratch}/state")
        os.mkdir(f"{self.scratch}/state")

    def shims(self):
        """Processes that containerd of this place left."""
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/cmdline", "rb") as file:
                        words = file.read().split(b"\0")
                except OSError:
                    continue
                if b"shim" in words[0] and self.address.encode() + b".ttrpc" in words + [w + b".ttrpc" for w in words]:
                    yield int(name)

    def end(self):
        for process in (self.dockerd, self.containerd, self.daemon):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    self.kill(process)
        for shim in self.shims():
            os.kill(shim, signal.SIGKILL)


class Mounted:
    """A snapshot of containerd's, mounted as it says."""

    def __init__(self, daemons, name, namespace="default"):
        self.daemons = daemons
        self.name = name
        self.namespace = namespace
        self.root = f"{daemons.scratch}/mounted-{name.replace('/', '-')}"

    def __enter__(self):
        os.makedirs(self.root, exist_ok=True)
        must(["sh", "-euc", self.daemons.ctr_in(self.namespace, "snapshots", "mounts", self.root, self.name)])
        return self.root

    def __exit__(self, *_):
        must(["umount", self.root])
        os.rmdir(self.root)


def mounts_of(volume):
    """Where else something of a file system is mounted than at `volume`."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[2:5:2] for line in file]
    device = next(device for device, point in mounts if point == volume)
    return [point for other, point in mounts if other == device and point != volume]


def archive_image(layout, tag, name, archive):
    """Writes an image of a layout, by its tag, as an archive in which containerd finds it under the name."""
    index = read(layout, "index.json")
    index["manifests"] = [
        entry for entry in index["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == tag]
    write_archive(layout, archive, name, index)


def with_layer(tree, layer):
    """The tree that the layer, a tar file, makes of a tree of `read_tree`."""
    kinds = {tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    tree = dict(tree)

    def remove(path, itself=True):
        for known in [p for p in tree if p == path and itself or p.startswith(path + b"/")]:
            del tree[known]

    with tarfile.open(layer, errors="surrogateescape") as archive:
        for member in archive:
            path = os.fsencode(os.path.normpath(member.name))
            path = b"" if path == b"." else path
            above, _, name = path.rpartition(b"/")
            if name.startswith(b".wh."):
                remove((above + b"/" if above else b"") + name[4:])
                continue
            kind = kinds[member.type]
            if kind != stat.S_IFDIR:
                remove(path)
            content = None
            if kind == stat.S_IFREG:
                content = hashlib.sha256(archive.extractfile(member).read()).hexdigest()
            elif kind == stat.S_IFLNK:
                content = os.fsencode(member.linkname)
            seconds, _, rest = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
            attributes = tuple(sorted(
                (key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape"))
                for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")))
            mode = 0 if kind == stat.S_IFLNK else member.mode
            tree[path] = (kind, mode, member.uid, member.gid, int(seconds) * 10**9 + int((rest + "0" * 9)[:9]), content, attributes)
    return tree
