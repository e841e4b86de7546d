"""One thread of zlib at level 6, gzip framing, over a file, to nowhere: deflate.py FILE"""

import sys
import zlib

deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
with open(sys.argv[1], "rb", buffering=0) as file, open("/dev/null", "wb", buffering=0) as null:
    while piece := file.read(1 << 20):
        null.write(deflate.compress(piece))
    null.write(deflate.flush())
