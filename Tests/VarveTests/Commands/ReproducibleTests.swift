import VarveSystem
import TestSupport
import Testing

@Suite struct ReproducibleTests {
    /// The same commands in two places, with other stores, at other times and in another order of the files on disk, give
    /// the same layout, byte by byte.
    @Test func sameCommandsSameDigests() throws {
        let seconds = "1700000000"
        var layouts: [String] = []
        for names in [["a", "b", "c"], ["c", "b", "a"]] {
            let shop = try Workshop()
            let layout = shop.bundle("images")
            func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }
            func run(_ words: BytePath...) {
                let result = shop.run(words, variables: ["SOURCE_DATE_EPOCH": seconds])
                #expect(result.code == 0 && result.errors.isEmpty, "\(words): \(result)")
            }
            run("init", "--layout", layout)
            run("new", "--image", image("one"))
            run("unpack", "--image", image("one"), shop.bundle("first"))
            // Times of now, which are later than the one that counts, and times before it, which stay.
            for name in names {
                try shell(
                    "cd \"$1/rootfs\"; mkdir -p d/\(name); echo \(name) > d/\(name)/f; ln d/\(name)/f d/\(name)/g; touch -d @1000000\(name == "a" ? 1 : 2) d/\(name)/f; setfattr -n user.x -v \(name) d/\(name)",
                    shop.bundle("first"))
            }
            run("repack", "--image", image("one"), "--refresh-bundle", shop.bundle("first"))
            try shell("rm -r \"$1/rootfs/d/b\"; echo more > \"$1/rootfs/new\"", shop.bundle("first"))
            run("repack", "--image", image("two"), "--compress", "zstd", shop.bundle("first"))
            run(
                "unpack", "--image", image("two"), "--uid-map", "0:1000:9", "--gid-map", "0:7:9",
                shop.bundle("mapped"))
            try shell("echo m > \"$1/rootfs/m\"; chown 1001:8 \"$1/rootfs/m\"", shop.bundle("mapped"))
            run("repack", "--image", image("three"), "--history.comment", "mapped", shop.bundle("mapped"))
            try shell(
                "mkdir \"$1\"; for name in \(names.joined(separator: " ")); do echo $name > \"$1/$name\"; done",
                shop.bundle("tree"))
            run("insert", "--image", image("three"), "--opaque", shop.bundle("tree"), "/opt/tree")
            run(
                "config", "--image", image("three"), "--config.user", "m", "--author", "me", "--config.env",
                "A=b")
            run("tag", "--image", image("three"), "four")
            layouts.append(
                try runSuccessfully([
                    "sh", "-ec", "cd '\(layout)'; find . -type f -exec sha256sum {} + | sort -k 2",
                ]).outputText)
        }
        #expect(layouts[0] == layouts[1])
        #expect(layouts[0].split(separator: "\n").count > 10, "\(layouts[0])")
    }
}
