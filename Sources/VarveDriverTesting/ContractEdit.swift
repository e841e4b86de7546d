import VarveSystem
import SystemPackage

/// A change of a bundle's tree, of which the delta is asked.
struct ContractEdit {
    var name: String
    /// Nothing is different afterwards.
    var isEmpty = false
    /// - Parameter root: the root directory of the tree.
    var apply: (_ root: FileDescriptor) throws -> Void

    private static let time = Timestamp(seconds: 1000, nanoseconds: 5)

    private static func write(_ root: FileDescriptor, _ name: BytePath, _ text: String) throws {
        let made = try root.open(name, [.writeOnly, .create, .truncate, .noFollow], mode: 0o644)
        try made.fd.writeFull(Array(text.utf8))
    }

    /// Gives a file and its directory the times that they had.
    private static func hide(_ root: FileDescriptor, _ names: BytePath...) throws {
        for name in names { try root.setTimes(of: name, access: time, modification: time) }
    }

    static var all: [ContractEdit] {
        [
            ContractEdit(name: "nothing", isEmpty: true) { root in
                _ = try root.readFile("special/large", limit: 1 << 20)
            },
            ContractEdit(name: "files added, changed and deleted") { root in
                try write(root, "new", "n")
                try write(root, "etc/passwd", "changed")
                try root.unlink("bin/sh")
            },
            // The time and the size are as before; only the content, and so the change time, is another.
            ContractEdit(name: "content alone") { root in
                let opened = try root.open("special/large", [.readWrite])
                try unsafe [UInt8(7)].withUnsafeBytes { try unsafe opened.fd.writeFull($0, at: 70_000) }
                try hide(root, "special/large")
            },
            ContractEdit(name: "a file for another of the same size and time") { root in
                try write(root, "data/other", "K")
                try hide(root, "data/other")
                try root.rename("data/other", to: root, "data/again", replacing: true)
                try hide(root, "data")
            },
            ContractEdit(name: "permissions, owner and attributes") { root in
                try root.changeMode(of: "links", to: 0o700)
                try root.changeOwner(of: "data/again", uid: 5, gid: 6)
                try root.setExtendedAttribute(
                    ExtendedAttribute(name: "user.new", value: Array("v".utf8)), of: "etc")
                try root.removeExtendedAttribute("user.empty", of: "special/attributes")
            },
            ContractEdit(name: "times alone") { root in
                try root.setTimes(of: "etc/passwd", access: time, modification: Timestamp(seconds: 77))
            },
            ContractEdit(name: "the target of a link") { root in
                try root.unlink("lib")
                try root.makeSymbolicLink("lib", target: "elsewhere")
            },
            ContractEdit(name: "other types") { root in
                try root.unlink("etc/passwd")
                try root.makeDirectory("etc/passwd", mode: 0o755)
                try root.unlink("special/null")
                try root.makeSymbolicLink("special/null", target: "x")
            },
            ContractEdit(name: "the number of a device") { root in
                try root.unlink("special/null")
                try root.makeNode(
                    "special/null", mode: FileType.characterDevice.rawValue | 0o644, major: 1, minor: 5)
            },
            ContractEdit(name: "a directory renamed") { root in
                try root.rename("special", to: root, "away", replacing: false)
            },
            ContractEdit(name: "a name more, and a name less") { root in
                try root.link("bin/sh", to: root, "another")
                try root.unlink("links/b")
            },
            ContractEdit(name: "content of a file with two names") { root in
                let opened = try root.open("links/a", [.readWrite])
                try opened.fd.writeFull(Array("LINKED".utf8))
                try hide(root, "links/a")
            },
            ContractEdit(name: "two names of one file parted") { root in
                try write(root, "links/new", "linked")
                try hide(root, "links/new")
                try root.rename("links/new", to: root, "links/a", replacing: true)
                try hide(root, "links")
            },
            ContractEdit(name: "names that are no text") { root in
                guard let name = BytePath([0x6e, 0xff, 0x0a, 0x5c, 0x20]) else { return }
                try write(root, name, "x")
            },
        ]
    }
}
