import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveOCI
import VarveSystem

@testable import VarveCommands

/// The builders: Docs/examples/build over the command, Tests/BuilderExample over the library. Both take the same file.
enum Builder: CaseIterable {
    case python, swift

    var program: [String] {
        get throws {
            switch self {
            case .python: ["/usr/bin/python3", repositoryFile("Docs/examples/build/build.py")]
            case .swift: [try builtProgram("builder-example")]
            }
        }
    }
}

@Suite struct BuilderTests {
    /// A registry with a Debian that has a compiler in it, and a file of stages. Making the Debian takes most of the time of this suite.
    private final class Town {
        let registry: Registry
        let directory: TemporaryDirectory
        var files: BytePath { directory.path.appending("site") }

        init() throws {
            registry = try Registry()
            directory = try TemporaryDirectory()
            try runSuccessfully(
                ["env"] + registry.variables + [
                    "bash", "-ec",
                    """
                    cd "$1"; varve=$2; mkdir site; cp "$3"/hello.c site/
                    mmdebstrap --quiet --variant=essential --include=gcc,libc6-dev bookworm base.tar >&2
                    (cd site && apt-get --quiet=2 download hello && mv hello_*.deb hello.deb)
                    "$varve" init --layout base; "$varve" new --image base:x
                    "$varve" raw add-layer --image base:x --compress none base.tar; rm base.tar
                    "$varve" config --image base:x --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin
                    "$varve" push base:x "docker://$4/debian:12"; rm -r base
                    cat > site/build.toml <<END
                    [debian]
                    from = "docker://$4/debian:12"
                    copy = [["hello.deb", "/hello.deb"]]
                    run = ["dpkg -i /hello.deb && rm /hello.deb", "hello > /greeting"]
                    config = { cmd = ["cat", "/greeting"], label = ["title=debian"] }

                    [compiled]
                    from = "docker://$4/debian:12"
                    build_only = true
                    copy = [["hello.c", "/src/hello.c"]]
                    run = ["gcc -static -o /program /src/hello.c"]

                    [program]
                    copy = [["stage:compiled:/program", "/program"]]
                    config = { entrypoint = "/program" }

                    [both]
                    from = "stage:debian"
                    copy = [["stage:compiled:/program", "/usr/bin/program"]]
                    run = ["program > /said"]
                    END
                    """, "bash", "\(directory.path)", try builtProgram("varve"),
                    repositoryFile("Docs/examples/build"), registry.host,
                ])
        }
    }

    /// A store, and a builder that works on a copy of the files of a town.
    private final class Site {
        let volume: LoopVolume
        let town: Town
        let builder: Builder
        var path: BytePath { volume.path }

        init(_ builder: Builder, in town: Town) throws {
            self.builder = builder
            self.town = town
            volume = try LoopVolume(size: 4 << 30)
            try shell("cp -r \"$1\" \"$2\"", town.files, path)
            _ = try varve("store", "init")
        }

        private func words(_ layout: String) throws -> [String] {
            ["/usr/bin/env"] + town.registry.variables + [
                "VARVE_STORE=\(path)/store", "VARVE=\(try builtProgram("varve"))",
                "PYTHONDONTWRITEBYTECODE=1",
            ] + (try builder.program) + ["\(path)/site/build.toml", "\(path)/\(layout)"]
        }

        /// The lines that a build prints: a line for each step that is made.
        func build(_ layout: String = "out") throws -> [String] {
            try runSuccessfully(try words(layout)).outputText.split(separator: "\n").map(String.init)
        }

        func start(_ layout: String, output: String) throws -> pid_t {
            try startProgram(try words(layout), output: output)
        }

        func varve(_ words: String...) throws -> String {
            try runSuccessfully(["env", "VARVE_STORE=\(path)/store", try builtProgram("varve")] + words)
                .outputText
        }

        func bundles() throws -> [String] {
            try varve("bundle", "ls", "-q").split(separator: "\n").map(String.init)
        }
    }

    /// Whether the steps were made, and no others, each stage's in their order.
    private static func made(_ lines: [String], _ steps: [String]) -> Bool {
        func stage(_ step: String) -> Substring { step.prefix { $0 != " " } }
        return lines.sorted() == steps.sorted()
            && Set(steps.map(stage)).allSatisfy { name in
                lines.filter { stage($0) == name } == steps.filter { stage($0) == name }
            }
    }

    @Test(
        "Three images are built, run, and built again from the cache; a change runs what lies above it, and no more"
    )
    func cache() throws {
        let town = try Town()
        for builder in Builder.allCases { try build(builder, in: town) }
    }

    private func build(_ builder: Builder, in town: Town) throws {
        let site = try Site(builder, in: town)
        let first = try site.build()
        let remote = "docker://\(town.registry.host)/debian:12"
        let steps = [
            "debian 1: copy", "debian 2: run", "debian 3: run", "debian 4: config", "compiled 1: copy",
            "compiled 2: run", "an empty image", "program 1: copy", "program 2: config", "both 1: copy",
            "both 2: run",
        ]
        // The programs of a step write between these.
        #expect(
            first.contains(remote) && Self.made(first.filter(steps.contains), steps), "\(builder): \(first)")
        #expect(try site.bundles() == [])
        for (tag, command, says) in [
            ("debian", "cat /greeting", "Hello, world!\n"), ("program", "/program", "hello\n"),
            ("both", "cat /said", "hello\n"),
        ] {
            let bundle = "\(site.path)/of-\(tag)"
            _ = try site.varve("unpack", "--image", "\(site.path)/out:\(tag)", bundle)
            let run = try runSuccessfully(
                [
                    "sh", "-c",
                    "exec \(ContainerRuntime.host) \(try builtProgram("varve")) run \"$1\" -- \(command)",
                    "sh", bundle,
                ])
            #expect(run.outputText == says, "\(builder)")
        }
        // What only the build needs is not in the image.
        #expect(
            try runSuccessfully(["find", "\(site.path)/of-program/rootfs", "-type", "f"]).outputText.split(
                separator: "\n"
            ).count == 1)
        #expect(
            try ImageLayout(opening: BytePath("\(site.path)/out")).listTags().contains("compiled") == false)

        // Nothing changed: the registry is asked what the name means, and no step is made.
        let before = try town.registry.requests().count
        #expect(try site.build() == [], "\(builder)")
        let requests = try town.registry.requests().dropFirst(before)
        #expect(Array(requests) == ["GET /v2/", "GET /v2/debian/manifests/12"], "\(builder)")

        try shell("sed -i 's/hello\"/changed\"/' \"$1/site/hello.c\"", site.path)
        let changed = try site.build()
        #expect(
            Self.made(
                changed,
                [
                    "compiled 1: copy", "compiled 2: run", "program 1: copy", "program 2: config",
                    "both 1: copy", "both 2: run",
                ]), "\(builder): \(changed)")

        // Interrupted in a step: those below it are there.
        try shell(
            "printf '[slow]\\nfrom = \"stage:debian\"\\nrun = [\"echo 1 > /one\", \"echo 2 > /two; sleep 1000\"]\\n' >> \"$1/site/build.toml\"",
            site.path)
        let log = "\(site.path)/log"
        let pid = try site.start("out", output: log)
        func text() throws -> String {
            String(
                decoding: try FileDescriptor.workingDirectory.readFile(BytePath(log), limit: 1 << 20),
                as: UTF8.self)
        }
        func isInStep() throws -> Bool {
            try site.bundles().contains {
                (try? FileDescriptor.workingDirectory.status(of: BytePath("\($0)/rootfs/two"))) != nil
            }
        }
        var status: CInt = 0
        while try !text().contains("slow 2: run") || !isInStep() {
            guard unsafe waitpid(pid, &status, WNOHANG) == 0 else {
                throw TestSupportError("the builder \(builder) has ended: \(try text())")
            }
            usleep(50_000)
        }
        // As a terminal does: to all of its programs.
        let children = try runSuccessfully(["pgrep", "-P", "\(pid)"]).outputText.split(separator: "\n")
            .compactMap { pid_t($0) }
        for child in children { kill(child, SIGTERM) }
        kill(pid, SIGKILL)
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        for child in children { while kill(child, 0) == 0 { usleep(50_000) } }
        try shell("sed -i 's/sleep 1000/true/' \"$1/site/build.toml\"", site.path)
        #expect(try site.build() == ["slow 2: run"], "\(builder)")

        // Two at once, on one store and one layout: each step once.
        let pids = try (0..<2).map { try site.start("other", output: "\(site.path)/log\($0)") }
        for pid in pids {
            while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
            #expect(status == 0, "\(builder)")
        }
        let logs = try runSuccessfully(["cat", "\(site.path)/log0", "\(site.path)/log1"]).outputText
        var made: [String] = []
        for number in 0..<2 {
            let bytes = try FileDescriptor.workingDirectory.readFile(
                BytePath("\(site.path)/log\(number)"), limit: 1 << 20)
            for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n")
            where line.contains(": ") {
                made.append(String(line))
            }
        }
        #expect(
            made.count == Set(made).count && made.count == steps.count - 1 + 2, "\(builder): \(made) \(logs)")
        // The step that was killed is asked for no more, so nobody came to take its bundle away.
        #expect(try site.bundles().count { $0.contains("-step-") } == 1, "\(builder)")
        #expect(try site.varve("store", "check") == "")
    }
}
