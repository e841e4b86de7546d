import VarveFormats
import VarveOCI
import VarveSystem
import Testing

@Suite struct ReferenceTests {
    struct Case: Sendable {
        var text: String
        var path: String?
        var tag = ""
    }

    @Test(arguments: [
        Case(text: "image", path: "image", tag: "latest"),
        Case(text: "image:1.0", path: "image", tag: "1.0"),
        Case(text: "/a/b:c/image:t", path: "/a/b:c/image", tag: "t"),
        // The colon belongs to a directory.
        Case(text: "/a:b/image", path: "/a:b/image", tag: "latest"),
        // Only the last colon of the last part counts.
        Case(text: "a:b:c", path: "a:b", tag: "c"),
        Case(text: ":tag", path: nil),
        Case(text: "image:", path: nil),
        Case(text: "image:-x", path: nil),
        Case(text: "", path: nil),
    ])
    func splits(_ test: Case) throws {
        guard let path = test.path else {
            expectError(.usage) { _ = try ImageReference(parsing: BytePath(test.text)) }
            return
        }
        let reference = try ImageReference(parsing: BytePath(test.text))
        #expect(reference.path == BytePath(path))
        #expect(reference.tag == test.tag)
    }

    /// Paths are bytes, tags are text.
    @Test func takesAPathThatIsNotUTF8() throws {
        let path = try #require(BytePath([0x2f, 0xff] + Array(":x".utf8)))
        #expect(try ImageReference(parsing: path).path == BytePath([0x2f, 0xff]))
        let tag = try #require(BytePath(Array("a:".utf8) + [0xff]))
        expectError(.usage) { _ = try ImageReference(parsing: tag) }
    }

    @Test(arguments: [
        ("latest", true), ("1.0", true), ("a--b", true), ("debian/12:slim", true), ("a@b+c_d", true),
        ("a---b", false), ("a..b", false), ("-a", false), ("a-", false), ("/a", false), ("a//b", false),
        ("a/", false),
        ("", false), ("é", false), ("a b", false), ("a-.b", false), ("a\n", false),
    ])
    func checksTags(_ tag: String, isValid: Bool) { #expect(ImageReference.isValidTag(tag) == isValid) }

    /// umoci splits at the first colon, so its users have tags with slashes and colons.
    @Test func findsTagsWithSlashesWhereTheLayoutIs() throws {
        let directory = try TemporaryDirectory()
        let layout = try directory.layout()
        for (suffix, tag) in [("debian/12:slim", "debian/12:slim"), ("a:b", "a:b"), ("plain", "plain")] {
            let reference = try ImageReference.locating(BytePath("\(layout.path):\(suffix)"))
            #expect(reference.path == layout.path)
            #expect(reference.tag == tag)
        }
        // A tag that looks like a digest, and a digest.
        let digest = Digest(of: [1])
        #expect(try ImageReference.locating(BytePath("\(layout.path)@\(digest)")).digest == digest)
        let error = #expect(throws: OCIError.self) {
            try ImageReference.locating(BytePath("\(layout.path)@sha256:00"))
        }
        #expect(error?.description.contains("\"sha256:00\" is no digest") == true)
        // With no layout anywhere, the rule of the documentation.
        #expect(try ImageReference.locating(BytePath("/nowhere/x:y:z")).path == BytePath("/nowhere/x:y"))
    }

    /// What people type first: each is told what it is, and how to make a layout of it.
    @Test(arguments: [
        ("docker://alpine", "copy docker://alpine to oci:alpine:latest"),
        ("docker://quay.io/a/b:1.2", "copy docker://quay.io/a/b:1.2 to oci:b:1.2"),
        ("docker.io/library/alpine:3", "copy docker://docker.io/library/alpine:3 to oci:alpine:3"),
        ("localhost:5000/x@sha256:\(String(repeating: "a", count: 64))", "oci:x:latest"),
        (
            "oci:images:debian",
            "\"oci:images:debian\" is how skopeo names an image in a layout (oci:images:debian); here it has no \"oci:\" before it: images:debian"
        ),
        ("docker-daemon:web:dev", "copy docker-daemon:web:dev to oci:web:dev"),
        ("containers-storage:localhost/web", "copy containers-storage:localhost/web to oci:web:latest"),
        ("docker-archive:/tmp/none.tar", "copy docker-archive:/tmp/none.tar to oci:none:latest"),
        ("oci-archive:a b.tar", "copy oci-archive:a b.tar to oci:a b:latest"),
        ("dir:it's", "copy dir:it's to oci:it's:latest"),
        (
            "-",
            "cat > image.tar && skopeo copy docker-archive:image.tar oci:image:latest, and then name it image:latest"
        ),
        ("ARCHIVE/docker.tar", "an archive of docker save"),
        ("ARCHIVE/docker.tar:x", "an archive of docker save"),
        ("ARCHIVE/oci.tar", "copy oci-archive:ARCHIVE/oci.tar to oci:oci:latest"),
        // What a file is, its bytes tell: not where its archive begins, and not its name.
        ("ARCHIVE/dotted.tar", "copy oci-archive:ARCHIVE/dotted.tar to oci:dotted:latest"),
        ("ARCHIVE/last.tar", "copy oci-archive:ARCHIVE/last.tar to oci:last:latest"),
        ("ARCHIVE/both.tar:v1", "copy oci-archive:ARCHIVE/both.tar to oci:both:latest"),
        ("ARCHIVE/root.tar", "is a tar archive with no image in it"),
        ("ARCHIVE/x.tar.gz", "is a file compressed with gzip"),
        (
            "ARCHIVE/x.tar.gz",
            "skopeo copy docker-archive:ARCHIVE/x.tar.gz oci:x:latest, or of an archive of an image layout with: skopeo copy oci-archive:ARCHIVE/x.tar.gz oci:x:latest"
        ),
        ("ARCHIVE/x.tar.zst", "is a file compressed with zstd"),
        ("ARCHIVE/x.tar.xz", "is a file compressed with xz"),
        ("ARCHIVE/notes.tar", "is a regular file and no archive"),
        ("ARCHIVE/empty", "is a regular file and no archive"),
        (
            "ARCHIVE/index.json",
            "is a regular file and no archive, not an image layout in a directory; name the layout ARCHIVE itself"
        ),
        ("https://quay.io/a/b:1.2", "is a web address"),
        ("https://quay.io/a/b:1.2", "copy docker://quay.io/a/b:1.2 to oci:b:1.2"),
    ])
    func saysWhatIsNoLayout(_ text: String, _ expected: String) throws {
        let directory = try TemporaryDirectory()
        try shell(
            """
            cd \(directory.path); mkdir -p blobs/sha256 x; echo '{}' > x/json; touch index.json oci-layout
            echo '[]' > manifest.json; head -c 3000 /dev/urandom > blobs/sha256/x; echo text > notes.tar; touch empty
            tar cf oci.tar blobs index.json oci-layout; tar cf docker.tar x manifest.json; tar cf root.tar x
            tar cf dotted.tar ./blobs ./index.json ./oci-layout; tar cf last.tar x blobs/sha256/x index.json oci-layout
            tar cf both.tar manifest.json blobs oci-layout; tar czf x.tar.gz x; tar c x | zstd -q > x.tar.zst
            tar cJf x.tar.xz x
            """)
        let reference = text.replacing("ARCHIVE", with: directory.path)
        let message = expectError(.usage) { _ = try ImageReference.locating(BytePath(reference)) }
        #expect(message.contains(expected.replacing("ARCHIVE", with: directory.path)), "\(message)")
    }

    /// Where a layout is named, and not an image in it.
    @Test func saysSoOfLayoutsToo() throws {
        let directory = try TemporaryDirectory()
        try shell(
            "cd \(directory.path); echo x > file; mkdir x; echo '[]' > manifest.json; tar cf a.tar manifest.json"
        )
        for (text, kind, expected) in [
            ("docker://alpine", .usage, "copy docker://alpine to oci:alpine:latest"),
            ("\(directory.path)/file", .usage, "is a regular file and no archive"),
            ("\(directory.path)/a.tar", .usage, "copy docker-archive:"),
            ("\(directory.path)/none", .notFound, "there is no image layout"),
        ] as [(String, OCIError.Kind, String)] {
            let message = expectError(kind) { _ = try ImageLayout(opening: BytePath(text)) }
            #expect(message.contains(expected), "\(message)")
        }
        // Nobody who writes this means a directory "docker:".
        expectError(.usage) { _ = try ImageLayout.create(at: BytePath("docker://alpine")) }
        #expect(try shell("cd \(directory.path); ls") == "a.tar\nfile\nmanifest.json\nx\n")
    }

    /// A layout of such a name is one, and so is a path that may be one yet to be made.
    @Test func doesNotMistakeLayouts() throws {
        for text in ["./images:x", "images", "/a.b/c", "../docker.io/x", "a/b.c/d:e"] {
            #expect(throws: Never.self) { try ImageReference.locating(BytePath(text)) }
        }
    }

    @Test(arguments: [
        ("linux/amd64", "linux/amd64"), ("linux/aarch64", "linux/arm64"), ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"), ("linux/arm/6", "linux/arm/v6"), ("linux/x86_64", "linux/amd64"),
    ])
    func bringsPlatformsToOneForm(_ text: String, _ form: String) throws {
        #expect(try Platform(parsing: text).description == form)
    }

    @Test(arguments: ["linux", "linux/", "/amd64", "a/b/c/d", ""])
    func refusesPlatforms(_ text: String) { expectError(.usage) { _ = try Platform(parsing: text) } }
}

@Suite struct TimeTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0, 0 as UInt32), ("2020-01-02T03:04:05Z", 1_577_934_245, 0),
        ("2000-02-29T23:59:59.5Z", 951_868_799, 500_000_000), ("1969-12-31T23:59:59.000000001Z", -1, 1),
        ("0000-01-01T00:00:00Z", -62_167_219_200, 0), ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
        ("2100-03-01T00:00:00Z", 4_107_542_400, 0),
    ])
    func formatsAndParses(_ text: String, _ seconds: Int64, _ nanoseconds: UInt32) {
        let time = Timestamp(seconds: seconds, nanoseconds: nanoseconds)
        #expect(RFC3339.format(time) == text)
        #expect(RFC3339.parse(text) == time)
    }

    @Test func clampsWhatFourDigitsCannotSay() {
        #expect(RFC3339.format(Timestamp(seconds: .max)) == "9999-12-31T23:59:59Z")
        #expect(RFC3339.format(Timestamp(seconds: .min)) == "0000-01-01T00:00:00Z")
    }

    @Test func readsOffsets() {
        #expect(RFC3339.parse("2020-01-02T05:04:05+02:00")?.seconds == 1_577_934_245)
        #expect(RFC3339.parse("2020-01-01T22:04:05.123456789123-05:00")?.nanoseconds == 123_456_789)
    }

    @Test(arguments: [
        "2020-02-30T00:00:00Z", "2019-02-29T00:00:00Z", "2020-13-01T00:00:00Z", "2020-01-01T24:00:00Z",
        "2020-01-01T00:00:00", "2020-01-01", "2020-01-01T00:00:00.Z", "2020-01-01T00:00:00+0200", "now", "",
        "2020-01-01T00:00:00Zx", "2020-01-01T00:00:00.5",
    ])
    func refuses(_ text: String) { #expect(RFC3339.parse(text) == nil) }
}
