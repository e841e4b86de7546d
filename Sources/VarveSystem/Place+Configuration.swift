import SystemPackage

extension Place {
    /// The bytes of a configuration file, at most 1 MiB; nil if there is no such file. It decides what is run and where is
    /// written, so it must be root's or the caller's, and others may not be able to change it (`ownFile`).
    package static func configuration(_ path: BytePath) throws(PlaceError) -> [UInt8]? {
        let file: OwnedDescriptor
        do throws(PlaceError) {
            file = try ownFile(path, [.readOnly])
        } catch {
            if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
            throw error
        }
        do throws(Errno) { return try file.fd.readAll(limit: 1 << 20) } catch {
            throw PlaceError(path: path, reason: .system(operation: "read", error))
        }
    }
}
