import SystemPackage
import Varve

/// The program of Docs/embedding.md: unpack an image, change something, see what changed, repack.
@main
struct Example {
    static func main() async throws {
        guard CommandLine.arguments.count == 4 else {
            return print("usage: embedding-example STORE LAYOUT:TAG BUNDLE")
        }
        let image = CommandLine.arguments[2]
        let bundle = BytePath(CommandLine.arguments[3])

        let store = try await LayerStore.open(BytePath(CommandLine.arguments[1]))
        let unpacked = try await store.unpack(BytePath(image), into: bundle)
        print("\(unpacked.layersInPlace) of \(unpacked.layers) layers were there already")

        let file = try FileDescriptor.open(
            FilePath("\(CommandLine.arguments[3])/rootfs/greeting"), .writeOnly,
            options: [.create, .exclusiveCreate],
            permissions: [.ownerReadWrite, .groupRead, .otherRead])
        try file.closeAfter { _ = try file.writeAll("hello\n".utf8) }

        for change in try await store.delta(of: bundle).changes { print(change) }
        let repacked = try await store.repack(bundle, into: BytePath("\(image)-greeted"))
        print("new manifest \(repacked.manifest.digest)")
    }
}
