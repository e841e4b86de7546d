import VarveFormats
import VarveOCI
import VarveSystem
import SystemPackage
import Testing

@Suite struct LayoutTests {
    let directory: TemporaryDirectory
    let layout: ImageLayout

    init() throws {
        directory = try TemporaryDirectory()
        layout = try directory.layout()
    }

    /// Without the lock that `layout` has since it wrote something.
    private func entries(_ name: String = ".") throws -> [String] {
        try shell("ls -A '\(layout.path)/\(name)'").split(separator: "\n").map(String.init).filter {
            $0 != ".varve-layout.lock"
        }
    }

    @Test func createsWhatOthersOpen() throws {
        #expect(try entries().sorted() == ["blobs", "index.json", "oci-layout"])
        #expect(try ImageLayout(opening: layout.path).index().entries.isEmpty)
        try layout.newImage(tag: "x", created: Timestamp(seconds: 0))
        #expect(try shell("umoci ls --layout \(layout.path)") == "x\n")
        expectError(.alreadyExists) { _ = try ImageLayout.create(at: layout.path) }
        // Parents are made; an empty directory is taken.
        _ = try ImageLayout.create(at: directory.bytes.appending("a/b/c"))
        try shell("mkdir \(directory.path)/empty")
        _ = try ImageLayout.create(at: directory.bytes.appending("empty"))
    }

    @Test func refusesWhatIsNoLayout() throws {
        expectError(.notFound) { _ = try ImageLayout(opening: BytePath("/nowhere/at/all")) }
        expectError(.invalidInput) { _ = try ImageLayout(opening: directory.bytes) }
        expectError(.usage) { _ = try ImageLayout(opening: BytePath("/etc/passwd")) }
        for content in [#"{"imageLayoutVersion":"2.0.0"}"#, "{}", "[]", "x", #"{"imageLayoutVersion":1}"#] {
            try shell("printf '%s' '\(content)' > \(layout.path)/oci-layout")
            expectError(.invalidInput) { _ = try ImageLayout(opening: layout.path) }
        }
    }

    @Test func storesABlobOnceItIsWhole() throws {
        var writer: BlobWriter? = try BlobWriter(layout)
        try writer?.write(Array("hel".utf8))
        try writer?.write(Array("lo".utf8))
        #expect(try entries("blobs/sha256").isEmpty)
        try writer?.finish()
        try writer?.finish()
        let blob = try #require(writer?.blob)
        #expect(blob.digest == Digest(of: Array("hello".utf8)))
        writer = nil
        #expect(try entries("blobs/sha256") == [blob.digest.hex])
        let descriptor = Descriptor(mediaType: "x", digest: blob.digest, size: 5)
        #expect(try layout.readBlob(descriptor) == Array("hello".utf8))
        // Abandoned: nothing stays.
        writer = try BlobWriter(layout)
        try writer?.write([1, 2, 3])
        #expect(try entries().contains { $0.hasPrefix(".varve") })
        writer = nil
        #expect(try entries().sorted() == ["blobs", "index.json", "oci-layout"])
    }

    @Test func storesSHA512WhereTheLayoutHasNoDirectoryForIt() throws {
        let writer = try BlobWriter(layout, algorithm: .sha512)
        try writer.write([7])
        try writer.finish()
        let digest = try #require(writer.blob?.digest)
        #expect(try layout.readBlob(Descriptor(mediaType: "x", digest: digest, size: 1)) == [7])
        #expect(try entries("blobs/sha512") == [digest.hex])
    }

    /// An equal blob is not written anew; one of the right size with wrong bytes is.
    @Test func keepsAnEqualBlobAndReplacesADamagedOne() throws {
        let descriptor = try layout.put("hello", mediaType: "x")
        let path = "\(layout.path)/blobs/sha256/\(descriptor.digest.hex)"
        let inode = try shell("stat -c %i \(path)")
        _ = try layout.put("hello", mediaType: "x")
        #expect(try shell("stat -c %i \(path)") == inode)
        try shell("printf HELLO > \(path)")
        expectError(.invalidInput) { _ = try layout.readBlob(descriptor) }
        _ = try layout.put("hello", mediaType: "x")
        #expect(try layout.readBlob(descriptor) == Array("hello".utf8))
        #expect(try entries().count == 3)
    }

    @Test func verifiesWhatItReads() throws {
        let right = try layout.put("hello", mediaType: "x")
        for size: Int64 in [0, 4, 6, .max] {
            let lying = Descriptor(mediaType: "x", digest: right.digest, size: size)
            expectError(.invalidInput) { _ = try layout.openBlob(lying) }
            expectError(.invalidInput) { _ = try layout.readBlob(lying) }
        }
        expectError(.invalidInput) { _ = try layout.readBlob(right, limit: 4) }
        let file = try layout.openBlob(right)
        #expect(try file.fd.readAll(limit: 10) == Array("hello".utf8))
        let missing = Descriptor(mediaType: "x", digest: Digest(of: [1]), size: 1)
        let text = expectError(.invalidInput) { _ = try layout.openBlob(missing) }
        #expect(text.contains("lacks the blob \(missing.digest)"))
    }

    @Test func verifierSeesEachKindOfDifference() throws {
        let bytes = Array("hello".utf8)
        let descriptor = Descriptor(mediaType: "x", digest: Digest(of: bytes), size: 5)
        func run(_ bytes: [UInt8]) throws {
            var verifier = BlobVerifier(descriptor)
            try unsafe bytes.withUnsafeBytes { try unsafe verifier.update($0) }
            try verifier.finish()
        }
        try run(bytes)
        for wrong in ["hell", "hello!", "hellO", ""] {
            expectError(.invalidInput) { try run(Array(wrong.utf8)) }
        }
    }

    /// Build systems make layouts of links to their outputs. The content is checked all the same.
    @Test(arguments: [
        "mv F /T/elsewhere; ln -s /T/elsewhere F", "mv F D/other; ln -s other F",
        "mv D /T/elsewhere; ln -s /T/elsewhere D",
        "mv D D2; ln -s sha256.2 D; mv D2 L/blobs/sha256.2",
        "mv L/blobs /T/elsewhere; ln -s ../elsewhere L/blobs",
    ])
    func readsBlobsThroughSymbolicLinks(_ command: String) throws {
        let descriptor = try layout.put("content", mediaType: "x")
        let folder = "\(layout.path)/blobs/sha256"
        var script = command
        for (word, path) in [
            ("F", "\(folder)/\(descriptor.digest.hex)"), ("D", folder), ("L", "\(layout.path)"),
            ("/T", directory.path),
        ] { script = script.replacing(word, with: "'\(path)'") }
        try shell(script)
        #expect(try layout.readBlob(descriptor) == Array("content".utf8))
        try shell("printf CONTENT > \(folder)/\(descriptor.digest.hex)")
        // What is said does not tell what the file holds.
        let text = expectError(.invalidInput) { _ = try layout.readBlob(descriptor) }
        #expect(text.contains("damaged") && !text.contains(Digest(of: Array("CONTENT".utf8)).hex), "\(text)")
    }

    /// Nothing but a regular file of the right size is a blob, and nothing else is opened.
    @Test(arguments: [
        "ln -s /etc/passwd F", "mkdir F", "mkfifo F", "mv D D2; ln -s /etc D; true", "ln -s /dev/zero F",
        "ln -s F F",
        "ln -s /proc/self/fd/0 F", "mkfifo G; ln -s G F", "mv D D2; ln -s ../../../../../../../../tmp D",
    ])
    func refusesBlobsThatAreNotFiles(_ command: String) throws {
        let digest = Digest(of: [9])
        let folder = "\(layout.path)/blobs/sha256"
        let script = command.split(separator: " ").map { word in
            switch word {
            case "F": "\(folder)/\(digest.hex)"
            case "G;", "G": "\(folder)/\(word)"
            case "D": folder
            case "D2;": "\(folder)2;"
            case "D;": "\(folder);"
            default: String(word)
            }
        }
        try shell(script.joined(separator: " "))
        expectError(.invalidInput) {
            _ = try layout.openBlob(Descriptor(mediaType: "x", digest: digest, size: 1))
        }
    }

    // MARK: Tags

    @Test func tagsAndUntagsWithoutTouchingTheRest() throws {
        let image = try layout.putImage()
        let document = """
            {"schemaVersion":2,"x-top":[1.0],"manifests":[\
            {"mediaType":"a/b","digest":"blake3:00","size":1e3,"annotations":{"k":"v"}},\
            {"mediaType":"\(MediaType.ociManifest)","digest":"\(image.digest)","size":\(image.size),\
            "annotations":{"org.opencontainers.image.ref.name":"old","k":"v"}}],"annotations":{"z":"1"}}
            """
        try shell("printf '%s' '\(document)' > \(layout.path)/index.json")
        #expect(try layout.listTags() == ["old"])
        try layout.tag("new", image)
        let renamed = try layout.putImage(["other"])
        try layout.tag("old", renamed)
        let entries = try layout.index().entries
        #expect(entries.count == 3)
        #expect(
            entries[0]
                == (try json(#"{"mediaType":"a/b","digest":"blake3:00","size":1e3,"annotations":{"k":"v"}}"#))
        )
        // A tag that is given again moves to the end, as with umoci.
        #expect(entries[2].object?["digest"]?.string == renamed.digest.description)
        #expect(try layout.listTags() == ["new", "old"])
        #expect(try layout.index().json["x-top"] == (try json("[1.0]")))
        #expect(try layout.index().json["annotations"] == (try json(#"{"z":"1"}"#)))
        #expect(try layout.removeTag("old"))
        #expect(try !layout.removeTag("old"))
        #expect(try layout.listTags() == ["new"])
        expectError(.usage) { try layout.tag("no good", image) }
    }

    /// An index that loses its tag to a manifest stays: it holds the images of other platforms.
    @Test func keepsAnIndexThatLosesItsTag() throws {
        let image = try layout.putImage()
        let index = try layout.putIndex([image])
        try layout.tag("multi", index)
        try layout.tag("multi", image)
        let entries = try layout.index().entries
        #expect(entries.count == 2)
        #expect(entries.contains { $0.object?["digest"]?.string == index.digest.description })
        #expect(try layout.listTags() == ["multi"])
        // The same again changes nothing.
        try layout.tag("multi", image)
        #expect(try layout.index().entries == entries)
    }

    @Test func losesNoTagAmongConcurrentWriters() async throws {
        let image = try layout.putImage()
        let path = layout.path
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<4 {
                group.addTask {
                    let own = try ImageLayout(opening: path)
                    for number in 0..<10 { try own.tag("t\(writer).\(number)", image) }
                }
            }
            try await group.waitForAll()
        }
        #expect(Set(try layout.listTags()).count == 40)
        #expect(try entries().sorted() == ["blobs", "index.json", "oci-layout"])
    }

    // MARK: Garbage collection

    @Test func collectsOnlyWhatNothingLeadsTo() throws {
        let kept = try layout.putImage(["1", "2"])
        let nested = try layout.putIndex([try layout.putIndex([try layout.putImage(["3"])])])
        // An artifact of an unknown kind keeps what it refers to.
        let data = try layout.put("payload", mediaType: "application/octet-stream")
        let artifact = try layout.putJSON(
            ["what": ["digest": .string(data.digest.description)]], mediaType: "a/b+json")
        // A blob that reads like a document of descriptors, but is none.
        let text = try layout.put(
            #"{"digest":{"sha256":"00"},"x":[{"digest":"nonsense"}]}"#, mediaType: "a/text")
        try layout.setEntries(
            [kept, nested, artifact, text].map { .object($0.json) }
                + [
                    .object(
                        Descriptor(mediaType: MediaType.ociManifest, digest: Digest(of: [1, 2]), size: 9).json
                    )
                ])
        let garbage = try layout.put("garbage", mediaType: "x")
        let before = try entries("blobs/sha256").count

        let planned = try layout.collectGarbage(dryRun: true)
        #expect(planned.removed.map(\.digest) == [garbage.digest])
        #expect(try entries("blobs/sha256").count == before)
        let report = try layout.collectGarbage()
        #expect(report.removed.map(\.digest) == [garbage.digest])
        #expect(report.freed == 7)
        #expect(report.kept == before - 1)
        #expect(try layout.collectGarbage().removed.isEmpty)
    }

    @Test func collectsNothingWhenADocumentCannotBeRead() throws {
        let image = try layout.putImage()
        try layout.tag("x", image)
        _ = try layout.put("garbage", mediaType: "x")
        let count = try entries("blobs/sha256").count
        let path = "\(layout.path)/blobs/sha256/\(image.digest.hex)"
        try shell("cp \(path) \(path).keep; printf ' ' | dd of=\(path) conv=notrunc status=none")
        expectError(.invalidInput) { _ = try layout.collectGarbage() }
        try shell("mv \(path).keep \(path)")
        try layout.setEntries([.object(image.json), ["mediaType": "a/b", "digest": "blake3:00", "size": 1]])
        expectError(.invalidInput) { _ = try layout.collectGarbage() }
        #expect(try entries("blobs/sha256").count == count)
    }

    /// A blob that is not tagged yet is not garbage.
    @Test func doesNotCollectUnderAWriter() throws {
        let other = try ImageLayout(opening: layout.path)
        var writer: ImageLayout? = try ImageLayout(opening: layout.path)
        let image = try #require(try writer?.putImage())
        expectError(.inUse) { _ = try other.collectGarbage() }
        try writer?.tag("x", image)
        writer = nil
        #expect(try other.collectGarbage().removed.isEmpty)
        // Neither while a blob writer lives on after its layout.
        let alone = try BlobWriter(try ImageLayout(opening: layout.path))
        expectError(.inUse) { _ = try other.collectGarbage() }
        try alone.finish()
    }

    private struct Failure: Error {}

    /// What a failed change added goes again, and what was there stays.
    @Test func takesBackWhatAFailedChangeAdded() throws {
        let old = try layout.put("old", mediaType: "x")
        let before = try entries("blobs/sha256")
        #expect(throws: Failure.self) {
            try layout.change { own in
                _ = try own.put("new", mediaType: "x")
                _ = try own.put("new", mediaType: "x")
                _ = try own.put("old", mediaType: "x")
                _ = try own.putImage(["layer"])
                throw Failure()
            }
        }
        #expect(try entries("blobs/sha256") == before)
        #expect(try layout.readBlob(old) == Array("old".utf8))
        #expect(try entries().sorted() == ["blobs", "index.json", "oci-layout"])
        // Nor what was tagged before it failed.
        #expect(throws: Failure.self) {
            try layout.change { own in
                try own.tag("x", try own.putImage(["layer"]))
                throw Failure()
            }
        }
        _ = try layout.resolve("x")
    }

    /// Another writer found the blob that the failing one added: it stays as long as that one may still tag it.
    @Test func leavesWhatAnotherWriterFound() throws {
        var other: ImageLayout? = try ImageLayout(opening: layout.path)
        #expect(throws: Failure.self) {
            try layout.change { own in
                let blob = try own.put("shared", mediaType: "x")
                #expect(try other?.put("shared", mediaType: "x") == blob)
                _ = try own.put("alone", mediaType: "x")
                throw Failure()
            }
        }
        #expect(try entries("blobs/sha256") == [Digest(of: Array("shared".utf8)).hex])
        other = nil
        // And what it tagged, though it is gone.
        #expect(throws: Failure.self) {
            try layout.change { own in
                let image = try own.putImage(["y"])
                let another = try ImageLayout(opening: layout.path)
                _ = try another.putImage(["y"])
                try another.tag("theirs", image)
                throw Failure()
            }
        }
        _ = try layout.resolve("theirs")
    }

    /// Sixteen writers of the same blobs, half of which fail: what the others tagged is whole, always.
    @Test func failingAndSucceedingWritersShareBlobs() async throws {
        let path = layout.path
        try await withThrowingTaskGroup { group in
            for writer in 0..<16 {
                group.addTask {
                    for round in 0..<20 {
                        let own = try ImageLayout(opening: path)
                        do {
                            try own.change { own in
                                let image = try own.putImage(["round \(round)"])
                                if writer % 2 == 0 { throw Failure() }
                                try own.tag("t\(writer)", image)
                            }
                        } catch is Failure {}
                        if writer % 2 == 1 {
                            _ = try own.resolve("t\(writer)").layers.map { try own.readBlob($0) }
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func removesWhatDeadWritersLeft() throws {
        try shell(
            "cd \(layout.path); touch .varve-blob-dead .index.json.dead unrelated blobs/sha256/strange"
        )
        _ = try layout.collectGarbage()
        #expect(try entries().sorted() == ["blobs", "index.json", "oci-layout", "unrelated"])
        #expect(try entries("blobs/sha256") == ["strange"])
    }
}
