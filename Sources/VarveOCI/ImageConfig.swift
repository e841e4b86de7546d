package import VarveFormats
package import VarveSystem

/// An image configuration (image-spec config.md), or Docker's, of which it is a subset.
package struct ImageConfig: Hashable, Sendable {
    package let json: JSONObject
    package let architecture: String
    package let os: String
    package let variant: String?
    /// As written: RFC 3339, section 5.6.
    package let created: String?
    package let author: String?
    package let execution: Execution
    /// Lowest first.
    package let diffIDs: [DiffID]
    package let history: [HistoryEntry]

    /// Entries of history, variables, arguments, labels, ports and volumes together that an image may have. What is made of one
    /// takes up to 1 KiB of memory: a volume becomes a mount with six options.
    package static let maximumEntries = 50_000

    /// The member `config`: what a container of the image runs with. Keys of sets are in the order of the
    /// document.
    package struct Execution: Hashable, Sendable {
        package var user = ""
        package var exposedPorts: [String] = []
        /// `NAME=VALUE`.
        package var environment: [String] = []
        package var entrypoint: [String] = []
        package var command: [String] = []
        package var volumes: [String] = []
        package var workingDirectory = ""
        package var labels: [Label] = []
        package var stopSignal: String?

        package init() {}

        /// The volumes that are something below the root: what lies in them is left out of a layer. A volume that is the root
        /// itself says nothing.
        package var volumePaths: [String] { volumes.filter { !BytePath($0).cleaned.isEmpty } }

        /// The volumes as paths from the root of the container, without `.`, `..` and empty components, each once and in byte
        /// order; and those that none is mounted for: a mount there would hide the image, or what every container has there.
        package var volumeMounts: (mounted: [String], leftOut: [String]) {
            var (mounted, leftOut) = ([String](), [String]())
            for path in Set(volumes.map { BytePath($0).cleaned }).sorted() {
                let text = "/" + (path.string ?? "")
                if ImageConfig.isMountedByRuntimes(path) {
                    leftOut.append(text)
                } else {
                    mounted.append(text)
                }
            }
            return (mounted, leftOut)
        }

        fileprivate var entryCount: Int {
            exposedPorts.count + environment.count + entrypoint.count + command.count + volumes.count
                + labels.count
        }
    }

    /// Whether a path in a container is its root, or lies where every container has something mounted.
    package static func isMountedByRuntimes(_ path: BytePath) -> Bool {
        path.firstComponent.map { ["dev", "proc", "sys"].contains($0) } ?? true
    }

    package struct Label: Hashable, Sendable {
        package var key: String
        package var value: String
        package init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    package init(_ value: JSONValue, of what: String) throws(OCIError) {
        guard let json = value.object else {
            throw .invalid("\(what) is invalid: it is \(value.kind), not an object")
        }
        self.json = json
        architecture = try json.string("architecture", of: what) ?? ""
        os = try json.string("os", of: what) ?? ""
        variant = try json.string("variant", of: what)
        created = try json.string("created", of: what)
        author = try json.string("author", of: what)
        execution = try Execution(try json.object("config", of: what) ?? JSONObject(), of: what)
        guard let rootfs = try json.object("rootfs", of: what) else {
            throw .invalid(
                "\(what) is invalid: it has no \"rootfs\", so it is not the configuration of an image")
        }
        guard try rootfs.string("type", of: what) == "layers" else {
            throw .invalid("\(what) is invalid: the type of its \"rootfs\" must be \"layers\"")
        }
        let entries = try json.array("history", of: what) ?? []
        let count = execution.entryCount + entries.count
        guard count <= Self.maximumEntries else {
            throw .invalid(
                "\(what) is invalid: its lists have \(count) entries together, but \(Self.maximumEntries) are the most "
                    + "that are taken")
        }
        var diffIDs = [DiffID]()
        for text in try rootfs.strings("diff_ids", of: what) ?? [] {
            guard let digest = Digest(text) else {
                throw .invalid("\(what) is invalid: \"\(shown(text))\" in \"diff_ids\" is no digest")
            }
            diffIDs.append(DiffID(digest))
        }
        self.diffIDs = diffIDs
        var history = [HistoryEntry]()
        history.reserveCapacity(entries.count)
        for entry in entries {
            history.append(try HistoryEntry(entry, of: what))
        }
        self.history = history
    }

    /// Nil if the configuration names no operating system or no architecture.
    package var platform: Platform? {
        if os.isEmpty || architecture.isEmpty { return nil }
        return Platform(os: os, architecture: architecture, variant: variant)
    }

    /// The ChainIDs of all prefixes of the image's layers, lowest first.
    package var chainIDs: [ChainID] { ChainID.prefixes(of: diffIDs) }

    /// The configuration without a user, which means root: what can be said where users cannot be looked up.
    package func withoutUser() throws(OCIError) -> ImageConfig {
        var json = json
        var execution = json["config"]?.object ?? JSONObject()
        execution["User"] = nil
        json["config"] = .object(execution)
        return try ImageConfig(.object(json), of: "the image configuration")
    }

    /// A configuration with no layers, as `umoci new` makes it.
    package static func empty(platform: Platform = .host, created: Timestamp) -> JSONObject {
        var json: JSONObject = [
            "created": .string(RFC3339.format(created)), "architecture": .string(platform.architecture),
        ]
        if let variant = platform.variant { json["variant"] = .string(variant) }
        json["os"] = .string(platform.os)
        json["config"] = [:]
        json["rootfs"] = ["type": "layers", "diff_ids": []]
        return json
    }
}

extension ImageConfig.Execution {
    init(_ json: JSONObject, of what: String) throws(OCIError) {
        user = try json.string("User", of: what) ?? ""
        exposedPorts = try json.object("ExposedPorts", of: what)?.members.map(\.key) ?? []
        environment = try json.strings("Env", of: what) ?? []
        entrypoint = try json.strings("Entrypoint", of: what) ?? []
        command = try json.strings("Cmd", of: what) ?? []
        volumes = try json.object("Volumes", of: what)?.members.map(\.key) ?? []
        workingDirectory = try json.string("WorkingDir", of: what) ?? ""
        let members = try json.object("Labels", of: what)?.members ?? []
        labels.reserveCapacity(members.count)
        for label in members {
            guard let value = label.value.string else {
                throw .invalid(
                    "\(what) is invalid: the label \"\(shown(label.key))\" is "
                        + "\(label.value.kind), not a string"
                )
            }
            labels.append(ImageConfig.Label(key: label.key, value: value))
        }
        stopSignal = try json.string("StopSignal", of: what).flatMap { $0.isEmpty ? nil : $0 }
    }
}

/// What made one layer, or changed the configuration only (image-spec config.md, `history`).
package struct HistoryEntry: Hashable, Sendable {
    /// The members that have a name here, as they stand: an image may have very many entries, and this is the size of a pointer.
    private var members: JSONObject

    /// RFC 3339.
    package var created: String? {
        get { members["created"]?.string }
        set { members["created"] = newValue.map { .string($0) } }
    }
    package var createdBy: String? {
        get { members["created_by"]?.string }
        set { members["created_by"] = newValue.map { .string($0) } }
    }
    package var author: String? {
        get { members["author"]?.string }
        set { members["author"] = newValue.map { .string($0) } }
    }
    package var comment: String? {
        get { members["comment"]?.string }
        set { members["comment"] = newValue.map { .string($0) } }
    }
    /// The entry stands for no layer.
    package var isEmptyLayer: Bool {
        get { members["empty_layer"]?.bool ?? false }
        set { members["empty_layer"] = newValue ? true : nil }
    }

    package init(
        created: String? = nil, createdBy: String? = nil, author: String? = nil, comment: String? = nil,
        isEmptyLayer: Bool = false
    ) {
        members = JSONObject()
        self.created = created
        self.createdBy = createdBy
        self.author = author
        self.comment = comment
        self.isEmptyLayer = isEmptyLayer
    }

    public static func == (left: HistoryEntry, right: HistoryEntry) -> Bool { left.json == right.json }
    public func hash(into hasher: inout Hasher) { hasher.combine(json) }

    init(_ value: JSONValue, of what: String) throws(OCIError) {
        guard let json = value.object else {
            throw .invalid("\(what) is invalid: an entry of its history is \(value.kind), not an object")
        }
        for key in ["created", "created_by", "author", "comment"] { _ = try json.string(key, of: what) }
        _ = try json.bool("empty_layer", of: what)
        members = json
    }

    /// The entry in the member order of image-spec's own types; what is nil or empty is left out.
    package var json: JSONObject {
        var json = JSONObject()
        for (key, value) in [
            ("created", created), ("created_by", createdBy), ("author", author), ("comment", comment),
        ] {
            if let value, !value.isEmpty { json[key] = .string(value) }
        }
        if isEmptyLayer { json["empty_layer"] = true }
        return json
    }
}
