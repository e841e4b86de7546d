import SystemPackage
import VarveSystem

/// Says that `varve run` is not at work in a bundle, for as long as this value lives: the mount points of a run are no changes of the bundle,
/// and whoever runs there needs it.
struct RunAbsence {
    private let lock: HeldLock

    /// - Throws: `VarveError` if a command runs there.
    init(in directory: FileDescriptor, _ path: BytePath) throws(VarveError) {
        // One and the same open description has one lock.
        let opened = try attempt("open the bundle", path) { () throws(Errno) in
            SharedDescriptor(try directory.open(.current, [.directory]))
        }
        guard try attempt("lock", path, { () throws(Errno) in try opened.fd.tryLock(.shared) }) else {
            throw VarveError(
                .failed, "a command runs in the bundle \"\(path)\"", subject: path,
                remedy: .follow("wait until it has ended"))
        }
        lock = HeldLock(on: opened)
    }
}
