import SystemPackage
import Varve

/// Unpack, change, repack, all through a driver of one's own.
@main
struct Example {
    static func main() async throws {
        guard CommandLine.arguments.count == 3 else {
            return print("usage: driver-example LAYOUT:TAG BUNDLE")
        }
        let image = BytePath(CommandLine.arguments[1])
        let bundle = BytePath(CommandLine.arguments[2])
        let store = LayerStore(driver: FolderDriver())
        try await store.unpack(image, into: bundle)
        let rootfs = try FileDescriptor.workingDirectory.openDirectory(bundle.appending("rootfs"))
        try rootfs.fd.writeFileDurably("greeting", Array("hello\n".utf8))
        let repacked = try await store.repack(bundle, into: image.appendingBytes("-greeted"))
        print("\(repacked.changes) changes, new manifest \(repacked.manifest.digest)")
    }
}
