"""The processes of Scripts/load: load.py VARVE WORLD [--seconds N] [--processes N] [--seed S]"""

import collections
import multiprocessing
import os
import random
import sys
import time

sys.dont_write_bytecode = True

from campaign import Campaign
from store_world import Wrong, check_layout, make_layout, must, read_tree, require_equal, run


class Worker:
    """One process: bundles and tags of its own, a store and snapshots shared with all."""

    def __init__(self, number, options, world, models):
        self.number = number
        self.options = options
        self.world = world
        self.models = models
        self.random = random.Random(options.seed * 1000 + number)
        self.bundle = f"{world}/bundles/{number}"
        self.layout = f"{world}/layout{number % 4}"
        self.environment = {**os.environ, "VARVE_STORE": f"{world}/store", "XDG_CONFIG_HOME": world}
        # Seconds between two commands.
        self.pause = 0
        self.tree = None
        self.edits = 0
        self.counts = collections.Counter()

    def varve(self, *arguments, allowed=()):
        """Runs a command that must end well, or with one of the messages in `allowed`."""
        result = run([self.options.varve, *arguments], env=self.environment)
        self.counts[arguments[0] if arguments[0] not in ("store", "snapshot") else " ".join(arguments[:2])] += 1
        if result.returncode == 0:
            if result.stderr:
                raise Wrong(f"varve {' '.join(arguments)} says: {result.stderr}")
            return result.stdout
        if any(words in result.stderr for words in allowed):
            self.counts["right failures"] += 1
            return None
        raise Wrong(f"varve {' '.join(arguments)} ended with {result.returncode}: {result.stderr}")

    def step(self):
        if self.tree is None:
            model = self.random.choice(self.models)
            self.varve("unpack", "--image", f"{self.layout}:{model.tag}", self.bundle)
            self.tree = read_tree(f"{self.bundle}/rootfs")
            require_equal("a new bundle", self.tree, model.tree)
            return
        what = self.random.choice(("diff", "edit", "repack", "snapshot", "restore", "gc", "rm", "rm", "forget"))
        if what == "diff":
            changed = self.varve("diff", self.bundle).splitlines()
            if bool(changed) != bool(self.edits):
                raise Wrong(f"diff shows {changed} after {self.edits} edits")
        elif what == "edit":
            self.edits += 1
            with open(f"{self.bundle}/rootfs/edit-{self.number}-{self.random.randrange(3)}", "ab") as file:
                file.write(self.random.randbytes(self.random.choice((5, 5000, 50_000))))
            self.tree = read_tree(f"{self.bundle}/rootfs")
        elif what == "repack":
            tag = f"w{self.number}"
            self.varve("repack", "--image", f"{self.layout}:{tag}", self.bundle)
            other = f"{self.bundle}-again"
            self.varve("unpack", "--image", f"{self.layout}:{tag}", other)
            require_equal("an image repacked", read_tree(f"{other}/rootfs"), self.tree)
            self.varve("bundle", "rm", other)
        elif what == "snapshot":
            # Names of all: somebody else may have taken it.
            self.varve("snapshot", "create", self.bundle, f"s{self.random.randrange(6)}",
                       allowed=("there is a snapshot",))
        elif what == "restore":
            other = f"{self.bundle}-restored"
            if self.varve("snapshot", "restore", f"s{self.random.randrange(6)}", other,
                          allowed=("has no snapshot",)) is not None:
                read_tree(f"{other}/rootfs")
                self.varve("diff", other)
                self.varve("bundle", "rm", other)
        elif what == "gc":
            self.varve("store", "gc", *self.random.choice(([], ["--sync"], ["--dry-run"])))
        elif what == "forget":
            self.varve("snapshot", "rm", f"s{self.random.randrange(6)}",
                       allowed=("has no snapshot", "is not there (any more)"))
        else:
            require_equal("a bundle", read_tree(f"{self.bundle}/rootfs"), self.tree)
            self.varve("bundle", "rm", self.bundle)
            self.tree = None
            self.edits = 0

    def run(self, results):
        end = time.monotonic() + self.options.seconds
        failure = None
        try:
            while time.monotonic() < end:
                self.step()
                time.sleep(self.pause)
        except (Wrong, OSError) as error:
            failure = f"process {self.number}: {error}"
        results.put((failure, self.counts))


class Load(Campaign):
    name = "load"

    @classmethod
    def add_options(cls, parser):
        parser.add_argument("--seconds", type=int, default=60)
        parser.add_argument("--processes", type=int, default=16)

    def __init__(self, options):
        super().__init__(options)
        self.world = self.scratch
        self.store = f"{self.world}/store"

    def make(self):
        must([self.varve, "store", "init", self.store])
        self.make_images()

    def make_images(self):
        os.mkdir(f"{self.world}/bundles")
        for number in range(4):
            self.models = make_layout(f"{self.world}/layout{number}")

    def worker(self, number):
        return Worker(number, self.options, self.world, self.models)

    def run(self):
        self.what = "working"
        results = multiprocessing.Queue()
        workers = [
            multiprocessing.Process(target=self.worker(number).run, args=(results,))
            for number in range(self.options.processes)]
        for worker in workers:
            worker.start()
        failures = []
        for _ in workers:
            failure, some = results.get()
            self.counts.update(some)
            if failure:
                failures.append(failure)
        for worker in workers:
            worker.join()
        if failures:
            raise Wrong("\n".join(failures))
        self.check()

    def check(self):
        self.what = "checking the store"
        for number in range(4):
            check_layout(f"{self.world}/layout{number}", {})
        layouts = [word for number in range(4) for word in ("--layout", f"{self.world}/layout{number}")]
        found = must([self.varve, "--log", "error", "store", "check", "--deep", *layouts],
                     env=self.environment_of(self.store))
        left = [f"{place}/{name}" for place in ("work", "locks") for name in os.listdir(f"{self.store}/{place}")]
        if found or left:
            raise Wrong(f"store check: {found}; left over: {left}")

    def summary(self):
        return f"{self.options.processes} processes for {self.options.seconds} s, {super().summary()}"


if __name__ == "__main__":
    Load.main()
