import Glibc
import VarveFormats
package import VarveOCI
package import VarveSystem
import SystemPackage

/// A directory of this user's own in which skopeo works. It goes with this value.
///
/// skopeo is told paths. So it is made only where nobody else can put something else in the place of what a path leads to.
final class PrivateDirectory {
    private let work: WorkDirectory
    /// Absolute, without symbolic links and colons.
    let path: BytePath
    var opened: SharedDescriptor { work.opened }

    /// - Parameters:
    ///   - parent: where it is made if nobody else can change the way to that; else, and for nil, it is made where temporary files are.
    ///   - subject: what it is for, as errors name it.
    init(in parent: BytePath?, for subject: BytePath, _ cancellation: Cancellation) throws {
        let own = parent.flatMap { parent in (try? Self.own(parent)) ?? nil }
        let place = try own ?? Self.temporary()
        let made = try WorkDirectory(in: place, path: subject, cancellation: cancellation)
        path = try made.path()
        work = made
    }

    /// To skopeo, a colon ends a path.
    private static func own(_ path: BytePath) throws -> SharedDescriptor? {
        let opened = SharedDescriptor(try Place.ownDirectory(path))
        if try opened.fd.path().bytes.contains(UInt8(ascii: ":")) { return nil }
        return try Place.isInContainer(opened.fd) ? nil : opened
    }

    private static func temporary() throws -> SharedDescriptor {
        let named = unsafe getenv("TMPDIR").flatMap { unsafe BytePath(String(cString: $0)) }
        let place = named.flatMap { $0.isAbsolute && !$0.bytes.contains(UInt8(ascii: ":")) ? $0 : nil }
        do throws(PlaceError) {
            return SharedDescriptor(try Place.directory(place ?? "/var/tmp", .own))
        } catch {
            throw VarveError(error, "use the directory", place ?? "/var/tmp")
        }
    }

    /// Bytes of the files that are in it now, as deep as skopeo puts them.
    func bytes() -> Int64 { Self.bytes(in: opened.fd, depth: 5) }

    private static func bytes(in directory: FileDescriptor, depth: Int) -> Int64 {
        var total: Int64 = 0
        for entry in (try? directory.entries()) ?? [] {
            if entry.type != .directory {
                total = total.addingSaturating((try? directory.status(of: entry.name).size) ?? 0)
            } else if depth > 0, let opened = try? directory.open(entry.name, [.directory, .noFollow]) {
                total = total.addingSaturating(bytes(in: opened.fd, depth: depth - 1))
            }
        }
        return total
    }
}

/// A directory in which an image arrives: a layout that nobody else sees. It goes with this value.
package final class TransferPlace {
    static let tag = "image"
    private static let layoutName: BytePath = "layout"
    private let directory: PrivateDirectory
    package let layout: ImageLayout

    /// - Parameter path: of the layout that the image is to be in. The place is beside its blobs where nobody else can get at it, so that those
    ///   that are there can be shared; else where temporary files are.
    package init(near path: BytePath?, cancellation: Cancellation) throws {
        directory = try PrivateDirectory(in: path, for: path ?? "the image", cancellation)
        self.layout = try ImageLayout.create(at: directory.path.appending(Self.layoutName))
    }

    /// The layout as skopeo names it.
    var reference: BytePath {
        BytePath("oci:").appendingBytes(layout.path).appendingBytes(BytePath(":" + Self.tag))
    }

    /// Bytes of the files that have arrived, and of those that are arriving.
    func bytes() -> Int64 { directory.bytes() }
}
