import SystemPackage
import Varve
import VarveDriverKit

/// Unpack, change, repack, all through a driver of one's own.
@main
struct Example {
    static func main() async throws {
        guard CommandLine.arguments.count == 3 else {
            return print("usage: driver-example LAYOUT:TAG BUNDLE")
        }
        let image = CommandLine.arguments[1]
        let bundle = CommandLine.arguments[2]
        let store = LayerStore(driver: FolderDriver())
        try await store.unpack(BytePath(image), into: BytePath(bundle))
        let file = try FileDescriptor.open(
            FilePath("\(bundle)/rootfs/greeting"), .writeOnly, options: [.create, .exclusiveCreate],
            permissions: [.ownerReadWrite, .groupRead, .otherRead])
        try file.closeAfter { _ = try file.writeAll("hello\n".utf8) }
        let repacked = try await store.repack(BytePath(bundle), into: BytePath("\(image)-greeted"))
        print("\(repacked.changes) changes, new manifest \(repacked.manifest.digest)")
    }
}
