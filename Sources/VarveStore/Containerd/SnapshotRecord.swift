import VarveFormats
package import VarveOCI
package import VarveSystem

/// What is known of one snapshot, as it is kept on disk.
package struct SnapshotRecord: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        case view, active, committed
    }

    package struct Usage: Sendable, Hashable {
        /// Bytes.
        package var size: Int64
        package var inodes: Int64

        package init(size: Int64, inodes: Int64) {
            self.size = size
            self.inodes = inodes
        }
    }

    package var key: SnapshotKey
    package var kind: Kind
    /// Empty for none.
    package var parent: SnapshotKey
    package var labels: [String: String]
    package var created: Timestamp
    package var updated: Timestamp
    /// The number of its tree (`DaemonTrees`).
    package var tree: UInt64
    /// Of a view: the tree is its parent's, which is not written to either, and not deleted with the view.
    package var sharesTree = false
    /// The chain that the tree is a snapshot of. Nil for a tree that something else wrote, and for one that was made of nothing. Of an
    /// active snapshot it says what the tree was made of: whether it still is that is asked of btrfs.
    package var chain: ChainID?
    /// Of what was committed; nil if it is not known yet.
    package var usage: Usage?
    /// What the tree's own source was, which is deleted once a snapshot is committed: with it, a delta knows that a tree descends
    /// from its parent's.
    package var origin: DaemonTrees.Origin?
    /// Of a committed snapshot: the tree of the active one that it was. The record of that is removed some time after this one is written,
    /// and a start that finds both serves both.
    package var committedFrom: UInt64?

    package init(
        key: SnapshotKey, kind: Kind, parent: SnapshotKey, labels: [String: String], time: Timestamp,
        tree: UInt64,
        chain: ChainID? = nil, usage: Usage? = nil, origin: DaemonTrees.Origin? = nil
    ) {
        self.key = key
        self.kind = kind
        self.parent = parent
        self.labels = labels
        created = time
        updated = time
        self.tree = tree
        self.chain = chain
        self.usage = usage
        self.origin = origin
    }

    /// Which of these records count. A commit keeps the record of the active snapshot for a while. Where the committed one has the same
    /// tree, the other counts once a start has given them two.
    package static func split(_ records: [SnapshotRecord]) -> (
        counting: [SnapshotRecord], superseded: [SnapshotRecord]
    ) {
        let committed = Set(records.filter { $0.kind == .committed }.map(\.tree))
        func isSuperseded(_ record: SnapshotRecord) -> Bool {
            record.kind == .active && committed.contains(record.tree)
        }
        return (records.filter { !isSuperseded($0) }, records.filter(isSuperseded))
    }

    // MARK: On disk

    static let suffix = ".json"
    /// Bytes of a record at most. Labels and keys have their own limits below that: a byte takes six in JSON at most.
    package static let limit = 32 << 20
    private static let version: Int64 = 1
    /// Of a record that shares its tree: who does not know of that would delete it.
    private static let sharingVersion: Int64 = 2

    /// A JSON object; Docs/on-disk-format.md.
    package var encoded: [UInt8] {
        func number(_ value: some FixedWidthInteger) -> JSONValue { .number(JSONNumber(value)) }
        func time(_ value: Timestamp) -> JSONValue {
            .array([number(value.seconds), number(value.nanoseconds)])
        }
        var labels = JSONMembers()
        for (key, value) in self.labels.sorted(by: { $0.key < $1.key }) { labels.set(key, .string(value)) }
        var object: JSONObject = [
            "version": number(sharesTree ? Self.sharingVersion : Self.version), "key": .string(key.text),
            "kind": .string(kind.rawValue),
            "parent": .string(parent.text), "labels": .object(labels.object), "created": time(created),
            "updated": time(updated), "tree": number(tree),
        ]
        if let chain { object["chain"] = .string(chain.description) }
        if let usage { object["usage"] = ["size": number(usage.size), "inodes": number(usage.inodes)] }
        if let committedFrom { object["committedFrom"] = number(committedFrom) }
        if let origin {
            object["origin"] = [
                "uuid": .string(origin.uuid), "parentUUID": .string(origin.parentUUID),
                "transaction": number(origin.transaction),
            ]
        }
        return JSONValue.object(object).serialized() + [0x0a]
    }

    /// Throws `RecordFault` for what is no record that this version wrote.
    package init(parsing bytes: [UInt8]) throws {
        guard let object = try? JSONValue(parsing: bytes).object else {
            throw RecordFault("it is not a JSON object")
        }
        guard let version = object["version"]?.int64 else { throw RecordFault("it names no version") }
        guard version == Self.version || version == Self.sharingVersion else {
            throw RecordFault("it has version \(version)", isOfOtherVersion: true)
        }
        func text(_ name: String) throws -> String {
            guard let value = object[name]?.string else { throw RecordFault("it has no \(name)") }
            return value
        }
        func time(_ name: String) throws -> Timestamp {
            guard let parts = object[name]?.array, parts.count == 2, let seconds = parts[0].int64,
                let nanoseconds = parts[1].int64, (0..<1_000_000_000).contains(nanoseconds)
            else { throw RecordFault("\(name) is not a time") }
            return Timestamp(seconds: seconds, nanoseconds: UInt32(nanoseconds))
        }
        key = SnapshotKey(try text("key"))
        guard !key.isEmpty else { throw RecordFault("its key is empty") }
        guard let kind = Kind(rawValue: try text("kind")) else { throw RecordFault("its kind is unknown") }
        self.kind = kind
        sharesTree = version == Self.sharingVersion
        guard !sharesTree || kind == .view else {
            throw RecordFault("it has the tree of another, and is no view")
        }
        parent = SnapshotKey(try text("parent"))
        guard let labels = object["labels"]?.object else { throw RecordFault("it has no labels") }
        self.labels = [:]
        for member in labels.members {
            guard let value = member.value.string else { throw RecordFault("a label is not a string") }
            self.labels[member.key] = value
        }
        created = try time("created")
        updated = try time("updated")
        guard let tree = object["tree"]?.int64, tree > 0 else { throw RecordFault("it names no tree") }
        self.tree = UInt64(tree)
        if let value = object["chain"] {
            guard let digest = value.string.flatMap({ Digest($0) }) else {
                throw RecordFault("its chain has no name")
            }
            chain = ChainID(digest)
        }
        if let value = object["usage"] {
            guard let size = value.object?["size"]?.int64, let inodes = value.object?["inodes"]?.int64 else {
                throw RecordFault("its usage is not two numbers")
            }
            usage = Usage(size: size, inodes: inodes)
        }
        if let value = object["committedFrom"] {
            guard let tree = value.int64, tree > 0 else { throw RecordFault("it was committed from no tree") }
            committedFrom = UInt64(tree)
        }
        if let value = object["origin"] {
            guard let uuid = value.object?["uuid"]?.string, let parent = value.object?["parentUUID"]?.string,
                let transaction = value.object?["transaction"]?.int64
            else { throw RecordFault("its origin is not a subvolume") }
            origin = DaemonTrees.Origin(
                uuid: uuid, parentUUID: parent, transaction: UInt64(clamping: transaction))
        }
    }
}

/// Why a file is no record.
package struct RecordFault: Error, Hashable, CustomStringConvertible {
    package var description: String
    var isOfOtherVersion: Bool

    init(_ description: String, isOfOtherVersion: Bool = false) {
        self.description = description
        self.isOfOtherVersion = isOfOtherVersion
    }
}
