import VarveArchive
import VarveOCI
import VarveSystem
import SystemPackage

/// ACLs of a layer that name users or groups without their numbers, as GNU tar writes them. They are set when all of the layer is
/// there: its passwd file may come last.
struct NamedACLs {
    private struct Pending {
        var acls: [(name: BytePath, text: [UInt8])]
        /// Free of symbolic links. Names may go away, or be another file's by then.
        var places: [PathTable.Place]
    }

    private let paths: PathTable
    private var files: [UInt64: Pending] = [:]
    /// Bytes kept, about: names and texts, and what is needed around them.
    private(set) var size = 0
    /// The most that is kept.
    static let limit = 64 << 20
    /// For each name of a file: its place, and what the table of paths takes for it.
    private static let sizeOfPlace = 64
    private static let sizeOfFile = 192

    var isEmpty: Bool { files.isEmpty }

    /// - Parameter paths: the table of all places that are given.
    init(_ paths: PathTable) { self.paths = paths }

    /// These are the ACLs of the file at `place`; none takes back what was said of it before. The place is asked for only if it is kept.
    mutating func set(
        _ acls: [(name: BytePath, text: [UInt8])], of entry: TarEntry, inode: UInt64,
        at place: @autoclosure () -> PathTable.Place
    ) throws(LayerError) {
        guard !acls.isEmpty else {
            if !files.isEmpty { files[inode] = nil }
            return
        }
        try count(acls.reduce(Self.sizeOfFile) { $0 + $1.name.count + $1.text.count }, of: entry)
        try count(Self.sizeOfPlace + entry.path.lastComponent.count, of: entry)
        files[inode] = Pending(acls: acls, places: [place()])
    }

    /// A new file has this inode number, and no such ACLs. Another one may have had it that is gone.
    mutating func forget(_ inode: UInt64) { files[inode] = nil }

    /// A file has another name, in a directory of the table.
    mutating func add(
        _ name: BytePath, in directory: PathTable.Place, ofInode inode: UInt64, entry: TarEntry
    ) throws(LayerError) {
        guard !files.isEmpty, files[inode] != nil else { return }
        try count(Self.sizeOfPlace + name.count, of: entry)
        files[inode]?.places.append(paths.insert(name, in: directory))
    }

    private mutating func count(_ bytes: Int, of entry: TarEntry) throws(LayerError) {
        size += bytes
        guard size <= Self.limit else {
            throw .invalidEntry(
                path: entry.path,
                reason:
                    "the layer has more than 64 MiB of ACLs that name users or groups, and of names of files with such ACLs"
            )
        }
    }

    /// - Throws: also `LayerError.cancelled`.
    func apply(
        in root: FileDescriptor, _ metadata: EntryMetadata, _ accounts: AccountNames,
        _ cancellation: Cancellation
    ) throws(LayerError) {
        for (inode, file) in files {
            for place in file.places {
                if cancellation.isCancelled { throw .cancelled }
                let path = paths.path(of: place)
                guard let (directory, name) = try Self.find(inode, path, in: root) else { continue }
                for acl in file.acls {
                    guard let parsed = PosixACL.parse(acl.text) else { continue }
                    let value = parsed.value { name, isUser in
                        isUser ? accounts.user(name) : accounts.group(name)
                    }
                    for unknown in value.unknown { metadata.leftOut.add(account: unknown) }
                    let attribute = ExtendedAttribute(name: acl.name, value: value.bytes)
                    for mapped in try metadata.mapped([attribute], path) {
                        try metadata.set(mapped, of: name, in: directory.fd, path)
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
