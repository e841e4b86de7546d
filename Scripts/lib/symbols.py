"""The symbol graphs of the debug build, for Scripts/check-symbols and Scripts/docs."""
import glob
import json
import os
import subprocess
import sys

# The libraries that are products, and the modules whose types they show.
LIBRARIES = ["Varve", "VarveDriverKit", "VarveDriverTesting", "BtrfsSendStream"]
SHOWN_MODULES = ["VarveSystem", "VarveOCI", "VarveLayers", "VarveStore"]


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def extract(modules, directory, reexported=()):
    """Writes the graphs of the public symbols of modules into a directory."""
    binaries = output("swift", "build", "--show-bin-path").strip()
    target = json.loads(output("swift", "-print-target-info"))["target"]["triple"]
    places = ["Sources/CLibraries/*/module.modulemap", ".build/checkouts/*/Sources/*/include/module.modulemap",
              f"{binaries}/C*.build/module.modulemap"]
    # What plugins need of a module is built a second time, in `NAME-tool.build`.
    folders = {os.path.dirname(path) for place in places for path in glob.glob(place)
               if not os.path.dirname(path).endswith("-tool.build")} | {f"{binaries}/Modules"}
    options = [word for folder in sorted(folders) for word in ("-I", folder)]
    if reexported:
        options.append("-experimental-allowed-reexported-modules=" + ",".join(reexported))
    for module in modules:
        result = subprocess.run(
            ["swift", "symbolgraph-extract", "-module-name", module, "-target", target, "-output-dir", directory,
             "-minimum-access-level", "public", "-skip-synthesized-members", *options], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"no symbol graph of {module}; run swift build --build-tests first:\n{result.stderr}")
