import VarveArchive
import VarveOCI
import VarveSystem
import SystemPackage

/// ACLs of a layer that name users or groups without their numbers, as GNU tar writes them. They are set when all of the layer is
/// there: its passwd file may come last.
struct NamedACLs {
    private struct Pending {
        var entry: BytePath
        var acls: [(name: BytePath, text: [UInt8])]
        /// Free of symbolic links. Names may go away, or be another file's by then.
        var paths: [BytePath]
    }

    private var files: [UInt64: Pending] = [:]
    /// Bytes kept.
    private var size = 0
    private static let limit = 64 << 20

    var isEmpty: Bool { files.isEmpty }

    /// These are the ACLs of the file at `path`; none takes back what was said of it before.
    mutating func set(
        _ acls: [(name: BytePath, text: [UInt8])], of entry: TarEntry, inode: UInt64, path: BytePath
    ) throws(LayerError) {
        guard !acls.isEmpty else {
            if !files.isEmpty { files[inode] = nil }
            return
        }
        size += acls.reduce(path.count) { $0 + $1.text.count }
        guard size <= Self.limit else {
            throw .invalidEntry(
                path: entry.path, reason: "the layer has more than 64 MiB of ACLs that name users or groups")
        }
        files[inode] = Pending(entry: entry.path, acls: acls, paths: [path])
    }

    /// A file has another name.
    mutating func add(_ path: BytePath, ofInode inode: UInt64) {
        if files.isEmpty { return }
        files[inode]?.paths.append(path)
    }

    func apply(in root: FileDescriptor, _ metadata: EntryMetadata, _ accounts: AccountNames)
        throws(LayerError)
    {
        for (inode, file) in files {
            for path in file.paths {
                guard let (directory, name) = try Self.find(inode, path, in: root) else { continue }
                for acl in file.acls {
                    guard let parsed = PosixACL.parse(acl.text) else { continue }
                    let value = parsed.value { name, isUser in
                        isUser ? accounts.user(name) : accounts.group(name)
                    }
                    for unknown in value.unknown { metadata.leftOut.add(account: unknown) }
                    let attribute = ExtendedAttribute(name: acl.name, value: value.bytes)
                    for mapped in try metadata.mapped([attribute], file.entry) {
                        try metadata.set(mapped, of: name, in: directory.fd, file.entry)
                    }
                }
                break
            }
        }
    }

    /// The directory of the file and its name there; nil if it is not there any more.
    private static func find(
        _ inode: UInt64, _ path: BytePath, in root: FileDescriptor
    ) throws(LayerError) -> (SharedDescriptor, BytePath)? {
        let parent = path.parent
        return try attempt("look at", path) { () throws(Errno) in
            do throws(Errno) {
                let directory = SharedDescriptor(
                    try root.open(
                        parent.isEmpty ? .current : parent, [.directory], resolve: [.beneath, .noSymlinks]))
                let name = path.isEmpty ? BytePath.current : path.lastComponent
                return try directory.fd.status(of: name).inode == inode ? (directory, name) : nil
            } catch  where error.isAbsence {
                return nil
            }
        }
    }
}
