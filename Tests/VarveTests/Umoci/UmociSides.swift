import SystemPackage
import TestSupport
import VarveSystem

/// The two sides of a sequence on its way.
struct UmociSides {
    let setting: UmociSetting
    let sequence: UmociSequence
    let folder: String
    let path: BytePath
    var isSwapped = false
    var findings: [String] = []
    private let cache: LayerCache
    /// All layers, and those that a repack made.
    private var layers = Set<String>()
    private var repacked = Set<String>()
    private var edits = 0
    /// Else a command may have made what is there already, which each tool has other bytes for.
    private var makesOnlyNewBlobs = true
    /// Whether a command has changed a layout on either side.
    private(set) var hasChanges = false
    /// What was in the layouts after the last command.
    private var states: [[BytePath: LayoutState]] = [[:], [:]]
    /// The side on which varve made a file beside the layout, by the names of the files.
    private var makers: [BytePath: Int] = [:]

    private static let layouts: [BytePath] = ["L", "N", "a/b/c"]

    init(
        _ setting: UmociSetting, _ sequence: UmociSequence, folder: String, path: BytePath, cache: LayerCache
    ) throws {
        (self.setting, self.sequence, self.folder, self.path) = (setting, sequence, folder, path)
        self.cache = cache
        for side in 0...1 { states[side]["L"] = try LayoutState(self.side(side).appending("L")) }
        layers = try ImageContents(self.side(0).appending("L"), cache: cache).layers
    }

    var variables: [String] {
        sequence.hasSourceDate ? ["SOURCE_DATE_EPOCH=\(UmociSequence.sourceDate)"] : []
    }

    func isOurs(_ side: Int) -> Bool { side == ourSide }

    private var ourSide: Int { isSwapped ? 0 : 1 }

    private func side(_ side: Int) -> BytePath { path.appending(BytePath("\(side)")) }

    /// The user and group of all that is made.
    private var owner: String {
        setting.isRootless ? "\(OrdinaryUser.id):\(OrdinaryUser.id)" : "0:0"
    }

    /// Changes the tree of a bundle on both sides alike.
    mutating func edit(_ bundle: String, _ script: String) throws {
        edits += 1
        for side in 0...1 {
            let root = self.side(side).appending(BytePath("\(bundle)/rootfs"))
            guard (try? FileDescriptor.workingDirectory.status(of: root)) != nil else { continue }
            // Each command may fail; what was touched gets one time, which is another for each step, and its owner. Directories
            // that no layer names have the time of the unpack with umoci, and were not touched; the clock of files has ticks.
            let owner = setting.isRootless ? "chown -hR \(owner) .; " : ""
            let time = 1_600_000_050 + edits
            try runSuccessfully([
                "/bin/sh", "-c",
                "cd \"$1\" || exit 1; : > \"$2\"; sleep 0.02; { \(script); } 2>/dev/null; \(owner)find . -newer \"$2\" -print0 | xargs -0r touch -h -d @\(time); :",
                "sh", root.description, path.appending("clock").description,
            ])
        }
    }

    func tags(_ side: Int) throws -> [String] {
        let index = try LayoutDocument(
            try FileDescriptor.workingDirectory.readFile(
                self.side(side).appending("L/index.json"), limit: 1 << 24))
        return (index["manifests"]?.elements ?? []).compactMap {
            $0["annotations"]?["org.opencontainers.image.ref.name"]?.text
        }
    }

    mutating func compare(_ words: [String], _ results: [CommandResult]) throws {
        let (theirs, ours) = (results[1 - ourSide], results[ourSide])
        let isListed = UmociExpectation.isRefusedByVarveAlone(words, ours)
        if theirs.status != ours.status, !isListed {
            findings.append(
                "umoci ended with \(theirs.status) (\(theirs.errorText)), varve with \(ours.status) (\(ours.errorText))"
            )
        }
        if words.contains(where: { $0 == "--no-history" || $0 == "--no-history=true" }) {
            makesOnlyNewBlobs = false
        }
        // Digests differ: what is told of an image by both is compared at the end.
        let verb = words.first { !$0.hasPrefix("-") }
        if UmociExpectation.output(theirs.outputText) != ours.outputText, verb != "stat" || theirs.status != 0
        {
            findings.append("umoci printed \(theirs.outputText), varve \(ours.outputText)")
        }
        if theirs.status == 0, ours.status == 0, setting.release == .newer,
            theirs.errors.isEmpty != ours.errors.isEmpty
        {
            findings.append("umoci said \(theirs.errorText), varve \(ours.errorText)")
        }
        for layout in Self.layouts { try compareLayouts(layout, isRepack: verb == "repack") }
        if ours.status != 0, theirs.status != 0 || isListed { try removeLeftovers() }
        try compareFiles()
    }

    private mutating func compare(_ what: String, _ lines: [Set<String>]) {
        for side in 0...1 {
            for line in lines[side].subtracting(lines[1 - side]).sorted() {
                findings.append("\(what), side \(side)\(isOurs(side) ? ", varve's" : ""): \(line)")
            }
        }
    }

    private mutating func compareLayouts(_ name: BytePath, isRepack: Bool) throws {
        let places = [side(0).appending(name), side(1).appending(name)]
        let isThere = places.map { (try? FileDescriptor.workingDirectory.status(of: $0)) != nil }
        if isThere[0] != isThere[1] { findings.append("\(name) is there on one side only: \(isThere)") }
        guard isThere == [true, true] else { return }
        let now = try places.map { try LayoutState($0) }
        let before = states.map { $0[name] }
        for side in 0...1 { states[side][name] = now[side] }
        guard now[0] != before[0] || now[1] != before[1] else { return }
        hasChanges = true

        for side in 0...1 {
            for (path, file) in now[side].files where file != before[side]?.files[path] {
                let isFirst = path == "oci-layout" || path == "index.json" && before[side] == nil
                let mode = file.isDirectory ? 0o755 : isFirst ? 0o644 : 0o600 as UInt32
                let wanted = "\(owner) \(String(isOurs(side) ? UmociExpectation.mode(mode) : mode, radix: 8))"
                if file.text != wanted {
                    findings.append(
                        "\(name)/\(path), side \(side)\(isOurs(side) ? ", varve's" : ""): \(file.text), not \(wanted)"
                    )
                }
            }
        }
        // Blobs have other names: as many are left over.
        compare(
            "\(name)",
            now.map { state in
                let (blobs, others) = (
                    state.files.keys.filter { $0.parent == "blobs/sha256" }, Set(state.files.keys)
                )
                return Set(others.subtracting(blobs).map(\.description))
                    .union(makesOnlyNewBlobs ? ["\(blobs.count) blobs"] : [])
            })
        if setting.release == .newer || !isSwapped {
            for finding in try LayoutChecker.findings(places[ourSide]) {
                findings.append("layout of varve: \(finding)")
            }
        }
        var options = ImageContents.Options(
            comparesTimes: sequence.comparesTimes || sequence.hasSourceDate,
            comparesNewMembers: setting.release == .newer, repacked: repacked,
            latestTime: sequence.latestTime)
        var contents = try places.map { try ImageContents($0, options, cache: cache) }
        let new = contents[0].layers.union(contents[1].layers).subtracting(layers)
        layers.formUnion(new)
        if isRepack, !new.isEmpty {
            repacked.formUnion(new)
            options.repacked = repacked
            contents = try places.map { try ImageContents($0, options, cache: cache) }
        }
        compare("\(name)", contents.map(\.lines))
    }

    /// Bundles and configurations that a command which failed has left with umoci, and not with varve.
    private func removeLeftovers() throws {
        let kept = Set(try entries(side(ourSide)).map(\.name))
        for name in try entries(side(1 - ourSide)).map(\.name) where !kept.contains(name) {
            try runSuccessfully(["rm", "-rf", side(1 - ourSide).appending(name).description])
        }
    }

    /// Bundles, root file systems and configurations that lie beside the layout.
    private mutating func compareFiles() throws {
        let names = try (0...1).map { side in
            try entries(self.side(side)).map(\.name).sorted()
        }
        if names[0] != names[1] {
            findings.append("beside the layout lie \(names[0]) and \(names[1])")
            return
        }
        for name in names[0] where !["L", "N", "a", "empty", "files"].contains(name.description) {
            let places = [side(0).appending(name), side(1).appending(name)]
            let ours = makers[name] ?? ourSide
            makers[name] = ours
            guard try FileDescriptor.workingDirectory.status(of: places[0]).isDirectory else {
                compare(
                    "\(name)", try places.indices.map { try configuration(places[$0], isOurs: $0 == ours) })
                continue
            }
            let isBundle = name.bytes.first == UInt8(ascii: "b")
            let trees = places.map { isBundle ? $0.appending("rootfs") : $0 }
            for line in try Self.differences(trees[0], trees[1], latestTime: sequence.latestTime) {
                findings.append("\(name): \(line)")
            }
            if isBundle {
                compare("\(name)", try places.indices.map { try bundle(places[$0], isOurs: $0 == ours) })
            }
        }
    }

    /// A bundle but its tree, as lines of text.
    private func bundle(_ path: BytePath, isOurs: Bool) throws -> Set<String> {
        let here = FileDescriptor.workingDirectory
        var lines: Set<String> = ["bundle \(try FileState(here.status(of: path)).text)"]
        for entry in try entries(path) where !UmociExpectation.isOwnFile(entry.name) {
            let name = entry.name.description
            let state = FileState(try here.status(of: path.appending(entry.name)))
            // The file is named by the digest of a manifest.
            lines.insert("\(name.hasSuffix(".mtree") ? "mtree" : name) \(state.text)")
        }
        let meta = try LayoutDocument(try here.readFile(path.appending("umoci.json"), limit: 1 << 20))
        let digest = meta["from_descriptor_path"]?["descriptor_walk"]?.elements?.last?["digest"]?.text ?? ""
        let mtree = path.appending(BytePath(digest.replacing(":", with: "_") + ".mtree"))
        lines.insert("mtree file of its manifest: \((try? here.status(of: mtree)) != nil)")
        // The first is of the bytes of the manifest; the second is varve's own.
        let kept = UmociExpectation.metadata(meta).mapMembers { key, value in
            ["digest", "size", "varve_keep_dirlinks"].contains(key) ? nil : value
        }
        lines.insert("umoci.json \(kept)")
        return lines.union(try configuration(path.appending("config.json"), isOurs: isOurs))
    }

    /// `config.json` as lines of text: as it is, or as it would be of varve.
    private func configuration(_ path: BytePath, isOurs: Bool) throws -> Set<String> {
        let here = FileDescriptor.workingDirectory
        let document = try LayoutDocument(try here.readFile(path, limit: 1 << 20))
        let expected = UmociExpectation.sorted(isOurs ? document : UmociExpectation.configuration(document))
        let known = expected.mapMembers { key, value in
            key != "org.opencontainers.image.created" || sequence.comparesTimes || sequence.hasSourceDate
                ? value : .string("some time")
        }
        var lines: Set<String> = ["config.json \(FileState(try here.status(of: path)).text)"]
        for (key, value) in known.members ?? [:] {
            for (part, value) in value.members ?? ["": value] {
                lines.insert("config.json \(key) \(part) \(value)")
            }
        }
        return lines
    }

    /// Later than all times that are set.
    private static let now: Int64 = 1_700_000_000

    /// - Parameter latestTime: what umoci gives to a file that changed later, and to one that it repeats without a change.
    static func differences(
        _ left: BytePath, _ right: BytePath, latestTime: Int64 = .max
    ) throws -> [String] {
        let first = try FileDescriptor.workingDirectory.openDirectory(left)
        let second = try FileDescriptor.workingDirectory.openDirectory(right)
        // A directory that no layer names, or in which something was made or deleted by one that does not name it, has the
        // time of the unpack with umoci, and one that does not depend on it with varve.
        return try TreeCompare.differences(first.fd, second.fd, OracleOptions(ignoresSubsecondTimes: true))
            .compactMap { line in
                guard let colon = line.firstRange(of: ": ") else { return line }
                let parts = line[colon.upperBound...].split(separator: "; ")
                let times = parts.filter { $0.hasPrefix("mtime ") }.flatMap {
                    $0.split(whereSeparator: { !$0.isNumber }).map { Int64($0) ?? 0 }
                }
                // One that no layer names belongs to root of the image with varve, to who unpacks with umoci.
                let isUnnamed = times.contains(0) && times.contains { $0 >= now }
                let kept = parts.filter { part in
                    if part.hasPrefix("mtime ") {
                        return times.allSatisfy { $0 < now }
                            && Set(times.map { min($0, latestTime) }).count > 1
                    }
                    return !(isUnnamed && (part.hasPrefix("uid ") || part.hasPrefix("gid ")))
                }
                return kept.isEmpty ? nil : line[..<colon.upperBound] + kept.joined(separator: "; ")
            }
    }
}

/// Which file this is, whose, and with what mode.
private struct FileState: Equatable {
    var inode: UInt64
    var isDirectory: Bool
    var text: String

    init(_ status: FileStatus) {
        inode = UInt64(status.inode)
        isDirectory = status.isDirectory
        text = "\(status.uid):\(status.gid) \(String(status.permissions, radix: 8))"
    }
}

/// The files of a layout, and the list of its images.
private struct LayoutState: Equatable {
    var files: [BytePath: FileState] = [:]
    var index: [UInt8]

    init(_ path: BytePath) throws {
        let here = FileDescriptor.workingDirectory
        index = try here.readFile(path.appending("index.json"), limit: 1 << 24)
        for name in [".", "blobs", "blobs/sha256"] as [BytePath] {
            let place = path.appending(name)
            files[name] = FileState(try here.status(of: place))
            for entry in try entries(place) where entry.type != .directory {
                let file = name == "." ? entry.name : name.appending(entry.name)
                files[file] = FileState(try here.status(of: place.appending(entry.name)))
            }
        }
    }
}

private func entries(_ path: BytePath) throws -> [DirectoryEntry] {
    let directory = try FileDescriptor.workingDirectory.openDirectory(path)
    return try directory.fd.entries()
}
