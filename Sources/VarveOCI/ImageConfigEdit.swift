import VarveFormats
public import VarveSystem

/// A change of an image's configuration and of its manifest's annotations, as `umoci config` makes it: first what is
/// cleared, then what is set. What it does not name stays, members that are not known here included.
public struct ImageConfigEdit: Sendable {
    /// What can be emptied as a whole.
    public enum Clearable: String, Sendable, CaseIterable {
        /// `Labels`.
        case labels = "config.labels"
        /// The annotations of the manifest.
        case annotations = "manifest.annotations"
        /// `ExposedPorts`.
        case exposedPorts = "config.exposedports"
        /// `Env`.
        case environment = "config.env"
        /// `Entrypoint`.
        case entrypoint = "config.entrypoint"
        /// `Cmd`.
        case command = "config.cmd"
        /// `Volumes`.
        case volumes = "config.volume"

        /// Nil for the annotations, which the configuration does not hold.
        fileprivate var member: String? {
            switch self {
            case .labels: "Labels"
            case .annotations: nil
            case .exposedPorts: "ExposedPorts"
            case .environment: "Env"
            case .entrypoint: "Entrypoint"
            case .command: "Cmd"
            case .volumes: "Volumes"
            }
        }
    }

    /// `NAME=VALUE`.
    public struct Pair: Sendable, Hashable {
        /// What is set.
        package var name: String
        /// What it is set to.
        package var value: String

        /// A name and its value.
        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }

        /// Nil without an equals sign or without a name.
        package init?(parsing text: String) {
            guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")), equals != text.startIndex else {
                return nil
            }
            name = String(text[..<equals])
            value = String(text[text.index(after: equals)...])
        }
    }

    /// What is emptied before anything is set.
    public var cleared: Set<Clearable> = []
    /// When the image was made; nil leaves it to the call.
    public var created: Timestamp?
    /// Nil leaves a text as it is, an empty one takes it away.
    public var author: String?
    /// `User`: `USER` or `USER:GROUP`, by name or number. Nil leaves it as it is.
    public var user: String?
    /// `WorkingDir`. Nil leaves it as it is.
    public var workingDirectory: String?
    /// `StopSignal`, such as `SIGTERM`. Nil leaves it as it is.
    public var stopSignal: String?
    /// These two must not be empty: no image is without them (image-spec config.md).
    public var os: String?
    /// The architecture, as Go names it (`GOARCH`). Nil leaves it as it is.
    public var architecture: String?
    /// The variant of the architecture, such as `v7`. Nil leaves it as it is.
    public var variant: String?
    /// Added to what is there.
    public var exposedPorts: [String] = []
    /// Paths that are added to `Volumes`.
    public var volumes: [String] = []
    /// Labels that are set; each takes the place of the label of its name.
    public var labels: [Pair] = []
    /// Annotations of the manifest that are set; each takes the place of the one of its name.
    public var annotations: [Pair] = []
    /// Each takes the place of the variable of its name, or comes last.
    public var environment: [Pair] = []
    /// In place of the whole list; nil leaves it as it is.
    public var entrypoint: [String]?
    /// `Cmd`, in place of the whole list. Nil leaves it as it is.
    public var command: [String]?

    /// An edit that changes nothing yet.
    public init() {}

    package func apply(to image: inout ImageMutation) {
        image.updateConfig { config in
            var execution = config["config"]?.object ?? JSONObject()
            for member in cleared.compactMap(\.member) { execution[member] = nil }
            Self.set(&execution, "User", user)
            Self.add(exposedPorts.map { ($0, [:]) }, to: "ExposedPorts", of: &execution)
            setEnvironment(&execution)
            Self.set(&execution, "Entrypoint", list: entrypoint)
            Self.set(&execution, "Cmd", list: command)
            Self.add(volumes.map { ($0, [:]) }, to: "Volumes", of: &execution)
            Self.set(&execution, "WorkingDir", workingDirectory)
            Self.add(labels.map { ($0.name, .string($0.value)) }, to: "Labels", of: &execution)
            Self.set(&execution, "StopSignal", stopSignal)
            config["config"] = .object(execution)
            Self.set(&config, "author", author)
        }
        image.updatePlatform(os: os, architecture: architecture, variant: variant)
        if let created { image.setCreated(created) }
        image.updateAnnotations { all in
            if cleared.contains(.annotations) { all = JSONObject() }
            var members = JSONMembers(all)
            for annotation in annotations { members.set(annotation.name, .string(annotation.value)) }
            all = members.object
        }
    }

    private static func set(_ object: inout JSONObject, _ member: String, _ text: String?) {
        if let text { object[member] = text.isEmpty ? nil : .string(text) }
    }

    private static func set(_ object: inout JSONObject, _ member: String, list: [String]?) {
        if let list { object[member] = list.isEmpty ? nil : .array(list.map { .string($0) }) }
    }

    private static func add(
        _ members: [(String, JSONValue)], to name: String, of object: inout JSONObject
    ) {
        if members.isEmpty { return }
        var all = JSONMembers(object[name]?.object ?? JSONObject())
        for (key, value) in members { all.set(key, value) }
        object[name] = .object(all.object)
    }

    private func setEnvironment(_ execution: inout JSONObject) {
        if environment.isEmpty { return }
        var all = execution["Env"]?.array ?? []
        var places = [ByteText: Int]()
        for (place, variable) in all.enumerated().reversed() {
            if let name = variable.string.flatMap(Environment.name) { places[name] = place }
        }
        for variable in environment {
            let text = JSONValue.string("\(variable.name)=\(variable.value)")
            let name = ByteText(variable.name)
            if let place = places[name] {
                all[place] = text
            } else {
                places[name] = all.count
                all.append(text)
            }
        }
        execution["Env"] = .array(all)
    }
}
