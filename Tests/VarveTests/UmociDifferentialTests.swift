import SystemCalls
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// What `umoci` of this host and `varve` called by that name make of the same commands.
@Suite struct UmociDifferentialTests {
    @Test(arguments: UmociCase.all)
    func sameAsUmoci(_ test: UmociCase) throws {
        let directory = try TemporaryDirectory()
        let (theirs, ours) = (directory.path.appending("umoci"), directory.path.appending("varve"))
        let files = directory.path.appending("files")
        try shell(Self.fixture, directory.path)
        for step in test.steps {
            func words(_ side: BytePath) -> [String] {
                step.map { word in
                    for (mark, path) in [("@", side), ("%", files)] {
                        if word.hasPrefix(mark) { return "\(path)/\(word.dropFirst())" }
                        let parts = word.split(separator: "=", maxSplits: 1)
                        if parts.count == 2, parts[1].hasPrefix(mark) {
                            return "\(parts[0])=\(path)/\(parts[1].dropFirst())"
                        }
                    }
                    return word
                }
            }
            let expected = try runCommand(["umoci"] + words(theirs))
            let run = umoci(words(ours))
            #expect(run.code == expected.status, "\(step): \(run), and umoci: \(expected.errorText)")
            #expect((run.code == 0) == run.errors.isEmpty, "\(run)")
            if step.contains("--json") {
                #expect(try Self.statHistory(run.output) == Self.statHistory(expected.output))
            } else {
                let lines = { (text: String) in text.split(separator: "\n").sorted() }
                if run.code == 0 { #expect(lines(run.text) == lines(expected.outputText)) }
            }
            for layout in ["L", "N", "a/b/c"] {
                let (left, right) = (theirs.appending(layout), ours.appending(layout))
                let isThere = { (path: BytePath) in
                    (try? FileDescriptor.workingDirectory.status(of: path)) != nil
                }
                #expect(isThere(left) == isThere(right))
                guard isThere(left) else { continue }
                #expect(try LayoutChecker.findings(right) == [], "\(step)")
                let (wanted, found) = (
                    try ImageContents(left, test.comparesTimes), try ImageContents(right, test.comparesTimes)
                )
                for line in wanted.lines.subtracting(found.lines).sorted() { Issue.record("umoci: \(line)") }
                for line in found.lines.subtracting(wanted.lines).sorted() { Issue.record("varve: \(line)") }
            }
        }
    }

    /// A layout with images of umoci's on each side, and files to insert with times of whole seconds: umoci 0.4.7 rounds.
    private static let fixture = """
        cd "$1"; mkdir -p files/tree/dir/deeper files/empty umoci/empty; cd files
        echo hello > file; printf '#!' > setid; chmod 4755 setid; printf x > attributes
        setfattr -n user.test -v value attributes; ln file tree/dir/other; ln -s ../file tree/link; mkfifo tree/fifo
        echo deep > tree/dir/deeper/file; ln tree/dir/deeper/file tree/hard; chmod 1777 tree/dir; chown 7:8 tree/dir/deeper
        mkdir -p base/etc/sub/deep; echo conf > base/etc/conf; tar -C base -cf archive.tar .
        find . -exec touch -h -d @1600000000 {} +; chown -R 0:0 tree
        cd ../umoci; umoci init --layout L; umoci new --image L:bare; umoci insert --image L:bare --tag base "$1/files/base" /
        umoci config --image L:base --tag full --config.env A=1 --config.label who=me --config.cmd sh --config.volume /data \\
            --config.exposedports 22/tcp --author first --config.workingdir /w
        cd ..; cp -a umoci varve
        """

    private func umoci(_ words: [String]) -> CommandRun {
        let (output, errors) = (Collected(), Collected())
        let code = VarveCommand.run(
            as: .umoci, arguments: words.map { BytePath($0) }, standardOutput: output.sink,
            standardError: errors.sink, environment: CommandEnvironment([:]))
        return CommandRun(code: code, output: output.all, errors: errors.all)
    }

    /// What `stat --json` says of the history. Layers are not the same bytes, for two compressors made them.
    private static func statHistory(_ output: [UInt8]) throws -> LayoutDocument? {
        let history = try LayoutDocument(output)["history"]
        // No history is null to Go.
        if history == .null { return .array([]) }
        return history?.mapMembers { key, value in
            switch key {
            case "created", "diff_id", "digest": .string(value.text?.isEmpty == false ? "some" : "none")
            case "size": .string("some")
            default: value
            }
        }
    }
}

/// The images of a layout as lines of text: equal for layouts that mean the same.
struct ImageContents {
    private(set) var lines = Set<String>()

    init(_ path: BytePath, _ comparesTimes: Bool = false) throws {
        func read(_ name: String) throws -> [UInt8] {
            try FileDescriptor.workingDirectory.readFile(path.appending(name), limit: 1 << 30)
        }
        func blob(_ descriptor: LayoutDocument) throws -> [UInt8] {
            let hex = (descriptor["digest"]?.text ?? "").dropFirst("sha256:".count)
            return try read("blobs/sha256/\(hex)")
        }
        let index = try LayoutDocument(try read("index.json"))
        for entry in index["manifests"]?.elements ?? [] {
            let annotations = entry["annotations"] ?? .null
            let tag = annotations["org.opencontainers.image.ref.name"]?.text ?? "none"
            lines.insert("\(tag) entry \(entry["mediaType"] ?? .null) \(annotations)")
            let manifest = try LayoutDocument(try blob(entry))
            lines.insert("\(tag) annotations \(manifest["annotations"] ?? .null)")
            guard let config = manifest["config"] else { continue }
            let document = try LayoutDocument(try blob(config)).mapMembers { key, value in
                switch key {
                case "created": comparesTimes ? value : .string("some time")
                case "diff_ids": .string("\(value.elements?.count ?? 0) layers")
                default: value
                }
            }
            for (key, value) in document.members ?? [:] { lines.insert("\(tag) config \(key) \(value)") }
            for (number, layer) in (manifest["layers"]?.elements ?? []).enumerated() {
                let type = layer["mediaType"]?.text ?? ""
                lines.insert("\(tag) layer \(number) \(type)")
                for entry in try LayerContent(try blob(layer), type).entries {
                    lines.insert("\(tag) layer \(number) \(entry)")
                }
            }
        }
    }
}
