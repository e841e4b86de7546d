import VarveSystem

/// A mount as containerd sends it.
package struct SnapshotMount: Sendable, Hashable {
    package var type: String
    package var source: String
    package var target: String
    package var options: [String]

    package init(type: String, source: String, target: String = "", options: [String]) {
        self.type = type
        self.source = source
        self.target = target
        self.options = options
    }

    /// What this snapshotter gives out.
    static func bind(_ source: BytePath, readOnly: Bool) -> SnapshotMount {
        SnapshotMount(
            type: "bind", source: String(decoding: source.bytes, as: UTF8.self),
            options: [readOnly ? "ro" : "rw", "rbind"])
    }

    /// Whether it is a mount as this snapshotter gives them out, whatever its source is.
    var isPlainBind: Bool {
        (type == "bind" || type == "rbind") && target.isEmpty
            && options.allSatisfy { ["ro", "rw", "bind", "rbind"].contains($0) }
    }
}
