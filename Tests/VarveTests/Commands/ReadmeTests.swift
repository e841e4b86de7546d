import SystemPackage
import TestSupport
import Testing
import VarveOCI
import VarveSystem

/// The lines of README.md, as somebody new types them.
@Suite struct ReadmeTests {
    /// The block of code in README.md that begins with a line.
    private static func lines(from first: String) throws -> [String] {
        let bytes = try FileDescriptor.workingDirectory.readFile(
            BytePath(repositoryFile("README.md")), limit: 1 << 20)
        let all = String(decoding: bytes, as: UTF8.self).split(
            separator: "\n", omittingEmptySubsequences: false
        )
        .map(String.init)
        return Array(all.drop { $0 != first }.prefix { $0 != "```" })
    }

    @Test("An image is pulled from a registry, a command runs in it, and what it gives is pushed")
    func session() throws {
        let lines = try Self.lines(from: "varve store init")
        #expect(lines.count == 7 && lines.contains { $0.hasPrefix("varve push ") }, "\(lines)")
        let volume = try LoopVolume()
        let registry = try Registry()
        try shell(
            "mkdir \"$1/bin\" \"$1/home\" \"$1/tree\"; ln -s \"$2\" \"$1/bin/varve\"", volume.path,
            BytePath(try builtProgram("varve")))
        try shell(RuntimeTests.filling, volume.path.appending("tree"))
        func run(_ script: String) throws {
            _ = try runSuccessfully(
                ["env"] + registry.variables + [
                    "VARVE_STORE=\(volume.path)/varve",
                    "PATH=\(volume.path)/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "sh", "-euc", "cd \"$1\"; " + script, "sh", "\(volume.path)/home",
                ])
        }
        // What the registry has: a small Debian.
        try run(
            """
            varve init --layout base; varve new --image base:x; tar -cf base.tar -C ../tree .
            varve raw add-layer --image base:x base.tar; varve push base:x docker://\(registry.host)/debian:12; rm -r base base.tar
            """)
        try run(
            lines.joined(separator: "\n").replacing("registry.example", with: registry.host)
                .replacing("/var/lib/varve", with: "\(volume.path)/varve"))
        // It says what it should, and holds one layer more, with that file alone.
        try run(
            """
            varve unpack --image docker://\(registry.host)/web:1 ../got
            [ "$(cat ../got/rootfs/etc/motd)" = Hello ]
            varve pull docker://\(registry.host)/web:1 got:web; varve pull docker://\(registry.host)/debian:12 got:debian
            [ "$(varve diff got:debian got:web | tr '\\n' ' ')" = 'M etc A etc/motd ' ]
            [ -z "$(varve bundle ls -q | grep -v /got)" ]
            varve store check
            """)
    }
}
