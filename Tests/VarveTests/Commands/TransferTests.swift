import Glibc
import SystemPackage
import TestSupport
import Testing
import Varve
import VarveOCI
import VarveStore
import VarveSystem

@testable import VarveCommands

/// `varve pull` and `push`, and what `unpack` does with an image that is elsewhere.
@Suite struct TransferTests {
    /// A shop with images of two layers in its layout, and a registry.
    final class Market {
        private let workshop: Workshop
        let registry: Registry
        var path: BytePath { workshop.volume.path }
        var store: BytePath { workshop.store }
        var layout: BytePath { workshop.layout }
        func bundle(_ name: String) -> BytePath { workshop.bundle(name) }
        func image(_ tag: String) -> BytePath { workshop.image(tag) }

        func text(_ words: BytePath..., sourceLocation: SourceLocation = #_sourceLocation) -> String {
            let run = workshop.run(words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)", sourceLocation: sourceLocation)
            return run.text
        }

        func expectClean(sourceLocation: SourceLocation = #_sourceLocation) {
            let check = workshop.run(["store", "check"])
            #expect(check.code == 0 && check.output.isEmpty, "\(check)", sourceLocation: sourceLocation)
        }

        init() throws {
            workshop = try Workshop()
            registry = try Registry()
            let shop = self
            try shell("mkdir \"$1/files\"; seq 1 100000 > \"$1/files/numbers\"", shop.path)
            _ = shop.text(
                "insert", "--image", shop.image("empty"), "--tag", "one", shop.path.appending("files"), "/srv"
            )
            _ = shop.text(
                "insert", "--image", shop.image("one"), "--tag", "two", shop.path.appending("files/numbers"),
                "/more")
        }

        /// The command as a process, since skopeo gets its environment.
        func run(_ words: [String], _ variables: [String]? = nil) throws -> CommandResult {
            try runCommand(
                ["env", "VARVE_STORE=\(store)"] + (variables ?? registry.variables)
                    + [try builtProgram("varve")] + words)
        }

        /// Puts a shell script in the place of skopeo.
        ///
        /// - Returns: the variable by which the command finds it.
        func putSkopeo(_ script: String) throws -> String {
            try runSuccessfully(
                [
                    "/bin/sh", "-ec",
                    "mkdir -p \"$1/bin\"; cat > \"$1/bin/skopeo\"; chmod +x \"$1/bin/skopeo\"", "sh",
                    "\(path)",
                ],
                input: Array("#!/bin/sh\n\(script)\n".utf8))
            return "PATH=\(path)/bin:/usr/bin:/bin"
        }

        /// All that lies on the file system, but for the content of chains.
        func names() throws -> [String] {
            try runSuccessfully(["find", "\(path)", "-path", "*/rootfs", "-prune", "-o", "-print"])
                .outputText.split(separator: "\n").map(String.init).filter { !$0.contains("/bin") }.sorted()
        }

        func remote(_ name: String) -> String { "docker://\(registry.host)/\(name)" }
    }

    private func layers(_ requests: some Sequence<String>, _ image: ResolvedImage) -> Int {
        requests.filter { request in image.layers.contains { request.hasSuffix("blobs/\($0.digest)") } }.count
    }

    @Test("What the store has is found by two requests, and no layer is fetched; what it has not, once")
    func trySkip() throws {
        let market = try Market()
        let shop = market
        let image = try ImageLayout.resolve(ImageReference(parsing: shop.image("two")))
        let remote = market.remote("team/two:1")
        let pushed = try market.run(["push", "\(shop.image("two"))", remote])
        #expect(
            pushed.status == 0 && pushed.outputText == "\(image.manifestDescriptor.digest)\n", "\(pushed)")

        // The chain is there from another layout: only manifest and configuration come.
        _ = shop.text("unpack", "--image", shop.image("two"), shop.bundle("a"))
        var before = try market.registry.requests().count
        let skipped = try market.run(["unpack", "--image", remote, "\(shop.bundle("b"))"])
        #expect(skipped.status == 0, "\(skipped)")
        var requests = try market.registry.requests().dropFirst(before)
        #expect(layers(requests, image) == 0 && !requests.isEmpty, "\(requests)")
        let images = shop.store.appending("images")
        #expect(shop.text("ls", "--layout", images) == "")
        #expect(shop.text("diff", shop.bundle("b")) == "")

        // Again: what the name means is asked, and nothing else.
        before = try market.registry.requests().count
        #expect(try market.run(["unpack", "--image", remote, "\(shop.bundle("c"))"]).status == 0)
        requests = try market.registry.requests().dropFirst(before)
        #expect(Array(requests) == ["GET /v2/", "GET /v2/team/two/manifests/1"])

        // Nothing is taken for whole whose layers never came.
        try shell("echo new > \"$1/rootfs/new\"", shop.bundle("b"))
        let made = images.appendingBytes(":made")
        let refused = varve(
            "repack", "--image", made, shop.bundle("b"), variables: ["VARVE_STORE": "\(shop.store)"])
        #expect(refused.code == 4, "\(refused)")
        #expect(refused.errorText.contains("lacks 2 of the 2 layers"), "\(refused)")
        // By the digest: the name may mean another image by now.
        let digest = image.manifestDescriptor.digest
        #expect(
            refused.errorText.hasSuffix(
                "bring them with: varve pull \(market.remote("team/two"))@\(digest)\n"),
            "\(refused)")
        #expect(shop.text("ls", "--layout", images) == "")
        let unsent = try market.run(["push", "\(images)@\(digest)", market.remote("x")])
        #expect(unsent.status == 4 && unsent.errorText.contains("varve pull \(remote)"), "\(unsent)")

        // Then they come, each once, and it is.
        before = try market.registry.requests().count
        let pulled = try market.run(["pull", remote])
        let name = "\(market.registry.host)/team/two:1"
        #expect(pulled.status == 0 && pulled.outputText == "\(images):\(name)\n", "\(pulled)")
        #expect(layers(try market.registry.requests().dropFirst(before), image) == 2)
        #expect(shop.text("ls", "--layout", images) == "\(name)\n")
        #expect(try LayoutChecker.findings(images) == [])
        _ = shop.text("repack", "--image", made, shop.bundle("b"))
        before = try market.registry.requests().count
        #expect(try market.run(["pull", remote]).status == 0)
        #expect(
            Array(try market.registry.requests().dropFirst(before)) == [
                "GET /v2/", "GET /v2/team/two/manifests/1",
            ])
        #expect(try market.run(["push", "\(made)", market.remote("made")]).status == 0)
        shop.expectClean()
    }

    @Test("An image comes and goes by every transport, with tags and digests, and is the same")
    func transports() throws {
        let market = try Market()
        let shop = market
        let image = try ImageLayout.resolve(ImageReference(parsing: shop.image("two")))
        _ = shop.text("unpack", "--image", shop.image("two"), shop.bundle("reference"))
        let rootfs = try FileDescriptor.workingDirectory.openDirectory(
            shop.bundle("reference").appending("rootfs"))
        let there = shop.path
        let places = [
            "docker-archive:\(there)/docker.tar:web:1", "oci-archive:\(there)/oci.tar", "dir:\(there)/dir",
            "oci:\(there)/oci:x", "containers-storage:[vfs@\(there)/kept+\(there)/run]localhost/web:1",
            market.remote("web"),
            market.remote("web@\(image.manifestDescriptor.digest)"),
        ]
        for (number, place) in places.enumerated() {
            if !place.contains("@sha256:") {
                let pushed = try market.run(["push", "\(shop.image("two"))", place])
                #expect(pushed.status == 0, "\(place): \(pushed)")
            }
            // Into a layout that is yet to be made, and straight into a bundle of each kind.
            let layout = there.appending("layout\(number)")
            let pulled = try market.run(["pull", place, "\(layout):here"])
            #expect(pulled.status == 0 && pulled.outputText == "\(layout):here\n", "\(place): \(pulled)")
            #expect(try LayoutChecker.findings(layout) == [])
            let found = try ImageLayout.resolve(ImageReference(path: layout, tag: "here"))
            #expect(found.diffIDs == image.diffIDs)
            for driver in ["btrfs", "directory"] {
                let bundle = shop.bundle("\(driver)\(number)")
                let unpacked = try market.run(["unpack", "--driver", driver, "--image", place, "\(bundle)"])
                #expect(unpacked.status == 0, "\(place): \(unpacked)")
                let made = try FileDescriptor.workingDirectory.openDirectory(bundle.appending("rootfs"))
                #expect(try TreeCompare.differences(rootfs.fd, made.fd) == [], "\(place)")
            }
        }
        // As buildah and Podman see it.
        let images = try runSuccessfully([
            "buildah", "--root", "\(there)/kept", "--runroot", "\(there)/run", "--storage-driver", "vfs",
            "images",
            "--format", "{{.Name}}:{{.Tag}}",
        ]).outputText
        #expect(images == "localhost/web:1\n")
        // Archives and directories by their path alone.
        for (number, name) in ["docker.tar", "oci.tar", "dir"].enumerated() {
            let run = try market.run([
                "unpack", "--image", "\(there)/\(name)", "\(shop.bundle("file\(number)"))",
            ])
            #expect(run.status == 0, "\(run)")
        }
        #expect(try LayoutChecker.findings(shop.store.appending("images")) == [])
        shop.expectClean()
    }

    @Test("An image for several platforms is pushed whole and pulled for one")
    func platforms() throws {
        let market = try Market()
        let shop = market
        let multi = shop.path.appending("multi")
        try shell(
            """
            umoci config --image "$1/L:one" --tag arm --architecture arm64
            umoci config --image "$1/L:two" --tag amd --architecture amd64
            cp -a "$1/L" "$1/multi"; cd "$1/multi"
            python3 - <<'END'
            import json, hashlib
            index = json.load(open("index.json"))
            tags = {e["annotations"]["org.opencontainers.image.ref.name"]: e for e in index["manifests"]}
            entries = [dict(mediaType=tags[t]["mediaType"], digest=tags[t]["digest"], size=tags[t]["size"],
                platform=dict(os="linux", architecture=a)) for t, a in (("arm", "arm64"), ("amd", "amd64"))]
            text = json.dumps(dict(schemaVersion=2, mediaType="application/vnd.oci.image.index.v1+json", manifests=entries)).encode()
            digest = hashlib.sha256(text).hexdigest()
            open("blobs/sha256/" + digest, "wb").write(text)
            index["manifests"] = [dict(mediaType="application/vnd.oci.image.index.v1+json", digest="sha256:" + digest,
                size=len(text), annotations={"org.opencontainers.image.ref.name": "all"})]
            json.dump(index, open("index.json", "w"))
            END
            """, shop.path)
        let remote = market.remote("multi")
        let pushed = try market.run(["push", "\(multi):all", remote])
        #expect(pushed.status == 0, "\(pushed)")
        for (platform, layers) in [("linux/arm64", 1), ("linux/amd64", 2)] {
            let layout = shop.path.appending(BytePath("of-\(layers)"))
            let pulled = try market.run(["pull", "--platform", platform, remote, "\(layout):x"])
            #expect(pulled.status == 0, "\(pulled)")
            let image = try ImageLayout.resolve(ImageReference(path: layout, tag: "x"))
            #expect(
                image.layers.count == layers && "\(image.config.platform.map { "\($0)" } ?? "")" == platform)
            let bundle = shop.bundle("b\(layers)")
            #expect(
                try market.run(["unpack", "--platform", platform, "--image", remote, "\(bundle)"]).status == 0
            )
        }
        let none = try market.run(["pull", "--platform", "linux/s390x", remote, "\(shop.path)/none:x"])
        #expect(
            none.status == 4
                && none.errorText.contains("it has linux/amd64, linux/arm64; choose one with --platform"),
            "\(none)")
        // One that is not whole here is not pushed as if it were.
        let arm = try ImageLayout.resolve(
            ImageReference(path: multi, tag: "all"), platform: Platform(os: "linux", architecture: "arm64"))
        try shell(
            "rm \"$1\"", multi.appending("blobs/sha256").appending(BytePath(arm.manifest.config.digest.hex)))
        let partial = try market.run(["push", "\(multi):all", market.remote("part")])
        #expect(partial.status == 4 && partial.errorText.contains("lacks 1 blobs"), "\(partial)")
        #expect(
            try market.run(["push", "--platform", "linux/amd64", "\(multi):all", market.remote("part")])
                .status == 0)
    }

    @Test("What goes wrong is one sentence with the right exit code, and leaves nothing")
    func wrong() throws {
        let market = try Market()
        let shop = market
        let remote = market.remote("a")
        #expect(try market.run(["push", "\(shop.image("one"))", remote]).status == 0)
        let layout = "\(shop.path)/new"
        let before = try market.names()
        func expect(_ words: [String], _ status: Int32, _ text: String, _ variables: [String]? = nil) throws {
            let run = try market.run(words, variables)
            #expect(run.status == status && run.errorText.contains(text), "\(words): \(run)")
            #expect(run.outputText == "" && run.errorText.split(separator: "\n").count == 1, "\(run)")
            #expect(try market.names() == before)
        }
        try expect(["pull", market.remote("none"), "\(layout):x"], 4, "manifest unknown")
        try expect(["pull", "oci-archive:/none.tar", "\(layout):x"], 4, "No such file")
        try expect(
            ["pull", remote, "\(layout):x"], 1,
            "log in first, such as with: skopeo login \(market.registry.host)", market.registry.trust)
        try expect(["pull", remote, "\(layout):x"], 1, "x509", ["HOME=\(shop.path)"])
        try expect(["push", "\(shop.image("none"))", remote], 4, "there is no tag")
        try expect(
            ["push", "\(shop.image("one"))", "docker-archive:\(shop.layout)/oci-layout:a:1"], 1,
            "exists already"
        )
        try expect(
            ["push", "\(shop.image("one"))", remote + "@sha256:" + String(repeating: "0", count: 64)], 2,
            "digest")
        try expect(["pull", "\(remote)@sha256:00"], 2, "is no digest")
        try expect(
            ["pull", remote + "@sha256:" + String(repeating: "0", count: 64), "\(layout):x"], 4,
            "manifest unknown")
        // skopeo is not there; or is what another user could have put there.
        let path = "PATH=\(shop.path)/bin"
        try expect(
            ["pull", remote, "\(layout):x"], 5, "install skopeo (apt-get install skopeo)",
            market.registry.variables + [path])
        try shell("mkdir \"$1/bin\"; cp /bin/true \"$1/bin/skopeo\"; chown -R 1000 \"$1/bin\"", shop.path)
        let other = try market.run(["pull", remote, "\(layout):x"], market.registry.variables + [path])
        #expect(other.status == 1 && other.errorText.contains("skopeo is not run"), "\(other)")
    }

    @Test("What another program says cannot steer a terminal, nor fill memory")
    func hostile() throws {
        let market = try Market()
        let shop = market
        try shell(
            """
            mkdir "$1/bin"; cd "$1/bin"
            printf '#!/bin/sh\\nprintf "time=\\\\"x\\\\" level=fatal msg=\\\\"a \\\\033[31m b \\\\\\\\x1b\\\\"\\\\n" >&2; exit 1\\n' > skopeo
            printf '#!/bin/sh\\nexec cat /dev/zero\\n' > flood; chmod +x *
            """, shop.path)
        let path = "PATH=\(shop.path)/bin:/usr/bin:/bin"
        let words = ["pull", "docker://x.example/a", "\(shop.path)/new:x"]
        let run = try market.run(words, [path])
        #expect(run.status == 1 && run.errorText.contains("a \\x1b[31m b"), "\(run)")
        #expect(!run.errors.contains(0x1b))
        try shell("mv \"$1/bin/flood\" \"$1/bin/skopeo\"", shop.path)
        let flooded = try market.run(words, [path])
        #expect(
            flooded.status == 3 && flooded.errorText.contains("more than the 4194304 bytes"), "\(flooded)")
        #expect(try market.run(["pull", "docker://a\u{1b}[0m"], [path]).status == 2)
    }

    @Test("SIGTERM ends skopeo too, and the next transfer finds nothing in its way")
    func terminated() throws {
        let market = try Market()
        let shop = market
        // It comes to the copy of the layers and stays there.
        let waiting = try market.putSkopeo(
            """
            for word; do [ "$word" = copy ] && { echo $$ > "${0%/*}/pid"; exec sleep 1000; }; done
            exec /usr/bin/skopeo "$@"
            """)
        let remote = market.remote("a")
        #expect(try market.run(["push", "\(shop.image("one"))", remote]).status == 0)
        for (number, signal) in [SIGTERM, SIGKILL].enumerated() {
            let process = try VarveProcess(
                ["pull", remote], in: shop.path,
                variables: market.registry.variables.filter { !$0.hasPrefix("HOME") } + [
                    waiting
                ])
            let file = shop.path.appending("bin/pid")
            while (try? FileDescriptor.workingDirectory.status(of: file).size) ?? 0 < 2 { usleep(10_000) }
            let text = try FileDescriptor.workingDirectory.readFile(file, limit: 100)
            let skopeo = try #require(pid_t(String(decoding: text.dropLast(), as: UTF8.self)))
            kill(process.pid, signal)
            #expect(process.end() == (number == 0 ? 143 : 128 + SIGKILL))
            // It ends with its parent, however that ended.
            var isThere = kill(skopeo, 0) == 0
            if signal == SIGTERM { #expect(!isThere) }
            for _ in 0..<3000 where isThere {
                usleep(10_000)
                isThere = kill(skopeo, 0) == 0
            }
            #expect(!isThere)
            try shell("rm \"$1\"", file)
            let left = try market.names().filter { $0.contains("varve-work") }
            #expect(left.isEmpty == (signal == SIGTERM), "\(left)")
        }
        #expect(try market.run(["pull", remote]).status == 0)
        #expect(try market.names().filter { $0.contains("varve-work") } == [])
        #expect(try LayoutChecker.findings(shop.store.appending("images")) == [])
    }

    @Test("The temporary files of skopeo go with it, however it ends", arguments: [SIGTERM, SIGKILL])
    func temporaryFiles(_ signal: CInt) throws {
        let market = try Market()
        let shop = market
        // It makes a directory for the archive, and stays there.
        try shell("mkdir \"$1/tmp\"; : > \"$1/a.tar\"", shop.path)
        let waiting = try market.putSkopeo(
            "while [ \"$1\" != --tmpdir ]; do shift; done; mkdir \"$2/oci1\"; exec sleep 1000")
        let variables = ["TMPDIR=\(shop.path)/tmp"]
        let process = try VarveProcess(
            ["pull", "oci-archive:\(shop.path)/a.tar", "\(shop.path)/new:x"], in: shop.path,
            variables: variables + [waiting])
        func temporary() throws -> [String] {
            try runSuccessfully(["find", "\(shop.path)/tmp", "-mindepth", "1"]).outputText.split(
                separator: "\n"
            )
            .map(String.init)
        }
        while try !temporary().contains(where: { $0.contains("/oci") }) { usleep(10_000) }
        let skopeo = try runSuccessfully(["pgrep", "-P", "\(process.pid)"]).outputText.split(separator: "\n")
            .compactMap { pid_t($0) }
        kill(process.pid, signal)
        #expect(process.end() == 128 + signal)
        for pid in skopeo { kill(pid, SIGKILL) }
        if signal == SIGTERM { #expect(try temporary() == []) }
        let archive = "oci-archive:\(shop.path)/b.tar"
        #expect(try market.run(["push", "\(shop.image("one"))", archive], variables).status == 0)
        #expect(try market.run(["pull", archive, "\(shop.path)/new:x"], variables).status == 0)
        #expect(try temporary() == [])
    }

    @Test(
        "Docker's daemon gets and gives images under their names as they stand; one that is not there is named"
    )
    func dockerDaemon() throws {
        let market = try Market()
        let shop = market
        // Somebody who listens, and a skopeo that keeps the daemon's images in an archive.
        let path = try market.putSkopeo(
            """
            echo "$*" >> "${0%/*}/words"
            for word; do
              case $word in docker-daemon:*) word=docker-archive:${0%/*}/saved.tar:${word#docker-daemon:} ;; esac
              set -- "$@" "$word"; shift
            done
            exec /usr/bin/skopeo "$@"
            """)
        let socket = shop.path.appending("s")
        let listener = try startProgram([
            "/usr/bin/python3", "-c",
            "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9); time.sleep(1000)",
            "\(socket)",
        ])
        defer {
            kill(listener, SIGKILL)
            var status: CInt = 0
            while unsafe waitpid(listener, &status, 0) < 0, errno == EINTR {}
        }
        let there = [path, "DOCKER_HOST=unix://\(socket)"]
        while (try? UnixSocketAddress(socket.bytes)?.tryConnecting()) == nil { usleep(10_000) }
        func words() throws -> [String] {
            try runSuccessfully(["cat", "\(shop.path)/bin/words"]).outputText.split(separator: "\n").map(
                String.init)
        }
        let pushed = try market.run(["push", "\(shop.image("two"))", "docker-daemon:web:1"], there)
        #expect(pushed.status == 0, "\(pushed)")
        let pulled = try market.run(["pull", "docker-daemon:web:1", "\(shop.path)/new:x"], there)
        #expect(pulled.status == 0, "\(pulled)")
        let image = try ImageLayout.resolve(ImageReference(parsing: shop.image("two")))
        let found = try ImageLayout.resolve(ImageReference(path: shop.path.appending("new"), tag: "x"))
        #expect(found.diffIDs == image.diffIDs)
        // Each question would cost the daemon the whole image.
        let asked = try words()
        #expect(asked.count == 2, "\(asked)")
        #expect(asked.first?.hasSuffix(" docker-daemon:web:1") == true)
        #expect(asked.last?.contains(" docker-daemon:web:1 oci:") == true)
        #expect(asked.allSatisfy { $0.contains("-daemon-host unix://\(socket) ") }, "\(asked)")

        for verb in [
            ["pull", "docker-daemon:web:1", "\(shop.path)/y:x"],
            ["push", "\(shop.image("two"))", "docker-daemon:web:1"],
        ] {
            let absent = try market.run(verb, [path, "DOCKER_HOST=unix://\(shop.path)/none.sock"])
            #expect(
                absent.status == 5
                    && absent.errorText
                        == "varve: Docker's daemon cannot be reached at \"\(shop.path)/none.sock\": No such file or directory; start it, or say in DOCKER_HOST where it listens\n",
                "\(absent)")
        }
        #expect(try words().count == 2)
    }

    @Test("Names that no daemon and no storage can have are wrong usage; what a storage has not is not found")
    func foreignNames() throws {
        let market = try Market()
        let shop = market
        let storage = "containers-storage:[vfs@\(shop.path)/kept+\(shop.path)/run]"
        for (name, status) in [
            (storage + "localhost/none:1", 4), (storage + "UPPER", 2), ("containers-storage:", 2),
            ("docker-daemon:", 2),
        ] {
            let run = try market.run(["pull", name, "\(shop.path)/new:x"])
            #expect(
                run.status == status && run.errorText.split(separator: "\n").count == 1, "\(name): \(run)")
            #expect(status == 2 || run.errorText.contains("does not resolve to an image"), "\(run)")
        }
    }

    @Test("Garbage collection keeps images with a tag and those that bundles came from, and drops the others")
    func garbage() throws {
        let market = try Market()
        let shop = market
        let (one, two) = (market.remote("one"), market.remote("two"))
        #expect(try market.run(["push", "\(shop.image("one"))", one]).status == 0)
        #expect(try market.run(["push", "\(shop.image("two"))", two]).status == 0)
        let images = shop.store.appending("images")
        func blobs() throws -> Int { try names(images.appending("blobs/sha256")) }
        #expect(try market.run(["unpack", "--image", two, "\(shop.bundle("b"))"]).status == 0)
        let all = try blobs()
        #expect(all == 4)
        // Nothing goes while a bundle needs it, nor a snapshot of one.
        _ = shop.text("store", "gc")
        #expect(try blobs() == all)
        _ = shop.text("snapshot", "create", shop.bundle("b"), "kept")
        _ = shop.text("bundle", "rm", shop.bundle("b"))
        _ = shop.text("store", "gc")
        #expect(try blobs() == all)
        _ = shop.text("snapshot", "rm", "kept")
        // Young, and in a dry run.
        _ = shop.text("store", "gc", "--older-than", "1h")
        #expect(shop.text("store", "gc", "--dry-run", "-q").contains("\(two):latest\n"))
        #expect(try blobs() == all)
        #expect(try market.run(["pull", one]).status == 0)
        #expect(try market.run(["unpack", "--image", one, "\(shop.bundle("c"))"]).status == 0)
        _ = shop.text("bundle", "rm", shop.bundle("c"))
        #expect(shop.text("store", "gc", "-q").contains("\(two):latest\n"))
        // The one that was pulled stays, with its chain.
        #expect(try blobs() == 3)
        #expect(shop.text("store", "ls", "-q").split(separator: "\n").count == 1)
        #expect(shop.text("store", "gc", "-q") == "")
        _ = shop.text("rm", "--image", images.appendingBytes(BytePath(":\(market.registry.host)/one:latest")))
        _ = shop.text("store", "gc")
        #expect(try blobs() == 0 && shop.text("store", "ls", "-q") == "")
        shop.expectClean()
    }

    private func names(_ directory: BytePath) throws -> Int {
        let opened = try FileDescriptor.workingDirectory.openDirectory(directory)
        return try opened.fd.entries().count
    }

    @Test("The library pulls and pushes as the command does")
    func library() async throws {
        let market = try Market()
        let shop = market
        let images = Images()
        let archive = "oci-archive:\(shop.path)/a.tar"
        let pushed = try await images.push(shop.image("two"), to: archive)
        let pulled = try await images.pull(archive, as: shop.path.appending("copy:x"))
        #expect(pushed.digest == pulled.digest)
        await #expect(throws: VarveError.self) {
            try await images.pull("two", as: shop.path.appending("copy:x"))
        }
    }

    @Test(
        "References to registries are brought to one form",
        arguments: [
            ("docker://alpine", "docker://docker.io/library/alpine:latest"),
            ("docker://a/b:1", "docker://docker.io/a/b:1"),
            ("docker://localhost/b", "docker://localhost/b:latest"),
            ("docker://h:5000/b/c:x", "docker://h:5000/b/c:x"),
            ("docker-archive:x.tar", "docker-archive:x.tar"), ("oci:a:b", "oci:a:b"),
            ("docker-daemon:web:1", "docker-daemon:web:1"),
            ("docker-daemon:sha256:0123", "docker-daemon:sha256:0123"),
            ("containers-storage:localhost/web", "containers-storage:localhost/web"),
            ("containers-storage:[vfs@/a+/b]x:1", "containers-storage:[vfs@/a+/b]x:1"),
        ])
    func forms(_ text: String, _ whole: String) throws {
        let reference = try #require(try TransportReference(parsing: BytePath(text)))
        #expect(reference.description == whole)
        #expect(ImageReference.isValidTag(reference.layoutTag), "\(reference.layoutTag)")
    }
}
