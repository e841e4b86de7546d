import Glibc
import SystemPackage
package import VarveContainerd
package import VarveOCI
package import VarveStore
package import VarveSystem

/// The calls that a history makes, by keys: of the daemon's types in this process, or of a real containerd.
package protocol HistoryCalls: AnyObject {
    func prepare(_ key: String, parent: String) throws
    func view(_ key: String, parent: String) throws
    func commit(_ name: String, from key: String) throws
    func remove(_ key: String) throws

    /// The layer of what `right` has and `left` has not; nil for what no layer can hold.
    ///
    /// - Parameters:
    ///   - left: an active snapshot or a view; nil for nothing at all.
    ///   - right: likewise.
    func diff(_ left: String?, _ right: String, mediaType: String) throws -> Descriptor?
    func apply(_ layer: Descriptor, to key: String) throws

    /// What the daemon has written down of a snapshot.
    func record(_ key: String) throws -> SnapshotRecord
    /// The directory of a snapshot's root file system.
    func rootfs(of record: SnapshotRecord) -> BytePath
    /// The trees of the daemon, by their names, after all that is to be deleted was deleted.
    func treesLeft() throws -> [String]
}

extension HistoryCalls {
    /// What the differ says of what no layer can hold.
    static func isRefusal(_ message: String) -> Bool { message.contains("cannot go into a layer") }
}

/// The daemon's types, in this process.
package final class DirectCalls: HistoryCalls {
    private let snapshotter: Snapshotter
    private let differ: Differ
    private let content = MemoryContent()

    package init(_ snapshotter: Snapshotter) {
        self.snapshotter = snapshotter
        differ = Differ(snapshotter, logger: DaemonRoom.quiet)
    }

    package func prepare(_ key: String, parent: String) throws {
        _ = try snapshotter.make(.active, SnapshotKey(key), parent: SnapshotKey(parent), labels: [:])
    }

    package func view(_ key: String, parent: String) throws {
        _ = try snapshotter.make(.view, SnapshotKey(key), parent: SnapshotKey(parent), labels: [:])
    }

    package func commit(_ name: String, from key: String) throws {
        try snapshotter.commit(SnapshotKey(name), from: SnapshotKey(key), labels: [:])
    }

    package func remove(_ key: String) throws { try snapshotter.remove(SnapshotKey(key)) }

    package func diff(_ left: String?, _ right: String, mediaType: String) throws -> Descriptor? {
        do {
            return try differ.diff(
                from: left.map { try snapshotter.mounts(SnapshotKey($0)) } ?? [],
                to: snapshotter.mounts(SnapshotKey(right)), mediaType: mediaType, reference: "", labels: [:],
                latestTime: nil, into: content, threads: 1, Cancellation())
        } catch let error as ServiceError where Self.isRefusal(error.message) {
            return nil
        }
    }

    package func apply(_ layer: Descriptor, to key: String) throws {
        _ = try differ.apply(
            layer, to: snapshotter.mounts(SnapshotKey(key)), synchronizes: false,
            from: content, memory: 8 << 20, Cancellation())
    }

    package func record(_ key: String) throws -> SnapshotRecord { try snapshotter.record(SnapshotKey(key)) }
    package func rootfs(of record: SnapshotRecord) -> BytePath { snapshotter.trees.rootfs(of: record.tree) }

    package func treesLeft() throws -> [String] {
        snapshotter.cleanUp()
        let trees = try snapshotter.trees.all()
        return trees.numbers.map { "\($0)" } + trees.others.map { "\($0)" }
    }
}

/// A real containerd, by way of the program that started this one (Tests/ContainerdHistories): a call is a line to standard output, words
/// with tabs between them, and its answer a line from standard input: `ok`, and what was asked for, or `failed` and why.
package final class ContainerdCalls: HistoryCalls {
    private let place: BytePath
    private let records: RecordDirectory

    /// - Parameters:
    ///   - store: the path of the store.
    ///   - id: under which the containerd's snapshots are kept in it.
    package init(store: BytePath, id: String) throws {
        place = store.appending("containerd").appending(BytePath(id))
        records = RecordDirectory(
            SharedDescriptor(
                try FileDescriptor.workingDirectory.openDirectory(place.appending("records"))))
    }

    private func call(_ words: String...) throws -> [String] {
        try FileDescriptor.standardOutput.writeAll(Array((words.joined(separator: "\t") + "\n").utf8))
        guard let line = readLine() else {
            throw ServiceError(.unavailable, "containerd's client is gone: \(words)")
        }
        let answer = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        guard answer.first == "ok" else {
            throw ServiceError(.internalError, answer.dropFirst().joined(separator: " "))
        }
        return Array(answer.dropFirst())
    }

    package func prepare(_ key: String, parent: String) throws { _ = try call("prepare", key, parent) }
    package func view(_ key: String, parent: String) throws { _ = try call("view", key, parent) }
    package func commit(_ name: String, from key: String) throws { _ = try call("commit", name, key) }
    package func remove(_ key: String) throws { _ = try call("remove", key) }

    package func diff(_ left: String?, _ right: String, mediaType: String) throws -> Descriptor? {
        let answer: [String]
        do { answer = try call("diff", left ?? "", right, mediaType) } catch let error as ServiceError
            where Self.isRefusal(error.message)
        {
            return nil
        }
        guard answer.count == 2, let digest = Digest(answer[0]), let size = Int64(answer[1]) else {
            throw ServiceError(.internalError, "no layer came of a diff: \(answer)")
        }
        return Descriptor(mediaType: mediaType, digest: digest, size: size)
    }

    package func apply(_ layer: Descriptor, to key: String) throws {
        _ = try call("apply", "\(layer.digest)", "\(layer.size)", layer.mediaType, key)
    }

    package func record(_ key: String) throws -> SnapshotRecord {
        // containerd puts its name space and a number before a key.
        let suffix = Array("/\(key)".utf8)
        let found = try records.read(isOwner: false, isMade: { _ in true }).records.filter {
            $0.key.bytes.suffix(suffix.count) == suffix[...]
        }
        guard found.count == 1 else {
            throw ServiceError(.notFound, "there are \(found.count) records of \(key)")
        }
        return found[0]
    }

    package func rootfs(of record: SnapshotRecord) -> BytePath {
        place.appending("trees").appending(BytePath("\(record.tree)")).appending("rootfs")
    }

    package func treesLeft() throws -> [String] {
        _ = try call("collect")
        var names: [String] = []
        // It deletes behind its calls.
        for _ in 0..<600 {
            let trees = try FileDescriptor.workingDirectory.openDirectory(place.appending("trees"))
            names = try trees.fd.entries().map { "\($0.name)" }
            if names == ["0"] { break }
            usleep(100_000)
        }
        return names
    }
}
