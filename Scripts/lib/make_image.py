"""The second half of Scripts/make-image: make_image.py KIND LAYOUT TAG WORK NUMBER VARIANT, of which the last two may be empty"""

import sys

sys.dont_write_bytecode = True

import debian_image
import synthetic_image

kind, layout, tag, work, number, variant = sys.argv[1:]
if kind == "debian":
    debian_image.debian(layout, tag, work)
elif kind == "bench":
    synthetic_image.bench(layout, tag, float(number or 1), int(variant or 0))
elif kind == "layers":
    synthetic_image.small(layout, tag, int(number or 3))
elif kind == "file":
    synthetic_image.one_file(layout, tag, int(number))
elif kind == "files":
    synthetic_image.many_files(layout, tag, int(number))
else:
    sys.exit(f"make_image.py: no kind of image is called {kind}")
