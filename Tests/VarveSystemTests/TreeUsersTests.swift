import SystemPackage
import TestSupport
import Testing

@testable import VarveSystem

@Suite struct TreeUsersTests {
    @Test("Mounts of one file system are read, and nothing is made of the others")
    func mountsOfADevice() throws {
        let line = "36 35 98:0 /mnt\\040x /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
        let text =
            line + "\nno mount\n" + line.replacing("98:0", with: "8:0") + "\n"
            + line.replacing("36", with: "37")
        func ids(_ device: String?) throws -> [UInt64] { try Self.mounts(text, device).map(\.id) }
        #expect(try ids(nil) == [36, 36, 37] && ids("98:0") == [36, 37])
        #expect(try ids("8:0") == [36] && ids("0") == [])
        let mount = try #require(try Self.mounts(text).first)
        #expect(mount.device == "98:0" && mount.root == "/mnt x" && mount.point == "/a b")
        #expect(mount.source == "/dev/root" && mount.fileSystemOptions == ["rw", "errors=continue"])
    }

    /// The mounts in a file with that text.
    private static func mounts(_ text: String, _ device: String? = nil) throws -> [MountTable.Mount] {
        let table = try temporaryFile()
        try unsafe Array(text.utf8).withUnsafeBytes { unsafe try table.fd.writeFull($0, at: 0) }
        var mounts: [MountTable.Mount] = []
        try MountTable.forEachMount(in: table.fd, device: device, Cancellation()) { mounts.append($0) }
        return mounts
    }

    @Test("Of a path that is too long, its beginning counts")
    func longPaths() throws {
        let deep = String(repeating: "/a\\012", count: 200_000)
        let short = "37 35 98:0 /b /c rw - x y z\n"
        let found = try Self.mounts(
            "36 35 98:0 /r\(deep) /p\(deep) rw - x y z\n\(short)36 35 98:0 /r /p\(deep) rw - x y z")
        #expect(found.map(\.id) == [36, 37, 36])
        #expect(found[0].root.components.prefix(3) == ["r", "a\n", "a\n"] && found[0].point == "/")
        #expect(Set(found[0].root.components.dropFirst()) == ["a\n"])
        #expect(found[1].root == "/b" && found[1].point == "/c")
        #expect(found[2].root == "/r" && found[2].point.components.prefix(2) == ["p", "a\n"])
    }

    @Test("Who asked to stop is heard at each process")
    func cancelled() throws {
        let root = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory("/proc"))
        let cancellation = Cancellation()
        #expect(throws: Never.self) { try TreeUsers(of: root.fd, in: .all, cancellation) }
        cancellation.cancel()
        #expect(throws: Never.self) { try TreeUsers(of: root.fd, in: .own, cancellation) }
        #expect(throws: Errno.canceled) { try TreeUsers(of: root.fd, in: .all, cancellation) }
    }
}
