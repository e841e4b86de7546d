import Glibc
package import SystemPackage

/// A file descriptor that is closed when its owner goes away.
package struct OwnedDescriptor: ~Copyable, Sendable {
    /// The descriptor, for the length of a call; whoever keeps it longer than its owner uses a closed one.
    package let fd: FileDescriptor

    package init(owning fd: FileDescriptor) { self.fd = fd }

    deinit { _ = Glibc.close(fd.rawValue) }

    /// Gives the descriptor away: it is the caller's to close.
    package consuming func release() -> FileDescriptor {
        let fd = fd
        discard self
        return fd
    }

    /// close(2), with its error: on a file just written, this is the last place where the kernel can report one.
    package consuming func close() throws(Errno) {
        let fd = release()
        // EINTR: the descriptor is gone on Linux all the same (close(2), "Dealing with error returns").
        if Glibc.close(fd.rawValue) != 0, errno != EINTR { throw Errno(rawValue: errno) }
    }
}

/// A descriptor shared by several owners, closed with the last of them.
public final class SharedDescriptor: Sendable {
    private let owned: OwnedDescriptor
    package var fd: FileDescriptor { owned.fd }
    package init(_ owned: consuming OwnedDescriptor) { self.owned = owned }
}
