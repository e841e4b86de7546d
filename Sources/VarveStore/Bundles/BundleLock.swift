import SystemPackage
import VarveOCI
import VarveSystem

/// Keeps others out of a bundle for as long as this value lives. `varve run` holds it exclusively: the mount points of a run are no changes of
/// the bundle, and whoever runs there needs it. So does whoever writes what its deltas count from, or deletes a plain directory; all others share
/// it.
struct BundleLock {
    enum Mode {
        /// For what looks at the bundle or keeps it, and for what deletes one that others compare as a snapshot.
        case shared
        /// For what writes what later deltas count from, `repack --refresh-bundle`, and for what deletes a bundle that others compare where it
        /// lies: to them, what is deleted just now was deleted in the bundle.
        case exclusive
        /// For a run: the mount points that it made go at its end, and with them what another run has mounted there.
        case run
    }

    /// Is there while somebody is at work in the bundle.
    static let file: BytePath = ".varve-bundle.lock"

    private let lock: HeldLock

    /// - Throws: `VarveError` if somebody else is at work there.
    init(
        _ mode: Mode = .shared, in directory: FileDescriptor, _ path: @autoclosure () -> BytePath
    ) throws(VarveError) {
        // One and the same open description has one lock.
        let opened = try attempt("open the bundle", path()) { () throws(Errno) in
            SharedDescriptor(try directory.open(.current, [.directory]))
        }
        let lock = try attempt("lock", path()) { () throws(Errno) in
            try DirectoryLock.attempt(
                mode == .shared ? .shared : .exclusive, on: opened, file: Self.file)
        }
        guard let lock else { throw mode.refusal(path()) }
        self.lock = lock
    }
}

extension BundleLock.Mode {
    fileprivate func refusal(_ path: BytePath) -> VarveError {
        switch self {
        case .run:
            VarveError(
                .failed, "another command runs in the bundle \"\(path)\"", subject: path,
                remedy: .follow("wait until it has ended, or run in a bundle of its own"))
        case .shared, .exclusive:
            VarveError(
                .failed,
                self == .shared
                    ? "a command runs in the bundle \"\(path)\", or refreshes it"
                    : "another command is at work in the bundle \"\(path)\"",
                subject: path,
                remedy: .follow("wait until it has ended"))
        }
    }
}

extension RepackContext {
    /// Keeps others out of the bundle until what this context is for is done.
    ///
    /// - Parameter directory: the bundle's.
    func lock(_ directory: FileDescriptor) throws(VarveError) -> BundleLock {
        try BundleLock(refreshes ? .exclusive : .shared, in: directory, bundle)
    }

    /// The same of a bundle that is known already: it may have been refreshed before it was locked.
    func lock(_ bundle: OpenBundle) throws -> BundleLock {
        let lock = try lock(bundle.directory.fd)
        guard try OpenBundle(bundle.path).manifest == bundle.manifest else { throw wasRefreshed }
        try checkImage(bundle.manifest)
        return lock
    }

    /// Throws if the bundle is of another image now than what is repacked: its delta would count from one image, and become a layer of the
    /// other.
    ///
    /// - Parameter manifest: of the image that the bundle is of, read since it is locked.
    func checkImage(_ manifest: Digest?) throws(VarveError) {
        if let image, image.manifestDescriptor.digest != manifest { throw wasRefreshed }
    }

    /// What is thrown where another command has refreshed the bundle since it was looked at.
    private var wasRefreshed: VarveError {
        VarveError(
            .failed, "another command has refreshed the bundle \"\(bundle)\" meanwhile; nothing was written",
            subject: bundle, remedy: .tryAgain)
    }
}
