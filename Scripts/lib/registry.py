"""A registry on loopback that serves one image and writes down what it was asked for.

    registry.py LAYOUT LOG PORTFILE CERTIFICATE

The image with the tag "latest" of the OCI layout LAYOUT is there under any name. A line is added to LOG for each request, as
"GET /v2/test/blobs/sha256:…". The port is written to PORTFILE once it listens. CERTIFICATE holds the private key too.
"""

import http.server
import json
import os
import re
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(log, "a") as file:
            file.write(f"{self.command} {self.path}\n")
        if self.path == "/v2/":
            return self.answer(200, b"{}", "application/json")
        match = re.fullmatch(r"/v2/[a-z0-9/]+/(manifests|blobs)/([a-z0-9:]+)", self.path.partition("?")[0])
        if not match:
            return self.answer(404, b"{}", "application/json")
        kind, name = match.groups()
        digest = name if name.startswith("sha256:") else root["digest"]
        path = os.path.join(layout, "blobs", digest.replace(":", "/"))
        if not os.path.exists(path):
            return self.answer(404, b"{}", "application/json")
        with open(path, "rb") as file:
            content = file.read()
        media_type = "application/octet-stream"
        if kind == "manifests":
            media_type = json.loads(content).get("mediaType") or root["mediaType"]
        self.answer(200, content, media_type, digest)

    do_HEAD = do_GET

    def answer(self, status, content, media_type, digest=None):
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


layout, log, port_file, certificate = sys.argv[1:]
with open(os.path.join(layout, "index.json")) as index:
    root = next(manifest for manifest in json.load(index)["manifests"]
                if manifest.get("annotations", {}).get("org.opencontainers.image.ref.name") == "latest")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(port_file + ".new", "w") as file:
    file.write(str(server.server_address[1]))
os.rename(port_file + ".new", port_file)
server.serve_forever()
