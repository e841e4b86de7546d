import VarveFormats
import VarveSystem
import SystemPackage

/// How btrfs compresses what is written to a loopback store: `zstd`, or with a level `zstd:1` to `zstd:15` (btrfs(5), `compress`). It
/// stands in `store.json`, and every mount of the store has it.
package struct StoreCompression: Sendable, Hashable, CustomStringConvertible {
    /// Nil for the kernel's own choice, which is 3.
    package let level: Int?

    /// Nil for anything else.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.first == "zstd", parts.count <= 2 else { return nil }
        guard parts.count == 2 else {
            level = nil
            return
        }
        guard let level = Int(parts[1]), (1...15).contains(level), "\(level)" == parts[1] else { return nil }
        self.level = level
    }

    package var description: String { level.map { "zstd:\($0)" } ?? "zstd" }

    var mountOption: String { "compress=\(self)" }

    /// What the store that is mounted there says; nil for nothing. What a newer version wrote that is not known here does not count.
    static func of(_ store: BytePath) throws(VarveError) -> StoreCompression? {
        let bytes = try attempt("read", store.appending(StoreLayout.description)) {
            () throws(Errno) -> [UInt8]? in
            let directory = try FileDescriptor.workingDirectory.openDirectory(store)
            do throws(Errno) {
                return try directory.fd.readFile(StoreLayout.description, limit: 1 << 16)
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
        let object = bytes.flatMap { try? JSONValue(parsing: $0).object }
        return object?["compression"]?.string.flatMap { StoreCompression($0) }
    }
}
