package import VarveContainerd
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

/// One call of a daemon's, as a line of text: a word for the call and its arguments, with tabs between them.
package enum DaemonCall: Sendable, Hashable, LosslessStringConvertible {
    case prepare(String, parent: String, label: String = "")
    case view(String, parent: String)
    case commit(String, from: String)
    case remove(String)
    case update(String, label: String)
    /// Applies a layer that is in the content store.
    case apply(String, layer: String)
    /// Writes the layer of one committed snapshot on another, and applies it to an active one.
    case republish(String, from: String, to: String)
    /// Mounts are not made: it writes to the tree.
    case write(String, name: String, content: String)
    case cleanUp

    package init?(_ line: String) {
        let words = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        switch (words.first, words.count) {
        case ("prepare", 4): self = .prepare(words[1], parent: words[2], label: words[3])
        case ("view", 3): self = .view(words[1], parent: words[2])
        case ("commit", 3): self = .commit(words[1], from: words[2])
        case ("remove", 2): self = .remove(words[1])
        case ("update", 3): self = .update(words[1], label: words[2])
        case ("apply", 3): self = .apply(words[1], layer: words[2])
        case ("republish", 4): self = .republish(words[1], from: words[2], to: words[3])
        case ("write", 4): self = .write(words[1], name: words[2], content: words[3])
        case ("cleanup", 1): self = .cleanUp
        default: return nil
        }
    }

    package var description: String {
        let words =
            switch self {
            case .prepare(let key, let parent, let label): ["prepare", key, parent, label]
            case .view(let key, let parent): ["view", key, parent]
            case .commit(let name, let key): ["commit", name, key]
            case .remove(let key): ["remove", key]
            case .update(let key, let label): ["update", key, label]
            case .apply(let key, let layer): ["apply", key, layer]
            case .republish(let key, let old, let new): ["republish", key, old, new]
            case .write(let key, let name, let content): ["write", key, name, content]
            case .cleanUp: ["cleanup"]
            }
        return words.joined(separator: "\t")
    }

    /// Does it. A Prepare that makes what it was asked to skip is no error.
    package func run(_ snapshotter: Snapshotter, _ content: MemoryContent) throws {
        switch self {
        case .prepare(let key, let parent, let label):
            let labels = label.isEmpty ? [:] : [Snapshotter.referenceLabel: label]
            do {
                _ = try snapshotter.make(
                    .active, SnapshotKey(key), parent: SnapshotKey(parent), labels: labels)
            } catch let error as ServiceError where error.code == .alreadyExists && !label.isEmpty {}
        case .view(let key, let parent):
            _ = try snapshotter.make(.view, SnapshotKey(key), parent: SnapshotKey(parent), labels: [:])
        case .commit(let name, let key):
            try snapshotter.commit(SnapshotKey(name), from: SnapshotKey(key), labels: ["committed": name])
        case .remove(let key): try snapshotter.remove(SnapshotKey(key))
        case .update(let key, let label):
            _ = try snapshotter.update(SnapshotKey(key), labels: ["l": label], paths: [])
        case .apply(let key, let layer):
            guard let layer = content.descriptor(ofDigest: layer) else {
                throw ServiceError(.notFound, "there is no blob \(layer)")
            }
            _ = try Differ(snapshotter, logger: DaemonRoom.quiet).apply(
                layer, to: snapshotter.mounts(SnapshotKey(key)), synchronizes: true,
                from: content, memory: 8 << 20, Cancellation())
        case .republish(let key, let old, let new):
            func mounts(_ key: String) throws -> [SnapshotMount] {
                let path = snapshotter.trees.rootfs(of: try snapshotter.record(SnapshotKey(key)).tree)
                return [SnapshotMount(type: "bind", source: "\(path)", options: ["ro", "rbind"])]
            }
            let differ = Differ(snapshotter, logger: DaemonRoom.quiet)
            let reads = content.reads
            let layer = try differ.diff(
                from: mounts(old), to: mounts(new), mediaType: "", reference: "", labels: [:],
                latestTime: nil,
                into: content, threads: 1, Cancellation())
            _ = try differ.apply(
                layer, to: snapshotter.mounts(SnapshotKey(key)), synchronizes: true,
                from: content, memory: 8 << 20, Cancellation())
            guard content.reads == reads else { throw ServiceError(.internalError, "the layer was read") }
        case .write(let key, let name, let text):
            let root = try FileDescriptor.workingDirectory.openDirectory(
                snapshotter.trees.rootfs(of: snapshotter.record(SnapshotKey(key)).tree))
            try root.fd.writeFileDurably(BytePath(name), Array(text.utf8), mode: 0o644)
        case .cleanUp: snapshotter.cleanUp()
        }
    }
}
