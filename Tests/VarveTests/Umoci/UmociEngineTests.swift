import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// Images that commands make: what survives, what is the same twice, what umoci makes of our trees and we of its.
@Suite struct UmociEngineTests {
    /// What nobody here knows, and what a command does not name, is in the layout afterwards as it was.
    @Test func nothingIsLost() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        try shell(Self.foreignLayout, directory.path)
        let files = directory.path.appending("file")
        let before = try LayoutDocument(
            try FileDescriptor.workingDirectory.readFile(layout.appending("index.json"), limit: 1 << 20))
        let image = layout.appendingBytes(":a")
        for words in [
            ["config", "--image", image, "--author", "x"], ["insert", "--image", image, files, "/f"],
            ["tag", "--image", image, "b"],
            ["config", "--image", image, "--tag", "c", "--clear", "config.env"],
            ["new", "--image", layout.appendingBytes(":d")], ["rm", "--image", layout.appendingBytes(":b")],
            ["raw", "add-layer", "--image", image, directory.path.appending("x.tar")],
            ["gc", "--layout", layout],
        ] as [[BytePath]] {
            let run = varve(words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
            #expect(try LayoutChecker.findings(layout) == [], "\(words)")
            let after = try LayoutDocument(
                try FileDescriptor.workingDirectory.readFile(layout.appending("index.json"), limit: 1 << 20))
            for (key, value) in before.members ?? [:] where key != "manifests" {
                #expect(after[key] == value, "\(words) lost \(key)")
            }
            for entry in before["manifests"]?.elements ?? [] {
                let tag = entry["annotations"]?["org.opencontainers.image.ref.name"]?.text
                if tag == "a" { continue }
                #expect(after["manifests"]?.elements?.contains(entry) == true, "\(words) lost \(entry)")
            }
            let entry = after["manifests"]?.elements?.first {
                $0["annotations"]?["org.opencontainers.image.ref.name"]?.text == "a"
            }
            #expect(entry?["annotations"]?["org.example.kept"]?.text == "yes")
            try runSuccessfully(["skopeo", "inspect", "--raw", "oci:\(layout):a"])
        }
        // The platform of the entry is that of the image that it now refers to.
        #expect(
            varve("config", "--image", image, "--platform.arch", "arm64", "--platform.variant", "v9").code
                == 0)
        #expect(try LayoutChecker.findings(layout) == [])
        let index = try FileDescriptor.workingDirectory.readFile(
            layout.appending("index.json"), limit: 1 << 20)
        #expect(
            String(decoding: index, as: UTF8.self).contains(
                #""platform":{"architecture":"arm64","os":"linux","variant":"v9"}"#))
    }

    /// An image `a` whose entry says more than it must, beside an artifact, a nested index and unknown members.
    private static let foreignLayout = #"""
        cd "$1"; mkdir -p L/blobs/sha256; echo hi > file; tar -cf x.tar file; cd L
        store() { printf %s "$1" > t; digest=$(sha256sum < t | cut -c1-64); size=$(stat -c %s t); mv t blobs/sha256/$digest; }
        refer() { printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' "$1" $digest $size "$2"; }
        oci=application/vnd.oci.image
        store '{"architecture":"amd64","os":"linux","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":[]},"x":[1,2]}'
        config=$(refer $oci.config.v1+json)
        store '{"schemaVersion":2,"mediaType":"'$oci.manifest.v1+json'","config":'"$config"',"layers":[],"y":{"z":1}}'
        image=$(refer $oci.manifest.v1+json ',"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"a","org.example.kept":"yes"}')
        nested=$(refer $oci.manifest.v1+json ',"platform":{"architecture":"amd64","os":"linux"}')
        store '{"schemaVersion":2,"mediaType":"'$oci.index.v1+json'","manifests":['"$nested"']}'
        multi=$(refer $oci.index.v1+json ',"annotations":{"org.opencontainers.image.ref.name":"multi"}')
        store 'anything'; artifact=$(refer application/x.example)
        echo '{"imageLayoutVersion":"1.0.0"}' > oci-layout
        printf '{"schemaVersion":2,"manifests":[%s,%s,%s],"annotations":{"k":"v"},"unknown":[true,null]}' \
            "$artifact" "$multi" "$image" > index.json
        """#

    struct Compressing: Sendable, CustomStringConvertible {
        var given: [String]
        var wanted: String
        var description: String { given.joined(separator: " ") }
    }

    /// `auto` follows the topmost layer that is compressed at all, for every command that makes a layer.
    @Test(arguments: [
        Compressing(given: [], wanted: "gzip"), Compressing(given: ["none"], wanted: "gzip"),
        Compressing(given: ["zstd"], wanted: "zstd"), Compressing(given: ["zstd", "none"], wanted: "zstd"),
        Compressing(given: ["zstd", "gzip"], wanted: "gzip"),
    ])
    func compression(_ test: Compressing) throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        try shell("cd \"$1\"; echo hi > file; tar -cf x.tar file", directory.path)
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout).code == 0)
        let file = directory.path.appending("file")
        for (number, compression) in test.given.enumerated() {
            let place = BytePath("/\(number)")
            #expect(
                varve("insert", "--image", layout, "--compress", BytePath(compression), file, place).code == 0
            )
        }
        #expect(varve("insert", "--image", layout, "--tag", "inserted", file, "/x").code == 0)
        #expect(
            varve("raw", "add-layer", "--image", layout, "--tag", "added", directory.path.appending("x.tar"))
                .code
                == 0)
        #expect(try LayoutChecker.findings(layout) == [])
        for tag in ["inserted", "added"] {
            let types = try ImageContents(layout).lines.filter {
                $0.hasPrefix("\(tag) layer \(test.given.count) {")
            }
            #expect(
                types == [
                    "\(tag) layer \(test.given.count) {mediaType:\"application/vnd.oci.image.layer.v1.tar+\(test.wanted)\"}"
                ])
        }
    }

    /// The same commands with SOURCE_DATE_EPOCH, at another time and in another place, give the same bytes of index.json,
    /// and so of all that it refers to.
    @Test func reproducible() throws {
        let shop = try Workshop()
        var results: [[UInt8]] = []
        for side in ["one", "two"] {
            let place = shop.volume.path.appending(side)
            try FileDescriptor.workingDirectory.makeDirectory(place, mode: 0o755)
            // The files are made anew each time: their times are later than the date.
            try shell("cd \"$1\"; mkdir tree; echo a > tree/a; ln tree/a tree/b; mkdir tree/c", place)
            let (layout, bundle) = (place.appending("L"), place.appending("bundle"))
            func run(_ words: BytePath...) {
                let run = shop.run(words, variables: ["SOURCE_DATE_EPOCH": "1700000000"])
                #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
            }
            run("init", "--layout", layout)
            run("new", "--image", layout)
            run("insert", "--image", layout, place.appending("tree"), "/srv")
            run("config", "--image", layout, "--config.cmd", "x", "--config.label", "a=b", "--author", "me")
            run(
                "insert", "--image", layout, "--compress", "zstd", "--opaque", place.appending("tree"), "/srv"
            )
            run("insert", "--image", layout, "--whiteout", "/srv/c")
            run("unpack", "--image", layout, bundle)
            try shell("cd \"$1/rootfs\"; echo more > srv/more; rm srv/b; mkdir -p x/y", bundle)
            run("repack", "--image", layout.appendingBytes(":new"), bundle)
            #expect(try LayoutChecker.findings(layout) == [])
            results.append(
                try FileDescriptor.workingDirectory.readFile(layout.appending("index.json"), limit: 1 << 20))
        }
        #expect(results[0] == results[1])
    }

    @Test func refused() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        try shell("cd \"$1\"; echo hi > file; mkdir dir; touch dir/.wh.x", directory.path)
        let file = directory.path.appending("file")
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout).code == 0)
        let before = try FileDescriptor.workingDirectory.readFile(
            layout.appending("index.json"), limit: 1 << 20)
        for (code, message, words) in [
            (2, "only a directory can hide what was in another", ["--opaque", file, "/x"]),
            (2, "cannot be the root of an image", [file, "/"]),
            (2, "the root of an image cannot be deleted", ["--whiteout", "/a/.."]),
            (2, "names that begin with \".wh.\" mean deletions", [file, "/a/.wh.b"]),
            (1, "cannot go into a layer: names that begin with", [directory.path.appending("dir"), "/x"]),
            (4, "cannot look at", [directory.path.appending("none"), "/x"]),
        ] as [(Int32, String, [BytePath])] {
            let run = varve(["insert", "--image", layout] + words)
            #expect(run.code == code && run.errorText.contains(message), "\(run)")
        }
        let raw = varve("raw", "add-layer", "--image", layout, file)
        #expect(raw.code == 3 && raw.errorText.contains("is not an uncompressed tar archive"), "\(raw)")
        let none = varve("raw", "unpack", "--image", layout, directory.path.appending("dir"))
        #expect(none.code == 1 && none.errorText.contains("exists already"), "\(none)")
        // Nothing is left behind, and the image is what it was.
        let after = try FileDescriptor.workingDirectory.readFile(
            layout.appending("index.json"), limit: 1 << 20)
        #expect(after == before)
        #expect(try LayoutChecker.findings(layout) == [])
        let opened = try FileDescriptor.workingDirectory.openDirectory(directory.path)
        #expect(try opened.fd.entries().map { "\($0.name)" }.sorted() == ["L", "dir", "file"])
    }

    struct Edit: Sendable, CustomStringConvertible {
        var description: String
        var script: String
    }

    /// Each times its files to whole seconds, as umoci compares and writes them.
    static let edits = [
        Edit(description: "nothing", script: ":"),
        Edit(description: "a file", script: "echo new > new; touch -d @1650000000 new"),
        Edit(description: "a change", script: "echo other > etc/conf; touch -d @1650000000 etc/conf"),
        Edit(description: "a deletion", script: "rm -r etc/sub"),
        Edit(
            description: "a file for a directory",
            script: "rm -r etc/sub; echo x > etc/sub; touch -d @1650000000 etc/sub"),
        Edit(
            description: "a directory for a file",
            script: "rm etc/conf; mkdir etc/conf; echo y > etc/conf/y; touch -d @1650000000 etc/conf/y"),
        Edit(description: "a mode and an owner", script: "chmod 600 etc/conf; chown 7:8 etc/sub"),
        Edit(description: "links", script: "ln -s conf etc/link; ln etc/conf etc/hard; mkfifo pipe"),
        Edit(
            description: "a deep tree",
            script: "mkdir -p a/b/c/d; echo z > a/b/c/d/e; touch -d @1650000000 a/b/c/d/e; chmod 1777 a/b"),
    ]

    /// Which of the two tools unpacks and which repacks: the new image unpacks to the same tree.
    @Test(arguments: edits)
    func repack(_ edit: Edit) throws {
        let shop = try Workshop()
        let work = shop.volume.path.appending("work")
        try FileDescriptor.workingDirectory.makeDirectory(work, mode: 0o755)
        try shell(
            """
            cd "$1"; mkdir -p base/etc/sub/deep; echo conf > base/etc/conf; echo d > base/etc/sub/deep/d
            find base -exec touch -h -d @1600000000 {} +
            umoci init --layout L; umoci new --image L:a; umoci insert --image L:a "$1/base" /
            """, work)
        let layout = work.appending("L")
        func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }
        func change(_ bundle: BytePath) throws { try shell("cd \"$1/rootfs\"; \(edit.script)", bundle) }
        var results: [(name: String, tree: BytePath)] = []
        for name in ["umoci", "varve"] {
            let bundle = work.appending(name)
            for words in [
                ["unpack", "--image", image("a"), bundle], [], ["repack", "--image", image(name), bundle],
            ] {
                if words.isEmpty {
                    try change(bundle)
                } else if name == "umoci" {
                    try runSuccessfully(["umoci"] + words.map(\.description))
                } else {
                    let run = shop.run(words)
                    #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
                    #expect(try LayoutChecker.findings(layout) == [])
                }
            }
            // What the new image unpacks to by the other tool.
            let tree = work.appending("\(name)-tree")
            if name == "umoci" {
                #expect(varve("raw", "unpack", "--image", image(name), tree).code == 0)
            } else {
                try runSuccessfully([
                    "umoci", "raw", "unpack", "--image", image(name).description, tree.description,
                ])
            }
            results.append((name, tree))
        }
        // umoci keeps whole seconds, and the time of a directory in which something was made is that of the test.
        let listing = try results.map { try tree($0.tree) }
        #expect(listing[0] == listing[1])
    }

    private func tree(_ path: BytePath) throws -> [Substring] {
        try runSuccessfully([
            "/bin/sh", "-c",
            #"cd "$1" && find . -printf '%P %y %m %U:%G %l %n ' \( -type f -printf '%s %.10T@ ' -exec md5sum -z {} \; \) -o -printf '\n' | tr '\0' '\n' | sort"#,
            "sh", path.description,
        ]).outputText.split(separator: "\n")
    }
}
