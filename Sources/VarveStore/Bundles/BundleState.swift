import VarveOCI
import VarveSystem
import SystemPackage

/// The files in a bundle that say what its tree was: records and mtree files, each named after a manifest.
struct BundleState {
    private let directory: FileDescriptor
    private let path: BytePath
    private let names: [BytePath]

    init(of directory: FileDescriptor, path: BytePath) throws {
        self.directory = directory
        self.path = path
        names = try attempt("list the directory", path) { () throws(Errno) in
            try directory.entries().map(\.name).filter(BundleMetadata.isState)
        }
    }

    /// Whether there is an mtree file of the state that counted so far: umoci needs one of the next state too.
    func isSharedWithUmoci(before manifest: Digest?) -> Bool {
        manifest.map { names.contains(BundleMetadata.mtreeName($0)) } ?? false
    }

    /// Writes those of a new state, then `umoci.json`, which names it, and only then removes the old ones: a crash leaves
    /// files that nobody looks at.
    func replace(with added: [BundleFile], then files: [BundleFile]) throws {
        for file in added + files {
            try attempt("write", path.appending(file.name)) { () throws(Errno) in
                try directory.writeFileDurably(file.name, file.contents)
            }
        }
        let kept = Set(added.map(\.name))
        for name in names where !kept.contains(name) {
            try attempt("remove", path.appending(name)) { () throws(Errno) in try directory.unlink(name) }
        }
    }
}
