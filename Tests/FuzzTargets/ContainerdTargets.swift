import Glibc
import Logging
import Synchronization
import TestSupport
import VarveContainerd
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

extension FuzzTarget {
    /// Records of containerd's snapshots.
    ///
    /// A `RecordFault`, or a record that is the same when it is written and read again.
    package static let snapshots = FuzzTarget(
        name: "snapshots",
        seeds: {
            recordSeeds.map { Array($0.utf8) } + [
                [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [0], [0, 2, 9],
            ]
        },
        run: { bytes in
            let record: SnapshotRecord
            // One that is written as the bytes say; else what they are.
            let text = bytes.first == 0 ? recordOfChoices(bytes).encoded : bytes
            do { record = try SnapshotRecord(parsing: text) } catch let fault as RecordFault {
                try require(
                    fault.description.utf8.count < 200, "a reason of \(fault.description.utf8.count) bytes")
                return .refused
            }
            try require(!record.key.isEmpty && record.tree > 0, "it names no snapshot, or no tree")
            let again = try SnapshotRecord(parsing: record.encoded)
            try require(again == record, "it became \(String(decoding: record.encoded, as: UTF8.self))")
            try require(record.key.fileName.count == 64 + 5, "its file is \(record.key.fileName)")
            return .taken
        })

    /// Filters of List, each with a snapshot that it is asked about: a filter, 0xff, its key, 0xff, a label's name, 0xff, its value.
    ///
    /// A filter that says the same each time, or an error in few words that says that the argument is not valid.
    package static let filters = FuzzTarget(
        name: "filters",
        seeds: { filterSeeds.map { seed in Array(seed.map { Array($0.utf8) }.joined(separator: [0xff])) } },
        run: { bytes in
            let parts = bytes.split(separator: 0xff, maxSplits: 3, omittingEmptySubsequences: false).map {
                String(decoding: $0, as: UTF8.self)
            }
            func part(_ index: Int) -> String { index < parts.count ? parts[index] : "" }
            let filter: SnapshotFilter
            do throws(ServiceError) { filter = try SnapshotFilter(part(0)) } catch {
                try require(error.code == .invalidArgument, "the code \(error.code)")
                try require(
                    error.message.utf8.count < 2000, "a message of \(error.message.utf8.count) bytes")
                return .refused
            }
            let record = SnapshotRecord(
                key: SnapshotKey(part(1)), kind: .active, parent: SnapshotKey(""),
                labels: [part(2): part(3)], time: .epoch, tree: 1)
            let matches = filter.matches(record)
            try require(filter.matches(record) == matches, "it says something else the second time")
            try require(
                SnapshotFilter.anyMatches([filter], record) == matches
                    && SnapshotFilter.anyMatches([], record),
                "alone it says something else than in a list")
            try require(part(0).isEmpty != true || matches, "the empty filter leaves something out")
            return .taken
        })

    /// Calls of `snapshots.v1` and `diff.v1` on a store, with keys, labels, parents and mounts of all kinds.
    ///
    /// Each is answered as a model of the interface answers it, which knows nothing of trees; in the end, and after a start in the
    /// middle, all snapshots are those of the model, and once they are removed no tree is left. Needs root.
    package static let calls = FuzzTarget(
        name: "calls",
        seeds: { callSeeds },
        run: { bytes in
            let daemon = try FuzzDaemon.shared.get()
            return try daemon.run(bytes)
        })
}

private let recordSeeds = [
    #"{"version":1,"key":"default/1/a b","kind":"active","parent":"","labels":{},"created":[1,2],"updated":[3,4],"tree":7}"#,
    #"{"version":1,"key":"k","kind":"committed","parent":"p","labels":{"a":"b","containerd.io/gc.root":""},"created":[1,999999999],"#
        + #""updated":[-3,0],"tree":9007199254740993,"chain":"sha256:\#(String(repeating: "0a", count: 32))","#
        + #""usage":{"size":1,"inodes":-2},"committedFrom":6,"origin":{"uuid":"u","parentUUID":"","transaction":12}}"#,
    #"{"version":2,"key":"k"}"#, #"{"version":1,"key":"","kind":"view"}"#,
]

/// A record that a daemon may write.
private func recordOfChoices(_ bytes: [UInt8]) -> SnapshotRecord {
    var input = FuzzInput(Array(bytes.dropFirst()))
    func text(_ input: inout FuzzInput) -> String {
        String(decoding: input.bytes(Int(input.byte() % 8)), as: UTF8.self)
    }
    var record = SnapshotRecord(
        key: SnapshotKey("k" + text(&input)), kind: input.pick(SnapshotRecord.Kind.allCases),
        parent: SnapshotKey(text(&input)), labels: [text(&input): text(&input)],
        time: Timestamp(seconds: Int64(input.byte()) - 100, nanoseconds: UInt32(input.byte())),
        tree: UInt64(input.byte()) + 1)
    if input.byte() % 2 == 1 { record.chain = ChainID(Digest(of: [input.byte()])) }
    if input.byte() % 2 == 1 { record.usage = .init(size: Int64(input.byte()), inodes: .max) }
    if input.byte() % 2 == 1 { record.committedFrom = UInt64(input.byte()) + 1 }
    if input.byte() % 2 == 1 {
        record.origin = .init(uuid: text(&input), parentUUID: text(&input), transaction: UInt64(input.byte()))
    }
    return record
}

private let filterSeeds = [
    ["kind==active,labels.\"containerd.io/gc.root\"", "k", "containerd.io/gc.root", "x"],
    ["name~=^sha256:[0-9a-f]{64}$", "sha256:0", "a", "b"],
    ["labels.a~=/a*b+c?|(x.y)\\/[^q-z]/", "k", "a", "aab"],
    ["parent!=\"\\u00e9\\x41\\101\",name", "k", "", ""], ["", "k", "a", "b"],
    ["labels.a != b , kind == view"],
    ["name~=(a|b"], ["kind="], ["name~=[z-a]"],
]

/// A name, the kind of the call, and what it says; see `FuzzDaemon.run`.
private let callSeeds: [[UInt8]] = [
    // Prepare a; Commit b of a; Prepare c on b; View d/e on b; Remove b; List.
    [0, 0, 7, 0, 1, 1, 0, 0, 0, 2, 1, 0, 2, 3, 1, 0, 3, 1, 5],
    // Prepare with labels; Update; start again; Mounts, Usage.
    [0, 0, 7, 1, 4, 0, 2, 1, 6, 5, 0, 7, 0, 8, 0],
    // Prepare; mounts as they are, with another source, with options.
    [0, 0, 7, 0, 9, 0, 0, 0, 0, 9, 0, 1, 0, 0, 9, 0, 2, 1, 1, 9, 0, 7, 0, 0, 0x2f, 0x65],
    [0, 5, 7, 0, 0, 0, 6, 3, 3, 6, 1, 7, 1, 1, 1, 1, 3, 0],
]

/// A store on a btrfs of its own, for a process; it is unmounted when the process ends by itself. Scripts/fuzz unmounts it after a
/// crash.
private final class FuzzDaemon: @unchecked Sendable {
    static let shared = Result { try FuzzDaemon() }
    private static let quiet = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
    private static let names = [
        "a", "b", "c", "d/e", "../x", String(repeating: "k", count: 4096),
        String(repeating: "k", count: 4097), "",
    ]
    private static let labelSets: [[String: String]] = [
        [:], ["x": "1"], ["x": "2", "y": ""], ["y": String(repeating: "v", count: 4096)],
    ]
    private static let pathSets = [[], ["labels"], ["labels.x"], ["labels.y", "labels.x"], ["kind"]]
    /// Calls of one input at most.
    private static let limit = 24

    private let volume: LoopVolume
    private let store: SnapshotStore
    /// Nil only while it is opened again.
    private var current: Snapshotter?
    private var snapshotter: Snapshotter {
        get throws {
            guard let current else { throw FuzzFinding("there are no snapshots") }
            return current
        }
    }

    private init() throws {
        volume = try LoopVolume()
        store = try SnapshotStore.initialize(at: volume.path.appending("store"), logger: Self.quiet)
        current = try Snapshotter(DaemonTrees(store, id: "fuzz"), logger: Self.quiet)
        atexit {
            guard case .success(let daemon) = FuzzDaemon.shared else { return }
            let path = daemon.volume.path
            try? unmount(path, detaching: true)
            try? FileDescriptor.workingDirectory.removeDirectory(path)
        }
    }

    /// What the interface says of a snapshot.
    private struct Model: Equatable {
        var kind: SnapshotRecord.Kind
        var parent: String
        var labels: [String: String]
    }

    /// One input at a time.
    private let lock = Mutex(())

    func run(_ bytes: [UInt8]) throws -> FuzzTarget.Outcome { try lock.withLock { _ in try runAlone(bytes) } }

    private func runAlone(_ bytes: [UInt8]) throws -> FuzzTarget.Outcome {
        var input = FuzzInput(bytes)
        if current == nil { try startAgain() }
        var model: [String: Model] = [:]
        var refusals = 0
        for number in 0..<Self.limit where !input.isEmpty {
            let call = input.byte() % 10
            let expected: ServiceError.Code?
            let actual: ServiceError.Code?
            switch call {
            case 0, 2:
                let kind: SnapshotRecord.Kind = call == 2 ? .view : .active
                let (key, parent, labels) = (name(&input), name(&input), input.pick(Self.labelSets))
                expected = answer(toMaking: key, on: parent, labels, model)
                actual = code {
                    _ = try snapshotter.make(
                        kind, SnapshotKey(key), parent: SnapshotKey(parent), labels: labels)
                }
                if expected == nil { model[key] = Model(kind: kind, parent: parent, labels: kept(labels)) }
            case 1:
                let (new, key, labels) = (name(&input), name(&input), input.pick(Self.labelSets))
                expected = answer(toCommitting: key, as: new, labels, model)
                actual = code {
                    try snapshotter.commit(SnapshotKey(new), from: SnapshotKey(key), labels: labels)
                }
                if expected == nil, let old = model.removeValue(forKey: key) {
                    model[new] = Model(kind: .committed, parent: old.parent, labels: kept(labels))
                }
            case 3:
                let key = name(&input)
                let hasChildren = model.values.contains { $0.parent == key }
                expected = model[key] == nil ? .notFound : hasChildren ? .failedPrecondition : nil
                actual = code { try snapshotter.remove(SnapshotKey(key)) }
                if expected == nil { model[key] = nil }
            case 4:
                let (key, labels, paths) = (
                    name(&input), input.pick(Self.labelSets), input.pick(Self.pathSets)
                )
                expected = answer(toUpdating: key, labels, paths, &model)
                actual = code { _ = try snapshotter.update(SnapshotKey(key), labels: labels, paths: paths) }
            case 5:
                try snapshotter.cleanUp()
                (expected, actual) = (nil, nil)
                try compare(model)
            case 6:
                try startAgain()
                (expected, actual) = (nil, nil)
                try compare(model)
            case 7:
                let key = name(&input)
                expected =
                    model[key].map { $0.kind == .committed ? .failedPrecondition : nil } ?? .notFound
                actual = code { _ = try snapshotter.mounts(SnapshotKey(key)) }
            case 8:
                let key = name(&input)
                expected = model[key] == nil ? .notFound : nil
                actual = code {
                    let usage = try snapshotter.usage(SnapshotKey(key))
                    guard usage.inodes >= 0, usage.size >= 0 else {
                        throw ServiceError(.internalError, "\(usage)")
                    }
                }
            default:
                let (mounts, isOwn, isWritable) = try mounts(&input)
                let layer = Descriptor(mediaType: input.pick(mediaTypes), digest: Digest(of: []), size: 0)
                let isLayer = layer.mediaType == mediaTypes[0]
                let differ = try Differ(snapshotter, logger: Self.quiet)
                expected = !isLayer || !isOwn ? .unimplemented : isWritable ? nil : .failedPrecondition
                actual = code { try differ.check(layer, to: mounts) }
                let diff = code { try differ.check([], mounts, mediaType: layer.mediaType) }
                let isWritten = isLayer || layer.mediaType.isEmpty
                let wanted: ServiceError.Code? = isWritten && isOwn ? nil : .unimplemented
                try require(
                    diff == wanted, "a diff of \(mounts) is answered \(told(diff)), not \(told(wanted))")
            }
            try require(
                actual == expected,
                "call \(number), \(call), is answered \(told(actual)), not \(told(expected))")
            if actual != nil { refusals += 1 }
        }
        try compare(model)
        try removeAll(&model)
        return refusals == 0 ? .taken : .refused
    }

    private func told(_ code: ServiceError.Code?) -> String { code.map { "\($0)" } ?? "ok" }

    private func code(_ body: () throws -> Void) -> ServiceError.Code? {
        do {
            try body()
            return nil
        } catch {
            guard let error = error as? ServiceError, error.message.utf8.count < 10_000 else {
                return .internalError
            }
            return error.code
        }
    }

    private func name(_ input: inout FuzzInput) -> String {
        let choice = Int(input.byte())
        if choice < Self.names.count { return Self.names[choice] }
        return String(decoding: input.bytes(choice % 4), as: UTF8.self)
    }

    // MARK: The model

    private func kept(_ labels: [String: String]) -> [String: String] { labels.filter { !$0.value.isEmpty } }
    private func isTooLong(_ labels: [String: String]) -> Bool {
        labels.contains { $0.key.utf8.count + $0.value.utf8.count > 4096 }
    }
    private func isKey(_ key: String) -> Bool { (1...4096).contains(key.utf8.count) }

    private func answer(
        toMaking key: String, on parent: String, _ labels: [String: String], _ model: [String: Model]
    ) -> ServiceError.Code? {
        if isTooLong(labels) || !isKey(key) { return .invalidArgument }
        if !parent.isEmpty {
            guard let found = model[parent] else { return .notFound }
            if found.kind != .committed { return .invalidArgument }
        }
        return model[key] == nil ? nil : .alreadyExists
    }

    private func answer(
        toCommitting key: String, as name: String, _ labels: [String: String], _ model: [String: Model]
    ) -> ServiceError.Code? {
        if isTooLong(labels) || !isKey(name) { return .invalidArgument }
        if model[name] != nil { return .alreadyExists }
        guard let found = model[key] else { return .notFound }
        return found.kind == .active ? nil : .failedPrecondition
    }

    private func answer(
        toUpdating key: String, _ labels: [String: String], _ paths: [String], _ model: inout [String: Model]
    ) -> ServiceError.Code? {
        guard var found = model[key] else { return .notFound }
        if isTooLong(labels) || paths.contains("kind") { return .invalidArgument }
        if paths.isEmpty || paths.contains("labels") {
            found.labels = kept(labels)
        } else {
            for path in paths {
                let name = String(path.dropFirst("labels.".count))
                found.labels[name] = kept(labels)[name]
            }
        }
        model[key] = found
        return nil
    }

    private let mediaTypes = [
        "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.config.v1+json", "",
        "text/plain",
    ]

    /// Mounts, whether a differ takes them for those of one snapshot, and whether that may be written to through them.
    private func mounts(_ input: inout FuzzInput) throws -> ([SnapshotMount], isOwn: Bool, isWritable: Bool) {
        let key = SnapshotKey(name(&input))
        let record = try? snapshotter.record(key)
        let right = try record.map { try snapshotter.trees.rootfs(of: $0.tree).description } ?? "/nothing"
        let sources = [
            right, right + "/", right + "/..", "/" + right, String(right.dropLast(7)),
            right.replacing("/fuzz/", with: "/other/"), right.replacing("/rootfs", with: "/./rootfs"),
            String(decoding: input.bytes(2), as: UTF8.self), right + "\0",
        ]
        let source = input.pick(sources)
        let type = input.pick(["bind", "rbind", "overlay", ""])
        let options = input.pick([["rw", "rbind"], ["ro", "rbind"], [], ["rw", "exec"], ["lowerdir=/"]])
        let mount = SnapshotMount(type: type, source: source, options: options)
        let count = [1, 1, 1, 0, 2][Int(input.byte()) % 5]
        let isOwn =
            record != nil && source == right && count == 1 && (type == "bind" || type == "rbind")
            && options.allSatisfy { ["ro", "rw", "rbind"].contains($0) }
        return (
            Array(repeating: mount, count: count), isOwn, record?.kind == .active && !options.contains("ro")
        )
    }

    // MARK: The store

    private func startAgain() throws {
        current?.cleanUp()
        current = nil
        for _ in 0..<2000 {
            do {
                current = try Snapshotter(DaemonTrees(store, id: "fuzz"), logger: Self.quiet)
                return
            } catch let error as VarveError where error.description.contains("another process serves") {
                // A thread that has deleted something is about to let go of it.
                usleep(5_000)
            }
        }
        throw FuzzFinding("the trees are never let go")
    }

    private func compare(_ model: [String: Model]) throws {
        let found = Dictionary(
            uniqueKeysWithValues: try snapshotter.list([]).map {
                ($0.key.text, Model(kind: $0.kind, parent: $0.parent.text, labels: $0.labels))
            })
        try require(found == model, "there are \(found), and it should be \(model)")
        let trees = try snapshotter.list([]).map { try snapshotter.trees.isReadOnly($0.tree) }
        try require(
            try trees == snapshotter.list([]).map { $0.kind != .active },
            "a tree can be written to, or cannot")
    }

    private func removeAll(_ model: inout [String: Model]) throws {
        while let key = model.keys.first(where: { key in !model.values.contains { $0.parent == key } }) {
            try snapshotter.remove(SnapshotKey(key))
            model[key] = nil
        }
        try snapshotter.cleanUp()
        let left = try snapshotter.trees.all()
        try require(left.numbers == [DaemonTrees.emptyTree] && left.others.isEmpty, "left are \(left)")
    }
}
