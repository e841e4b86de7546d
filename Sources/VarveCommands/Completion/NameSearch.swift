import ArgumentParser
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

/// Looks for names that a word of a command line may become. It reads directories and the index of a layout; what fails gives nothing.
struct NameSearch {
    private let words: [String]
    private let environment: CommandEnvironment

    /// - Parameter words: of the command, `--store` among them if it is there.
    init(_ words: [String], _ environment: CommandEnvironment) {
        self.words = words
        self.environment = environment
    }

    /// - Returns: also what the shell is to look for itself where nothing is found.
    func find(_ kind: NameKind, beginning current: String) -> ([Completion.Candidate], Completion.Files) {
        let isPath = current.hasPrefix("/") || current.hasPrefix(".") || current.hasPrefix("~")
        func names(_ some: [String]?) -> [Completion.Candidate] {
            (some ?? []).map { Completion.Candidate(word: $0) }
        }
        switch kind {
        case .image: return (images(current), .none)
        case .anyImage: return (images(current) + (isPath ? [] : transports), .files)
        case .transport: return (transports, .files)
        case .bundle: return (names(store?.bundles), .directories)
        case .snapshot: return (names(store?.snapshots), .none)
        case .chain: return (names(store?.chains), .none)
        case .containerd: return (names(store?.containerds), .none)
        case .hook: return (names(HookName.allCases.map(\.rawValue)), .none)
        case .tree:
            let store = store
            let found = names(store?.snapshots) + names(store?.bundles)
            // The chains' long names only for whoever begins one, or an image.
            if current.contains(":") { return (images(current), .none) }
            return (found + (current.isEmpty ? [] : names(store?.chains)), .directories)
        }
    }

    private var transports: [Completion.Candidate] {
        TransportReference.Transport.allCases.map { Completion.Candidate(word: $0.prefix, isWhole: false) }
    }

    private var store: StoreNames? {
        var option: BytePath?
        for (index, word) in words.enumerated() {
            if word == "--store", index + 1 < words.count { option = path(words[index + 1]) }
            if word.hasPrefix("--store=") { option = path(String(word.dropFirst("--store=".count))) }
        }
        guard
            let found = try? StoreLocation.find(option: option, bundles: [], environment: environment)
        else { return nil }
        return StoreNames(at: found.path)
    }

    // MARK: Images

    /// The tags of the layout that is typed; before its colon, layouts and the directories that may lead to one.
    private func images(_ current: String) -> [Completion.Candidate] {
        // A tag may hold colons, and so may a path.
        for colon in current.indices where current[colon] == ":" {
            guard colon > current.startIndex else { continue }
            let path = path(String(current[..<colon]))
            guard isLayout(path), let layout = try? ImageLayout(opening: path),
                let tags = try? layout.listTags()
            else { continue }
            let head = String(current[...colon])
            return tags.map { Completion.Candidate(word: head + $0) }
        }
        return directories(current).flatMap { name in
            isLayout(path(name))
                ? [Completion.Candidate(word: name + ":", about: "image layout", isWhole: false)]
                : [Completion.Candidate(word: name + "/", isWhole: false)]
        }
    }

    private func isLayout(_ path: BytePath) -> Bool {
        (try? FileDescriptor.workingDirectory.status(of: path.appending(ImageLayout.versionName))) != nil
    }

    /// The directories whose paths begin so, spelled as that is.
    private func directories(_ current: String) -> [String] {
        let slash = current.lastIndex(of: "/")
        let above = slash.map { String(current[...$0]) } ?? ""
        let name = slash.map { current[current.index(after: $0)...] } ?? current[...]
        let place = above.isEmpty ? BytePath.current : path(above)
        guard let opened = try? FileDescriptor.workingDirectory.open(place, [.directory]),
            let entries = try? opened.fd.entries()
        else { return [] }
        return entries.compactMap { entry -> String? in
            guard let text = entry.name.string, text.hasPrefix(name),
                !text.hasPrefix(".") || name.hasPrefix(".")
            else { return nil }
            let isDirectory =
                entry.type == .directory
                || entry.type == .symbolicLink
                    && (try? opened.fd.open(entry.name, [.directory, .path])) != nil
            return isDirectory ? above + text : nil
        }.sorted()
    }

    /// A path as it was typed, with what the shell makes of a tilde.
    private func path(_ typed: String) -> BytePath {
        let bytes = ArgumentText.decode(typed)
        if bytes.first == UInt8(ascii: "~"), bytes.count == 1 || bytes[1] == UInt8(ascii: "/"),
            let home = environment.path("HOME")
        {
            return BytePath(Array(home.bytes) + bytes.dropFirst()) ?? .empty
        }
        return BytePath(bytes) ?? .empty
    }
}
