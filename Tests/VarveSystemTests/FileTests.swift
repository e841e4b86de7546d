import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// A directory that goes away with the test.
private final class Scratch {
    let directory: SharedDescriptor
    private let path: BytePath

    init() throws {
        path = temporaryDirectory().appending("varve-calls-\(getpid())-" + randomName())
        try FileDescriptor.workingDirectory.makeDirectory(path, mode: 0o755)
        directory = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(path))
    }

    deinit { _ = try? runCommand(["rm", "-rf", "\(path)"]) }
}

@Suite struct FileTests {
    @Test func durableReplacement() throws {
        let scratch = try Scratch()
        try scratch.directory.fd.writeFileDurably("f", [1, 2, 3])
        try scratch.directory.fd.writeFileDurably("f", [4])
        #expect(try scratch.directory.fd.readFile("f", limit: 10) == [4])
        // The temporary file is gone.
        #expect(try scratch.directory.fd.entries().map(\.name) == ["f"])
        // Nothing is left of a write that fails either.
        #expect(throws: Errno.self) { try scratch.directory.fd.writeFileDurably("no/such", [1]) }
        #expect(try scratch.directory.fd.entries().count == 1)
    }

    @Test func limitsOfReading() throws {
        let scratch = try Scratch()
        try scratch.directory.fd.writeFileDurably("f", Array(repeating: 7, count: 100_000))
        #expect(try scratch.directory.fd.readFile("f", limit: 100_000).count == 100_000)
        #expect(throws: Errno.fileTooLarge) { try scratch.directory.fd.readFile("f", limit: 99_999) }
        try scratch.directory.fd.makeSymbolicLink("l", target: "f")
        #expect(throws: Errno.tooManySymbolicLinkLevels) {
            try scratch.directory.fd.readFile("l", limit: 100_000)
        }
    }

    @Test func listing() throws {
        let scratch = try Scratch()
        var names: Set<BytePath> = []
        // More than one buffer of getdents64 holds, and names that are not text.
        for index in 0..<1500 {
            let name =
                BytePath([0xff, 0x41] + Array("\(index)".utf8) + Array(repeating: 0x78, count: 100)) ?? .empty
            names.insert(name)
            _ = try scratch.directory.fd.open(name, [.writeOnly, .create], mode: 0o644)
        }
        #expect(try Set(scratch.directory.fd.entries().map(\.name)) == names)
        // The descriptor can be listed again.
        #expect(try scratch.directory.fd.entries().count == names.count)
    }

    @Test func attributes() throws {
        let scratch = try Scratch()
        let fd = scratch.directory.fd
        try fd.writeFileDurably("f", [])
        // One larger than the buffer on the stack, one empty.
        let large = ExtendedAttribute(name: "user.large", value: Array(repeating: 9, count: 2_000))
        let empty = ExtendedAttribute(name: "user.empty", value: [])
        try fd.setExtendedAttribute(large, of: "f")
        try fd.setExtendedAttribute(empty, of: "f")
        #expect(try fd.extendedAttributes(of: "f") == [empty, large])
        #expect(try fd.extendedAttribute("user.none", of: "f") == nil)
        try fd.removeExtendedAttribute("user.large", of: "f")
        #expect(try fd.extendedAttributeNames(of: "f") == ["user.empty"])
        // Those of a symbolic link are its own.
        try fd.makeSymbolicLink("l", target: "f")
        #expect(try fd.extendedAttributes(of: "l").isEmpty)
    }

    @Test func resolution() throws {
        let scratch = try Scratch()
        let fd = scratch.directory.fd
        try fd.makeDirectory("root", mode: 0o755)
        let root = try fd.openDirectory("root")
        try root.fd.makeDirectory("etc", mode: 0o755)
        try root.fd.makeSymbolicLink("out", target: "/../../etc")
        let inside = try root.fd.open("out", [.directory], resolve: .inRoot)
        let etc = try root.fd.openDirectory("etc")
        #expect(try inside.fd.status().inode == etc.fd.status().inode)
        #expect(throws: Errno.self) { _ = try root.fd.open("out", [.directory], resolve: .beneath) }
        #expect(throws: Errno.tooManySymbolicLinkLevels) {
            _ = try root.fd.open("out", [.path], resolve: .noSymlinks)
        }
    }

    @Test func timesBeforeTheEpoch() throws {
        let scratch = try Scratch()
        let time = Timestamp(seconds: -1, nanoseconds: 500_000_000)
        try scratch.directory.fd.setTimes(access: .epoch, modification: time)
        #expect(try scratch.directory.fd.status().modificationTime == time)
        #expect(time < .epoch)
    }
}

@Suite struct FileLockTests {
    @Test func onlyOneHolds() throws {
        let scratch = try Scratch()
        let first = try FileLock.tryExclusive("l", in: scratch.directory)
        let firstIsHeld = first != nil
        #expect(firstIsHeld)
        let second = try FileLock.tryExclusive("l", in: scratch.directory)
        let secondIsHeld = second != nil
        #expect(!secondIsHeld)
        extendLifetime(first)
    }

    @Test func theFileGoesWithTheHolder() throws {
        let scratch = try Scratch()
        do {
            let lock = try FileLock.tryExclusive("l", in: scratch.directory)
            extendLifetime(lock)
        }
        #expect(try scratch.directory.fd.entries().isEmpty)
        let again = try FileLock.tryExclusive("l", in: scratch.directory)
        let againIsHeld = again != nil
        #expect(againIsHeld)
        extendLifetime(again)
    }

    @Test func aWaitCanBeGivenUp() throws {
        struct GivenUp: Error {}
        let scratch = try Scratch()
        let lock = try FileLock.tryExclusive("l", in: scratch.directory)
        var waits = 0
        #expect(throws: GivenUp.self) {
            _ = try FileLock.exclusive("l", in: scratch.directory) {
                waits += 1
                if waits == 2 { throw GivenUp() }
            }
        }
        #expect(waits == 2)
        extendLifetime(lock)
    }
}
