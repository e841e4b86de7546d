import VarveFormats
import VarveArchive
package import VarveLayers
import VarveOCI
package import VarveSystem
package import SystemPackage

/// The changes that a hook tells, checked: a list that does not fit the tree would make a wrong layer.
package struct HookChanges {
    private let failure: HookFailure
    /// The type is the hook's word for what is not there any more to look at.
    private var changes: [(kind: ChangeKind, path: BytePath, type: VarveSystem.FileType)] = []

    package init(_ answer: HookAnswer) throws(VarveError) {
        var answer = answer
        failure = answer.failure
        guard let list = answer.take("changes")?.array else {
            throw failure.wrongAnswer("\"changes\" must be an array")
        }
        try answer.end()
        changes.reserveCapacity(list.count)
        for value in list {
            guard let member = value.object, let word = member["change"]?.string,
                let kind = ChangeKind(rawValue: word)
            else {
                throw failure.wrongAnswer(
                    "each change is an object whose \"change\" is added, modified or deleted")
            }
            let type = member["type"]?.string.flatMap { VarveSystem.FileType(word: $0) }
            changes.append((kind, try path(member), type ?? .regular))
        }
    }

    private func path(_ member: JSONObject) throws(VarveError) -> BytePath {
        let bytes: [UInt8]?
        switch (member["path"]?.string, member["pathBase64"]?.string) {
        case (let text?, nil): bytes = Array(text.utf8)
        case (nil, let text?): bytes = unsafe Array(text.utf8).withUnsafeBytes { unsafe Base64.decode($0) }
        default: bytes = nil
        }
        guard let bytes, let path = BytePath(bytes), !path.isEmpty else {
            throw failure.wrongAnswer(
                "each change has a \"path\", or a \"pathBase64\" where that is not UTF-8")
        }
        if path == .current { return path }
        let components = path.bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let isClean = components.allSatisfy { !$0.isEmpty && $0 != [0x2e] && $0 != [0x2e, 0x2e] }
        guard isClean else {
            throw failure.wrongAnswer(
                "\(quoted(path)) is no path relative to the rootfs; write it with no slash before it and with no . and .. in it"
            )
        }
        guard path.count <= Self.pathLimit, components.allSatisfy({ $0.count <= Self.nameLimit }) else {
            throw failure.wrongAnswer("\(quoted(path)) is longer than any path in a layer")
        }
        return path
    }

    /// Bytes: PATH_MAX less the closing NUL, and NAME_MAX (limits.h).
    private static let (pathLimit, nameLimit) = (4095, 255)

    private func quoted(_ path: BytePath) -> String { "\"\(BytePath.excerpt(path.bytes))\"" }

    /// The changes in byte order, with their types; each as the tree shows it.
    package func checked(against root: FileDescriptor) throws(VarveError) -> [Change] {
        var result: [Change] = []
        var previous: BytePath?
        for (kind, path, told) in changes.sorted(by: { $0.path < $1.path }) {
            if path == previous { throw failure.wrongAnswer("\(quoted(path)) stands in it twice") }
            previous = path
            let (hasDirectory, status) = try look(at: path, below: root)
            switch kind {
            case .deleted:
                if status != nil {
                    throw failure.wrongAnswer("\(quoted(path)) is said to be deleted, and is there")
                }
                // A whiteout there would make the directory again, or delete what a link leads to.
                guard hasDirectory else {
                    throw failure.wrongAnswer(
                        "\(quoted(path)) is said to be deleted, and its directory is not there; what lay below a deleted directory is not listed"
                    )
                }
                result.append(Change(kind: .deleted, path: path, type: told))
            case .added, .modified:
                guard let type = status?.type else {
                    throw failure.wrongAnswer(
                        "\(quoted(path)) is said to be \(kind.rawValue), and is not there")
                }
                // A layer cannot hold a socket, and no image had one.
                if type != .socket { result.append(Change(kind: kind, path: path, type: type)) }
            }
        }
        return result
    }

    /// Whether the path's directory is there, no symbolic link followed, and what the path is. Unlike a delta of btrfs, which
    /// leaves out what has another device number: in a stacked tree files of one directory have several.
    private func look(at path: BytePath, below root: FileDescriptor) throws(VarveError)
        -> (hasDirectory: Bool, status: FileStatus?)
    {
        do throws(Errno) {
            if path == .current { return (true, try root.status()) }
            do throws(Errno) {
                let parent = path.parent
                let directory = try root.open(
                    parent.isEmpty ? .current : parent, [.path, .directory],
                    resolve: [.beneath, .noSymlinks, .noCrossing])
                guard let found = try directory.fd.mountedStatusIfPresent(of: path.lastComponent) else {
                    return (true, nil)
                }
                // A file of the host may be mounted on the name itself.
                if try found.mount != directory.fd.mountID() { throw Errno.improperLink }
                return (true, found.status)
            } catch  where error.isAbsence {
                return (false, nil)
            }
        } catch .improperLink {
            let error = LayerError.mounted(on: path, in: root)
            throw VarveError(
                .unsupported, error.reason, subject: error.subject, remedy: error.remedy, cause: error)
        } catch {
            throw VarveError.system("look at", path, error)
        }
    }
}
