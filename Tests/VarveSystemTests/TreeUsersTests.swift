import SystemPackage
import Testing

@testable import VarveSystem

@Suite struct TreeUsersTests {
    @Test("Mounts of one file system are read, and nothing is made of the others")
    func mountsOfADevice() throws {
        let line = "36 35 98:0 /mnt\\040x /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
        let text =
            line + "\nno mount\n" + line.replacing("98:0", with: "8:0") + "\n"
            + line.replacing("36", with: "37")
        func ids(_ device: String?) -> [UInt64] {
            MountTable.parse(Array(text.utf8), device: device).map(\.id)
        }
        #expect(ids(nil) == [36, 36, 37] && ids("98:0") == [36, 37] && ids("8:0") == [36] && ids("0") == [])
        let mount = try #require(MountTable.parse(Array(text.utf8)).first)
        #expect(mount.device == "98:0" && mount.root == "/mnt x" && mount.point == "/a b")
        #expect(mount.source == "/dev/root" && mount.fileSystemOptions == ["rw", "errors=continue"])
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
