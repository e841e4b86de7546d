import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveOCI
import VarveSystem

/// Images that come from, and go to, directories of other users.
@Suite struct TransferAttackTests {
    private static let user = NeighbourTests.user

    @Test("A push follows no symbolic link of another user, and writes over nothing")
    func pushThroughLinks() throws {
        let market = try TransferTests.Market()
        let there = market.path
        try shell(
            """
            cd "$1"; mkdir -m 755 u; mkdir -m 700 own own/etc own/empty; echo secret > own/file
            ln -s "$1/own/file" u/oci.tar; ln -s "$1/own/file" u/docker.tar; ln -s "$1/own/none" u/none.tar
            ln -s "$1/own/empty" u/dir; mkdir -p u/lay/blobs; ln -s "$1/own/etc" u/lay/blobs/sha256; cp -a L whole
            mkdir u/other; cp -a L/. u/other; rm -rf u/other/blobs/sha256; ln -s "$1/own/etc" u/other/blobs/sha256
            chown -hR \(Self.user) u
            """, there)
        let before = try runSuccessfully(["find", "\(there)/own", "-printf", "%p %s %i %T@\n"]).outputText
        for place in [
            "oci-archive:\(there)/u/oci.tar", "docker-archive:\(there)/u/docker.tar:n:t",
            "oci-archive:\(there)/u/none.tar", "dir:\(there)/u/dir", "oci:\(there)/u/lay:x",
            "oci:\(there)/u/other:x",
        ] {
            let run = try market.run(["push", "\(market.image("two"))", place])
            #expect(run.status != 0, "\(place): \(run)")
            let after = try runSuccessfully(["find", "\(there)/own", "-printf", "%p %s %i %T@\n"]).outputText
            #expect(after == before, "\(place)")
        }
        // Into a directory of theirs it goes all the same, also where it must be made on another file system first.
        for place in [
            "oci-archive:\(there)/u/new.tar", "docker-archive:\(there)/u/n.tar:n:t", "dir:\(there)/u/new",
        ] {
            let pushed = try market.run(["push", "\(market.image("two"))", place])
            #expect(pushed.status == 0, "\(place): \(pushed)")
            let pulled = try market.run(["pull", place, "\(there)/back:x"])
            #expect(pulled.status == 0, "\(place): \(pulled)")
            try shell("rm -r \"$1/back\"", there)
            let again = try market.run(["push", "\(market.image("one"))", place])
            #expect(again.status == 1 && again.errorText.contains("exists already"), "\(again)")
        }
        #expect(try market.names().filter { $0.contains("varve-work") } == [])
        market.expectClean()
    }

    @Test("A pull follows no symbolic link of another user, and opens no device or FIFO")
    func pullThroughLinks() throws {
        let market = try TransferTests.Market()
        let there = market.path
        #expect(
            try market.run(["push", "\(market.image("two"))", "docker-archive:\(there)/a.tar:n:t"]).status
                == 0)
        #expect(try market.run(["push", "\(market.image("two"))", "dir:\(there)/d"]).status == 0)
        try shell(
            """
            cd "$1"; mkdir -m 700 own; mkdir -m 755 u; mv a.tar d own; cp own/a.tar u/mine.tar; cp -r own/d u/mine
            ln -s "$1/own/a.tar" u/a.tar; ln -s "$1/own/d" u/d; mkfifo u/fifo; mkdir u/linked
            for f in own/d/*; do ln -s "$1/$f" u/linked/; done
            chown -hR \(Self.user) u
            """, there)
        for place in [
            "docker-archive:\(there)/u/a.tar", "dir:\(there)/u/d", "dir:\(there)/u/linked",
            "oci-archive:\(there)/u/fifo", "docker-archive:/dev/full",
        ] {
            let run = try market.run(["pull", place, "\(there)/new:x"])
            #expect(run.status != 0, "\(place): \(run)")
            #expect(run.errorText.split(separator: "\n").count == 1, "\(run)")
            #expect(unsafe access("\(there)/new", F_OK) != 0)
        }
        // What is theirs is read.
        for (number, place) in ["docker-archive:\(there)/u/mine.tar", "dir:\(there)/u/mine"].enumerated() {
            let run = try market.run(["pull", place, "\(there)/of-\(number):x"])
            #expect(run.status == 0, "\(place): \(run)")
        }
        // A colon ends the path for skopeo, whatever stands behind it.
        try shell(
            "cd \"$1\"; ln -s \"$1/own/a.tar\" u/x; : > \"u/x:\u{308}y\"; chown -hR \(Self.user) u", there)
        let odd = try market.run(["pull", "docker-archive:\(there)/u/x:\u{308}y", "\(there)/new:x"])
        #expect(unsafe odd.status != 0 && access("\(there)/new", F_OK) != 0, "\(odd)")
    }

    @Test("A pull that fails takes nothing away that another command put into the same layout")
    func failedPull() throws {
        let market = try TransferTests.Market()
        let there = market.path
        #expect(
            try market.run(["push", "\(market.image("two"))", "docker-archive:\(there)/ok.tar:n:t"]).status
                == 0)
        // It waits for its skopeo, and fails when the other one is done.
        let path = try market.putSkopeo(
            """
            : > "${0%/*}/began"
            while ! [ -e "${0%/*}/go" ]; do sleep 0.05; done
            echo no such image >&2; exit 1
            """)
        let slow = try VarveProcess(
            ["pull", "docker://x.example/a", "\(there)/new:a"], in: there,
            variables: [path])
        while unsafe access("\(there)/bin/began", F_OK) != 0 { usleep(20_000) }
        let pulled = try market.run(["pull", "docker-archive:\(there)/ok.tar", "\(there)/new:b"])
        #expect(pulled.status == 0, "\(pulled)")
        try shell(": > \"$1/bin/go\"", there)
        #expect(slow.end() == 4)
        #expect(try LayoutChecker.findings(there.appending("new")) == [])
        #expect(
            try ImageLayout.resolve(ImageReference(path: there.appending("new"), tag: "b")).layers.count == 2)
        // Alone, it leaves nothing.
        let alone = try market.run(
            ["pull", "docker://x.example/a", "\(there)/other:a"], [path])
        #expect(unsafe alone.status == 4 && access("\(there)/other", F_OK) != 0, "\(alone)")
    }

    @Test("Sizes that add up to more than there are numbers are no end of the process")
    func hugeSizes() throws {
        let market = try TransferTests.Market()
        let there = market.path
        #expect(try market.run(["push", "\(market.image("two"))", "dir:\(there)/d"]).status == 0)
        try shell(
            """
            cd "$1"; cp -a L big; python3 - <<'END'
            import json, hashlib
            manifest = json.load(open("d/manifest.json"))
            for layer in manifest["layers"]: layer["size"] = (1 << 62) + 5
            text = json.dumps(manifest).encode()
            open("d/manifest.json", "wb").write(text)
            digest = hashlib.sha256(text).hexdigest()
            open("big/blobs/sha256/" + digest, "wb").write(text)
            index = json.load(open("big/index.json"))
            for entry in index["manifests"]: entry.update(digest="sha256:" + digest, size=len(text))
            json.dump(index, open("big/index.json", "w"))
            END
            """, there)
        for words in [
            ["pull", "dir:\(there)/d", "\(there)/new:x"],
            ["unpack", "--image", "dir:\(there)/d", "\(there)/b"],
            ["unpack", "--image", "\(there)/big:two", "\(there)/b"],
            ["push", "\(there)/big:two", "dir:\(there)/e"],
            ["ls", "--layout", "\(there)/big"], ["ls", "--layout", "\(there)/big", "--format", "json"],
            ["stat", "--image", "\(there)/big:two"], ["stat", "--json", "--image", "\(there)/big:two"],
            ["layer", "ls", "\(there)/big:two"], ["gc", "--layout", "\(there)/big"],
        ] {
            let run = try market.run(words)
            #expect((0..<128).contains(run.status), "\(words): \(run)")
        }
    }

    @Test("A document is read once, however often an index names it, and a signal is heard")
    func manyNames() throws {
        let market = try TransferTests.Market()
        let layout = try ImageLayout(opening: market.layout)
        let image = try layout.resolve("two")
        // An index of 1,000 entries with one manifest of 1 MB would be 1 GB to read.
        let document = try layout.readBlob(image.manifestDescriptor)
        let padded =
            Array("{\"annotations\":{\"x\":\"".utf8) + [UInt8](repeating: 0x78, count: 1 << 20)
            + Array("\"},".utf8) + document.dropFirst()
        let manifest = try layout.put(padded, mediaType: MediaType.ociManifest)
        let entry =
            "{\"mediaType\":\"\(manifest.mediaType)\",\"digest\":\"\(manifest.digest)\",\"size\":\(manifest.size)}"
        func index(_ count: Int) throws -> Descriptor {
            let entries = [String](repeating: entry, count: count).joined(separator: ",")
            return try layout.put(
                Array("{\"schemaVersion\":2,\"manifests\":[\(entries)]}".utf8), mediaType: MediaType.ociIndex)
        }
        #expect(try layout.missingBlobs(below: index(1000)) == [])
        // Different ones count together.
        let others = try (0..<80).map { number in
            try layout.put(
                padded + [UInt8](repeating: 0x20, count: number + 1), mediaType: MediaType.ociManifest)
        }
        let entries = others.map {
            "{\"mediaType\":\"\($0.mediaType)\",\"digest\":\"\($0.digest)\",\"size\":\($0.size)}"
        }
        let many = try layout.put(
            Array("{\"schemaVersion\":2,\"manifests\":[\(entries.joined(separator: ","))]}".utf8),
            mediaType: MediaType.ociIndex)
        #expect(throws: OCIError.self) { try layout.missingBlobs(below: many) }
        try layout.tag("many", many)
        #expect(try layout.sharedPrefixes(with: image) == [1])
        let cancellation = Cancellation()
        cancellation.cancel()
        let cancelled = try ImageLayout(opening: market.layout, cancellation: cancellation)
        #expect(throws: OCIError.self) { try cancelled.missingBlobs(below: image.manifestDescriptor) }
        #expect(throws: OCIError.self) { try cancelled.sharedPrefixes(with: image) }
    }

    @Test(
        "Names are their bytes: what follows a dot or a slash does not hide it",
        arguments: [".\u{301}keep", "a/\u{301}x", "\u{301}/x"])
    func names(_ name: String) throws {
        let market = try TransferTests.Market()
        _ = market.text("unpack", "--image", market.image("one"), market.bundle("b"))
        let run = try market.run(["snapshot", "create", "\(market.bundle("b"))", name])
        #expect(run.status == 2 && run.errorText.contains("cannot name a snapshot"), "\(run)")
        let restored = try market.run(["snapshot", "restore", name, "\(market.bundle("c"))"])
        #expect(restored.status != 0, "\(restored)")
        market.expectClean()
    }

    /// Puts a script in the place of skopeo, which finds the real one in `$REAL`, and the volume in `$P`.
    ///
    /// - Returns: the variables of the command.
    private func wrap(_ market: TransferTests.Market, _ script: String) throws -> [String] {
        market.registry.variables
            + [try market.putSkopeo("REAL=/usr/bin/skopeo; P='\(market.path)'\n\(script)")]
    }

    @Test("A push gives nobody what the owner of the layout has put in the place of blobs meanwhile")
    func swappedBlobs() throws {
        let market = try TransferTests.Market()
        let there = market.path
        try shell(
            "cd \"$1\"; mkdir -m 700 own; seq 1000000 > own/secret; cp -a L u; chown -R \(Self.user) u", there
        )
        let image = try ImageLayout.resolve(ImageReference(path: there.appending("u"), tag: "two"))
        let variables = try wrap(
            market,
            "for b in \"$P\"/u/blobs/sha256/*; do rm $b; ln -s \"$P/own/secret\" $b; done; exec $REAL \"$@\"")
        let pushed = try market.run(["push", "\(there)/u:two", "dir:\(there)/d"], variables)
        #expect(pushed.status == 0, "\(pushed)")
        let layers = image.layers.map(\.digest.hex)
        #expect(
            try shell(asText: "cd \"$1/d\"; sha256sum \(layers.joined(separator: " ")) | cut -c 1-64", there)
                == layers.map { $0 + "\n" }.joined())
        // Where nobody else can do that, they are read where they are.
        let own = try market.run(["push", "--log", "debug", "\(market.image("two"))", "dir:\(there)/e"])
        #expect(own.errorText.contains("--src-shared-blob-dir"), "\(own)")
    }

    @Test("A layer that does not end is ended when it has more bytes than the manifest says")
    func endlessLayer() throws {
        let market = try TransferTests.Market()
        #expect(try market.run(["push", "\(market.image("two"))", "dir:\(market.path)/d"]).status == 0)
        let variables = try wrap(
            market,
            """
            for word; do last=$word; done
            case "$*" in
            *--config*) exec $REAL inspect --config --raw "dir:$P/d" ;;
            *inspect*) exec $REAL inspect --raw "dir:$P/d" ;;
            esac
            layout=${last#oci:}; layout=${layout%:*}; mkdir -p "$layout/blobs/sha256"
            truncate -s 1G "$layout/blobs/sha256/x"; exec sleep 1000
            """)
        for words in [
            ["pull", "docker://x.example/a", "\(market.path)/new:x"],
            ["unpack", "--image", "docker://x.example/a", "\(market.bundle("b"))"],
        ] {
            let run = try market.run(words, variables)
            #expect(run.status == 3 && run.errorText.contains("that it may have"), "\(run)")
        }
        #expect(try market.names().filter { $0.contains("varve-work") || $0.contains("/new") } == [])
        market.expectClean()
    }

    @Test(
        "What a process leaves that is killed in its first pull is made whole by the next one, and keeps nobody from collecting garbage"
    )
    func killedFirstPull() throws {
        let market = try TransferTests.Market()
        let archive = "docker-archive:\(market.path)/a.tar:n:t"
        #expect(try market.run(["push", "\(market.image("one"))", archive]).status == 0)
        var point = 0
        while true {
            point += 1
            #expect(point < 100)
            let process = try VarveProcess(["pull", archive], in: market.path, stopAt: point)
            var status: CInt = 0
            guard process.hasStopped(&status) else { break }
            kill(process.pid, SIGKILL)
            _ = process.end()
            let collected = try market.run(["store", "gc"])
            #expect(collected.status == 0, "point \(point): \(collected)")
            let pulled = try market.run(["pull", archive])
            #expect(pulled.status == 0, "point \(point): \(pulled)")
            #expect(try LayoutChecker.findings(market.store.appending("images")) == [], "point \(point)")
            #expect(try market.run(["store", "gc"]).status == 0)
            #expect(try market.names().filter { $0.contains("varve-work") } == [], "point \(point)")
            try shell("rm -r \"$1/images\"", market.store)
        }
        #expect(point > 8)
        market.expectClean()
    }
}
