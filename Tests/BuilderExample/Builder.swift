import SystemPackage
import Varve

/// Builds stages, each once, and as many side by side as do not wait for each other.
///
/// A step is one layer, kept in the layout under the tag `step-KEY`; KEY is a digest of the step below, the step itself and what it copies.
/// Whoever makes a step holds a lock for it, so that builders in other processes wait instead of making it too.
actor Builder {
    private let file: StageFile
    private let layout: String
    private let bundles: String
    private let varve: String
    private let store: LayerStore
    private let images = Images()
    /// The last step of each stage, by the stage's name; images from elsewhere, by where they come from.
    private var tasks: [String: Task<String, any Error>] = [:]

    init(_ file: StageFile, layout: String, store: String, varve: String) async throws {
        self.file = file
        self.layout = layout
        self.varve = varve
        bundles = store + "/bundles"
        self.store = try await LayerStore.open(BytePath(store))
        let lock = try await Lock(layout + ".lock")
        defer { lock.release() }
        if !exists(layout + "/oci-layout") { try await images.createLayout(BytePath(layout)) }
    }

    /// Builds stages with all that they need, and tags them. If one fails, the others end too, and clean up.
    func build(_ names: [String]) async throws {
        do {
            try await withThrowingTaskGroup { group in
                for name in names { group.addTask { _ = try await self.stage(name) } }
                try await group.waitForAll()
            }
        } catch {
            for task in tasks.values { task.cancel() }
            for task in tasks.values { _ = try? await task.value }
            throw error
        }
    }

    /// The tag of the last step of a stage, once it is there.
    private func stage(_ name: String) async throws -> String {
        guard let stage = file[name] else { throw Failure("there is no stage \(name)") }
        return try await once("stage:" + name) { try await self.make(stage) }
    }

    private func once(
        _ name: String, _ make: @escaping @Sendable () async throws -> String
    ) async throws -> String {
        let task = tasks[name] ?? Task { try await make() }
        tasks[name] = task
        return try await task.value
    }

    private func make(_ stage: Stage) async throws -> String {
        // Copies from other stages: these are built beside the base.
        try await withThrowingTaskGroup { group in
            for name in stage.needs { group.addTask { _ = try await self.stage(name) } }
            try await group.waitForAll()
        }
        var tag = try await base(stage.base)
        for (number, step) in stage.steps.enumerated() {
            tag = try await make(step, on: tag, called: "\(stage.name) \(number + 1): \(step.kind)")
        }
        if !stage.isBuildOnly {
            let there = try await images.tags(of: BytePath(layout)).contains(stage.name)
            let (made, known) = (try await digest(tag), there ? try await digest(stage.name) : nil)
            if made != known { try await images.tag(image(tag), as: stage.name) }
        }
        return tag
    }

    private func base(_ base: Stage.Base) async throws -> String {
        switch base {
        case .stage(let name): return try await stage(name)
        case .nothing:
            return try await make(key("empty"), "an empty image") { [images] image, _ in
                try await images.create(image)
            }
        case .elsewhere(let source):
            // What a name means elsewhere is asked once a run; what is here already is not fetched.
            return try await once(source) {
                let name = "base-" + key(source)
                let pulled = try await self.images.pull(source, as: self.image(name))
                return try await self.make(key("base", "\(pulled.digest)"), source) {
                    [images = self.images] _, tag in
                    try await images.tag(self.image(name), as: tag)
                }
            }
        }
    }

    private func make(_ step: Stage.Step, on below: String, called what: String) async throws -> String {
        let options = ImageEditing.Options.init(tag:)
        let lower = image(below)
        switch step {
        case .run(let command):
            return try await make(key(below, "run", command), what) { image, tag in
                try await self.withBundle(of: lower, for: tag) { bundle in
                    try await runProgram([self.varve, "run", bundle, "--", "/bin/sh", "-ec", command])
                    var options = Repacking.Options()
                    options.history?.createdBy = command
                    try await self.store.repack(BytePath(bundle), into: image, options: options)
                }
            }
        case .copy(let source, let target):
            let path = file.folder + "/" + source
            return try await make(key(below, "copy", try await content(of: path), target), what) {
                [images] _, tag in
                try await images.insert(
                    BytePath(path), into: lower, at: BytePath(target), options: options(tag))
            }
        case .copyFrom(let name, let source, let target):
            let other = try await stage(name)
            return try await make(key(below, "copy", other, source, target), what) { [images] _, tag in
                try await self.withBundle(of: self.image(other), for: tag) { bundle in
                    let path = BytePath(bundle + "/rootfs/" + source)
                    try await images.insert(path, into: lower, at: BytePath(target), options: options(tag))
                }
            }
        case .config(let settings):
            let edit = try ImageConfigEdit(settings)
            let words = settings.flatMap { [$0.key] + $0.values + [""] }
            return try await make(key([below, "config"] + words), what) { [images] _, tag in
                try await images.configure(lower, edit, options: options(tag))
            }
        }
    }

    /// Makes a step unless it is there, with nobody else at it.
    ///
    /// - Parameter act: gets the image that it is to make, and that image's tag.
    private func make(
        _ key: String, _ what: String, _ act: @Sendable (BytePath, String) async throws -> Void
    ) async throws -> String {
        let tag = "step-" + key
        if try await isThere(tag) { return tag }
        let lock = try await Lock(layout + ".locks/" + tag)
        defer { lock.release() }
        if try await !isThere(tag) {
            say(what)
            try await act(image(tag), tag)
        }
        return tag
    }

    private func withBundle(
        of image: BytePath, for tag: String, _ act: @Sendable (String) async throws -> Void
    ) async throws {
        // Whoever makes a step has its lock, so one of this layout that is there was left by a run that was killed.
        let path = "\(bundles)/build-\(key(absolute(layout)))-\(tag)"
        let bundle = BytePath(path)
        if exists(path) { try await store.removeBundles([bundle]) }
        try await store.unpack(image, into: bundle)
        let result: Result<Void, any Error>
        do { result = .success(try await act(path)) } catch { result = .failure(error) }
        // A task that was cancelled cleans up all the same.
        try await Task { [store] in try await store.removeBundles([bundle]) }.value
        try result.get()
    }

    private func isThere(_ tag: String) async throws -> Bool {
        try await images.tags(of: BytePath(layout)).contains(tag)
    }

    private nonisolated func image(_ tag: String) -> BytePath { BytePath("\(layout):\(tag)") }

    private func digest(_ tag: String) async throws -> String {
        "\(try await images.stat(image(tag)).manifest.descriptor.digest)"
    }
}

extension ImageConfigEdit {
    /// - Parameter settings: flags of `varve config` without `--config.`, with their values.
    fileprivate init(_ settings: [(key: String, values: [String])]) throws {
        self.init()
        for (key, values) in settings {
            switch key {
            case "user": user = values.last
            case "workingdir": workingDirectory = values.last
            case "stopsignal": stopSignal = values.last
            case "exposedports": exposedPorts = values
            case "volume": volumes = values
            case "entrypoint": entrypoint = values
            case "cmd": command = values
            case "label": labels = try values.map(Self.pair)
            case "env": environment = try values.map(Self.pair)
            default: throw Failure("config.\(key) is not known")
            }
        }
    }

    private static func pair(_ text: String) throws -> Pair {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
            String.init)
        guard parts.count == 2 else { throw Failure("\(text) is not NAME=VALUE") }
        return Pair(name: parts[0], value: parts[1])
    }
}
