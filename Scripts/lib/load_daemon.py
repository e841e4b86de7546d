"""The processes of Scripts/load --daemon: load_daemon.py VARVE SCRATCH CONTAINERD_TREE BASE [--seconds N] [--processes N] [--seed S]

BASE is an archive with the image example.org/base:latest, which runs. A Docker listens at docker.sock of SCRATCH.
"""

import os
import sys

sys.dont_write_bytecode = True

from daemon_world import Containerd, Mounted, archive_image, with_layer
from load import Load, Worker
from store_world import Wrong, must, read_tree, require_equal, run

BASE = "example.org/base:latest"
LAYER = "application/vnd.oci.image.layer.v1."


class Client(Worker):
    """A process that uses the store through containerd. What it makes has names of its own, and layers and chains that others have, too."""

    def __init__(self, number, campaign):
        super().__init__(number, campaign.options, campaign.world, campaign.models)
        self.containerd = campaign.containerd
        self.scratch = campaign.scratch
        self.image = None
        self.serial = 0

    def ask(self, what, command, allowed=()):
        """Runs a client that must end well, or with one of the messages in `allowed`."""
        result = run(command, env=self.containerd.environment)
        self.counts[what] += 1
        if result.returncode == 0:
            return result.stdout
        if any(words in result.stderr for words in allowed):
            self.counts["right failures"] += 1
            return None
        raise Wrong(f"{' '.join(command)} ended with {result.returncode}: {result.stderr}{result.stdout}")

    def new_name(self, letter):
        self.serial += 1
        return f"{letter}{self.number}-{self.serial}"

    def give_up(self):
        """Removes all that it has."""


class ContainerdClient(Client):
    """By ctr: it imports and removes an image, and makes, writes to, commits, compares and removes snapshots."""

    def __init__(self, number, campaign):
        super().__init__(number, campaign)
        # Of committed snapshots, the oldest first: name to tree, and to the parent of those that it made.
        self.committed = {}
        self.parents = {}

    def ctr(self, what, *words, allowed=()):
        return self.ask(what, self.containerd.ctr_command(*words), allowed)

    def step(self):
        if self.image is None:
            model = self.random.choice(self.models)
            self.image = f"example.org/w{self.number}:latest"
            archive = f"{self.scratch}/w{self.number}.tar"
            archive_image(self.layout, model.tag, self.image, archive)
            self.ask("import", self.containerd.import_command(archive))
            self.committed = {model.chain_names[-1].replace("-", ":", 1): model.tree}
            self.top = next(iter(self.committed))
            return
        what = self.random.choice(("change", "change", "change", "look", "usage", "drop", "run", "remove"))
        name = self.random.choice(sorted(self.committed))
        if what == "change":
            self.change(name)
        elif what == "look":
            self.look(name)
        elif what == "usage":
            self.ctr("usage", "snapshots", "usage", name)
        elif what == "drop":
            if name != self.top and name not in self.parents.values():
                self.drop(name)
        elif what == "run":
            # By its exit code: ctr now and then loses what a container prints at its very end.
            self.ctr("run", "run", "--rm", "--snapshotter", "varve", "--runc-root", f"{self.scratch}/runc", BASE,
                     self.new_name("r"), "sh", "-c", 'test "$(grep -c "^1 2$" /data/1/2)" = 50')
        else:
            self.give_up()

    def drop(self, name):
        self.ctr("snapshots rm", "snapshots", "rm", name)
        del self.committed[name], self.parents[name]

    def look(self, name):
        """A container made of what was committed would see just that."""
        key = self.new_name("l")
        self.ctr("prepare", "snapshots", "prepare", key, name)
        with Mounted(self.containerd, key) as root:
            require_equal(f"a snapshot of {name}", read_tree(root), self.committed[name])
        self.ctr("snapshots rm", "snapshots", "rm", key)

    def change(self, parent):
        key = self.new_name("k")
        self.ctr("prepare", "snapshots", "prepare", key, parent)
        with Mounted(self.containerd, key) as root:
            with open(f"{root}/edit-{self.random.randrange(3)}", "ab") as file:
                file.write(self.random.randbytes(self.random.choice((5, 5000, 50_000))))
            tree = read_tree(root)
        name = self.new_name("c")
        self.ctr("commit", "snapshots", "commit", name, key)
        if parent != self.top:
            # ctr compares with a view whose name is the parent's: of those that are its own alone.
            layer = f"{self.scratch}/w{self.number}-layer"
            command = self.containerd.ctr_command("snapshots", "diff", "--media-type", LAYER + "tar", parent, name)
            self.ask("diff", ["sh", "-euc", 'exec >"$0"; exec "$@"', layer, *command])
            require_equal(f"the layer between {parent} and {name}", with_layer(self.committed[parent], layer), tree)
        self.committed[name] = tree
        self.parents[name] = parent

    def give_up(self):
        if self.image is None:
            return
        for name in reversed(list(self.parents)):
            self.drop(name)
        self.ctr("images rm", "images", "rm", *self.random.choice(([], ["--sync"])), self.image)
        self.image = None


class DockerClient(Client):
    """By docker: it loads, builds, runs, commits, saves and removes images."""

    def docker(self, what, *words, allowed=()):
        return self.ask(f"docker {what}", ["docker", "--host", f"unix://{self.scratch}/docker.sock", *words], allowed)

    def step(self):
        if self.image is None:
            self.build()
            return
        what = self.random.choice(("build", "run", "commit", "save", "prune", "remove"))
        if what == "build":
            self.build()
        elif what == "run":
            self.read(self.image)
        elif what == "commit":
            name = self.new_name("container")
            self.text += "committed\n"
            self.docker("run", "run", "--name", name, "--network", "host", self.image, "sh", "-c", "echo committed >>/text")
            self.docker("commit", "commit", name, self.image)
            self.docker("rm", "rm", name)
            self.read(self.image)
        elif what == "save":
            archive = f"{self.scratch}/w{self.number}.tar"
            self.docker("save", "save", "--output", archive, self.image)
            self.docker("rmi", "rmi", "--force", self.image)
            self.docker("load", "load", "--quiet", "--input", archive)
            self.read(self.image)
        elif what == "prune":
            self.docker("builder prune", "builder", "prune", "--all", "--force")
        else:
            self.give_up()

    def build(self):
        self.image = f"w{self.number}:latest"
        context = f"{self.scratch}/w{self.number}"
        os.makedirs(context, exist_ok=True)
        self.text = self.new_name("text ") + "\n"
        with open(f"{context}/text", "w") as file:
            file.write(self.text)
        self.text += "of a step\n"
        with open(f"{context}/Dockerfile", "w") as file:
            file.write(f"FROM {BASE}\nCOPY text /text\nRUN echo of a step >>/text && rm -r /data/{self.random.randrange(10)}\n")
        # A `builder prune` of another process may take what BuildKit needs, on overlayfs just as well. The next try gets it anew.
        while self.docker("build", "build", "--quiet", "--network", "host", "--tag", self.image, context,
                          allowed=("failed to solve: not found",)) is None:
            pass
        self.read(self.image)

    def read(self, image):
        output = self.docker("run", "run", "--rm", "--network", "host", image, "cat", "/text")
        if output != self.text:
            raise Wrong(f"a container of {image} printed {output!r}, not {self.text!r}")

    def give_up(self):
        if self.image is not None:
            self.docker("rmi", "rmi", "--force", self.image)
            self.image = None


class LoadDaemon(Load):
    name = "load --daemon"

    @classmethod
    def add_options(cls, parser):
        super().add_options(parser)
        parser.add_argument("containerd")
        parser.add_argument("base")
        parser.set_defaults(processes=10)

    def __init__(self, options):
        super().__init__(options)
        self.world = f"{self.scratch}/volume"
        self.store = f"{self.world}/store"
        self.containerd = Containerd(self.scratch, self.world, self.store, options.containerd)

    def make(self):
        self.make_images()
        self.docker = ["docker", "--host", f"unix://{self.scratch}/docker.sock"]
        must(self.containerd.import_command(self.options.base), env=self.containerd.environment)
        must([*self.docker, "load", "--quiet", "--input", self.options.base])

    def worker(self, number):
        """Of ten processes four go by ctr, four by docker, and two are `varve`."""
        kind = number % 10
        if kind < 4:
            return ContainerdClient(number, self)
        if kind < 8:
            return DockerClient(number, self)
        worker = super().worker(number)
        # Else they do twenty times as much as the others.
        worker.pause = 0.5
        return worker

    def check(self):
        super().check()
        self.what = "removing all"
        for number in range(self.options.processes):
            bundle = f"{self.world}/bundles/{number}"
            if os.path.exists(bundle):
                self.must("bundle", "rm", bundle)
        for name in self.must("snapshot", "ls", "-q").split():
            self.must("snapshot", "rm", name)
        must([*self.docker, "system", "prune", "--all", "--force", "--volumes"])
        must([*self.docker, "builder", "prune", "--all", "--force"])
        self.containerd.forget_all()
        self.containerd.require_empty(lambda: self.must("store", "gc", "-q"))

    def must(self, *arguments):
        return must([self.varve, "--log", "warn", *arguments], env=self.environment_of(self.store))


if __name__ == "__main__":
    LoadDaemon.main()
