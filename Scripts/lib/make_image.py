"""The second half of Scripts/make-image: make_image.py KIND LAYOUT TAG WORK [NUMBER]"""

import sys

sys.dont_write_bytecode = True

import debian_image
import synthetic_image

kind, layout, tag, work = sys.argv[1:5]
number = sys.argv[5] if len(sys.argv) > 5 else None
if kind == "debian":
    debian_image.debian(layout, tag, work)
elif kind == "bench":
    synthetic_image.bench(layout, tag, float(number or 1))
elif kind == "layers":
    synthetic_image.small(layout, tag, int(number or 3))
elif kind == "file":
    synthetic_image.one_file(layout, tag, int(number))
else:
    sys.exit(f"make_image.py: no kind of image is called {kind}")
