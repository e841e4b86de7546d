public import VarveSystem

/// An image configuration (image-spec config.md), or Docker's, of which it is a subset.
public struct ImageConfig: Hashable, Sendable {
    public let json: JSONObject
    public let architecture: String
    public let os: String
    public let variant: String?
    /// As written: RFC 3339, section 5.6.
    public let created: String?
    public let author: String?
    public let execution: Execution
    /// Lowest first.
    public let diffIDs: [DiffID]
    public let history: [HistoryEntry]

    /// The member `config`: what a container of the image runs with. Keys of sets are in the order of the
    /// document.
    public struct Execution: Hashable, Sendable {
        public var user = ""
        public var exposedPorts: [String] = []
        /// `NAME=VALUE`.
        public var environment: [String] = []
        public var entrypoint: [String] = []
        public var command: [String] = []
        public var volumes: [String] = []
        public var workingDirectory = ""
        public var labels: [Label] = []
        public var stopSignal: String?

        public init() {}
    }

    public struct Label: Hashable, Sendable {
        public var key: String
        public var value: String
        public init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    public init(_ value: JSONValue, of what: String) throws(OCIError) {
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
        var diffIDs = [DiffID]()
        for text in try rootfs.strings("diff_ids", of: what) ?? [] {
            guard let digest = Digest(text) else {
                throw .invalid("\(what) is invalid: \"\(shown(text))\" in \"diff_ids\" is no digest")
            }
            diffIDs.append(DiffID(digest))
        }
        self.diffIDs = diffIDs
        var history = [HistoryEntry]()
        for entry in try json.array("history", of: what) ?? [] {
            history.append(try HistoryEntry(entry, of: what))
        }
        self.history = history
    }

    /// Nil if the configuration names no operating system or no architecture.
    public var platform: Platform? {
        if os.isEmpty || architecture.isEmpty { return nil }
        return Platform(os: os, architecture: architecture, variant: variant)
    }

    /// The ChainIDs of all prefixes of the image's layers, lowest first.
    public var chainIDs: [ChainID] { ChainID.prefixes(of: diffIDs) }

    /// The same for root: what can be said where users cannot be looked up.
    public func withoutUser() throws(OCIError) -> ImageConfig {
        var json = json
        var execution = json["config"]?.object ?? JSONObject()
        execution["User"] = nil
        json["config"] = .object(execution)
        return try ImageConfig(.object(json), of: "the image configuration")
    }

    /// A configuration with no layers, as `umoci new` makes it.
    public static func empty(platform: Platform = .host, created: Timestamp) -> JSONObject {
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
        for label in try json.object("Labels", of: what)?.members ?? [] {
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
public struct HistoryEntry: Hashable, Sendable {
    /// RFC 3339.
    public var created: String?
    public var createdBy: String?
    public var author: String?
    public var comment: String?
    /// The entry stands for no layer.
    public var isEmptyLayer: Bool

    public init(
        created: String? = nil, createdBy: String? = nil, author: String? = nil, comment: String? = nil,
        isEmptyLayer: Bool = false
    ) {
        self.created = created
        self.createdBy = createdBy
        self.author = author
        self.comment = comment
        self.isEmptyLayer = isEmptyLayer
    }

    init(_ value: JSONValue, of what: String) throws(OCIError) {
        guard let json = value.object else {
            throw .invalid("\(what) is invalid: an entry of its history is \(value.kind), not an object")
        }
        created = try json.string("created", of: what)
        createdBy = try json.string("created_by", of: what)
        author = try json.string("author", of: what)
        comment = try json.string("comment", of: what)
        isEmptyLayer = try json.bool("empty_layer", of: what) ?? false
    }

    /// The entry in the member order of image-spec's own types; what is nil or empty is left out.
    public var json: JSONObject {
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
