import VarveOCI
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// What `varve` called `umoci` owes to scripts one by one, beside `UmociDifferentialTests`.
@Suite struct UmociNamedTests {
    private func umoci(_ words: BytePath..., variables: [String: String] = [:]) -> CommandRun {
        let (output, errors) = (Collected(), Collected())
        let code = VarveCommand.run(
            as: .umoci, arguments: words, standardOutput: output.sink, standardError: errors.sink,
            environment: CommandEnvironment(variables))
        return CommandRun(code: code, output: output.all, errors: errors.all)
    }

    /// Images that umoci itself does not make, shown by both: the same bytes, as text and as JSON.
    @Test(arguments: ["image", "artifact", "unknown", "few", "escaped"])
    func stat(_ tag: String) throws {
        let directory = try TemporaryDirectory()
        try shell(Self.foreignLayout, directory.path)
        let image = directory.path.appending(BytePath("L:\(tag)"))
        for flags in [[], ["--json"]] {
            let words = ["stat"] + flags + ["--image", image.description]
            let expected = try runCommand([try UmociRelease.newer.program()] + words)
            let run = umoci("stat", "--image", image)
            let found = flags.isEmpty ? run : umoci("stat", "--json", "--image", image)
            #expect(found.code == 0 && expected.status == 0, "\(found) \(expected.errorText)")
            #expect(found.text == expected.outputText)
        }
    }

    private static let foreignLayout = #"""
        cd "$1"; mkdir -p L/blobs/sha256; cd L; entries=
        store() { printf %b "$1" > t; digest=$(sha256sum < t | cut -c1-64); size=$(stat -c %s t); mv t blobs/sha256/$digest; }
        refer() { printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' "$1" $digest $size "$2"; }
        tag() { entries=$entries${entries:+,}$(refer $oci.manifest.v1+json ',"annotations":{"org.opencontainers.image.ref.name":"'$1'","z":"a, b","a":""}'"$2"); }
        oci=application/vnd.oci.image; zero=sha256:0000000000000000000000000000000000000000000000000000000000000000
        layer='{"mediaType":"'$oci'.layer.v1.tar+gzip","digest":"'$zero'","size":27097408,"urls":["http://x/y z"],"annotations":{"k":"v","b c":""}}'
        store '{ "created":"2020-01-02T03:04:05.120+02:00","author":"Ä, <b> & \\"q\\"","architecture":"arm64","variant":"v8","os":"linux","os.version":"1 2","os.features":["a","b,c"],"config":{"User":"u v","ExposedPorts":{"80/tcp":{},"53/udp":{},"a,b":{}},"Env":["A=b\\tc","E=","U=\u2028"],"Entrypoint":["/x",""],"Cmd":["a b","c"],"Volumes":{"/v w":{},"/a":{}},"WorkingDir":"/w","Labels":{"z":"","a b":"c,d","e":"\\u001b[31m"},"StopSignal":"TERM","ArgsEscaped":true},"rootfs":{"type":"layers","diff_ids":["'$zero'"]},"history":[{"created":"2020-01-02T03:04:05.100Z","created_by":"make\\tit <now>","comment":"ü"},{"created":"2020-01-02T03:04:05Z","created_by":"x","empty_layer":true}]}'
        config=$(refer $oci.config.v1+json)
        store '{"schemaVersion":2,"mediaType":"'$oci.manifest.v1+json'","config":'"$config"',"layers":['"$layer"'],"annotations":{"y":"1","x":"2"},"subject":'"$config"'}\n'
        tag image ',"platform":{"architecture":"arm64","os":"linux","variant":"v8"}'
        store '{"created":"2020-01-02T03:04:05Z","architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["'$zero'","'$zero'"]},"history":[{"created":"2020-01-02T03:04:05Z"}]}'
        config=$(refer $oci.config.v1+json)
        store '{"schemaVersion":2,"config":'"$config"',"layers":['"$layer,$layer"']}'; tag few
        store '{"created":"2020-01-02T03:04:05Z","author":"a\\u003cb","architecture":"amd64","os":"linux","config":{"Labels":{"k":"\\u0000\\u007f\0302\0240\0342\0200\0213\0360\0237\0230\0200"}},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}'
        config=$(refer $oci.config.v1+json)
        store '{"schemaVersion":2,"config":'"$config"',"layers":[]}'; tag escaped
        store '{}'; config=$(refer application/vnd.oci.empty.v1+json ',"data":"e30="')
        store '{"schemaVersion":2,"mediaType":"'$oci.manifest.v1+json'","artifactType":"application/x","config":'"$config"',"layers":['"$config"']}'; tag artifact
        store 'x'; config=$(refer application/x)
        store '{"schemaVersion":2,"mediaType":"'$oci.manifest.v1+json'","config":'"$config"',"layers":[]}'; tag unknown
        echo '{"imageLayoutVersion":"1.0.0"}' > oci-layout; printf '{"schemaVersion":2,"manifests":[%s]}' "$entries" > index.json
        """#

    /// Whatever root writes into somebody's layout is theirs.
    @Test func owner() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        try shell(
            "cd \"$1\"; echo x > f; tar -cf t.tar f; umoci init --layout L; chown -R 1234:5678 L",
            directory.path)
        let image = layout.appendingBytes(":a")
        let file = directory.path.appending("f")
        let bundle = directory.path.appending("b")
        for words in [
            ["new", "--image", image], ["insert", "--image", image, file, "/f"],
            ["config", "--image", image, "--author", "x"],
            ["tag", "--image", image, "b"],
            ["raw", "add-layer", "--image", image, directory.path.appending("t.tar")],
            ["unpack", "--driver", "directory", "--image", image, bundle], [],
            ["repack", "--image", image, bundle],
            ["rm", "--image", layout.appendingBytes(":b")], ["gc", "--layout", layout],
        ] as [[BytePath]] {
            if words.isEmpty {
                try shell("echo y > \"$1/rootfs/y\"", bundle)
                continue
            }
            let run = varve(words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
            let others = try runSuccessfully([
                "find", layout.description, "!", "-uid", "1234", "-o", "!", "-gid", "5678",
            ]).outputText
            #expect(others == "", "\(words)")
        }
    }

    /// An attribute without a value is kept, as GNU tar keeps it; umoci leaves it out, and finds nothing changed in our bundle.
    @Test(arguments: UmociRelease.allCases)
    func emptyAttribute(_ release: UmociRelease) throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        try shell(
            "cd \"$1\"; echo x > f; setfattr -n user.e f; setfattr -n user.v -v 1 f; umoci init --layout L; umoci new --image L:a",
            directory.path)
        let image = layout.appendingBytes(":a")
        #expect(umoci("insert", "--image", image, directory.path.appending("f"), "/f").code == 0)
        let bundle = directory.path.appending("b")
        #expect(umoci("unpack", "--mtree", "--image", image, bundle).code == 0)
        let names = try runSuccessfully(["getfattr", "--absolute-names", "-m", "^user", "\(bundle)/rootfs/f"])
            .outputText
        #expect(names.contains("user.e\n") && names.contains("user.v\n"))
        try runSuccessfully([
            try release.program(), "repack", "--image", "\(layout):same", bundle.description,
        ])
        #expect(try ImageContents(layout).lines.contains { $0.hasPrefix("same layer 1") } == false)
    }

    /// `--mtree`, the configuration file and the variable: a bundle that umoci can repack.
    @Test func mtree() throws {
        let directory = try TemporaryDirectory()
        try shell(
            "cd \"$1\"; mkdir -p conf/varve; echo 'mtree = true' > conf/varve/config.toml; umoci init --layout L; umoci new --image L:a",
            directory.path)
        let image = directory.path.appending("L:a")
        let configured = ["XDG_CONFIG_HOME": "\(directory.path)/conf"]
        for (name, flags, variables, isThere) in [
            ("a", [], [:], false), ("b", ["--mtree"], [:], true), ("c", [], configured, true),
            ("d", [], ["VARVE_UMOCI_MTREE": "1"], true),
            ("e", [], configured.merging(["VARVE_UMOCI_MTREE": "0"]) { $1 }, false),
        ] as [(String, [BytePath], [String: String], Bool)] {
            let bundle = directory.path.appending(BytePath(name))
            #expect(
                varve(
                    ["unpack", "--driver", "directory", "--image", image] + flags + [bundle],
                    variables: variables
                ).code == 0)
            let found = try runSuccessfully(["find", bundle.description, "-name", "*.mtree"]).outputText
            #expect(found.isEmpty == !isThere, "\(name)")
        }
        let wrong = varve(
            ["unpack", "--driver", "directory", "--image", image, directory.path.appending("f")],
            variables: ["VARVE_UMOCI_MTREE": "yes"])
        #expect(
            wrong.code == 2
                && wrong.errorText
                    == "varve: VARVE_UMOCI_MTREE is \"yes\", which is neither on nor off; set it to 1 or 0\n"
        )
    }

    /// The lines of `raw mtree-validate` are those of umoci, which prints them in no order.
    @Test func validate() throws {
        let directory = try TemporaryDirectory()
        try shell(
            "cd \"$1\"; umoci init --layout L; umoci new --image L:a; umoci unpack --image L:a b; cd b/rootfs; echo x > f; mkdir d; echo g > d/g; ln -s f l; touch -h -d @1 f l d/g d .; cd ../..; umoci repack --refresh-bundle --image L:b b; mv b/*.mtree m",
            directory.path)
        let words = ["--manifest", "\(directory.path)/m", "--path", "\(directory.path)/b/rootfs"]
        let program = try UmociRelease.newer.program()
        for (script, flags, code) in [
            (":", [], 0), ("chmod 600 f", [], 1), (":", ["-k", "size"], 0),
            ("rm d/g; echo n > 'n o'; ln -sfn x l; touch -h -d @1 l d .", [], 1),
            (":", ["--use-keywords=type,mode"], 1), (":", ["--umoci-keywords"], 1),
        ] as [(String, [String], Int32)] {
            try shell("cd \"$1/b/rootfs\"; \(script)", directory.path)
            let expected = try runCommand([program, "raw", "mtree-validate"] + words + flags)
            let (output, errors) = (Collected(), Collected())
            let status = VarveCommand.run(
                as: .umoci, arguments: (["raw", "mtree-validate"] + words + flags).map { BytePath($0) },
                standardOutput: output.sink, standardError: errors.sink, environment: CommandEnvironment([:]))
            #expect(
                status == code && expected.status == code,
                "\(script) \(flags): \(String(decoding: errors.all, as: UTF8.self))")
            let lines = { (text: String) in text.split(separator: "\n").sorted() }
            // Which of several keywords of one path is told is umoci's chance; here one differs, or the first is taken out.
            let paths = { (text: String) in lines(text).map { $0.prefix { $0 != ":" } } }
            let found = String(decoding: output.all, as: UTF8.self)
            #expect(paths(found) == paths(expected.outputText))
            if script.hasPrefix("chmod") { #expect(lines(found) == lines(expected.outputText)) }
        }
    }

    /// What is said of a success at --log=info, and of a missing history at any level, is what umoci says; nothing speaks of
    /// varve.
    @Test func words() throws {
        let directory = try TemporaryDirectory()
        let program = try UmociRelease.newer.program()
        try shell("cd \"$1\"; mkdir umoci varve; echo x > f; tar -cf t.tar f", directory.path)
        for (level, steps) in [
            (
                "--log=info",
                [
                    ["init", "--layout", "@/L"], ["new", "--image", "@/L:a"],
                    ["config", "--image", "@/L:a", "--author", "x"],
                    ["insert", "--image", "@/L:a", "@/../f", "/f"],
                    ["raw", "add-layer", "--image", "@/L:a", "@/../t.tar"],
                    ["tag", "--image", "@/L:a", "b"], ["rm", "--image", "@/L:b"],
                    ["unpack", "--image", "@/L:a", "@/b"],
                    ["repack", "--image", "@/L:c", "@/b"],
                    ["repack", "--refresh-bundle", "--image", "@/L:c", "@/b"],
                    ["raw", "unpack", "--image", "@/L:a", "@/r"],
                    ["raw", "runtime-config", "--image", "@/L:a", "@/c"],
                    ["ls", "--layout", "@/L"],
                ]
            ),
            (
                "--log=warn",
                [
                    ["insert", "--no-history", "--image", "@/L:a", "@/../f", "/g"],
                    ["config", "--no-history", "--image", "@/L:a"],
                    ["raw", "unpack", "--image", "@/L:a", "@/s"],
                ]
            ),
        ] {
            for words in steps {
                func said(_ side: String, _ text: String) -> String {
                    text.replacing("\(directory.path)/\(side)", with: "@").split(separator: "\n").map {
                        line in
                        line.split(separator: "sha256:", omittingEmptySubsequences: false).enumerated().map {
                            $0.offset == 0 ? String($0.element) : "DIGEST" + $0.element.dropFirst(64)
                        }.joined()
                    }.joined(separator: "\n")
                }
                let given = { (side: String) in
                    [level] + words.map { $0.replacing("@", with: "\(directory.path)/\(side)") }
                }
                let expected = try runCommand([program] + given("umoci"))
                let (output, errors) = (Collected(), Collected())
                let status = VarveCommand.run(
                    as: .umoci, arguments: given("varve").map { BytePath($0) }, standardOutput: output.sink,
                    standardError: errors.sink, environment: CommandEnvironment(["HOME": "/nonexistent"]))
                let found = String(decoding: errors.all, as: UTF8.self)
                #expect(status == expected.status)
                #expect(
                    said("varve", found).replacing(" ", with: "")
                        == said("umoci", expected.errorText).replacing(" ", with: ""), "\(words)")
            }
        }
        let version = umoci("--version")
        #expect(version.text == "umoci version 0.6.0\nimage spec: 1.1.1\nruntime spec: 1.2.1\n")
        let layout = directory.path.appending("varve/L")
        for words in [
            ["--help"], ["raw", "--help"], ["config", "--help"], ["ls", "--layout", "/none"],
            ["config", "--image", layout, "--created", "x"],
            ["stat", "--image", "/none"], ["stat", "--image", layout],
            ["repack", "--image", layout, "/none"],
            ["unpack", "--image", layout.appendingBytes(":a"), "/proc"],
            ["rm", "--image", "/none"], ["insert", "--image", layout.appendingBytes(":a"), "/none", "/x"],
            ["bogus"], ["ls", "--bogus"], ["gc"],
            ["unpack", "--image", layout.appendingBytes(":a"), "--uid-map", "x", "/none"],
        ] as [[BytePath]] {
            let (output, errors) = (Collected(), Collected())
            _ = VarveCommand.run(
                as: .umoci, arguments: words, standardOutput: output.sink, standardError: errors.sink,
                environment: CommandEnvironment([:]))
            let text = String(decoding: output.all + errors.all, as: UTF8.self).replacing(
                layout.description, with: "L")
            #expect(!text.lowercased().contains("varve"), "\(words): \(text)")
        }
    }
}
